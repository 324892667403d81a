//! Which clients connected or disconnected since the last report to central.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::link::CHILDREN_MAX;
use schemas::names::Identity;
use tokio::sync::Notify;

/// Identities that are noted one by one; with more, or without a receiver, the whole list is reported again.
const NOTED_MAX: usize = CHILDREN_MAX;

/// Changes of the connected clients to report to central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// These came or went.
    Of(BTreeSet<Identity>),
    /// So many that the whole list is reported.
    Everybody,
}

/// The identities whose connections changed. Cheap to clone; for one waiter.
#[derive(Debug, Clone)]
pub struct PresenceChanges(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    changes: Mutex<Changes>,
    changed: Notify,
}

impl Default for PresenceChanges {
    fn default() -> Self {
        Self(Arc::new(Inner { changes: Mutex::new(Changes::Of(BTreeSet::new())), changed: Notify::new() }))
    }
}

impl PresenceChanges {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client came or went. central knows nothing of clients that only this gateway knows.
    pub fn note(&self, who: &Identity) {
        if who.is_local() {
            return;
        }
        let mut changes = self.changes();
        if let Changes::Of(noted) = &mut *changes {
            noted.insert(who.clone());
            if noted.len() > NOTED_MAX {
                *changes = Changes::Everybody;
            }
        }
        drop(changes);
        self.0.changed.notify_one();
    }

    /// Waits until somebody came or went.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Takes what was noted.
    pub fn take(&self) -> Changes {
        std::mem::replace(&mut *self.changes(), Changes::Of(BTreeSet::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_bounded_and_then_means_everybody() {
        let changes = PresenceChanges::default();
        changes.note(&"leaf".parse().unwrap());
        changes.note(&"leaf".parse().unwrap());
        changes.note(&Identity::user(&"operator".parse().unwrap(), "panel").unwrap());
        assert_eq!(changes.take(), Changes::Of(BTreeSet::from(["leaf".parse().unwrap()])));
        for n in 0..=NOTED_MAX {
            changes.note(&format!("leaf-{n}").parse().unwrap());
        }
        assert_eq!(changes.take(), Changes::Everybody);
        assert_eq!(changes.take(), Changes::Of(BTreeSet::new()));
    }
}
