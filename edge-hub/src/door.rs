//! The door: its bounds, its counts, and what its listeners and sessions share.

use edge_core::error_chain::chain;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_buffer::OpenError;
use edge_core::access::throttle::ThrottleSettings;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::attempts::Attempts;
use crate::broker::{Broker, wills};
use crate::clients::Clients;
use crate::journal::{Journal, JournalMax};
use crate::keeper;
use crate::places::{Places, PlacesMax};
use crate::refusals::Refusals;
use crate::service::Service;
use crate::tasks;

/// What one identity may have and do: a device, a module, or a local user with all its client ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Connections at once; a device or module has one.
    pub connections_max: u64,
    /// Sessions that outlive their connection; beyond, a session ends with it.
    pub sessions_max: u64,
    /// Retained messages; beyond, a message is given to its subscribers and not retained.
    pub retained_messages_max: u64,
    /// Their bytes.
    pub retained_bytes_max: u64,
    /// Bytes of filters over all its sessions, with what each holds beside; beyond, the SUBACK refuses.
    pub subscription_bytes_max: u64,
    /// Packets in a second, beside those that settle what it was sent; 0 for no limit. Beyond, it is not read from for a while.
    pub packets_per_second: u64,
    /// Filters that it subscribes to or gives up in a second; 0 for no limit. Beyond, it is not read from for a while.
    pub filters_per_second: u64,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            // A local user may stand for a tenth of all plain clients.
            connections_max: 1_000,
            sessions_max: 1_000,
            // Half of what all have: a gateway of a PLC is one client, and retains thousands of values.
            retained_messages_max: 5_000,
            retained_bytes_max: 16 << 20,
            subscription_bytes_max: 8 << 20,
            // More than one client can send in a second on the machines that gateways are.
            packets_per_second: 400_000,
            // All the filters of five clients at once. Each changes the table that every publisher looks into.
            filters_per_second: 500,
        }
    }
}

/// The bounds of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Connections at once, over all listeners of the door.
    pub connections_max: usize,
    /// Connections at once that have proven nothing yet; beyond, the address with the most of them loses its oldest.
    pub unproven_max: usize,
    /// Connections at once from one address.
    pub address_connections_max: usize,
    /// Connections that one address from which nobody has proven himself may open in a second, counted over all listeners;
    /// 0 for no limit. Beyond, it is refused.
    pub address_connects_per_second: u64,
    /// Messages that a client may publish in a second; 0 for no limit. Beyond, it is not read from for a while.
    pub messages_per_second: u64,
    /// Their bytes, topics included; 0 for no limit. Beyond, it is not read from for a while.
    pub bytes_per_second: u64,
    /// From accepting a connection to its proven CONNECT, TLS handshake included.
    pub connect_timeout: Duration,
    /// The largest packet, without its first two to five bytes.
    pub packet_bytes_max: usize,
    /// Messages per session that are not acknowledged yet; beyond, the session stops reading.
    pub pending_max: usize,
    /// The receive maximum that a client of MQTT 5 is told; `pending_max` when it is left out. What is on a long line is in
    /// flight for its client, and here not yet.
    pub receive_max: Option<u16>,
    /// Their bytes; beyond, the session stops reading.
    pub pending_bytes_max: usize,
    /// QoS 1 and 2 messages to one client that it has not settled yet; the next ones wait in its queue. A client of MQTT 5
    /// may ask for fewer.
    pub in_flight_max: usize,
    /// Filters per client; beyond, the SUBACK refuses.
    pub filters_max: usize,
    /// Topic aliases that a client of MQTT 5 may use.
    pub topic_aliases_max: u16,
    /// Sessions that outlive their connection; beyond, a session ends with it.
    pub sessions_max: usize,
    /// QoS 1 and 2 messages that are kept for one client that is away; beyond, its oldest gives way.
    pub session_messages_max: usize,
    /// Their bytes; beyond, its oldest gives way.
    pub session_bytes_max: usize,
    /// Bytes that wait in all sessions that outlive their connection; beyond, the absent client with the most loses half.
    pub queued_bytes_max: usize,
    /// Retained messages; beyond, a message is given to its subscribers and not retained.
    pub retained_messages_max: usize,
    /// Their bytes.
    pub retained_bytes_max: usize,
    /// Bytes of the journal's files; beyond, what has to be kept is refused.
    pub journal_bytes_max: u64,
    /// Bytes that the journal leaves free on its file system.
    pub keep_free_bytes: u64,
    /// How long the will of a client waits at least that was connected when the program ended: it gets the time to come
    /// back.
    pub will_grace: Duration,
    /// A client that takes none of the bytes written to it for so long (to twice that) is closed.
    pub write_timeout: Duration,
    /// How long the PUBACKs of publishers may wait for the subscribers of one identity, less a tenth of the time since; then
    /// its slow subscriber is closed.
    pub publishers_wait: Duration,
    /// How long a client of MQTT 3.1.1 with a message that there was no room for stays connected. It gets no PUBACK for that
    /// one, and when it is closed it sends it again.
    pub full_timeout: Duration,
    /// What one identity may have and do.
    pub identity: IdentitySettings,
    /// How failed logins slow down the next ones.
    pub throttle: ThrottleSettings,
    /// How long an ending session waits for what it has taken to be stored, and for its last bytes to be written.
    pub finish_timeout: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            unproven_max: 1_000,
            // Behind one address there may be all devices.
            address_connections_max: 10_000,
            // A whole line of devices that come for the first time at once.
            address_connects_per_second: 1_000,
            // More than one client can send in a second on the machines that gateways are.
            messages_per_second: 200_000,
            bytes_per_second: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            // IoT Hub's 256 KiB message, and the longest topic with its length and packet id.
            packet_bytes_max: 256 * 1024 + 65_535 + 4,
            pending_max: 1_000,
            receive_max: None,
            pending_bytes_max: 4 * 1024 * 1024,
            in_flight_max: 100,
            filters_max: 100,
            topic_aliases_max: 32,
            sessions_max: 10_000,
            session_messages_max: 10_000,
            session_bytes_max: 16 << 20,
            queued_bytes_max: 128 << 20,
            retained_messages_max: 10_000,
            retained_bytes_max: 32 << 20,
            journal_bytes_max: 1 << 30,
            keep_free_bytes: 64 << 20,
            will_grace: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            publishers_wait: Duration::from_secs(10),
            // Azure's Node SDK waits 30 s for a PUBACK and then fails the message; the Python SDK waits for ever. Both send
            // again what was not acknowledged when they have connected again.
            full_timeout: Duration::from_secs(20),
            identity: IdentitySettings::default(),
            throttle: ThrottleSettings::default(),
            finish_timeout: Duration::from_secs(5),
        }
    }
}

