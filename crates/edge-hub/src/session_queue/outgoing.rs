//! What a connection takes from its session's queue to send it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::message::{Delivery, Message};

/// What one connection may be sent now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// QoS 1 and 2 messages in flight at most.
    pub window: usize,
    /// Bytes at least one message of which is given.
    pub bytes: usize,
    /// The clock of ages, read when something can expire.
    pub now_ms: fn() -> u64,
}

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Publish(Copy),
    Release(u16),
}

impl Outgoing {
    /// About what its packet has.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish(copy) => copy.message.topic.len() + copy.message.payload.len() + 16,
            Self::Release(_) => 4,
        }
    }
}

/// A message to send.
#[derive(Debug)]
pub(crate) struct Copy {
    pub message: Arc<Message>,
    /// 0 for QoS 0.
    pub id: u16,
    pub qos: u8,
    pub retain: bool,
    pub is_again: bool,
    /// Of the journal; 0 for none, and when it was sent before.
    pub key: u64,
    pub ids: Option<Arc<[u32]>>,
    /// Of a QoS 0 message.
    pub done: Option<oneshot::Sender<()>>,
}

impl Copy {
    pub(super) fn of(delivery: &Delivery, id: u16, is_again: bool) -> Self {
        Self {
            message: delivery.message.clone(),
            id,
            qos: delivery.qos,
            retain: delivery.retain,
            is_again,
            key: 0,
            ids: delivery.ids.clone(),
            done: None,
        }
    }
}

/// What is to be sent, and what was passed over.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub outgoing: Vec<Outgoing>,
    /// Messages that expired in the queue.
    pub expired: usize,
    /// The journal keys among them.
    pub expired_keys: Vec<u64>,
}
