//! The cloud-to-device messages of this gateway's leaf devices, kept on disk while their devices are away.
//!
//! ```text
//! central ── message ──► waiting ── delivered, expired, given up ──► settled ── central has it ──► forgotten
//!                           └── purged, or the device left: dropped without a word, central has ended it
//! ```
//!
//! Sequences ascend per device: what is not above the highest one taken is known. When it neither waits nor ended a moment ago,
//! central or its clock went back in time: then it is rejected, so that nobody waits for it. The first end of a message counts.
//! Messages with their bodies are held in memory too, within [`BYTES_MAX`].

use edge_core::clock::lifetime::Lifetime;
use edge_core::error_chain::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_hub::cloud_message_dispatcher::{CloudMessageSource, WaitingMessage};
use futures_util::future::BoxFuture;
use schemas::cloud_message::{CloudMessage, End, Settlement};
use schemas::link::{MessageDown, Purges};
use schemas::names::{DeviceId, Identity};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::clock::{now_ms, save_soon, shown_ms, stamp_ms};
use crate::state::{Namespace, State, StateError, shaped};

/// Bytes of all messages that wait here. Beyond it a message is rejected, and central notified.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Keys in the namespace: `high/{device}`, `wait/{device}/{sequence}`, `end/{device}/{sequence}`.
const HIGH: &str = "high/";
const WAIT: &str = "wait/";
const END: &str = "end/";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredMessage {
    message: CloudMessage,
    #[serde(default)]
    attempts: u32,
    /// How long it waits, by [`steady_ms`]. None of one that an older daemon took, which used the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lifetime: Option<Lifetime>,
}

impl StoredMessage {
    /// The clock of ages began with the wall clock, so that older stamps keep their meaning.
    fn lifetime(&self) -> Lifetime {
        let of_older = || Lifetime { from_ms: self.message.enqueued_ms, until_ms: self.message.expires_ms };
        self.lifetime.unwrap_or_else(of_older)
    }
}

/// The messages of one device.
#[derive(Debug, Default)]
struct DeviceQueue {
    /// The highest sequence that was taken.
    high: u64,
    /// The highest sequence of those that are forgotten: on disk it stands for all below it.
    high_forgotten: u64,
    waiting: BTreeMap<u64, StoredMessage>,
}

#[derive(Debug, Default)]
struct DeviceQueues {
    of: BTreeMap<DeviceId, DeviceQueue>,
    bytes: usize,
    /// What central has not acknowledged yet.
    settled: BTreeMap<(DeviceId, u64), Settlement>,
    unsent: BTreeSet<(DeviceId, u64)>,
}

impl DeviceQueues {
    /// Takes a waiting message out.
    fn take(&mut self, device: &DeviceId, sequence: u64) -> bool {
        let taken = self.of.get_mut(device).and_then(|queue| queue.waiting.remove(&sequence));
        if let Some(kept) = &taken {
            self.bytes -= kept.message.size_bytes();
        }
        taken.is_some()
    }
}

/// All queues. Cheap to clone.
#[derive(Clone)]
pub struct CloudMessageStore {
    queues: Arc<Mutex<DeviceQueues>>,
    settled: Arc<Notify>,
    state: State,
}

fn waiting_key(device: &DeviceId, sequence: u64) -> String {
    format!("{WAIT}{device}/{sequence}")
}

fn end_key(device: &DeviceId, sequence: u64) -> String {
    format!("{END}{device}/{sequence}")
}

fn read_key(rest: &str) -> Option<(DeviceId, u64)> {
    let (device, sequence) = rest.split_once('/')?;
    Some((device.parse().ok()?, sequence.parse().ok()?))
}