/// What a door has let go or refused since it opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections beyond the bound.
    pub connections_refused: AtomicU64,
    /// Unproven connections that were closed for others.
    pub connections_evicted: AtomicU64,
    /// Connections beyond the bound of their address.
    pub address_connections_refused: AtomicU64,
    /// Connections that came faster than their address may connect.
    pub connects_refused: AtomicU64,
    /// Times that an identity was refused more of something than it may have.
    pub quotas_exceeded: AtomicU64,
    /// Times that a client was over its rate and was not read from for a while.
    pub clients_paused: AtomicU64,
    /// Subscriptions beyond a client's bound.
    pub subscriptions_refused: AtomicU64,
    /// Logins that were judged and were wrong.
    pub logins_failed: AtomicU64,
    /// Logins that had to wait because of earlier ones that failed.
    pub logins_delayed: AtomicU64,
    /// Logins refused unjudged because too many waited already.
    pub logins_refused: AtomicU64,
    /// Messages dropped because they were wrong in themselves.
    pub messages_wrong: AtomicU64,
    /// Messages that there was no room for.
    pub messages_without_room: AtomicU64,
    /// Messages refused because their client may not publish them.
    pub publishes_refused: AtomicU64,
    /// QoS 0 copies dropped because a subscriber's queue was full.
    pub copies_dropped: AtomicU64,
    /// Copies passed over because they are larger than their client takes.
    pub copies_too_large: AtomicU64,
    /// Copies that expired in a queue.
    pub copies_expired: AtomicU64,
    /// Copies dropped because their client may not read their topics any more.
    pub copies_forbidden: AtomicU64,
    /// Connections that were closed because they took too slowly what was published for them.
    pub subscribers_closed: AtomicU64,
    /// Kept messages of clients that are away that gave way to newer ones.
    pub messages_dropped_away: AtomicU64,
    /// Messages that were not retained because there was no room.
    pub not_retained: AtomicU64,
    /// Sessions that end with their connection because there are too many that do not.
    pub sessions_refused: AtomicU64,
    /// Sessions that expired.
    pub sessions_expired: AtomicU64,
    /// Records of the journal that could not be read when it was opened.
    pub records_skipped: AtomicU64,
}

