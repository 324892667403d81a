//! The listener: accepts connections up to a bound, gives each a session, and ends when told to and all of them ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::door::{Door, count};
use crate::service::{ClientCert, Service};
use crate::session;

/// How long accepting pauses after an error such as "too many open files", which no event announces the end of.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

impl<S: Service> Door<S> {
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
        let Some(tls) = tls else { return self.hold(stream, peer, None, deadline, stop).await };
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            handshake = tokio::time::timeout_at(deadline, tls.accept(stream)) => handshake,
        };
        match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let client_cert = stream.get_ref().1.peer_certificates().and_then(ClientCert::new);
                self.hold(stream, peer, client_cert, deadline, stop).await;
            }
            Err(error) => warn!(%peer, %error, "connection refused: no TLS handshake"),
        }
    }

    async fn hold<T>(
        self: Arc<Self>,
        stream: T,
        peer: SocketAddr,
        client_cert: Option<ClientCert>,
        deadline: Instant,
        stop: CancellationToken,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        session::hold(self, stream, peer, client_cert, deadline, stop).await;
    }
}