impl CloudMessageStore {
    /// The messages as last saved; every settlement counts as not yet sent.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be used.
    pub fn load(state: State) -> Result<Self, StateError> {
        let mut queues = DeviceQueues::default();
        for (key, value) in state.load::<serde_json::Value>(Namespace::CloudMessages) {
            if let Some(device) = key.strip_prefix(HIGH).and_then(|device| device.parse().ok()) {
                let Some(high) = shaped(Namespace::CloudMessages, &key, value) else { continue };
                let queue: &mut DeviceQueue = queues.of.entry(device).or_default();
                queue.high = queue.high.max(high);
                queue.high_forgotten = high;
            } else if let Some((device, sequence)) = key.strip_prefix(WAIT).and_then(read_key) {
                let Some(kept) = shaped::<StoredMessage>(Namespace::CloudMessages, &key, value) else {
                    continue;
                };
                queues.bytes += kept.message.size_bytes();
                let queue = queues.of.entry(device).or_default();
                queue.high = queue.high.max(sequence);
                queue.waiting.insert(sequence, kept);
            } else if let Some(of) = key.strip_prefix(END).and_then(read_key) {
                let queue = queues.of.entry(of.0.clone()).or_default();
                queue.high = queue.high.max(of.1);
                if let Some(settlement) = shaped(Namespace::CloudMessages, &key, value) {
                    queues.settled.insert(of, settlement);
                }
            }
        }
        // What had ended was not forgotten yet when the daemon ended.
        let ended: Vec<_> = queues.settled.keys().cloned().collect();
        for (device, sequence) in &ended {
            if queues.take(device, *sequence) {
                state.remove(Namespace::CloudMessages, &waiting_key(device, *sequence)).later();
            }
        }
        let cloud_messages = Self { queues: Arc::new(Mutex::new(queues)), settled: Arc::default(), state };
        cloud_messages.all_unsent();
        Ok(cloud_messages)
    }

