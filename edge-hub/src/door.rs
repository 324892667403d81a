//! The door: its bounds, its counts, and what its listeners and sessions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clients::Clients;
use crate::service::Service;
use crate::table::Table;

/// The bounds of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Connections at once, over all listeners of the door.
    pub connections_max: usize,
    /// From accepting a connection to its proven CONNECT, TLS handshake included.
    pub connect_timeout: Duration,
    /// The largest packet, without its first two to five bytes.
    pub packet_bytes_max: usize,
    /// Messages per session that are not acknowledged yet; beyond, the session stops reading.
    pub pending_max: usize,
    /// Their bytes; beyond, the session stops reading.
    pub pending_bytes_max: usize,
    /// QoS 1 messages to one client that it has not acknowledged yet; the next ones wait in its queue.
    pub in_flight_max: usize,
    /// Filters per client; beyond, SUBACK 0x80.
    pub filters_max: usize,
    /// A client that takes none of the bytes written to it for so long (to twice that) is closed.
    pub write_timeout: Duration,
    /// How long the PUBACK of a free topic's publisher may wait for a slow subscriber; then the publisher is closed.
    pub room_timeout: Duration,
    /// How long an ending session waits for what it has taken to be stored, and for its last bytes to be written.
    pub finish_timeout: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            connect_timeout: Duration::from_secs(10),
            // IoT Hub's 256 KiB message, and the longest topic with its length and packet id.
            packet_bytes_max: 256 * 1024 + 65_535 + 4,
            pending_max: 1_000,
            pending_bytes_max: 4 * 1024 * 1024,
            in_flight_max: 100,
            filters_max: 100,
            write_timeout: Duration::from_secs(30),
            room_timeout: Duration::from_secs(30),
            finish_timeout: Duration::from_secs(5),
        }
    }
}

/// What a door has let go or refused since it opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections beyond the bound.
    pub connections_refused: AtomicU64,
    /// Messages acknowledged and dropped because they were wrong in themselves.
    pub messages_wrong: AtomicU64,
    /// QoS 0 copies dropped because a subscriber's queue was full.
    pub copies_dropped: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A door: one set of clients and free topics, over any number of listeners.
pub struct Door<S> {
    pub(crate) service: Arc<S>,
    pub(crate) clients: Clients,
    pub(crate) settings: DoorSettings,
    pub(crate) table: Table,
    pub(crate) counts: Counts,
    pub(crate) places: Arc<Semaphore>,
}

impl<S: Service> Door<S> {
    /// A door that is not open yet.
    pub fn new(service: Arc<S>, clients: Clients, settings: DoorSettings) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(settings.connections_max));
        Arc::new(Self {
            service,
            clients,
            settings,
            table: Table::default(),
            counts: Counts::default(),
            places,
        })
    }

    /// What was refused so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
