//! The fixed header of a packet (MQTT 3.1.1 and 5.0, section 2.1).

/// The type of a packet: the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

/// A fixed header whose packet is here whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// The lower half of the first byte.
    pub(super) flags: u8,
    /// Of the fixed header.
    pub(super) bytes: usize,
    /// Of what follows it.
    pub(super) body_bytes: usize,
}
