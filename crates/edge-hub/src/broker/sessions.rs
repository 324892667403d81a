//! The sessions of a server by client id, the wills that wait or are being published, and when each of them is due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::will::Will;
use crate::message::FOR_EVER;
use crate::session_queue::SessionQueue;

#[derive(Default)]
pub(super) struct Sessions {
    by_client: HashMap<Box<str>, Entry>,
    /// Wills that wait for their time, by client id. Some clients have no session any more.
    waiting: HashMap<Box<str>, (Arc<Will>, u64)>,
    /// Wills that are being published.
    publishing: HashMap<Box<str>, Vec<Publishing>>,
    /// When something may be due, and whose; what is not true any more is passed over.
    due: BTreeSet<(u64, Box<str>)>,
    durable: usize,
}

/// The session of a client.
pub(super) struct Entry {
    pub session_queue: Arc<SessionQueue>,
    pub expiry_s: u32,
    /// When its client left, ms of Unix time; `None` while a client has it.
    pub left_ms: Option<u64>,
    /// The will of the client that is here.
    pub will: Option<Arc<Will>>,
}

impl Entry {
    fn ends_ms(&self) -> Option<u64> {
        match self.expiry_s {
            FOR_EVER => None,
            seconds => Some(self.left_ms?.saturating_add(u64::from(seconds) * 1_000)),
        }
    }
}

/// A will that is being published.
struct Publishing {
    will: Arc<Will>,
    /// The journal has it: it is published again after a kill.
    is_in_journal: bool,
    /// Its client was deleted since.
    is_void: bool,
}

#[derive(Default)]
pub(super) struct Due {
    pub ended: Vec<Entry>,
    pub wills: Vec<(Box<str>, Arc<Will>)>,
    /// When the next thing is, ms of Unix time.
    pub next_ms: Option<u64>,
}

impl Sessions {
    pub(super) fn count(&self) -> usize {
        self.by_client.len()
    }

    /// How many outlive their connection.
    pub(super) fn durable(&self) -> usize {
        self.durable
    }

    pub(super) fn all(&self) -> Vec<Arc<SessionQueue>> {
        self.by_client.values().map(|entry| entry.session_queue.clone()).collect()
    }

    pub(super) fn enter(&mut self, client_id: Box<str>, entry: Entry) {
        self.durable += usize::from(entry.session_queue.is_durable);
        if let Some(ends_ms) = entry.ends_ms() {
            self.due.insert((ends_ms, client_id.clone()));
        }
        self.by_client.insert(client_id, entry);
    }

    pub(super) fn leave(&mut self, client_id: &str) -> Option<Entry> {
        let (client_id, entry) = self.by_client.remove_entry(client_id)?;
        self.durable -= usize::from(entry.session_queue.is_durable);
        if let Some(ends_ms) = entry.ends_ms() {
            self.due.remove(&(ends_ms, client_id));
        }
        Some(entry)
    }

    /// The session that outlives its connection and has the most waiting.
    pub(super) fn fullest(&self) -> Option<Arc<SessionQueue>> {
        let durable = self.by_client.values().filter(|entry| entry.session_queue.is_durable);
        let most = durable
            .map(|entry| (entry.session_queue.queued(), &entry.session_queue))
            .max_by_key(|(bytes, _)| *bytes)?;
        (most.0 > 0).then(|| most.1.clone())
    }

    /// A will that is to be published at this time.
    pub(super) fn put_will(&mut self, client_id: Box<str>, will: Arc<Will>, due_ms: u64) {
        self.due.insert((due_ms, client_id.clone()));
        self.waiting.insert(client_id, (will, due_ms));
    }

    /// The will that a client has: it is here, or the will waits for its time. What is being published is not its own any
    /// more.
    pub(super) fn will_of(&self, client_id: &str) -> Option<&Arc<Will>> {
        let here = self.by_client.get(client_id).and_then(|entry| entry.will.as_ref());
        here.or_else(|| self.waiting.get(client_id).map(|(will, _)| will))
    }

    /// The will that waited, if any; it waits no more.
    pub(super) fn take_will(&mut self, client_id: &str) -> Option<Arc<Will>> {
        self.waiting.remove(client_id).map(|(will, _)| will)
    }

    /// A will of this client is being published; `is_in_journal`: it is the one that the journal has.
    pub(super) fn publishing(&mut self, client_id: Box<str>, will: Arc<Will>, is_in_journal: bool) {
        let will = Publishing { will, is_in_journal, is_void: false };
        self.publishing.entry(client_id).or_default().push(will);
    }

    /// The client has another will now, or none: what the journal has is not the one that is being published.
    pub(super) fn superseded(&mut self, client_id: &str) {
        for will in self.publishing.get_mut(client_id).into_iter().flatten() {
            will.is_in_journal = false;
        }
    }

    /// The clients that have a session, or a will that waits or is being published.
    pub(super) fn client_ids(&self) -> Vec<Box<str>> {
        let with_will = self.waiting.keys().chain(self.publishing.keys());
        with_will
            .filter(|id| !self.by_client.contains_key(*id))
            .chain(self.by_client.keys())
            .cloned()
            .collect()
    }

    /// The client was deleted: what is being published of it is not its successor's.
    pub(super) fn void(&mut self, client_id: &str) {
        for will in self.publishing.get_mut(client_id).into_iter().flatten() {
            (will.is_in_journal, will.is_void) = (false, true);
        }
    }

    /// Returns true for a will whose client was deleted.
    pub(super) fn is_void(&self, client_id: &str, will: &Arc<Will>) -> bool {
        let wills = self.publishing.get(client_id).into_iter().flatten();
        wills.filter(|publishing| Arc::ptr_eq(&publishing.will, will)).any(|publishing| publishing.is_void)
    }

    /// A will was published. True when it is still the one that the journal has.
    pub(super) fn published(&mut self, client_id: &str, will: &Arc<Will>) -> bool {
        let Some(wills) = self.publishing.get_mut(client_id) else { return false };
        let found = wills.iter().position(|publishing| Arc::ptr_eq(&publishing.will, will));
        let published = found.map(|at| wills.swap_remove(at));
        if wills.is_empty() {
            self.publishing.remove(client_id);
        }
        published.is_some_and(|will| will.is_in_journal)
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now_ms: u64) -> Due {
        let mut due = Due::default();
        while let Some((at_ms, client_id)) = self.due.first().cloned() {
            if at_ms > now_ms {
                due.next_ms = Some(at_ms);
                break;
            }
            self.due.pop_first();
            let is_over = |entry: &Entry| entry.ends_ms().is_some_and(|ends_ms| ends_ms <= now_ms);
            let has_ended = self.by_client.get(&client_id).is_some_and(is_over);
            if has_ended {
                due.ended.extend(self.leave(&client_id));
            }
            // The session's end is the last time for its will.
            if self.waiting.get(&client_id).is_some_and(|(_, due_ms)| has_ended || *due_ms <= now_ms) {
                due.wills.extend(self.take_will(&client_id).map(|will| (client_id, will)));
            }
        }
        due
    }
}
