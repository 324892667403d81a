//! What can happen to durable sessions, retained messages and wills: the events of the journal.

use std::sync::Arc;

use crate::message::Message;
use crate::subscription::Options;

/// Something that happened. A session is named by its number, a message in a session's queue by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A session exists, and a client has it now.
    Opened { session: u64, client_id: Box<str>, expiry_s: u32 },
    /// Nobody has it since `at_ms`; it ends `expiry_s` later.
    Left { session: u64, at_ms: u64, expiry_s: u32 },
    /// It ended, with all that it had.
    Ended { session: u64 },
    /// It holds a filter, or holds it otherwise now.
    Subscribed { session: u64, filter: Box<str>, options: Options },
    /// It holds a filter no more.
    Unsubscribed { session: u64, filter: Box<str> },
    /// A message was taken in.
    Published(Box<Published>),
    /// A QoS 2 message with this packet id was taken in.
    Received { session: u64, id: u16 },
    /// The client let a QoS 2 packet id go.
    Released { session: u64, id: u16 },
    /// Messages of its queue were given packet ids, in this order.
    Sent { session: u64, keys: Vec<(u64, u16)> },
    /// The client has the QoS 2 message with this packet id (PUBREC).
    Taken { session: u64, id: u16 },
    /// The message with this packet id is settled (PUBACK, PUBCOMP).
    Settled { session: u64, id: u16 },
    /// Messages of its queue gave way or expired.
    Dropped { session: u64, keys: Vec<u64> },
    /// The last packet id that was given.
    LastId { session: u64, id: u16 },
    /// A client has a will.
    Will { client_id: Box<str>, message: Arc<Message>, delay_s: u32 },
    /// Its will is to be published at this time.
    WillDue { client_id: Box<str>, at_ms: u64 },
    /// Its will is published, or never will be.
    WillGone { client_id: Box<str> },
}

/// A message with what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Grows with every message of the journal.
    pub key: u64,
    pub message: Arc<Message>,
    pub retained: Kept,
    /// Session and packet id of a QoS 2 publisher.
    pub received: Option<(u64, u16)>,
    /// Whose queues it joins.
    pub targets: Vec<Target>,
}

/// What a message does to what is retained on its topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    #[default]
    Not,
    Set,
    /// Nothing is retained any more.
    Cleared,
}

/// A session that receives a message, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub session: u64,
    /// 1 or 2.
    pub qos: u8,
    pub retain: bool,
    pub ids: Option<Arc<[u32]>>,
}
