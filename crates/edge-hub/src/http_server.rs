//! HTTP/1.1 with a bound on everything that a client can hold: connections, request heads, bodies, time.
//!
//! A connection carries one request, so that an idle client holds no connection slot and every wait has an end. Unix sockets
//! and TCP listeners are served by [`HttpServer`]; the HTTPS listener ([`crate::https`]) shares [`one_request`] with it.

mod slots;
mod stall;
mod tcp;
mod tls;

use edge_core::error_chain::chain;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tasks;
use tracing::{debug, error, warn};

pub use self::slots::Proof;
use self::stall::StallTimeout;

/// How long accepting pauses after an error such as "too many open files", which no event announces the end of.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a request head that hyper holds; its least.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The next connection of a listener, or `None` once `stop` comes. What cannot be accepted now, for want of descriptors, is logged
/// and tried again after [`ACCEPT_PAUSE`].
pub(crate) async fn next_connection<T, F>(
    listener: &str,
    accept: impl Fn() -> F,
    stop: &CancellationToken,
) -> Option<T>
where
    F: Future<Output = std::io::Result<T>>,
{
    loop {
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = accept() => match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => error,
            },
        };
        error!(listener, error = %chain(&error), "accepting a connection failed");
        tokio::select! {
            () = stop.cancelled() => return None,
            () = sleep(ACCEPT_PAUSE) => {}
        }
    }
}

/// The bounds of one socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections served at once; further clients wait in a unix socket's backlog, or take the slot of one that sent nothing.
    pub connections_max: usize,
    /// From accepting a connection to the last byte of its request's head.
    pub head_timeout: Duration,
    /// Bytes of one body; a longer one is answered with 413 without being read.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are read or worked on at once, at least `body_bytes_max`; further ones wait unread.
    pub bodies_bytes_max: usize,
    /// From the end of the head to the last byte of the body, the wait for other bodies included.
    pub body_timeout: Duration,
    /// The longest time in which a client that is sent its answer may take nothing of it.
    pub stall_timeout: Duration,
    /// From accepting a connection to the last byte of its answer.
    pub request_timeout: Duration,
    /// How long a request that is being answered may go on after a stop.
    pub finish_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 16,
            head_timeout: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            bodies_bytes_max: 4 << 20,
            body_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            finish_timeout: Duration::from_secs(1),
        }
    }
}

/// Serves one unix socket or TCP listener within its bounds.
pub struct HttpServer {
    name: String,
    limits: HttpLimits,
    connections: Arc<Semaphore>,
    shared: Option<Arc<Semaphore>>,
}

impl HttpServer {
    /// `name` is for the log.
    pub fn new(name: impl Into<String>, limits: HttpLimits) -> Self {
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        Self { name: name.into(), limits, connections, shared: None }
    }

    /// Takes each connection's slot also from `shared`, which bounds the connections of several sockets together.
    #[must_use]
    pub fn sharing(mut self, shared: Arc<Semaphore>) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Serves until `stop`, and then until the requests that are being answered have ended. No failure to accept ends it.
    pub async fn serve_unix(self, listener: UnixListener, api: Router, stop: CancellationToken) {
        let requests = TaskTracker::new();
        let bodies = Bodies::new(&self.limits);
        loop {
            let accept = || async {
                // The socket's own slot comes first: who waits for one costs the client a descriptor and us none. An idle
                // socket must hold none of the shared ones, so that one descriptor waits for those.
                let own = self.connections.clone().acquire_owned().await;
                let (stream, _) = listener.accept().await?;
                let shared = match &self.shared {
                    Some(shared) => Some(shared.clone().acquire_owned().await),
                    None => None,
                };
                Ok::<_, std::io::Error>((stream, (own, shared)))
            };
            let accepted = next_connection(&self.name, accept, &stop).await;
            let Some((stream, slots)) = accepted else { break };
            let (name, limits, stop) = (self.name.clone(), self.limits.clone(), stop.clone());
            let (bodies, api) = (bodies.clone(), TowerToHyperService::new(api.clone()));
            tasks::spawn_tracked(&requests, "request on a unix socket", async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (bodies, api) = (bodies.clone(), api.clone());
                    async move { bodies.read_then(request, |request| api.call(request)).await }
                });
                let stream = StallTimeout::new(stream, limits.stall_timeout);
                match one_request(stream, service, &RequestTimes::from(&limits), &stop).await {
                    Ended::Answered => {}
                    Ended::Failed(error) => {
                        debug!(socket = name, error = %chain(&error), "HTTP connection failed")
                    }
                    Ended::TookTooLong => warn!(socket = name, "request cut: it took too long"),
                    Ended::Stopped => debug!(socket = name, "request cut: the socket closes"),
                }
                drop(slots);
            });
        }
        // A client that comes now is refused at once instead of waiting in the backlog.
        drop(listener);
        requests.close();
        requests.wait().await;
    }
}

