//! What a session queue holds, under its lock: the messages that wait with what they come to, the connection that takes them, and
//! the publishers that wait for space.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::close_handle::CloseHandle;
use crate::message::Delivery;

/// Messages, or the most of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn reaches(self, bound: Self) -> bool {
        self.messages >= bound.messages || self.bytes >= bound.bytes
    }

    pub(super) fn exceeds(self, bound: Self) -> bool {
        self.messages > bound.messages || self.bytes > bound.bytes
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    pub(super) fn times(self, times: usize) -> Self {
        Self { messages: self.messages * times, bytes: self.bytes * times }
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) holder: Option<Holder>,
    pub(super) is_closed: bool,
    /// Its client was deleted.
    pub(super) is_forgotten: bool,
    pub(super) queue: VecDeque<Delivery>,
    /// In the queue, what was asked for as retained left out.
    pub(super) load: Load,
    /// In the queue, asked for as retained.
    pub(super) replayed: Load,
    /// No message in the queue expires before that.
    pub(super) first_expiry_ms: u64,
    /// Publishers wait for space.
    pub(super) wait: Option<Box<Wait>>,
    /// QoS 2 packet ids of the client that it has not let go (PUBREL).
    pub(super) received: BTreeSet<u16>,
    /// Messages that gave way while the client was away.
    pub(super) dropped: u64,
}

/// The connection that has a session_queue.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) number: u64,
    pub(super) close: Arc<CloseHandle>,
    /// It is being closed: nothing more is sent, and the session is as if it were away.
    pub(super) is_slow: bool,
}

/// Publishers wait for space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) since: Instant,
    /// When the connection is closed that frees no space.
    pub(super) until: Instant,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            holder: None,
            is_closed: false,
            is_forgotten: false,
            queue: VecDeque::new(),
            load: Load::default(),
            replayed: Load::default(),
            first_expiry_ms: u64::MAX,
            wait: None,
            received: BTreeSet::new(),
            dropped: 0,
        }
    }
}

impl Inner {
    pub(super) fn load_of(&mut self, delivery: &Delivery) -> &mut Load {
        if delivery.is_replayed { &mut self.replayed } else { &mut self.load }
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        let load = self.load_of(&delivery);
        load.messages += 1;
        load.bytes += delivery.message.size();
        if let Some(expires_ms) = delivery.message.expires_ms {
            self.first_expiry_ms = self.first_expiry_ms.min(expires_ms);
        }
        self.queue.push_back(delivery);
    }

    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        let load = self.load_of(&delivery);
        load.messages -= 1;
        load.bytes -= delivery.message.size();
        Some(delivery)
    }

    /// Takes out what is not to stay, in order.
    pub(super) fn retain(&mut self, may_stay: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut out = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(delivery) = self.pop() else { break };
            if may_stay(&delivery) {
                self.push(delivery);
            } else {
                out.push(delivery);
            }
        }
        out
    }

    /// All that is in the queue.
    pub(super) fn queued(&self) -> Load {
        self.load.plus(self.replayed)
    }

    /// Whether a connection has it that takes what is sent.
    pub(super) fn is_here(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| !holder.is_slow)
    }

    /// Lets the oldest go until no more is left than that; their journal keys.
    pub(super) fn trim(&mut self, to: Load) -> Vec<u64> {
        let mut evicted = Vec::new();
        while self.queued().exceeds(to) {
            let Some(oldest) = self.pop() else { break };
            evicted.push(oldest.key);
        }
        self.dropped += evicted.len() as u64;
        evicted
    }
}
