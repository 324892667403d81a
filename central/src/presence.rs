//! Who is connected now: devices at central's own door, and clients of gateways as their gateways tell.
//!
//! Nothing of it is kept over a restart: a gateway names all its clients again when it connects. When a gateway goes,
//! its clients are unknown, which operators see as not connected.

use std::collections::HashMap;
use std::sync::Mutex;

use schemas::link::Presence;
use schemas::names::{DeviceId, Identity};

/// The connections. Bounded by the registry: only registered identities are noted.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// At central's door: the connection's number, and since when.
    direct: HashMap<Identity, (u64, u64)>,
    /// Behind a gateway: since when.
    behind: HashMap<DeviceId, HashMap<Identity, u64>>,
}

impl Connections {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A client is connected to central itself.
    pub fn came(&self, who: &Identity, connection: u64, now_ms: u64) {
        self.inner().direct.insert(who.clone(), (connection, now_ms));
    }

    /// A connection to central ended; an older one than the current changes nothing.
    pub fn went(&self, who: &Identity, connection: u64) {
        let mut inner = self.inner();
        if inner.direct.get(who).is_some_and(|(current, _)| *current == connection) {
            inner.direct.remove(who);
            inner.behind.remove(&who.device);
        }
    }

    /// A gateway told of its clients.
    pub fn told(&self, gateway: &DeviceId, presence: &Presence) {
        let mut inner = self.inner();
        let clients = inner.behind.entry(gateway.clone()).or_default();
        if presence.is_complete {
            clients.clear();
        }
        for client in &presence.clients {
            match client.is_connected {
                true => clients.insert(client.identity.clone(), client.since_ms),
                false => clients.remove(&client.identity),
            };
        }
    }

    /// Since when an identity is connected, to central or to a gateway; `None` when it is not.
    pub fn since(&self, who: &Identity) -> Option<u64> {
        let inner = self.inner();
        let direct = inner.direct.get(who).map(|(_, since)| *since);
        direct.or_else(|| inner.behind.values().find_map(|clients| clients.get(who)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::link::ClientPresence;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn client(text: &str, is_connected: bool) -> ClientPresence {
        ClientPresence { identity: id(text), is_connected, since_ms: 7 }
    }

    #[test]
    fn clients_of_a_gateway_come_and_go_with_what_it_tells_and_with_itself() {
        let connections = Connections::default();
        let gateway: DeviceId = "gw".parse().unwrap();
        connections.came(&id("gw"), 1, 5);
        let tell = |is_complete, clients| connections.told(&gateway, &Presence { is_complete, clients });
        tell(true, vec![client("leaf", true), client("gw/m", true)]);
        assert_eq!(connections.since(&id("leaf")), Some(7));
        tell(false, vec![client("leaf", false)]);
        assert_eq!((connections.since(&id("leaf")), connections.since(&id("gw/m"))), (None, Some(7)));
        tell(true, vec![client("leaf", true)]);
        assert_eq!((connections.since(&id("leaf")), connections.since(&id("gw/m"))), (Some(7), None));
        connections.went(&id("gw"), 1);
        assert_eq!((connections.since(&id("leaf")), connections.since(&id("gw"))), (None, None));
    }

    #[test]
    fn the_end_of_a_replaced_connection_changes_nothing() {
        let connections = Connections::default();
        connections.came(&id("d"), 1, 5);
        connections.came(&id("d"), 2, 6);
        connections.went(&id("d"), 1);
        assert_eq!(connections.since(&id("d")), Some(6));
    }
}