    fn queues(&self) -> MutexGuard<'_, DeviceQueues> {
        self.queues.lock().expect("nothing panics while it holds the queues")
    }

    /// Takes a message from central. `Ok` when it is on disk, or was taken before: it may be acknowledged then. `is_here` is
    /// called while nothing can be forgotten: a message for a device that is not here is rejected.
    ///
    /// # Errors
    /// [`StateError`] when it was not saved.
    pub async fn take(
        &self,
        device: &DeviceId,
        sequence: u64,
        down: MessageDown,
        is_here: impl Fn() -> bool,
    ) -> Result<(), StateError> {
        let MessageDown { message, valid_for_ms } = down;
        let bytes = message.size_bytes();
        let saved = {
            let mut queues = self.queues();
            let has_space = queues.bytes + bytes <= BYTES_MAX;
            if !is_here() {
                Err("the device is not on this gateway".to_owned())
            } else {
                let is_settled = queues.settled.contains_key(&(device.clone(), sequence));
                let queue = queues.of.entry(device.clone()).or_default();
                let is_known = sequence <= queue.high;
                if is_known && (is_settled || queue.waiting.contains_key(&sequence)) {
                    return Ok(());
                }
                queue.high = queue.high.max(sequence);
                if is_known {
                    Err("the gateway took a message of this or a later sequence before, and how it ended is not known \
                         any more: central was restored from a backup, or its clock was set back; send it again if the \
                         device did not get it"
                        .to_owned())
                } else if has_space {
                    let valid_for_ms =
                        valid_for_ms.unwrap_or_else(|| message.expires_ms.saturating_sub(now_ms()));
                    let lifetime = Some(Lifetime::new(stamp_ms(), valid_for_ms));
                    save_soon();
                    let kept = StoredMessage { message, attempts: 0, lifetime };
                    let saved =
                        self.state.put(Namespace::CloudMessages, &waiting_key(device, sequence), &kept);
                    queue.waiting.insert(sequence, kept);
                    queues.bytes += bytes;
                    Ok(saved)
                } else {
                    Err(format!("the gateway holds {BYTES_MAX} bytes of messages already"))
                }
            }
        };
        let saved = match saved {
            Ok(saved) => saved,
            Err(reason) => {
                tracing::error!(%device, sequence, "cloud-to-device message rejected: {reason}");
                self.settle(device, sequence, End::Rejected { reason }).await;
                return Ok(());
            }
        };
        let saved = saved.durable().await;
        if saved.is_err() {
            let mut queues = self.queues();
            queues.take(device, sequence);
            if let Some(queue) = queues.of.get_mut(device) {
                // central sends it again on the next connection.
                queue.high = queue.high.min(sequence - 1);
            }
        }
        saved
    }

    /// Drops what operators took back.
    pub fn purge(&self, purges: &Purges) {
        for (device, up_to) in &purges.purged {
            let void: Vec<u64> = {
                let queues = self.queues();
                let waiting = queues.of.get(device).map(|queue| queue.waiting.range(..=up_to));
                waiting.into_iter().flatten().map(|(sequence, _)| *sequence).collect()
            };
            for sequence in void {
                self.queues().take(device, sequence);
                self.state.remove(Namespace::CloudMessages, &waiting_key(device, sequence)).later();
                tracing::info!(%device, sequence, "cloud-to-device message purged by an operator");
            }
        }
    }

    /// Forgets the messages of devices that are not here any more: central has them still, or has ended them. Gives the keys
    /// that the state forgets.
    fn forget_in_memory(&self, removed: &Removed) -> Vec<String> {
        let mut queues = self.queues();
        let is_gone = |device: &DeviceId| removed.covers(&Identity::device(device.clone()));
        let gone: Vec<DeviceId> = queues.of.keys().filter(|device| is_gone(device)).cloned().collect();
        let mut keys: Vec<String> = removed.iter().map(|removed| format!("{HIGH}{removed}")).collect();
        for device in gone {
            let Some(queue) = queues.of.remove(&device) else { continue };
            for (sequence, kept) in &queue.waiting {
                queues.bytes -= kept.message.size_bytes();
                keys.push(waiting_key(&device, *sequence));
            }
            tracing::info!(%device, messages = queue.waiting.len(), "the device left: its messages are central's again");
        }
        keys
    }

    async fn settle(&self, device: &DeviceId, sequence: u64, end: End) {
        // By the clock of ages: the wall clock may be set before central is sent it.
        let settlement = Settlement { end, at_ms: stamp_ms() };
        let key = (device.clone(), sequence);
        let saved = {
            let mut queues = self.queues();
            let is_rejected = matches!(settlement.end, End::Rejected { .. });
            if !queues.take(device, sequence) && !is_rejected {
                return;
            }
            let saved = self.state.put(Namespace::CloudMessages, &end_key(device, sequence), &settlement);
            self.state.remove(Namespace::CloudMessages, &waiting_key(device, sequence)).later();
            queues.settled.insert(key.clone(), settlement);
            queues.unsent.insert(key);
            saved
        };
        self.settled.notify_one();
        if let Err(error) = saved.durable().await {
            // It is reported to central from memory; a restart before that delivers the message once more.
            tracing::error!(%device, sequence, error = %chain(&error), "the end of a cloud-to-device message was not saved");
        }
    }

    /// Marks every settlement as not sent: a new link tells central again.
    pub fn all_unsent(&self) {
        let mut queues = self.queues();
        queues.unsent = queues.settled.keys().cloned().collect();
        drop(queues);
        self.settled.notify_one();
    }

    /// Waits until there is a settlement to send. For one waiter.
    pub async fn has_unsent(&self) {
        self.settled.notified().await;
    }

    /// Takes the next settlement that central does not have, with its wall time as it is known now.
    pub fn next_unsent(&self) -> Option<((DeviceId, u64), Settlement)> {
        let mut queues = self.queues();
        let key = queues.unsent.pop_first()?;
        let Settlement { end, at_ms } = queues.settled.get(&key).cloned()?;
        Some((key, Settlement { end, at_ms: shown_ms(at_ms) }))
    }

    /// central has the settlement: it is forgotten here.
    pub fn acknowledged(&self, (device, sequence): &(DeviceId, u64)) {
        let mut queues = self.queues();
        if queues.settled.remove(&(device.clone(), *sequence)).is_none() {
            return;
        }
        if let Some(queue) = queues.of.get_mut(device).filter(|queue| queue.high_forgotten < *sequence) {
            queue.high_forgotten = *sequence;
            self.state.put(Namespace::CloudMessages, &format!("{HIGH}{device}"), sequence).later();
        }
        self.state.remove(Namespace::CloudMessages, &end_key(device, *sequence)).later();
    }

    /// Messages that wait for a device.
    pub fn count(&self, device: &DeviceId) -> usize {
        self.queues().of.get(device).map_or(0, |queue| queue.waiting.len())
    }
}

