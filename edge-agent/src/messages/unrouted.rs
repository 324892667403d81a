//! What became of messages that did not go where somebody may look for them: those that no route took, and those that only
//! some of their routes took. Counted since the daemon started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use schemas::names::Identity;

/// Senders that are counted one by one: as many as may be connected.
const SENDERS_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub struct Unrouted {
    by_sender: Mutex<BTreeMap<Identity, u64>>,
    of_others: AtomicU64,
    partly: AtomicU64,
}

impl Unrouted {
    fn by_sender(&self) -> MutexGuard<'_, BTreeMap<Identity, u64>> {
        self.by_sender.lock().expect("nothing panics while it counts")
    }

    /// A message was acknowledged and dropped, for no route took it. True when it is the first of its sender.
    pub(crate) fn count(&self, from: &Identity) -> bool {
        let mut by_sender = self.by_sender();
        if let Some(count) = by_sender.get_mut(from) {
            *count += 1;
            return false;
        }
        if by_sender.len() >= SENDERS_MAX {
            self.of_others.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        by_sender.insert(from.clone(), 1);
        true
    }

    /// A message was acknowledged though one of its queues was full and refused its copy.
    pub(crate) fn count_partly(&self) {
        self.partly.fetch_add(1, Ordering::Relaxed);
    }

    /// By sender, and of all senders that are not counted one by one.
    pub fn all(&self) -> (BTreeMap<Identity, u64>, u64) {
        (self.by_sender().clone(), self.of_others.load(Ordering::Relaxed))
    }

    /// Messages that no route took.
    pub fn total(&self) -> u64 {
        self.by_sender().values().sum::<u64>() + self.of_others.load(Ordering::Relaxed)
    }

    /// Messages that were acknowledged though a queue refused its copy.
    pub fn partly(&self) -> u64 {
        self.partly.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_counted_one_by_one_up_to_a_bound_and_none_goes_uncounted() {
        let unrouted = Unrouted::default();
        for n in 0..SENDERS_MAX + 5 {
            let sender = format!("press-{n}").parse().unwrap();
            assert_eq!(unrouted.count(&sender), n < SENDERS_MAX);
        }
        assert!(!unrouted.count(&"press-7".parse().unwrap()));
        let (by_sender, of_others) = unrouted.all();
        assert_eq!((by_sender.len(), by_sender[&"press-7".parse().unwrap()], of_others), (SENDERS_MAX, 2, 5));
    }
}
