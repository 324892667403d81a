//! Reports that central has acknowledged and the gateway would forget: kept for a central whose store goes back in time.
//!
//! ```text
//! sent ── acknowledged ──► kept ── central's store is opened again ──► sent again ── acknowledged ──► kept
//!                           └── too many: losses are joined, then the oldest are forgotten
//! ```
//!
//! central may be restored from a backup between any two of its starts, also by a copy of files that it knows nothing of. So it names
//! each opening of its store, and everything here is sent again to an opening that has not had it. central takes each of these
//! messages once: a loss by its number, an answer by its command, the end of a message by its sequence, a removal by its
//! generation. Reported sections, presence and telemetry need no place here: they are sent whole on each connection, or
//! are kept with a cursor that is compared (`edge-buffer`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_core::error_chain::chain;
use schemas::link::{Loss, Losses, Stored};
use serde::{Deserialize, Serialize};

use crate::state::{Namespace, State, shaped};

/// Messages that are kept. A queue that loses messages without a pause reports it once a minute: most of a day.
const KEPT_MAX: usize = 1024;
/// Bytes of their topics and payloads.
const BYTES_MAX: usize = 1 << 20;
/// The longest payload that is kept. Answers of commands may be longer; of those, that there was one is sent again.
pub(super) const PAYLOAD_BYTES_MAX: usize = 40 * 1024;
/// Messages that are joined at one time, the oldest: their records are replaced on disk together.
const JOINED_AT_ONCE: usize = 64;

/// Keys in the namespace: `sent/{number}`, and `store`.
const SENT: &str = "sent/";
const STORE: &str = "store";
/// Refused messages never got a sequence: what central lost of a range of sequences does not contain them.
const REFUSED: &str = "refused";
const LOSSES: &str = "$ls/losses";

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SentUpdate {
    pub(super) topic: String,
    /// JSON. As a text, so that its depth is not that of the record.
    pub(super) payload: String,
}

impl SentUpdate {
    fn size_bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }

    fn losses(&self) -> Option<Losses> {
        let losses = (self.topic == LOSSES).then(|| schemas::json::from_link(self.payload.as_bytes()));
        losses?
            .map_err(
                |error| tracing::error!(error = %chain(&error), "a loss that was sent could not be read"),
            )
            .ok()
    }

    fn of(losses: &Losses) -> Self {
        let payload = serde_json::to_string(losses).expect("texts and numbers have a JSON form");
        Self { topic: LOSSES.to_owned(), payload }
    }
}

/// An opening of central's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Opening {
    origin: Option<String>,
    opened: String,
}

impl Opening {
    /// None of an older central, to which nothing is sent again.
    fn of(stored: &Stored) -> Option<Self> {
        Some(Self { origin: stored.origin.clone(), opened: stored.opened.clone()? })
    }
}

#[derive(Debug, Default)]
struct Kept {
    updates: BTreeMap<u64, SentUpdate>,
    bytes: usize,
    next: u64,
    /// The opening that has had all of `updates`.
    opening: Option<Opening>,
    /// The opening to which they are being sent.
    resending: Option<Opening>,
    unsent: VecDeque<u64>,
    in_flight: usize,
}

/// The messages that are kept. Cheap to clone.
#[derive(Clone)]
pub struct SentUpdates {
    kept: Arc<Mutex<Kept>>,
    state: State,
}

impl SentUpdates {
    /// As last saved.
    pub fn load(state: State) -> Self {
        let mut kept = Kept::default();
        for (key, value) in state.load::<serde_json::Value>(Namespace::Sent) {
            if key == STORE {
                kept.opening = shaped(Namespace::Sent, &key, value);
            } else if let Some(number) = key.strip_prefix(SENT).and_then(|number| number.parse().ok())
                && let Some(update) = shaped::<SentUpdate>(Namespace::Sent, &key, value)
            {
                kept.bytes += update.size_bytes();
                kept.next = kept.next.max(number + 1);
                kept.updates.insert(number, update);
            }
        }
        Self { kept: Arc::new(Mutex::new(kept)), state }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, kept: &mut Kept, number: u64, update: SentUpdate) {
        // What is not saved is not sent again; it was sent once.
        self.state.put(Namespace::Sent, &format!("{SENT}{number}"), &update).later();
        kept.bytes += update.size_bytes();
        if let Some(before) = kept.updates.insert(number, update) {
            kept.bytes -= before.size_bytes();
        }
    }

    fn remove(&self, kept: &mut Kept, number: u64) {
        if let Some(update) = kept.updates.remove(&number) {
            kept.bytes -= update.size_bytes();
            self.state.remove(Namespace::Sent, &format!("{SENT}{number}")).later();
        }
    }

    /// central has acknowledged a message that nothing else keeps.
    pub(super) fn keep(&self, update: SentUpdate) {
        let mut kept = self.kept();
        let number = kept.next;
        kept.next += 1;
        self.put(&mut kept, number, update);
        // While the kept ones are sent, their numbers stay.
        if kept.resending.is_none() {
            while kept.updates.len() > KEPT_MAX || kept.bytes > BYTES_MAX {
                self.shorten(&mut kept);
            }
        }
    }

