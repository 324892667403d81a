//! The nine performatives of a connection (section 2.7).

use bytes::{Bytes, BytesMut};

use super::composite::composite;
use super::definitions::{AmqpError, ReceiverSettleMode, Role, SenderSettleMode};
use super::delivery_state::DeliveryState;
use super::descriptor;
use super::error::DecodeError;
use super::limits::ReadLimits;
use super::reader::Reader;
use super::symbol::Symbol;
use super::terminus::{AnyTarget, Source};
use super::value::Map;
use super::wire::Wire;

composite! {
    /// The first frame of each end.
    Open = 0x10 "open" {
        /// Name of the program at this end.
        required container_id "container-id": String,
        /// Host that the client means to have reached.
        optional hostname "hostname": String,
        /// Largest frame in bytes that this end takes.
        default max_frame_size "max-frame-size": u32 = u32::MAX,
        /// Highest channel number that this end takes.
        default channel_max "channel-max": u16 = u16::MAX,
        /// Milliseconds without a frame after which this end closes the connection.
        optional idle_time_out "idle-time-out": u32,
        /// Languages of descriptions that this end sends.
        many outgoing_locales "outgoing-locales": Symbol,
        /// Languages of descriptions that this end understands.
        many incoming_locales "incoming-locales": Symbol,
        /// Extensions that this end has.
        many offered_capabilities "offered-capabilities": Symbol,
        /// Extensions that this end uses if the other one has them.
        many desired_capabilities "desired-capabilities": Symbol,
        /// Product, version and others.
        optional properties "properties": Map,
    }
}

composite! {
    /// Begins a session.
    Begin = 0x11 "begin" {
        /// In the answer: the channel on which the other end began the session.
        optional remote_channel "remote-channel": u16,
        /// Transfer number of the first transfer that this end will send.
        required next_outgoing_id "next-outgoing-id": u32,
        /// Transfers that this end can receive.
        required incoming_window "incoming-window": u32,
        /// Transfers that this end can send.
        required outgoing_window "outgoing-window": u32,
        /// Highest handle that this end takes.
        default handle_max "handle-max": u32 = u32::MAX,
        /// Extensions that this end has.
        many offered_capabilities "offered-capabilities": Symbol,
        /// Extensions that this end uses if the other one has them.
        many desired_capabilities "desired-capabilities": Symbol,
        /// Properties that extensions define.
        optional properties "properties": Map,
    }
}

composite! {
    /// Attaches a link to a session.
    Attach = 0x12 "attach" {
        /// Both ends use the same.
        required name "name": String,
        /// Number of the link at the end that sends this.
        required handle "handle": u32,
        /// Of the end that sends this.
        required role "role": Role,
        /// Wanted by the sending end of the link, or confirmed.
        default snd_settle_mode "snd-settle-mode": SenderSettleMode = SenderSettleMode::Mixed,
        /// Wanted by the receiving end of the link, or confirmed.
        default rcv_settle_mode "rcv-settle-mode": ReceiverSettleMode = ReceiverSettleMode::First,
        /// Absent in the answer to a link that is refused.
        optional source "source": Source,
        /// Absent in the answer to a link that is refused.
        optional target "target": AnyTarget,
        /// Deliveries that an earlier link of this name left unsettled, by their tags.
        optional unsettled "unsettled": Map,
        /// The map above is not whole.
        default incomplete_unsettled "incomplete-unsettled": bool = false,
        /// Of the sending end: number before that of the first delivery.
        optional initial_delivery_count "initial-delivery-count": u32,
        /// Largest message in bytes that this end takes. Zero, and absent, mean no limit.
        optional max_message_size "max-message-size": u64,
        /// Extensions that this end has.
        many offered_capabilities "offered-capabilities": Symbol,
        /// Extensions that this end uses if the other one has them.
        many desired_capabilities "desired-capabilities": Symbol,
        /// Properties that extensions define.
        optional properties "properties": Map,
    }
}

composite! {
    /// Updates the windows of a session, and the credit of a link if it names one.
    Flow = 0x13 "flow" {
        /// Absent before the other end's begin arrived.
        optional next_incoming_id "next-incoming-id": u32,
        /// Transfers that this end can receive, counted from that number.
        required incoming_window "incoming-window": u32,
        /// Number of the next transfer that this end sends.
        required next_outgoing_id "next-outgoing-id": u32,
        /// Transfers that this end can send.
        required outgoing_window "outgoing-window": u32,
        /// The link, if it is about one.
        optional handle "handle": u32,
        /// Deliveries so far; from the receiver: as it knows.
        optional delivery_count "delivery-count": u32,
        /// Deliveries that the receiver can take, counted from that number.
        optional link_credit "link-credit": u32,
        /// Messages that wait at the sender.
        optional available "available": u32,
        /// The sender must use up all credit, with messages or without.
        default drain "drain": bool = false,
        /// The other end must answer with its own state.
        default echo "echo": bool = false,
        /// Properties that extensions define.
        optional properties "properties": Map,
    }
}

