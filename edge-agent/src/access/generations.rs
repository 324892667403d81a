//! Which of the devices of its name a message in a queue is of.
//!
//! Queues hold names. When a device is removed, everything in the queues under its name is its own: how far that
//! reaches is noted with its [`Generation`], and stays noted until the queues are beyond. So publishing costs nothing, and messages
//! that an older version stored are known too.
//!
//! ```text
//! noted, all of the name's messages are the removed one's ──► the removal ends: those below the queues' ends are
//!        ──► the queues are beyond, central knows of the removal ──► forgotten
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_buffer::Epoch;
use futures_util::future::BoxFuture;
use schemas::generation::{Counter, Generation};
use schemas::link::RemovedDevice;
use schemas::names::Identity;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::state::{Namespace, Saved, State, shaped};

/// Keys in the devices' namespace of the state, by identity.
const FORMER: &str = "former/";

/// How far the messages of a removed device reach in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// Its sequences are below this one.
    sequence: u64,
    /// Epoch in which that was: after a power cut the queue may have given later sequences again.
    epoch: u64,
}

/// A device that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    generation: Generation,
    /// By the ids of queues; none while the removal goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<BTreeMap<String, End>>,
    /// Central knows that it was removed, or registered it itself.
    #[serde(rename = "is_told")]
    is_reported: bool,
}

struct Inner {
    state: State,
    /// None in tests that have no queues.
    queues: Option<Arc<Queues>>,
    former: Mutex<BTreeMap<Identity, Vec<Former>>>,
    /// Looked at for each message that is sent: usually there are none.
    count: AtomicUsize,
    /// A removal has ended.
    ended: Notify,
}

/// The removed devices of which queues may hold messages. Cheap to clone.
#[derive(Clone)]
pub struct Generations(Arc<Inner>);

impl Generations {
    /// As last saved.
    pub fn load(state: State, queues: Option<Arc<Queues>>) -> Self {
        let stored = state.load::<serde_json::Value>(Namespace::Devices).into_iter();
        let former: BTreeMap<Identity, Vec<Former>> = stored
            .filter_map(|(key, value)| {
                let identity = Identity::of_session(key.strip_prefix(FORMER)?)?;
                Some((identity, shaped(Namespace::Devices, &key, value)?))
            })
            .collect();
        let count = AtomicUsize::new(former.len());
        Self(Arc::new(Inner { state, queues, former: Mutex::new(former), count, ended: Notify::new() }))
    }

