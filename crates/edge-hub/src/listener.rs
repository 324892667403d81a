//! The listener: accepts connections up to a bound, gives each a session, and ends when it is stopped and all of them have ended.

use edge_core::error_chain::chain;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::amqp_connection;
use crate::clock::now_ms;
use crate::connection_slots::{ConnectionSlot, NoConnectionSlot};
use crate::counts::count;
use crate::http_server::next_connection;
use crate::https::{self, Caller};
use crate::mqtt_server::MqttServer;
use crate::refusals::Refusing;
use crate::service::{ClientCert, Service, Transport};
use crate::session;
use crate::tasks;

/// What a connection of a listener speaks.
#[derive(Clone)]
enum Speaks {
    Mqtt,
    Mqtts(TlsAcceptor),
    Amqps(TlsAcceptor, Arc<amqp::engine::settings::Settings>),
    /// With the program's own API.
    Https(TlsAcceptor, Router),
}

/// What is spoken inside of TLS.
enum Inside {
    Mqtt,
    Amqp(Arc<amqp::engine::settings::Settings>),
    Https(Router),
}

impl fmt::Display for Speaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "MQTT",
            Self::Mqtts(_) => "MQTT over TLS",
            Self::Amqps(..) => "AMQP over TLS",
            Self::Https(..) => "HTTPS and MQTT over WebSocket",
        })
    }
}

impl<S: Service> MqttServer<S> {
    /// Serves plain TCP. Returns when it was stopped and all its sessions have ended in order.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        self.serve(listener, Speaks::Mqtt, stop).await;
    }

    /// Serves TLS. Returns when it was stopped and all its sessions have ended in order.
    pub async fn serve_tls(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) {
        self.serve(listener, Speaks::Mqtts(TlsAcceptor::from(tls)), stop).await;
    }

    /// Serves AMQP 1.0 over TLS. Returns as [`MqttServer::serve_tls`] does.
    pub async fn serve_amqps(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) {
        let engine = Arc::new(amqp_connection::settings::engine(&self.settings));
        self.serve(listener, Speaks::Amqps(TlsAcceptor::from(tls), engine), stop).await;
    }

    /// Serves MQTT over WebSocket over TLS on the paths of [`crate::https`], and the program's own `api` on all others,
    /// with a [`crate::https::Caller`] as an extension of each request. Returns as [`MqttServer::serve_tls`] does.
    pub async fn serve_https(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        api: Router,
        stop: CancellationToken,
    ) {
        self.serve(listener, Speaks::Https(TlsAcceptor::from(tls), api), stop).await;
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, speaks: Speaks, stop: CancellationToken) {
        let address = listener.local_addr().map_or_else(|error| error.to_string(), |a| a.to_string());
        info!(%address, %speaks, "listener opened");
        let sessions = TaskTracker::new();
        loop {
            let accepted = next_connection(&address, || listener.accept(), &stop).await;
            let Some((stream, peer)) = accepted else { break };
            let Some(slot) = self.slot(peer) else { continue };
            let timeout = self.settings.connect_timeout;
            let deadline = Instant::now() + if slot.has_time { timeout } else { timeout / 4 };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%peer, error = %chain(&error), "connection ended before it began");
                continue;
            }
            let (server, stop) = (self.clone(), stop.clone());
            // A task is as large as the largest thing that it may do: plain connections do not pay for TLS and HTTP.
            match speaks.clone() {
                Speaks::Mqtt => tasks::spawn_tracked(&sessions, "MQTT connection", async move {
                    session::hold(server, stream, peer, Transport::Plain, slot, deadline, stop).await;
                }),
                Speaks::Mqtts(tls) => {
                    tasks::spawn_tracked(&sessions, "MQTT over TLS connection", async move {
                        server.admit(stream, slot, peer, (tls, Inside::Mqtt), deadline, stop).await;
                    })
                }
                Speaks::Amqps(tls, engine) => {
                    tasks::spawn_tracked(&sessions, "AMQP over TLS connection", async move {
                        server.admit(stream, slot, peer, (tls, Inside::Amqp(engine)), deadline, stop).await;
                    })
                }
                Speaks::Https(tls, api) => tasks::spawn_tracked(&sessions, "HTTPS connection", async move {
                    server.admit(stream, slot, peer, (tls, Inside::Https(api)), deadline, stop).await;
                }),
            };
        }
        // A client that comes now is refused at once instead of waiting in the backlog.
        drop(listener);
        sessions.close();
        sessions.wait().await;
        info!(%address, "listener closed");
    }

    /// The slot of a connection; `None` when it is refused.
    fn slot(&self, peer: SocketAddr) -> Option<Arc<ConnectionSlot>> {
        match self.slots.take(peer.ip()) {
            Ok(slot) => return Some(Arc::new(slot)),
            Err(NoConnectionSlot::Full) => {
                count(&self.counts().connections_refused);
                let (connections_max, unproven_max) =
                    (self.settings.connections_max, self.settings.unproven_max);
                warn!(%peer, connections_max, unproven_max, "connection refused: no slot is left");
            }
            Err(NoConnectionSlot::OfAddress) => {
                count(&self.counts().address_connections_refused);
                let address_connections_max = self.settings.address_connections_max;
                warn!(%peer, address_connections_max, "connection refused: its address has too many");
            }
            Err(NoConnectionSlot::TooFast) => {
                count(&self.counts().connects_refused);
                debug!(%peer, "connection refused: its address connects too often");
            }
        }
        None
    }

    /// Notes that an unproven connection was closed for another.
    pub(crate) fn evicted(&self, peer: SocketAddr) {
        count(&self.counts().connections_evicted);
        info!(%peer, "connection closed before it had proven itself: others need its slot more");
    }

    async fn admit(
        self: Arc<Self>,
        stream: TcpStream,
        slot: Arc<ConnectionSlot>,
        peer: SocketAddr,
        (tls, inside): (TlsAcceptor, Inside),
        deadline: Instant,
        stop: CancellationToken,
    ) {
        let mut accepting = Box::pin(tokio::time::timeout_at(deadline, tls.accept(stream)));
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            () = slot.evicted() => return self.evicted(peer),
            handshake = &mut accepting => handshake,
        };
        drop(accepting);
        match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let client_cert = stream.get_ref().1.peer_certificates().and_then(ClientCert::new);
                match inside {
                    // In a box, so that the task holds it once.
                    Inside::Mqtt => {
                        let transport = Transport::Tls(client_cert);
                        session::hold(self, Box::new(stream), peer, transport, slot, deadline, stop).await
                    }
                    Inside::Amqp(engine) => {
                        let caller = amqp_connection::Caller { peer, transport: Transport::Tls(client_cert) };
                        let held = amqp_connection::hold(
                            self,
                            engine,
                            Box::new(stream),
                            caller,
                            slot,
                            deadline,
                            stop,
                        );
                        Box::pin(held).await;
                    }
                    Inside::Https(api) => {
                        let caller = Caller { peer, client_cert, slot };
                        Box::pin(https::hold(self, stream, caller, api, deadline, stop)).await;
                    }
                }
            }
            Err(error) => {
                warn!(%peer, error = %chain(&error), "connection refused: no TLS handshake");
                let why = format!("no TLS handshake: {error}");
                let (identity, address) = ("", peer.ip());
                let (why, protocol) = (&*why, "TLS");
                let refusing = Refusing { identity, is_known: false, address, why, protocol, proof: None };
                self.refusals.note(now_ms(), refusing);
            }
        }
    }
}