impl IdentityState for CloudMessageStore {
    fn identities(&self) -> BTreeSet<Identity> {
        self.queues().of.keys().cloned().map(Identity::device).collect()
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        let keys = self.forget_in_memory(removed);
        Box::pin(async move { Ok(self.state.remove_all(Namespace::CloudMessages, keys).await?) })
    }
}

impl CloudMessageSource for CloudMessageStore {
    async fn waiting(&self, device: &DeviceId, after: u64, limit: usize) -> Vec<WaitingMessage> {
        let queues = self.queues();
        let above = queues.of.get(device).map(|queue| queue.waiting.range(after + 1..));
        let above = above.into_iter().flatten().take(limit);
        above
            .map(|(sequence, kept)| WaitingMessage {
                sequence: *sequence,
                attempts: kept.attempts,
                lifetime: kept.lifetime(),
                message: kept.message.clone(),
            })
            .collect()
    }

    async fn ended(&self, device: &DeviceId, sequence: u64, end: End) {
        self.settle(device, sequence, end).await;
    }

    async fn not_acknowledged(&self, device: &DeviceId, sequence: u64) {
        let mut queues = self.queues();
        let kept = queues.of.get_mut(device).and_then(|queue| queue.waiting.get_mut(&sequence));
        if let Some(kept) = kept {
            kept.attempts += 1;
            self.state.put(Namespace::CloudMessages, &waiting_key(device, sequence), kept).later();
        }
    }

    async fn devices(&self) -> Vec<DeviceId> {
        let queues = self.queues();
        let waiting = queues.of.iter().filter(|(_, queue)| !queue.waiting.is_empty());
        waiting.map(|(device, _)| device.clone()).collect()
    }

    async fn expired(&self, now_ms: u64, busy: &BTreeSet<DeviceId>) -> (Vec<(DeviceId, u64)>, Option<u64>) {
        let (mut over, mut next) = (Vec::new(), None::<u64>);
        let queues = self.queues();
        for (device, queue) in queues.of.iter().filter(|(device, _)| !busy.contains(*device)) {
            for (sequence, kept) in &queue.waiting {
                let at = kept.lifetime().until_ms;
                if at <= now_ms {
                    over.push((device.clone(), *sequence))
                } else {
                    next = Some(next.map_or(at, |next| next.min(at)))
                }
            }
        }
        (over, next)
    }
}

#[cfg(test)]
mod tests {
    use schemas::cloud_message::Ack;

    use super::*;

    fn message(id: &str, valid_for_ms: u64) -> MessageDown {
        let message = CloudMessage {
            message_id: id.to_owned(),
            correlation_id: None,
            user_id: None,
            content_type: None,
            content_encoding: None,
            ack: Ack::None,
            properties: BTreeMap::new(),
            enqueued_ms: 1,
            expires_ms: u64::MAX,
            body: b"x".to_vec(),
        };
        MessageDown { message, valid_for_ms: Some(valid_for_ms) }
    }

    fn ids(waiting: &[WaitingMessage]) -> Vec<&str> {
        waiting.iter().map(|waiting| waiting.message.message_id.as_str()).collect()
    }

    #[tokio::test]
    async fn messages_and_their_ends_outlive_a_restart_and_a_resend_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let cloud_messages = CloudMessageStore::load(state.clone()).unwrap();
        let press: DeviceId = "press-1".parse().unwrap();
        for (sequence, id) in [(10, "a"), (11, "b"), (12, "c"), (11, "again")] {
            cloud_messages.take(&press, sequence, message(id, u64::MAX), || true).await.unwrap();
        }
        cloud_messages.ended(&press, 10, End::Delivered).await;
        cloud_messages.not_acknowledged(&press, 11).await;
        drop(cloud_messages);
        state.close().await;

