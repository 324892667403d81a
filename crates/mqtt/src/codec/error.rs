//! Why bytes are no packet, in the two kinds that MQTT 5 tells apart.

use super::reason::Reason;

/// Why the bytes are no packet. The connection is closed (MQTT 3.1.1 section 4.8, MQTT 5.0 section 4.13); a client of
/// MQTT 5 is sent [`ReadError::reason`] first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A CONNECT of another protocol level.
    #[error("MQTT protocol level {0}; only 4 (MQTT 3.1.1) and 5 are spoken here")]
    Level(u8),
    /// The bytes, without the fixed header.
    #[error("a packet of {0} bytes, more than allowed here")]
    TooLarge(usize),
    /// It cannot be parsed by the specification's rules.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// It can be parsed, and is not allowed.
    #[error("{1}")]
    Protocol(Reason, &'static str),
}

impl ReadError {
    /// Reason code for a client of MQTT 5.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Level(_) => Reason::UNSUPPORTED_PROTOCOL_VERSION,
            Self::TooLarge(_) => Reason::PACKET_TOO_LARGE,
            Self::Malformed(_) => Reason::MALFORMED_PACKET,
            Self::Protocol(reason, _) => *reason,
        }
    }
}
