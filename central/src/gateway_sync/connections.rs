//! Who is connected now: devices at central's own listener, and clients of gateways as their gateways tell.
//!
//! Nothing of it is kept over a restart: a gateway names all its clients again when it connects. When a gateway goes,
//! its clients are unknown, which operators see as not connected.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use edge_core::link::snapshot::{Assembly, OutOfOrder};
use schemas::link::{CHILDREN_MAX, Presence};
use schemas::names::{DeviceId, Identity};

/// Clients of one gateway that are noted: the devices that may be behind it, and its modules.
const CLIENTS_MAX: usize = CHILDREN_MAX + 1000;

/// The connections. What a gateway tells counts for the devices that are behind it when it is asked for.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// At central's listener: the connection's number, and since when.
    direct: HashMap<Identity, (u64, u64)>,
    behind: HashMap<DeviceId, Behind>,
    /// Devices whose connections changed since they were taken; `None` while nobody asks.
    changed: Option<HashSet<DeviceId>>,
}

/// What one gateway sent on its connection.
#[derive(Debug, Default)]
struct Behind {
    /// The version of the link that it speaks.
    version: u32,
    /// Since when each is connected.
    clients: HashMap<Identity, u64>,
    snapshot: Assembly<Identity>,
    /// The question for the time that is to be answered next.
    time_requested: Option<u64>,
    is_sending_time: bool,
}

impl Inner {
    fn is_current(&self, gateway: &DeviceId, connection: u64) -> bool {
        let current = self.direct.get(&Identity::device(gateway.clone()));
        current.is_some_and(|(current, _)| *current == connection)
    }

    fn note(&mut self, device: &DeviceId) {
        if let Some(changed) = self.changed.as_mut().filter(|changed| !changed.contains(device)) {
            changed.insert(device.clone());
        }
    }
}

impl Connections {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Begins to note devices whose connections change, or ends it.
    pub fn note_changes(&self, is_followed: bool) {
        let mut inner = self.inner();
        match (is_followed, &inner.changed) {
            (true, None) => inner.changed = Some(HashSet::new()),
            (false, Some(_)) => inner.changed = None,
            _ => {}
        }
    }

