//! TCP listeners of [`HttpServer`], with TLS or without: a bound for each client address beside the one for all ([`super::slots`]).

use edge_core::error_chain::chain;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::slots::{Awaited, Proof, Slot, Slots};
use super::stall::StallTimeout;
use super::tls::{self, Opened};
use super::{Ended, HttpLimits, HttpServer, RequestTimes, next_connection, one_request};
use crate::tasks;

impl HttpServer {
    /// Serves until `stop`, and then until the requests that are being answered have ended. At most
    /// `connections_per_address` of the connections are of one address. Bodies are left to `api`, which must bound their length
    /// and time: it knows who may send one. Each request has a [`ConnectInfo`] of its peer. With `tls` the listener speaks HTTPS
    /// only; the handshake takes its time and its slot from the request's head.
    pub async fn serve_tcp(
        self,
        listener: TcpListener,
        connections_per_address: usize,
        tls: Option<Arc<ServerConfig>>,
        api: Router,
        stop: CancellationToken,
    ) {
        let slots = Slots::new(self.limits.connections_max, connections_per_address);
        let requests = TaskTracker::new();
        loop {
            let accepted = next_connection(&self.name, || listener.accept(), &stop).await;
            let Some((stream, peer)) = accepted else { break };
            let Some(slot) = slots.enter(peer.ip()) else {
                warn!(listener = %self.name, peer = %peer.ip(), "connection refused: too many requests are being answered");
                continue;
            };
            let connection = Connection {
                listener: self.name.clone(),
                peer,
                accepted: Instant::now(),
                limits: self.limits.clone(),
                slot: Arc::new(slot),
                stop: stop.clone(),
            };
            let (tls, api) = (tls.clone(), api.clone());
            tasks::spawn_tracked(&requests, "HTTP request", async move {
                tokio::select! {
                    () = connection.serve(stream, tls, api) => {}
                    () = connection.slot.closed() => {
                        info!(listener = connection.listener, peer = %peer.ip(), "connection closed: it sent no request while others wait");
                    }
                }
            });
        }
        drop(listener);
        requests.close();
        requests.wait().await;
    }
}

/// An accepted connection with its slot.
struct Connection {
    listener: String,
    peer: SocketAddr,
    accepted: Instant,
    limits: HttpLimits,
    slot: Arc<Slot>,
    stop: CancellationToken,
}

impl Connection {
    /// Serves its request, and says in the log when that failed.
    async fn serve(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>, api: Router) {
        let (listener, peer) = (&self.listener, self.peer);
        let ended = match tls {
            None => self.answer(StallTimeout::new(stream, self.limits.stall_timeout), api).await,
            Some(tls) => {
                let deadline = self.accepted + self.limits.head_timeout;
                let opening = tls::open(tls, stream, self.limits.stall_timeout, deadline);
                let opened = tokio::select! {
                    opened = opening => opened,
                    () = self.stop.cancelled() => return,
                };
                match opened {
                    Ok(Opened::Tls(stream)) => self.answer(stream, api).await,
                    Ok(Opened::Plain(stream)) => {
                        info!(listener, peer = %peer.ip(), "request refused: it came over plain HTTP");
                        let stream = StallTimeout::new(stream, self.limits.stall_timeout);
                        self.answer(stream, tls::plain_refused()).await
                    }
                    Ok(Opened::Closed) => Ended::Answered,
                    Err(error) => {
                        warn!(listener, peer = %peer.ip(), error = %chain(&error), "connection refused: no TLS handshake");
                        return;
                    }
                }
            }
        };
        match ended {
            Ended::Answered => {}
            Ended::Failed(error) => debug!(listener, %peer, error = %chain(&error), "HTTP connection failed"),
            Ended::TookTooLong => warn!(listener, %peer, "request cut: it took too long"),
            Ended::Stopped => debug!(listener, %peer, "request cut: the listener closes"),
        }
    }

