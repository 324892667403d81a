//! `GET /metrics` over plain HTTP, for a Prometheus on the same machine. The address is a loopback one: both programs refuse others
//! when they read their configuration.
//!
//! A program does its work without it: when the port is taken, the log says so and the port is tried again.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use edge_core::error_chain::chain;
use edge_core::metrics::exposition::CONTENT_TYPE;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http_server::{HttpLimits, HttpServer};
use crate::listen;

/// Scrapes at once. Prometheus makes one; a second one is the operator's `curl`.
pub const CONNECTIONS_MAX: usize = 4;
/// From accepting a connection to the last byte of its answer. Prometheus gives up after 10 s.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long what was collected is given to others who scrape, so that scraping costs little however often it is done.
const FRESH: Duration = Duration::from_secs(1);
/// Until a port that was taken is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(60);

type Collect = Box<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// Gives what was collected last, or collects.
struct Scrapes {
    collect: Collect,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Scrapes {
    async fn text(&self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return text.clone();
        }
        let text = Bytes::from((self.collect)().await);
        *last = Some((Instant::now(), text.clone()));
        text
    }
}

/// Answers scrapes with what `collect` gives, until `stop`. `setting` names the address in the log.
pub async fn serve<F>(
    setting: &'static str,
    address: SocketAddr,
    collect: impl Fn() -> F + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = String> + Send + 'static,
{
    let Some(listener) = bind(setting, address, BIND_AGAIN, &stop).await else { return };
    tracing::info!(%address, "metrics are served on loopback");
    let limits = HttpLimits {
        connections_max: CONNECTIONS_MAX,
        request_timeout: REQUEST_MAX,
        ..HttpLimits::default()
    };
    let router = router(Box::new(move || Box::pin(collect())));
    HttpServer::new("metrics", limits).serve_tcp(listener, CONNECTIONS_MAX, None, router, stop).await;
}

/// Binds, and tries it again every `again`; `None` once `stop` comes.
async fn bind(
    setting: &str,
    address: SocketAddr,
    again: Duration,
    stop: &CancellationToken,
) -> Option<TcpListener> {
    let mut is_reported = false;
    loop {
        match listen::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if !is_reported => {
                is_reported = true;
                tracing::warn!(setting, %address, ?again, error = %chain(&error), "metrics are not served, the address cannot be listened on; it is tried again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            () = stop.cancelled() => return None,
        }
    }
}

fn router(collect: Collect) -> Router {
    let scrapes = Arc::new(Scrapes { collect, last: Mutex::default() });
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "metrics are at /metrics\n") })
        .layer(middleware::from_fn(check_host))
        .with_state(scrapes)
}

async fn metrics(State(scrapes): State<Arc<Scrapes>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrapes.text().await).into_response()
}

/// Refuses a browser that was led here by a name of somebody else's that resolves to this address (DNS rebinding).
async fn check_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    if host.is_none_or(is_of_this_machine) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "the Host header must be localhost or a loopback address\n").into_response()
}

fn is_of_this_machine(host: &str) -> bool {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.chars().all(|c| c.is_ascii_digit()));
    let name = if has_port { host.rsplit_once(':').map_or(host, |(name, _)| name) } else { host };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const STEP: Duration = Duration::from_secs(60);

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// An address that is free now, and that nobody else is given: others have ports of 127.0.0.1.
    async fn free(host: u8) -> SocketAddr {
        TcpListener::bind(SocketAddr::from(([127, 96, 0, host], 0))).await.unwrap().local_addr().unwrap()
    }

    async fn serving(address: SocketAddr) {
        timeout(STEP, async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn scrapes_of_one_second_are_answered_with_one_collection() {
        let (address, stop) = (free(1).await, CancellationToken::new());
        let collected = Arc::new(AtomicU64::new(0));
        let counted = collected.clone();
        let collect = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move { format!("lineside_x {number}\n") }
        };
        let began = Instant::now();
        let served = tokio::spawn(serve("listen.metrics", address, collect, stop.clone()));
        serving(address).await;
        for _ in 0..20 {
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost:9600\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{answer}");
            assert!(answer.contains("\r\n\r\nlineside_x "), "{answer}");
        }
        let most = began.elapsed().as_secs() + 1;
        assert!(collected.load(Ordering::Relaxed) <= most, "{collected:?} in {most} s");
        stop.cancel();
        timeout(STEP, served).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_but_metrics_is_answered_and_only_under_names_of_this_machine() {
        let (address, stop) = (free(2).await, CancellationToken::new());
        let collect = || async { "lineside_x 1\n".to_owned() };
        let served = tokio::spawn(serve("listen.metrics", address, collect, stop.clone()));
        serving(address).await;
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9600\r\n\r\n", 200),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]:9600\r\n\r\n", 200),
            ("GET /metrics HTTP/1.0\r\n\r\n", 200),
            ("HEAD /metrics HTTP/1.1\r\nHost: LOCALHOST\r\n\r\n", 200),
            ("GET /metrics HTTP/1.1\r\nHost: attacker.example\r\n\r\n", 403),
            ("GET /metrics HTTP/1.1\r\nHost: localhost.attacker.example:9600\r\n\r\n", 403),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.attacker.example\r\n\r\n", 403),
            ("GET /metrics HTTP/1.1\r\nHost: 192.168.0.1\r\n\r\n", 403),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            ("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        ] {
            let answer = ask(address, request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.{} {status} ", u8::from(!request.contains("1.0")))),
                "{request}{answer}"
            );
        }
        stop.cancel();
        timeout(STEP, served).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_that_another_program_has_is_tried_until_it_is_free_or_the_program_stops() {
        let taken = TcpListener::bind("127.96.0.3:0").await.unwrap();
        let (address, stop) = (taken.local_addr().unwrap(), CancellationToken::new());
        let until = stop.clone();
        let again = Duration::from_millis(5);
        let bound =
            tokio::spawn(async move { bind("listen.metrics", address, again, &until).await.is_some() });
        tokio::time::sleep(4 * again).await;
        assert!(!bound.is_finished());
        drop(taken);
        assert!(timeout(STEP, bound).await.unwrap().unwrap());

        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        stop.cancel();
        let bound = bind("listen.metrics", taken.local_addr().unwrap(), Duration::MAX, &stop);
        assert!(timeout(STEP, bound).await.unwrap().is_none());
    }
}
