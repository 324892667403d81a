use std::path::PathBuf;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::*;

/// Long enough that a test never waits for it, except where it means to.
const PATIENT: Limits = Limits { timeout: Duration::from_secs(60), body_bytes_max: 1_000 };
const GET: Request<'_> = Request { method: "GET", path: "/x?y=1", json: None };

/// A server of one connection: reads the request's head, writes the parts of its answer, then closes the connection or keeps it open.
struct Served {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    request: JoinHandle<String>,
}

impl Served {
    fn start(answer: Vec<Vec<u8>>, is_closed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            for part in answer {
                // The client may have given up.
                let _ = stream.write_all(&part).await;
                tokio::task::yield_now().await;
            }
            if !is_closed {
                // Until the client closes the connection.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            String::from_utf8(request).unwrap()
        });
        Self { _dir: dir, socket, request }
    }
}

async fn answer(served: &Served, limits: Limits) -> Result<(u16, Bytes), RequestError> {
    let response = send(&served.socket, GET, limits).await?;
    let status = response.status();
    Ok((status, response.body().await?))
}

#[tokio::test]
async fn a_request_is_sent_with_its_method_path_and_json_and_its_answer_is_returned() {
    let served = Served::start(vec![b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}".to_vec()], false);
    let request = Request { method: "POST", path: "/a/b", json: Some("[1]") };
    let response = send(&served.socket, request, PATIENT).await.unwrap();
    assert_eq!((response.status(), response.is_success()), (201, true));
    assert_eq!(response.body().await.unwrap(), "{}");
    let sent = served.request.await.unwrap().to_lowercase();
    assert!(sent.starts_with("post /a/b http/1.1\r\n"), "{sent}");
    for header in ["host: localhost", "content-type: application/json", "content-length: 3"] {
        assert!(sent.contains(header), "{header} in {sent}");
    }
}

#[tokio::test]
async fn a_status_of_failure_is_an_answer_with_its_body() {
    let served = Served::start(vec![b"HTTP/1.1 404 x\r\nContent-Length: 3\r\n\r\nabc".to_vec()], false);
    assert_eq!(answer(&served, PATIENT).await.unwrap(), (404, Bytes::from("abc")));
}

#[tokio::test]
async fn a_server_that_stops_at_any_point_of_its_answer_costs_the_timeout_and_no_more() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789";
    for sent in [0, 4, 20, whole.len() - 1] {
        let served = Served::start(vec![whole[..sent].to_vec()], false);
        let limits = Limits { timeout: Duration::from_millis(200), ..PATIENT };
        let error =
            tokio::time::timeout(PATIENT.timeout, answer(&served, limits)).await.unwrap().unwrap_err();
        assert!(matches!(error, RequestError::Timeout(_)), "{sent}: {error}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_within_the_answer_is_an_error_at_once() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789";
    for sent in [0, 4, 20, whole.len() - 1] {
        let served = Served::start(vec![whole[..sent].to_vec()], true);
        let error = answer(&served, PATIENT).await.unwrap_err();
        assert!(matches!(error, RequestError::Http(_)), "{sent}: {error}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_kept_whether_its_length_is_announced_or_not() {
    let long = vec![b'x'; PATIENT.body_bytes_max + 1];
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len()).into_bytes();
    let until_closed = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    for head in [announced, until_closed] {
        let served = Served::start(vec![head.clone(), long.clone()], true);
        let error = answer(&served, PATIENT).await.unwrap_err();
        assert!(matches!(error, RequestError::TooLong(1_000)), "{error}");
        let fits = Served::start(vec![until_closed_of(&head), long[1..].to_vec()], true);
        assert_eq!(answer(&fits, PATIENT).await.unwrap().1.len(), PATIENT.body_bytes_max);
    }
}

/// The same head without a length, so that the body ends with the connection.
fn until_closed_of(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(head.to_vec()).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("Content-Length"))
        .map(|line| format!("{line}\r\n"))
        .collect::<String>()
        .into_bytes()
}

#[tokio::test]
async fn what_is_no_http_and_a_socket_that_is_not_there_are_distinguished() {
    let served = Served::start(vec![b"SSH-2.0-x\r\n\r\n".to_vec()], true);
    assert!(matches!(answer(&served, PATIENT).await, Err(RequestError::Http(_))));
    let missing = served.socket.with_extension("missing");
    let error = send(&missing, GET, PATIENT).await.err().unwrap();
    assert!(matches!(error, RequestError::Connect { .. }), "{error}");
    let invalid = Request { path: "a b", ..GET };
    let served = Served::start(Vec::new(), false);
    let error = send(&served.socket, invalid, PATIENT).await.err().unwrap();
    assert!(matches!(error, RequestError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn parts_of_a_body_are_returned_as_they_come_and_without_a_limit_of_time() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let served = Served::start(vec![head, b"3\r\nabc\r\n".to_vec(), b"2\r\nde\r\n0\r\n\r\n".to_vec()], false);
    let limits = Limits { timeout: Duration::from_secs(20), body_bytes_max: 1 };
    let mut response = send(&served.socket, GET, limits).await.unwrap();
    let mut all = Vec::new();
    while let Some(part) = response.next_part().await.unwrap() {
        all.extend_from_slice(&part);
    }
    assert_eq!(all, b"abcde");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However the answer is cut into writes, and whether the server closes the connection after it or not.
    #[test]
    fn an_answer_in_any_pieces_is_read_whole(
        body in proptest::collection::vec(any::<u8>(), 0..900),
        cuts in proptest::collection::vec(1..200_usize, 0..8),
        is_closed in any::<bool>(),
    ) {
        let mut whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        whole.extend(&body);
        let mut parts = Vec::new();
        for cut in cuts {
            let rest = whole.split_off(cut.min(whole.len()));
            parts.push(std::mem::replace(&mut whole, rest));
        }
        parts.push(whole);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answered = runtime.block_on(async {
            let served = Served::start(parts, is_closed);
            answer(&served, PATIENT).await.unwrap()
        });
        prop_assert_eq!(answered, (200, Bytes::from(body)));
    }
}