    fn former(&self) -> MutexGuard<'_, BTreeMap<Identity, Vec<Former>>> {
        self.0.former.lock().expect("nothing panics while it holds the removed devices")
    }

    /// Notes that a device is removed: until the removal has ended, all that queues hold under its name is its own.
    pub fn note(&self, identity: &Identity, generation: Generation) {
        let mut former = self.former();
        let of = former.entry(identity.clone()).or_default();
        if of.iter().any(|former| former.ends.is_none()) {
            // The removal is tried again.
            return;
        }
        of.push(Former {
            generation: generation.ended(),
            ends: None,
            is_reported: generation.counter == Counter::Central,
        });
        // Under the lock: the disk gets them in the order of the memory.
        self.save(identity, of).later();
        self.0.count.store(former.len(), Ordering::Release);
    }

    fn save(&self, identity: &Identity, of: &[Former]) -> Saved {
        let key = format!("{FORMER}{identity}");
        if of.is_empty() {
            self.0.state.remove(Namespace::Devices, &key)
        } else {
            self.0.state.put(Namespace::Devices, &key, &of)
        }
    }

    /// The highest number of those that had this name; the next one's is above.
    pub fn highest(&self, identity: &Identity) -> u64 {
        let former = self.former();
        former.get(identity).into_iter().flatten().map(|former| former.generation.number).max().unwrap_or(0)
    }

    /// Which of the devices of its name a message in a queue is of; `now`: the one that has the name.
    pub fn of(
        &self,
        identity: &Identity,
        queue: &Queue,
        sequence: u64,
        now: impl FnOnce() -> Option<Generation>,
    ) -> Option<Generation> {
        if self.0.count.load(Ordering::Acquire) > 0
            && let Some(of) = self.former().get(identity)
            && let Some(former) = of.iter().find(|former| former.holds(queue, sequence))
        {
            return Some(former.generation);
        }
        now()
    }

    /// A device that was added here and removed, of which all that it had to send is sent, and central does not know yet.
    /// Forgets those of which nothing is left to do.
    pub fn next_unreported(&self) -> Option<RemovedDevice> {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let queues = self.0.queues.as_ref()?.all();
        let mut former = self.former();
        let mut unreported = None;
        for (identity, of) in former.iter_mut() {
            let before = of.len();
            of.retain(|former| !(former.is_reported && former.is_sent(identity, &queues)));
            if of.len() != before {
                self.save(identity, of).later();
            }
            if let (None, None) = (&unreported, &identity.module) {
                let first = of.iter().find(|former| !former.is_reported && former.is_sent(identity, &queues));
                unreported = first.map(|former| RemovedDevice {
                    device_id: identity.device.clone(),
                    generation: former.generation,
                });
            }
        }
        former.retain(|_, of| !of.is_empty());
        self.0.count.store(former.len(), Ordering::Release);
        unreported
    }

    /// Ends when a removal has. For one waiter.
    pub async fn ended(&self) {
        self.0.ended.notified().await;
    }

    /// Central knows that a device was removed here.
    pub fn acknowledged(&self, removed: &RemovedDevice) {
        let identity = Identity::device(removed.device_id.clone());
        let mut former = self.former();
        let Some(of) = former.get_mut(&identity) else { return };
        for former in of.iter_mut().filter(|former| former.generation == removed.generation) {
            former.is_reported = true;
        }
        self.save(&identity, of).later();
    }
}

impl Former {
    fn holds(&self, queue: &Queue, sequence: u64) -> bool {
        let Some(ends) = &self.ends else { return true };
        let Some(end) = ends.get(&queue.log.id().to_string()) else { return false };
        // What came after a power cut is of whoever was there then.
        let last = queue.log.last_of(Epoch::from_number(end.epoch)).unwrap_or(u64::MAX);
        sequence < end.sequence && sequence <= last
    }

    /// Returns true if no queue holds a message of it, nor a loss that central does not know.
    fn is_sent(&self, identity: &Identity, queues: &[(String, Arc<Queue>)]) -> bool {
        let Some(ends) = &self.ends else { return false };
        let sender = identity.to_string();
        queues.iter().all(|(_, queue)| {
            let Some(end) = ends.get(&queue.log.id().to_string()) else { return true };
            queue.log.stats().cursor + 1 >= end.sequence
                && !queue
                    .log
                    .loss_records()
                    .iter()
                    .any(|loss| loss.first < end.sequence && loss.tag == sender)
        })
    }
}

impl IdentityState for Generations {
    /// What it keeps is of those who have gone.
    fn identities(&self) -> BTreeSet<Identity> {
        BTreeSet::new()
    }

    /// Notes how far the messages of the removed reach. Their connections have ended: this comes after the listeners.
    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        let queues = self.0.queues.as_ref().map(|queues| queues.all()).unwrap_or_default();
        let end = |queue: &Queue| {
            let sequence = queue.log.stats().next_sequence;
            let epoch = queue.log.epoch_of(sequence.saturating_sub(1)).unwrap_or(Epoch::NONE);
            (queue.log.id().to_string(), End { sequence, epoch: epoch.number() })
        };
        let ends: BTreeMap<String, End> = queues.iter().map(|(_, queue)| end(queue)).collect();
        let mut saved = Vec::new();
        {
            let mut former = self.former();
            for (identity, of) in former.iter_mut().filter(|(identity, _)| removed.covers(identity)) {
                let Some(open) = of.iter_mut().find(|former| former.ends.is_none()) else { continue };
                open.ends = Some(ends.clone());
                saved.push(self.save(identity, of));
            }
        }
        Box::pin(async move {
            for saved in saved {
                saved.durable().await?;
            }
            self.0.ended.notify_one();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