        let state = State::open(dir.path()).unwrap();
        let cloud_messages = CloudMessageStore::load(state.clone()).unwrap();
        let waiting = cloud_messages.waiting(&press, 0, 10).await;
        assert_eq!((ids(&waiting), waiting[0].attempts), (vec!["b", "c"], 1));
        cloud_messages.take(&press, 10, message("a", u64::MAX), || true).await.unwrap();
        assert_eq!(cloud_messages.count(&press), 2, "what has ended does not come back");
        let (key, settlement) = cloud_messages.next_unsent().unwrap();
        assert_eq!((key.1, &settlement.end), (10, &End::Delivered));
        assert!(cloud_messages.next_unsent().is_none());
        cloud_messages.acknowledged(&key);
        cloud_messages.all_unsent();
        assert!(cloud_messages.next_unsent().is_none());
        // The first end stands.
        cloud_messages.ended(&press, 10, End::Expired).await;
        assert!(cloud_messages.next_unsent().is_none());
    }

    /// central went back: it gives sequences away again, of which the gateway remembers only that they were.
    #[tokio::test]
    async fn a_message_of_a_sequence_that_repeats_is_reported_and_never_dropped_silently() {
        for (is_restarted, sequence) in [(false, 5), (true, 5), (false, 3), (true, 3)] {
            let dir = tempfile::tempdir().unwrap();
            let mut state = State::open(dir.path()).unwrap();
            let mut cloud_messages = CloudMessageStore::load(state.clone()).unwrap();
            let press: DeviceId = "press-1".parse().unwrap();
            cloud_messages.take(&press, 5, message("old", u64::MAX), || true).await.unwrap();
            cloud_messages.ended(&press, 5, End::Delivered).await;
            let (settled_one, _) = cloud_messages.next_unsent().unwrap();
            cloud_messages.acknowledged(&settled_one);
            if is_restarted {
                drop(cloud_messages);
                state.close().await;
                state = State::open(dir.path()).unwrap();
                cloud_messages = CloudMessageStore::load(state.clone()).unwrap();
            }
            cloud_messages.take(&press, sequence, message("new", u64::MAX), || true).await.unwrap();
            let (key, settlement) = cloud_messages.next_unsent().unwrap();
            assert_eq!(key.1, sequence);
            assert!(
                matches!(&settlement.end, End::Rejected { reason } if reason.contains("central was restored"))
            );
            cloud_messages.take(&press, 6, message("next", u64::MAX), || true).await.unwrap();
            assert_eq!(cloud_messages.count(&press), 1);
        }
    }

    #[tokio::test]
    async fn what_is_over_is_found_what_is_purged_goes_and_a_device_that_left_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cloud_messages = CloudMessageStore::load(State::open(dir.path()).unwrap()).unwrap();
        let press: DeviceId = "press-1".parse().unwrap();
        for (sequence, valid_for_ms) in [(1, 3_600_000), (2, 7_200_000), (3, 9_000_000)] {
            cloud_messages.take(&press, sequence, message("m", valid_for_ms), || true).await.unwrap();
        }
        let none = BTreeSet::new();
        let (over, first) = cloud_messages.expired(0, &none).await;
        assert_eq!(over, []);
        let (over, next) = cloud_messages.expired(first.unwrap(), &none).await;
        assert_eq!(over, [(press.clone(), 1)]);
        assert!(next > first);
        assert_eq!(cloud_messages.expired(u64::MAX, &BTreeSet::from([press.clone()])).await, (vec![], None));
        cloud_messages.purge(&Purges { purged: BTreeMap::from([(press.clone(), 2)]) });
        assert_eq!(cloud_messages.waiting(&press, 0, 10).await[0].sequence, 3);
        assert!(cloud_messages.next_unsent().is_none(), "central ended what it purged itself");
        cloud_messages.forget(&Removed::from_iter([Identity::device(press.clone())])).await.unwrap();
        assert_eq!(cloud_messages.count(&press), 0);
        cloud_messages.take(&press, 3, message("m", 300), || true).await.unwrap();
        assert_eq!(cloud_messages.count(&press), 1, "central's again, and sent again");
    }

    #[tokio::test]
    async fn a_message_for_which_there_is_no_space_is_reported_to_central() {
        let dir = tempfile::tempdir().unwrap();
        let cloud_messages = CloudMessageStore::load(State::open(dir.path()).unwrap()).unwrap();
        cloud_messages.queues().bytes = BYTES_MAX;
        let press: DeviceId = "press-1".parse().unwrap();
        cloud_messages.take(&press, 1, message("m", u64::MAX), || true).await.unwrap();
        let (key, settlement) = cloud_messages.next_unsent().unwrap();
        assert_eq!(key.1, 1);
        assert!(matches!(settlement.end, End::Rejected { reason } if reason.contains("bytes")));
    }
}