/// Reads bodies before anything works on them, never more bytes at once than their sum may have.
#[derive(Clone)]
struct Bodies {
    bytes_max: usize,
    timeout: Duration,
    bytes: Arc<Semaphore>,
}

impl Bodies {
    fn new(limits: &HttpLimits) -> Self {
        let sum = limits.bodies_bytes_max.max(limits.body_bytes_max);
        Self {
            bytes_max: limits.body_bytes_max,
            timeout: limits.body_timeout,
            bytes: Arc::new(Semaphore::new(sum)),
        }
    }

    /// Answers with `answer` once the whole body is here, or with the reason why it is not.
    async fn read_then<F>(
        &self,
        request: Request<Incoming>,
        answer: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response<Body>, Infallible>
    where
        F: Future<Output = Result<Response<Body>, Infallible>>,
    {
        let (head, body) = request.into_parts();
        let hint = body.size_hint();
        // Chunked bodies do not tell their length: they take what the longest may have.
        let reserved = hint.exact().map_or(Ok(self.bytes_max), usize::try_from).unwrap_or(usize::MAX);
        if reserved > self.bytes_max || hint.lower() > self.bytes_max as u64 {
            return Ok(self.too_large());
        }
        let reserved = u32::try_from(reserved).unwrap_or(u32::MAX);
        let read = async {
            let held = self.bytes.clone().acquire_many_owned(reserved).await;
            (held, to_bytes(Body::new(body), self.bytes_max).await)
        };
        match timeout(self.timeout, read).await {
            Ok((held, Ok(bytes))) => {
                let answered = answer(Request::from_parts(head, Body::from(bytes))).await;
                drop(held);
                answered
            }
            // Also what ended early: nobody reads the answer then.
            Ok((_, Err(_))) => Ok(self.too_large()),
            Err(_) => {
                let seconds = self.timeout.as_secs_f32();
                let why = format!("the body did not arrive within {seconds} s");
                Ok(refused(StatusCode::REQUEST_TIMEOUT, &why))
            }
        }
    }

    fn too_large(&self) -> Response<Body> {
        let why = format!("the body is incomplete or has more than {} bytes", self.bytes_max);
        refused(StatusCode::PAYLOAD_TOO_LARGE, &why)
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let body = serde_json::json!({ "message": why }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The times that [`one_request`] keeps.
pub(crate) struct RequestTimes {
    pub(crate) head: Duration,
    pub(crate) request: Duration,
    pub(crate) finish: Duration,
}

impl From<&HttpLimits> for RequestTimes {
    fn from(limits: &HttpLimits) -> Self {
        Self { head: limits.head_timeout, request: limits.request_timeout, finish: limits.finish_timeout }
    }
}

impl RequestTimes {
    /// What is left of them after `elapsed`.
    fn after(self, elapsed: Duration) -> Self {
        Self {
            head: self.head.saturating_sub(elapsed),
            request: self.request.saturating_sub(elapsed),
            finish: self.finish,
        }
    }
}

/// How a connection ended.
pub(crate) enum Ended {
    /// Also one that was upgraded, and one that the client closed.
    Answered,
    Failed(hyper::Error),
    TookTooLong,
    Stopped,
}

/// Serves the one request of a connection.
pub(crate) async fn one_request<IO, S, F>(
    stream: IO,
    service: S,
    times: &RequestTimes,
    stop: &CancellationToken,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let service = service_fn(move |request| {
        let answered = service.call(request);
        async move {
            let mut response = answered.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // hyper's own way to say so would take `upgrade` out of the answer to an upgrade.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(timeout(times.request, connection));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // What is being answered may be answered still.
        () = stop.cancelled() => match timeout(times.finish, connection).await {
            Ok(ended) => ended,
            Err(_) => return Ended::Stopped,
        },
    };
    match ended {
        Ok(Ok(())) => Ended::Answered,
        Ok(Err(error)) => Ended::Failed(error),
        Err(_) => Ended::TookTooLong,
    }
}

#[cfg(test)]
mod tests;
