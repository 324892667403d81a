//! The live stream: what changes is read from the store while somebody watches, and kept for those who watch.
//!
//! ```text
//! store (messages, changes) ──┐
//!                             ├─ every 100 ms ─> ring ─> subscribers, each at its own pace
//! connections ────────────────┘
//! ```
//!
//! Nothing waits for the stream: the way of telemetry does not know of it, and a subscriber that takes nothing keeps nothing but its
//! place. While nobody watches, nothing is read.

pub mod reading;
pub mod ring;
pub mod shares;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use edge_core::error_chain::chain;
use schemas::names::DeviceId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::diagnosis::device_states::DeviceStates;
use crate::store::Store;
use reading::Reader;
use ring::{Batch, Ring, StreamPosition};
use shares::{NoPlace, Shares, Subscriber};

/// How often changes are read while somebody watches.
const EVERY: Duration = Duration::from_millis(100);
/// How long nothing is read after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The live stream of one run of central. Cheap to clone.
#[derive(Clone)]
pub struct LiveFeed(Arc<Inner>);

struct Inner {
    store: Store,
    states: DeviceStates,
    ring: Mutex<Ring>,
    subscribers: Mutex<Shares>,
    /// The number of the newest event.
    head: watch::Sender<u64>,
    /// Whether changes are recorded.
    is_recording: watch::Sender<bool>,
    woken: Notify,
}

impl LiveFeed {
    /// A stream without events.
    pub fn new(store: Store, states: DeviceStates) -> Self {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        Self(Arc::new(Inner {
            store,
            states,
            ring: Mutex::new(Ring::new(epoch)),
            subscribers: Mutex::default(),
            head: watch::Sender::new(0),
            is_recording: watch::Sender::new(false),
            woken: Notify::new(),
        }))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn subscribers(&self) -> MutexGuard<'_, Shares> {
        self.0.subscribers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many subscribe now.
    pub fn subscriber_count(&self) -> usize {
        self.subscribers().all()
    }

    /// Subscribes to devices, or to the states of all. What changes after this returns is in the stream; `last` is the id of the last
    /// event that the subscriber knows.
    ///
    /// # Errors
    /// [`NoPlace`] when as many subscribe as may.
    pub async fn subscribe(
        &self,
        subscriber: Subscriber,
        devices: Option<BTreeSet<DeviceId>>,
        last: Option<&str>,
    ) -> Result<Subscription, NoPlace> {
        self.subscribers().take(&subscriber)?;
        // Before the position is taken, so that no event between the two is missed.
        let head = self.0.head.subscribe();
        let position = self.ring().subscribe(devices, last);
        let subscription = Subscription { feed: self.clone(), position, head, subscriber };
        self.0.woken.notify_one();
        let mut is_recording = self.0.is_recording.subscribe();
        // The sender lives as long as `self`.
        let _ = is_recording.wait_for(|is_recording| *is_recording).await;
        Ok(subscription)
    }

    /// Reads what changes while somebody watches, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // After a panic nobody knows what was missed.
        self.ring().miss();
        loop {
            tokio::select! {
                () = self.0.woken.notified() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.record() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Returns true if nobody watches any more. Who subscribes from then on waits until changes are recorded again.
    fn is_over(&self) -> bool {
        let mut ring = self.ring();
        let is_over = !ring.expire(Instant::now());
        if is_over {
            self.0.is_recording.send_replace(false);
        }
        is_over
    }

    /// Reads what changes until nobody watches any more.
    async fn record(&self) {
        let connections = self.0.states.connections();
        let mut reader = Reader::new(self.0.states.clone());
        let mut ticks = tokio::time::interval(EVERY);
        // After a reading that took long, the next one is not made at once.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.is_over() {
                connections.note_changes(false);
                return;
            }
            connections.note_changes(true);
            reader.note(connections.take_changed());
            let watched = self.ring().watched();
            match reader.read(&self.0.store, watched).await {
                Ok(found) => {
                    let mut ring = self.ring();
                    if found.has_gap {
                        ring.miss();
                    }
                    let is_new = found.has_gap || !found.events.is_empty();
                    for (kind, device, data) in found.events {
                        ring.push(kind, device, data);
                    }
                    let head = ring.head();
                    drop(ring);
                    if is_new {
                        self.0.head.send_replace(head);
                    }
                    self.0.is_recording.send_replace(true);
                }
                Err(error) => {
                    // What was not read is read the next time.
                    tracing::warn!(error = %chain(&error), "reading changes for the live stream failed");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// A subscriber. Dropping it ends the subscription.
pub struct Subscription {
    feed: LiveFeed,
    position: StreamPosition,
    head: watch::Receiver<u64>,
    subscriber: Subscriber,
}

impl Subscription {
    /// The id of an event of this stream.
    pub fn id(&self, number: u64) -> String {
        self.feed.ring().id(number)
    }

    /// The number behind which it reads.
    pub fn behind(&self) -> u64 {
        self.position.behind()
    }

    /// What comes next, if there is anything.
    pub fn read(&mut self) -> Option<Batch> {
        // Before the reading: an event that comes meanwhile wakes the subscriber again.
        self.head.mark_unchanged();
        let ring = self.feed.ring();
        loop {
            let before = self.position.clone();
            let batch = ring.read(&mut self.position);
            if batch.is_resync || !batch.events.is_empty() {
                return Some(batch);
            }
            // Events of others were passed over.
            if self.position == before {
                return None;
            }
        }
    }

    /// Waits until there may be something to read.
    pub async fn changed(&mut self) {
        // The sender lives in the feed.
        let _ = self.head.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.ring().leave(&self.position, Instant::now());
        self.feed.subscribers().give_back(&self.subscriber);
    }
}
