//! What is still to be sent to each gateway.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use schemas::names::{DeviceId, Identity};

/// Devices whose changes are read at once.
const BATCH_MAX: usize = 500;

/// Updates that are not sent yet, by gateway. Bounded by the registry: an update that is in the set already is not added again.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<HashMap<DeviceId, BTreeSet<Update>>>);

/// What a gateway must be sent, in the order in which it is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Update {
    /// How far central has what its queues hold. First: it sends telemetry from there.
    Stored,
    /// The devices behind it: a gateway knows a device before it gets its desired section.
    Children,
    /// A device that is behind it or did so.
    Child(DeviceId),
    Desired(Identity),
    /// The cloud-to-device messages that were taken back.
    Purges,
    /// Those of one device.
    Purge(DeviceId),
    /// A cloud-to-device message of a device, by its sequence: they are sent in this order.
    Message(DeviceId, u64),
    /// A command that waits, by its row: they are sent in this order.
    Command(u64),
    /// The commands that it has taken. Last: those that were taken on this connection are among them.
    TakenCommands,
}

/// What is read from the store at once.
pub(super) enum Batch {
    One(Update),
    Children(Vec<DeviceId>),
    Purges(Vec<DeviceId>),
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, BTreeSet<Update>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds updates. Returns true if no task sends to this gateway yet: the caller must start one.
    pub(super) fn put(&self, gateway: &DeviceId, updates: impl IntoIterator<Item = Update>) -> bool {
        let mut outbox = self.lock();
        let is_idle = !outbox.contains_key(gateway);
        outbox.entry(gateway.clone()).or_default().extend(updates);
        is_idle
    }

    /// Takes the next update, or the changes of several devices; `None` ends the task that sends.
    pub(super) fn next(&self, gateway: &DeviceId) -> Option<Batch> {
        let mut outbox = self.lock();
        let updates = outbox.get_mut(gateway)?;
        let Some(first) = updates.pop_first() else {
            outbox.remove(gateway);
            return None;
        };
        let more_of = |updates: &mut BTreeSet<Update>, is_same: fn(&Update) -> bool| {
            let mut devices = Vec::new();
            while devices.len() + 1 < BATCH_MAX
                && updates.first().is_some_and(is_same)
                && let Some(Update::Child(device) | Update::Purge(device)) = updates.pop_first()
            {
                devices.push(device);
            }
            devices
        };
        Some(match first {
            Update::Child(device) => {
                let mut devices = more_of(updates, |next| matches!(next, Update::Child(_)));
                devices.push(device);
                Batch::Children(devices)
            }
            Update::Purge(device) => {
                let mut devices = more_of(updates, |next| matches!(next, Update::Purge(_)));
                devices.push(device);
                Batch::Purges(devices)
            }
            one => Batch::One(one),
        })
    }

    /// Drops what was not sent to a gateway, and lets another task begin.
    pub(super) fn forget(&self, gateway: &DeviceId) {
        self.lock().remove(gateway);
    }
}