    /// Takes the devices whose connections changed. Of a gateway, those of the devices behind it may have changed too.
    pub fn take_changed(&self) -> HashSet<DeviceId> {
        self.inner().changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A client is connected to central itself.
    pub fn connected(&self, who: &Identity, connection: u64, now_ms: u64) {
        let mut inner = self.inner();
        inner.direct.insert(who.clone(), (connection, now_ms));
        inner.note(&who.device);
        // A snapshot of the connection before must not be completed by parts of this one.
        if let Some(behind) = inner.behind.get_mut(&who.device) {
            (behind.snapshot, behind.version) = (Assembly::default(), 0);
        }
    }

    /// A connection to central ended; an older one than the current changes nothing.
    pub fn disconnected(&self, who: &Identity, connection: u64) {
        let mut inner = self.inner();
        if inner.direct.get(who).is_some_and(|(current, _)| *current == connection) {
            inner.direct.remove(who);
            inner.behind.remove(&who.device);
            inner.note(&who.device);
        }
    }

    /// A gateway said on one of its connections which version of the link it speaks.
    pub fn greeted(&self, gateway: &DeviceId, connection: u64, version: u32) {
        let mut inner = self.inner();
        if inner.is_current(gateway, connection) {
            inner.behind.entry(gateway.clone()).or_default().version = version;
        }
    }

    /// The version of the link that a gateway speaks; 0 when it has not said one.
    pub fn link_version(&self, gateway: &DeviceId) -> u32 {
        self.inner().behind.get(gateway).map_or(0, |behind| behind.version)
    }

    /// A gateway asked for the time; true when nobody answers it yet, and the caller must.
    pub fn request_time(&self, gateway: &DeviceId, connection: u64, number: u64) -> bool {
        let mut inner = self.inner();
        if !inner.is_current(gateway, connection) {
            return false;
        }
        let behind = inner.behind.entry(gateway.clone()).or_default();
        behind.time_requested = Some(number);
        !std::mem::replace(&mut behind.is_sending_time, true)
    }

    /// Takes the question for the time that is to be answered next; after `None`, the next question begins anew.
    pub fn next_time_request(&self, gateway: &DeviceId) -> Option<u64> {
        let mut inner = self.inner();
        let behind = inner.behind.get_mut(gateway)?;
        let next = behind.time_requested.take();
        behind.is_sending_time = next.is_some();
        next
    }

    /// A gateway has reported its clients on one of its connections; an older one than the current changes nothing.
    ///
    /// # Errors
    /// [`OutOfOrder`] for a part of a snapshot that does not follow the one before it.
    pub fn note_presence(
        &self,
        gateway: &DeviceId,
        connection: u64,
        presence: &Presence,
    ) -> Result<(), OutOfOrder> {
        let mut inner = self.inner();
        if !inner.is_current(gateway, connection) {
            return Ok(());
        }
        for client in &presence.clients {
            inner.note(&client.identity.device);
        }
        if presence.is_complete || presence.snapshot.is_some() {
            // Whoever it does not name is gone.
            inner.note(gateway);
        }
        let Behind { clients, snapshot, .. } = inner.behind.entry(gateway.clone()).or_default();
        // Gateways of older versions send the whole list in one message (decision 0021).
        let is_whole = presence.is_complete && presence.snapshot.is_none();
        if is_whole {
            clients.clear();
        }
        let named = match presence.snapshot {
            None => None,
            Some(part) => {
                let named = presence.clients.iter().filter(|client| client.is_connected);
                snapshot.take(part, named.map(|client| client.identity.clone()))?
            }
        };
        for client in &presence.clients {
            if !client.is_connected {
                clients.remove(&client.identity);
            } else if clients.len() < CLIENTS_MAX || clients.contains_key(&client.identity) {
                clients.insert(client.identity.clone(), client.since_ms);
            }
        }
        // Only with the last part: until then nobody is known to be gone (decision 0021).
        if let Some(named) = named {
            clients.retain(|identity, _| named.contains(identity));
        }
        Ok(())
    }

    /// Since when an identity is connected, to central itself or to `gateway`, behind which it is; `None` when it is not.
    pub fn since(&self, who: &Identity, gateway: Option<&DeviceId>) -> Option<u64> {
        let inner = self.inner();
        let direct = inner.direct.get(who).map(|(_, since)| *since);
        let behind = || inner.behind.get(gateway?)?.clients.get(who).copied();
        direct.or_else(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::link::{ClientPresence, SnapshotPart};

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn client(text: &str, is_connected: bool) -> ClientPresence {
        ClientPresence { identity: id(text), is_connected, since_ms: 7, generation: None }
    }

    #[test]
    fn clients_of_a_gateway_come_and_go_with_what_it_says_and_with_itself() {
        let connections = Connections::default();
        let gateway: DeviceId = "gw".parse().unwrap();
        connections.connected(&id("gw"), 1, 5);
        let report = |is_complete, clients| {
            let presence = Presence { is_complete, snapshot: None, clients };
            connections.note_presence(&gateway, 1, &presence).unwrap();
        };
        let since = |who: &str| connections.since(&id(who), Some(&gateway));
        report(true, vec![client("leaf", true), client("gw/m", true)]);
        assert_eq!(since("leaf"), Some(7));
        report(false, vec![client("leaf", false)]);
        assert_eq!((since("leaf"), since("gw/m")), (None, Some(7)));
        report(true, vec![client("leaf", true)]);
        assert_eq!((since("leaf"), since("gw/m")), (Some(7), None));
        connections.disconnected(&id("gw"), 1);
        assert_eq!((since("leaf"), since("gw")), (None, None));
    }

    #[test]
    fn a_snapshot_in_parts_removes_with_its_last_part_whoever_it_has_not_named() {
        let connections = Connections::default();
        let gateway: DeviceId = "gw".parse().unwrap();
        connections.connected(&id("gw"), 2, 5);
        let report = |connection, generation, part, is_last, names: &[&str]| {
            let presence = Presence {
                is_complete: part == 0,
                snapshot: Some(SnapshotPart { generation, part, is_last }),
                clients: names.iter().map(|name| client(name, true)).collect(),
            };
            connections.note_presence(&gateway, connection, &presence)
        };
        let connected = |names: &[&str]| -> Vec<bool> {
            names.iter().map(|name| connections.since(&id(name), Some(&gateway)).is_some()).collect()
        };
        report(2, 1, 0, false, &["a", "b"]).unwrap();
        report(2, 1, 1, true, &["c"]).unwrap();
        assert_eq!(connected(&["a", "b", "c"]), [true, true, true]);
        report(2, 2, 0, false, &["a"]).unwrap();
        assert_eq!(connected(&["a", "b", "c"]), [true, true, true], "nobody is away before all was told");
        assert!(report(2, 2, 2, true, &["d"]).is_err());
        report(1, 3, 0, true, &[]).unwrap();
        assert_eq!(connected(&["a", "b", "c"]), [true, true, true], "an older connection");
        report(2, 4, 0, false, &["a"]).unwrap();
        report(2, 4, 1, true, &["d"]).unwrap();
        assert_eq!(connected(&["a", "b", "c", "d"]), [true, false, false, true]);
    }

    #[test]
    fn what_a_gateway_says_of_devices_that_are_elsewhere_counts_for_nothing_and_is_bounded() {
        let connections = Connections::default();
        for gateway in ["gw-1", "gw-2"] {
            connections.connected(&id(gateway), 1, 5);
        }
        let report = |gateway: &str, clients| {
            let presence = Presence { is_complete: false, snapshot: None, clients };
            connections.note_presence(&gateway.parse().unwrap(), 1, &presence).unwrap();
        };
        report("gw-1", vec![client("press", true)]);
        let (first, second): (DeviceId, DeviceId) = ("gw-1".parse().unwrap(), "gw-2".parse().unwrap());
        assert_eq!(connections.since(&id("press"), Some(&first)), Some(7));
        assert_eq!(connections.since(&id("press"), Some(&second)), None);
        assert_eq!(connections.since(&id("press"), None), None);
        for n in 0..20 {
            report("gw-2", (0..1000).map(|m| client(&format!("made-up-{n}-{m}"), true)).collect());
        }
        assert_eq!(connections.inner().behind[&second].clients.len(), CLIENTS_MAX);
    }

    #[test]
    fn the_end_of_a_replaced_connection_changes_nothing() {
        let connections = Connections::default();
        connections.connected(&id("d"), 1, 5);
        connections.connected(&id("d"), 2, 6);
        connections.disconnected(&id("d"), 1);
        assert_eq!(connections.since(&id("d"), None), Some(6));
    }
}