    async fn answer<IO>(&self, stream: IO, api: Router) -> Ended
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (slot, peer, api) = (self.slot.clone(), self.peer, TowerToHyperService::new(api));
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(|body| Body::new(Awaited::new(body, slot.clone())));
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
            request.extensions_mut().insert(Proof::new(slot.clone()));
            api.call(request)
        });
        let times = RequestTimes::from(&self.limits).after(self.accepted.elapsed());
        one_request(stream, service, &times, &self.stop).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;

    const STEP: Duration = Duration::from_secs(20);

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<()>,
        entered: tokio::sync::mpsc::UnboundedReceiver<()>,
        release: Arc<tokio::sync::Notify>,
    }

    async fn serve(limits: HttpLimits, per_address: usize) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let release = Arc::new(tokio::sync::Notify::new());
        let held = release.clone();
        let (enter, entered) = tokio::sync::mpsc::unbounded_channel();
        let api = Router::new()
            .route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()))
            .route("/known", get(async |Extension(proof): Extension<Proof>| proof.is_given()))
            .route(
                "/slow",
                get(async move || {
                    let released = held.notified();
                    enter.send(()).unwrap();
                    released.await;
                }),
            );
        let stop = CancellationToken::new();
        let server =
            HttpServer::new("test", limits).serve_tcp(listener, per_address, None, api, stop.clone());
        Served { address, stop, running: tokio::spawn(server), entered, release }
    }

    impl Served {
        async fn connect(&self, host: u8) -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
            socket.connect(self.address).await.unwrap()
        }

        async fn ask(&self, host: u8) -> String {
            let mut stream = self.connect(host).await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            answer
        }

        async fn end(self) {
            self.stop.cancel();
            timeout(STEP, self.running).await.unwrap().unwrap();
        }
    }

    /// Bounds that no test waits for.
    fn limits(connections_max: usize) -> HttpLimits {
        HttpLimits { connections_max, head_timeout: STEP * 10, ..HttpLimits::default() }
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        timeout(STEP, stream.read(&mut [0; 1])).await.is_ok_and(|read| matches!(read, Ok(0) | Err(_)))
    }

    #[tokio::test]
    async fn half_requests_keep_neither_their_own_address_nor_others_out() {
        for per_address in [2, 4, 8] {
            let served = serve(limits(4), per_address).await;
            let mut held = Vec::new();
            for _ in 0..20 {
                let mut stream = served.connect(7).await;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
                held.push(stream);
            }
            for host in [7, 8] {
                let answer = served.ask(host).await;
                assert!(
                    answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("127.0.0.{host}")),
                    "{answer}"
                );
            }
            assert!(is_closed(&mut held[0]).await, "the oldest went first");
            served.end().await;
        }
    }

    #[tokio::test]
    async fn half_requests_of_many_addresses_keep_out_no_address_that_was_let_in_lately() {
        for half in
            ["GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"]
        {
            let mut served = serve(limits(8), 4).await;
            let mut known = served.connect(7).await;
            known.write_all(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            timeout(STEP, known.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let mut waiting = served.connect(7).await;
            waiting.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            let mut held = Vec::new();
            for host in (20..32).cycle().take(60) {
                let mut stream = served.connect(host).await;
                let _ = stream.write_all(half.as_bytes()).await;
                held.push(stream);
            }
            waiting.write_all(b"Host: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            timeout(STEP, waiting.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{half:?}: {answer}");
            assert!(served.ask(7).await.starts_with("HTTP/1.1 200"), "{half:?}");
            served.entered.close();
            served.end().await;
        }
    }

    #[tokio::test]
    async fn requests_that_are_being_answered_are_never_closed_for_others() {
        let mut served = serve(limits(3), 2).await;
        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut stream = served.connect(7).await;
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            slow.push(stream);
            served.entered.recv().await.unwrap();
        }
        let mut refused = served.connect(7).await;
        assert!(is_closed(&mut refused).await);
        assert!(served.ask(8).await.starts_with("HTTP/1.1 200"), "another address has its own bound");
        served.release.notify_waiters();
        for mut stream in slow {
            let mut answer = String::new();
            timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(served.ask(7).await.starts_with("HTTP/1.1 200"), "slots are given back");
        served.end().await;
    }

    #[tokio::test]
    async fn a_connection_that_sends_no_head_or_waits_after_its_answer_ends_by_itself() {
        let short = HttpLimits { head_timeout: Duration::from_millis(200), ..HttpLimits::default() };
        let served = serve(short, 8).await;
        for sent in ["", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut stream = served.connect(7).await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(STEP, stream.read_to_end(&mut answer)).await.expect("it ends");
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?}");
        }
        served.end().await;
    }
}