impl Counts {
    /// Every count with its name, for people and programs.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("connectionsRefused", read(&self.connections_refused)),
            ("connectionsEvicted", read(&self.connections_evicted)),
            ("addressConnectionsRefused", read(&self.address_connections_refused)),
            ("connectsRefused", read(&self.connects_refused)),
            ("quotasExceeded", read(&self.quotas_exceeded)),
            ("clientsPaused", read(&self.clients_paused)),
            ("subscriptionsRefused", read(&self.subscriptions_refused)),
            ("loginsFailed", read(&self.logins_failed)),
            ("loginsDelayed", read(&self.logins_delayed)),
            ("loginsRefused", read(&self.logins_refused)),
            ("messagesWrong", read(&self.messages_wrong)),
            ("messagesWithoutRoom", read(&self.messages_without_room)),
            ("publishesRefused", read(&self.publishes_refused)),
            ("copiesDropped", read(&self.copies_dropped)),
            ("copiesTooLarge", read(&self.copies_too_large)),
            ("copiesExpired", read(&self.copies_expired)),
            ("copiesForbidden", read(&self.copies_forbidden)),
            ("subscribersClosed", read(&self.subscribers_closed)),
            ("messagesDroppedAway", read(&self.messages_dropped_away)),
            ("notRetained", read(&self.not_retained)),
            ("sessionsRefused", read(&self.sessions_refused)),
            ("sessionsExpired", read(&self.sessions_expired)),
            ("recordsSkipped", read(&self.records_skipped)),
        ]
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// A door: one set of clients and free topics, over any number of listeners.
pub struct Door<S> {
    pub(crate) service: Arc<S>,
    pub(crate) clients: Clients,
    pub(crate) settings: DoorSettings,
    pub(crate) broker: Arc<Broker>,
    pub(crate) attempts: Attempts,
    pub(crate) places: Places,
    pub(crate) refusals: Refusals,
    keeper: Mutex<Option<JoinHandle<()>>>,
    stop_keeper: DropGuard,
}

impl<S: Service> Door<S> {
    /// A door whose listeners are not open yet, with the sessions and retained messages that are in `dir`.
    ///
    /// # Errors
    /// [`OpenError`] when `dir` cannot be used, or another program uses it.
    pub async fn open(
        dir: &Path,
        service: Arc<S>,
        clients: Clients,
        settings: DoorSettings,
    ) -> Result<Arc<Self>, OpenError> {
        let max = JournalMax { bytes: settings.journal_bytes_max, keep_free_bytes: settings.keep_free_bytes };
        let recovered = Journal::open(dir, max).await?;
        let (broker, due_wills) = Broker::restore(recovered.journal, &recovered.state, settings.clone());
        let broker = Arc::new(broker);
        add(&broker.counts.records_skipped, recovered.skipped);
        clients.attach(&broker);
        let stop = CancellationToken::new();
        let (keeps, finish) = (keeper::keep(broker.clone(), stop.clone()), settings.finish_timeout);
        let wills = wills::publish(broker.clone(), service.clone(), due_wills, stop.clone(), finish);
        let keeper = tasks::spawn_essential("MQTT sessions", async move {
            tokio::join!(keeps, wills);
        });
        let places = Places::new(PlacesMax {
            connections: settings.connections_max,
            unproven: settings.unproven_max,
            of_address: settings.address_connections_max,
            connects_per_second: settings.address_connects_per_second,
        });
        let (keeper, stop_keeper) = (Mutex::new(Some(keeper)), stop.drop_guard());
        let attempts = Attempts::new(settings.throttle.clone());
        let refusals = Refusals::default();
        Ok(Arc::new(Self {
            service,
            clients,
            settings,
            broker,
            attempts,
            places,
            refusals,
            keeper,
            stop_keeper,
        }))
    }

    /// Its bounds.
    pub fn settings(&self) -> &DoorSettings {
        &self.settings
    }

    /// The clients that were refused last.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What was refused or let go so far.
    pub fn counts(&self) -> &Counts {
        &self.broker.counts
    }

    /// Writes what the journal was handed and lets its directory go. After the listeners have ended.
    pub async fn close(&self) {
        self.stop_keeper.token().cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(error = %chain(&error), "the keeper of the MQTT sessions failed");
        }
        self.broker.journal.close().await;
    }
}
