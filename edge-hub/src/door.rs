//! The listener: accepts connections up to a bound, gives each a session, and ends when told to and all of them ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::clients::Clients;
use crate::service::Service;
use crate::session;
use crate::table::Table;

/// How long accepting pauses after an error such as "too many open files", which no event announces the end of.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
    places: Arc<Semaphore>,
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

    /// Serves plain TCP. Returns when it was stopped and all its sessions have ended in order.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        self.serve(listener, None, stop).await;
    }

    /// Serves TLS. Returns when it was stopped and all its sessions have ended in order.
    pub async fn serve_tls(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) {
        self.serve(listener, Some(TlsAcceptor::from(tls)), stop).await;
    }

    async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let address = listener.local_addr().map_or_else(|error| error.to_string(), |a| a.to_string());
        info!(%address, is_tls = tls.is_some(), "door opened");
        let sessions = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    error!(%address, %error, "connection not accepted");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    }
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                count(&self.counts.connections_refused);
                let max = self.settings.connections_max;
                warn!(%peer, connections_max = max, "connection refused: the door is full");
                continue;
            };
            let (door, tls, stop) = (self.clone(), tls.clone(), stop.clone());
            sessions.spawn(async move {
                door.admit(stream, peer, tls, stop).await;
                drop(place);
            });
        }
        // A client that comes now is refused at once instead of waiting in the backlog.
        drop(listener);
        sessions.close();
        sessions.wait().await;
        info!(%address, "door closed");
    }

    async fn admit(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let deadline = Instant::now() + self.settings.connect_timeout;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "connection ended before it began");
            return;
        }
        let Some(tls) = tls else { return self.hold(stream, peer, deadline, stop).await };
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            handshake = tokio::time::timeout_at(deadline, tls.accept(stream)) => handshake,
        };
        match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => self.hold(stream, peer, deadline, stop).await,
            Err(error) => warn!(%peer, %error, "connection refused: no TLS handshake"),
        }
    }

    async fn hold<T>(self: Arc<Self>, stream: T, peer: SocketAddr, deadline: Instant, stop: CancellationToken)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        session::hold(self, stream, peer, deadline, stop).await;
    }
}
