//! What a connection reports to the application.

use bytes::Bytes;

use crate::codec::definitions::AmqpError;
use crate::codec::delivery_state::DeliveryState;
use crate::codec::performative::{Attach, Open};
use crate::codec::sasl::{PlainCredentials, SecretBytes};

/// A link of a connection. An id is never given twice in one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    pub(super) channel: u16,
    pub(super) handle: u32,
    pub(super) serial: u64,
}

/// A delivery of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The link that it came or went on.
    pub link: LinkId,
    pub(super) number: u32,
}

/// What a client shows in SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    Anonymous,
    /// User name and password.
    Plain(PlainCredentials),
    /// The identity that it claims, which the transport must prove; empty for the one that the transport shows.
    External(SecretBytes),
}

/// A message from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// For `Connection::settle`.
    pub id: DeliveryId,
    /// The client's name for it, at most 32 bytes.
    pub tag: Bytes,
    /// Zero for what the specification defines.
    pub message_format: u32,
    /// The client awaits no outcome.
    pub is_settled: bool,
    /// The payloads of its transfers, joined.
    pub payload: Bytes,
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client chose a mechanism: `Connection::authenticated` answers.
    Authenticate(Credentials),
    /// The client's open. Sessions and links may follow.
    Opened(Box<Open>),
    /// The client attaches a link: `Connection::accept` or `Connection::refuse` answers.
    Attach(LinkId, Box<Attach>),
    /// How many deliveries the client takes on a link has changed. With `is_drain`, the application sends what it has, and then
    /// calls `Connection::drained`.
    Credit {
        /// The link on which the client receives.
        link: LinkId,
        /// Deliveries that may be sent now.
        credit: u32,
        /// What is not used now is lost.
        is_drain: bool,
    },
    /// A whole message.
    Delivery(Delivery),
    /// The client's outcome of a delivery that it received. Unless it has settled, `Connection::settle` must answer.
    Outcome {
        /// As `Connection::send` returned it.
        delivery: DeliveryId,
        /// `None` if the client has settled without one.
        state: Option<DeliveryState>,
        /// The client has forgotten the delivery.
        is_settled: bool,
    },
    /// The link is gone, with all its deliveries: the client detached it, broke its rules or ended its session.
    Detached(LinkId, Option<AmqpError>),
    /// The connection ends when the bytes that wait are sent. No event follows, not even for links.
    Closed(Closure),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Closure {
    /// The client closed it.
    Client(Option<AmqpError>),
    /// The client broke a rule, or was silent for too long. This was sent to it, if it had got as far as its open.
    Fault(AmqpError),
    /// The application closed it, or did not authenticate the client.
    Server,
    /// The client took too long before its open.
    TimedOut,
}

/// Why a delivery is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The client detached the link, or it was not accepted.
    #[error("the link is not attached")]
    Gone,
    /// Until the next [`Event::Credit`].
    #[error("the client takes no more deliveries on the link now")]
    NoCredit,
    /// Until the next [`Event::Outcome`] or [`Event::Credit`] of the session.
    #[error("too many deliveries of the session are not settled or wait for its window")]
    TooMany,
    /// Larger than the client's max-message-size.
    #[error("the client takes messages of {0} bytes at most")]
    TooLarge(u64),
}