composite! {
    /// A message, or a part of one. Its bytes follow in the frame.
    Transfer = 0x14 "transfer" {
        /// Of the sender.
        required handle "handle": u32,
        /// Number of the delivery; may be absent in all transfers of a delivery but the first.
        optional delivery_id "delivery-id": u32,
        /// The sender's own name for the delivery, at most 32 bytes; as above.
        optional delivery_tag "delivery-tag": Bytes,
        /// Zero for what the specification defines; other numbers are a vendor's.
        optional message_format "message-format": u32,
        /// The sender awaits no outcome.
        optional settled "settled": bool,
        /// More of the delivery follows in another transfer.
        default more "more": bool = false,
        /// Overrides the mode of the link.
        optional rcv_settle_mode "rcv-settle-mode": ReceiverSettleMode,
        /// At the sender.
        optional state "state": DeliveryState,
        /// It continues a delivery of an earlier link.
        default resume "resume": bool = false,
        /// The delivery is given up; what arrived of it is dropped.
        default aborted "aborted": bool = false,
        /// The sender does not need the outcome soon.
        default batchable "batchable": bool = false,
    }
}

composite! {
    /// Gives the state of deliveries, and settles them.
    Disposition = 0x15 "disposition" {
        /// Of the end that sends this: a receiver speaks of deliveries that it received.
        required role "role": Role,
        /// The first delivery that it is about.
        required first "first": u32,
        /// Last delivery; absent for one alone.
        optional last "last": u32,
        /// This end has forgotten the deliveries.
        default settled "settled": bool = false,
        /// At this end.
        optional state "state": DeliveryState,
        /// An answer may be sent later.
        default batchable "batchable": bool = false,
    }
}

composite! {
    /// Detaches a link.
    Detach = 0x16 "detach" {
        /// Of the end that sends this.
        required handle "handle": u32,
        /// The link is forgotten and cannot be resumed.
        default closed "closed": bool = false,
        /// Absent if all is well.
        optional error "error": AmqpError,
    }
}

composite! {
    /// Ends a session.
    End = 0x17 "end" {
        /// Absent if all is well.
        optional error "error": AmqpError,
    }
}

composite! {
    /// The last frame of each end.
    Close = 0x18 "close" {
        /// Absent if all is well.
        optional error "error": AmqpError,
    }
}

/// What a frame of a connection says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the types say it")]
pub enum Performative {
    Open(Box<Open>),
    Begin(Box<Begin>),
    Attach(Box<Attach>),
    Flow(Box<Flow>),
    Transfer(Transfer, Bytes),
    Disposition(Disposition),
    Detach(Detach),
    End(End),
    Close(Close),
}

impl Performative {
    /// Reads the body of a frame that is not empty. The payload of a transfer is a part of it and not copied.
    ///
    /// # Errors
    /// [`DecodeError`]: it is no performative, a field of it is wrong, or bytes follow a performative that has no payload.
    pub fn read(body: Bytes, limits: ReadLimits) -> Result<Self, DecodeError> {
        const EXPECTED: &str = "performative";
        let mut reader = Reader::new(body, limits);
        let performative = match descriptor::read(&mut reader, EXPECTED)? {
            Open::DESCRIPTOR => Self::Open(Box::new(Open::read_list(&mut reader)?)),
            Begin::DESCRIPTOR => Self::Begin(Box::new(Begin::read_list(&mut reader)?)),
            Attach::DESCRIPTOR => Self::Attach(Box::new(Attach::read_list(&mut reader)?)),
            Flow::DESCRIPTOR => Self::Flow(Box::new(Flow::read_list(&mut reader)?)),
            Transfer::DESCRIPTOR => {
                let transfer = Transfer::read_list(&mut reader)?;
                return Ok(Self::Transfer(transfer, reader.into_rest()));
            }
            Disposition::DESCRIPTOR => Self::Disposition(Disposition::read_list(&mut reader)?),
            Detach::DESCRIPTOR => Self::Detach(Detach::read_list(&mut reader)?),
            End::DESCRIPTOR => Self::End(End::read_list(&mut reader)?),
            Close::DESCRIPTOR => Self::Close(Close::read_list(&mut reader)?),
            other => return Err(descriptor::unexpected(other, EXPECTED)),
        };
        if reader.is_at_end() {
            Ok(performative)
        } else {
            Err(DecodeError::Malformed("bytes behind a performative that has no payload"))
        }
    }

    /// Writes the body of a frame.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Open(open) => open.write(out),
            Self::Begin(begin) => begin.write(out),
            Self::Attach(attach) => attach.write(out),
            Self::Flow(flow) => flow.write(out),
            Self::Transfer(transfer, payload) => {
                transfer.write(out);
                out.extend_from_slice(payload);
            }
            Self::Disposition(disposition) => disposition.write(out),
            Self::Detach(detach) => detach.write(out),
            Self::End(end) => end.write(out),
            Self::Close(close) => close.write(out),
        }
    }
}