    /// Joins the oldest losses, of each queue, sender and cause; forgets the oldest messages when that is not enough.
    ///
    /// Joined losses have the number of the newest of them. A central that goes back to a moment between two of them counts
    /// them all: too many rather than too few.
    fn shorten(&self, kept: &mut Kept) {
        let oldest: Vec<u64> = kept.updates.keys().take(JOINED_AT_ONCE).copied().collect();
        let losses = |number: &u64| Some((*number, kept.updates[number].losses()?));
        let losses: Vec<(u64, Losses)> = oldest.iter().filter_map(losses).collect();
        let numbers: Vec<u64> = losses.iter().map(|(number, _)| *number).collect();
        let joined: Vec<SentUpdate> =
            join(losses.into_iter().map(|(_, losses)| losses)).iter().map(SentUpdate::of).collect();
        let is_short = joined.iter().all(|update| update.payload.len() <= PAYLOAD_BYTES_MAX);
        if is_short && joined.len() * 2 <= numbers.len() {
            for number in &numbers {
                self.remove(kept, *number);
            }
            // At the places of the newest of them, in their order.
            for (number, update) in numbers.iter().rev().zip(joined.into_iter().rev()) {
                self.put(kept, *number, update);
            }
            return;
        }
        for number in oldest.iter().take(JOINED_AT_ONCE / 2) {
            self.remove(kept, *number);
        }
    }

    /// central has said which opening of its store it has: everything that this one has not had is to be sent again.
    pub(super) fn compare(&self, stored: &Stored) {
        let Some(opening) = Opening::of(stored) else { return };
        let mut kept = self.kept();
        kept.unsent.clear();
        kept.in_flight = 0;
        kept.resending = None;
        let before = kept.opening.as_ref();
        if before.is_some_and(|before| before.origin != opening.origin)
            || (before == Some(&opening) && stored.queues.is_empty())
        {
            // Another central, or the gateway was registered anew: what was sent is none of its affairs.
            let numbers: Vec<u64> = kept.updates.keys().copied().collect();
            for number in numbers {
                self.remove(&mut kept, number);
            }
        }
        if kept.opening.as_ref() == Some(&opening) {
            return;
        }
        kept.unsent = kept.updates.keys().copied().collect();
        kept.resending = Some(opening);
        if !kept.unsent.is_empty() {
            tracing::info!(
                messages = kept.unsent.len(),
                "central opened its store again; what it had been sent before is sent again"
            );
        }
        self.end_when_reported(&mut kept);
    }

    /// central has lost what it had confirmed of a queue, and the whole range counts as lost: losses in it are not sent besides.
    pub(super) fn lost_by_central(&self, queue: &str, first: u64, last: u64) {
        let mut kept = self.kept();
        let numbers: Vec<u64> = kept.updates.keys().copied().collect();
        for number in numbers {
            let Some(mut losses) = kept.updates[&number].losses() else { continue };
            if losses.queue.split('.').next() != Some(queue) {
                continue;
            }
            for loss in losses.losses.iter_mut().filter(|loss| loss.cause != REFUSED) {
                let within = (loss.first.max(first), loss.last.min(last));
                let inside = (within.1 + 1).saturating_sub(within.0);
                loss.count = loss.count.min(loss.last - loss.first + 1 - inside);
            }
            losses.losses.retain(|loss| loss.count > 0);
            if losses.losses.is_empty() {
                self.remove(&mut kept, number);
            } else {
                self.put(&mut kept, number, SentUpdate::of(&losses));
            }
        }
    }

    /// The next message to send again.
    pub(super) fn next_unsent(&self) -> Option<SentUpdate> {
        let mut kept = self.kept();
        loop {
            let number = kept.unsent.pop_front()?;
            if let Some(update) = kept.updates.get(&number).cloned() {
                kept.in_flight += 1;
                return Some(update);
            }
            self.end_when_reported(&mut kept);
        }
    }

    /// Returns true until everything was sent again: what is newer waits for it.
    pub(super) fn is_resending(&self) -> bool {
        !self.kept().unsent.is_empty()
    }

    /// central has taken a message again, or refused it.
    pub(super) fn acknowledged(&self) {
        let mut kept = self.kept();
        kept.in_flight = kept.in_flight.saturating_sub(1);
        self.end_when_reported(&mut kept);
    }

    fn end_when_reported(&self, kept: &mut Kept) {
        if kept.unsent.is_empty()
            && kept.in_flight == 0
            && let Some(opening) = kept.resending.take()
        {
            self.state.put(Namespace::Sent, STORE, &opening).later();
            kept.opening = Some(opening);
        }
    }
}

/// Losses of each queue, sender and cause in one, in the order of their numbers.
fn join(all: impl Iterator<Item = Losses>) -> Vec<Losses> {
    let mut queues: Vec<Losses> = Vec::new();
    for losses in all {
        let Some(of) = queues.iter_mut().find(|of| of.queue == losses.queue && of.name == losses.name) else {
            queues.push(losses);
            continue;
        };
        for loss in losses.losses {
            let same = |known: &&mut Loss| {
                (&known.cause, &known.sender, known.generation)
                    == (&loss.cause, &loss.sender, loss.generation)
            };
            let Some(known) = of.losses.iter_mut().find(same) else {
                of.losses.push(loss);
                continue;
            };
            known.number = known.number.max(loss.number);
            known.first = known.first.min(loss.first);
            known.last = known.last.max(loss.last);
            known.count = known.count.saturating_add(loss.count);
            known.from_ms = known.from_ms.min(loss.from_ms);
            known.until_ms = known.until_ms.max(loss.until_ms);
        }
        of.losses.sort_by_key(|loss| loss.number);
    }
    queues
}

#[cfg(test)]
mod tests;
