use std::path::Path;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::*;

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short times, so that each test sees an end.
fn limits() -> HttpLimits {
    HttpLimits {
        connections_max: 3,
        head_timeout: Duration::from_millis(300),
        body_bytes_max: 1_000,
        bodies_bytes_max: 2_000,
        body_timeout: Duration::from_millis(300),
        stall_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_secs(5),
        finish_timeout: Duration::from_millis(300),
    }
}

struct Served {
    dir: tempfile::TempDir,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start(limits: HttpLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let api = Router::new()
            .route("/length", post(async |body: bytes::Bytes| body.len().to_string()))
            .route("/large", get(async || "x".repeat(8 << 20)));
        let stop = CancellationToken::new();
        let running = tokio::spawn(HttpServer::new("test", limits).serve_unix(listener, api, stop.clone()));
        Self { dir, stop, running }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("sock")
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("the server ends").unwrap();
    }
}

/// Writes `request` and reads to the end.
async fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn with_body(length: usize) -> String {
    format!("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))
}

/// What a client may begin and leave unfinished: each holds its slot for a bounded time, and others are served after it.
#[tokio::test]
async fn whatever_a_client_leaves_unfinished_others_are_served_and_the_listener_goes_on() {
    let served = Served::start(limits());
    let declared =
        |length: usize| format!("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx");
    for unfinished in [
        String::new(),
        "G".to_owned(),
        "GET /large HTTP/1.1\r\nHost: x\r\n".to_owned(),
        format!("GET /large HTTP/1.1\r\nX: {}", "x".repeat(100_000)),
        declared(900),
        "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_owned(),
        // Its answer is not read.
        "GET /large HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let mut held = Vec::new();
        for _ in 0..12 {
            let mut stream = UnixStream::connect(served.socket()).await.unwrap();
            let _ = timeout(Duration::from_millis(50), stream.write_all(unfinished.as_bytes())).await;
            held.push(stream);
        }
        let answer = timeout(PATIENCE, ask(&served.socket(), &with_body(7))).await;
        let shown: String = unfinished.chars().take(40).collect();
        let answer = answer.unwrap_or_else(|_| panic!("not served beside {shown:?}"));
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n7"), "{shown:?}: {answer}");
        drop(held);
    }
    served.end().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let body_timeout = Duration::from_secs(30);
    let served = Served::start(HttpLimits { body_timeout, request_timeout: PATIENCE, ..limits() });
    for (request, status) in [
        (with_body(0), "200"),
        (with_body(1_000), "200"),
        ("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n".to_owned(), "413"),
        ("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000\r\n\r\n".to_owned(), "413"),
        (
            format!(
                "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
                "x".repeat(1_001)
            ),
            "413",
        ),
    ] {
        let began = Instant::now();
        let answer = ask(&served.socket(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        assert!(began.elapsed() < body_timeout, "refused only after {:?}", began.elapsed());
    }
    served.end().await;
}

#[tokio::test]
async fn bodies_that_wait_for_memory_are_read_when_others_have_ended() {
    let served = Served::start(HttpLimits { body_timeout: Duration::from_secs(5), ..limits() });
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(served.socket()).await.unwrap();
        stream.write_all(with_body(1_000).split_at(500).0.as_bytes()).await.unwrap();
        unfinished.push(stream);
    }
    let socket = served.socket();
    let waiting = tokio::spawn(async move { ask(&socket, &with_body(1_000)).await });
    tokio::task::yield_now().await;
    drop(unfinished);
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    served.end().await;
}
