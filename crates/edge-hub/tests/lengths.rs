//! Headers that claim extreme lengths: each is refused or waited for, and costs no more memory than what was really sent. In a process
//! of its own, since its memory is measured.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

mod idle_program;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use edge_hub::http_server::{HttpLimits, HttpServer};
use edge_hub::mqtt_server::MqttServer;
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use mqtt::websocket::WebSocket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use idle_program::{Program, memory_bytes};

/// What all connections of a test together may add: buffers of what they sent, and pages that others need meanwhile.
const GROWTH_MAX: usize = 32 << 20;
/// Connections that claim and wait at once.
const WAITING: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest remaining length of MQTT, 268,435,455.
const LENGTH_MAX: &[u8] = b"\xff\xff\xff\x7f";

/// A CONNECT of MQTT 3.1.1 (level 4) or 5.
fn connect(level: u8) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    body[6] = level;
    body.extend(if level == 5 { &b"\0\0\x02d1"[..] } else { b"\0\x02d1" });
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// Packets with lengths that they do not have, each behind what must come before it.
fn mqtt_claims() -> Vec<(String, Vec<u8>)> {
    let mut claims = Vec::new();
    for level in [4, 5] {
        for first in 0..=0xff_u8 {
            let before = if first >> 4 == 1 { Vec::new() } else { connect(level) };
            for (length, of) in [
                (LENGTH_MAX, "the largest length"),
                (b"\xff\xff\xff\xff\x7f", "a length of five bytes"),
                (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a length of nine bytes"),
            ] {
                claims.push((format!("{first:#x} v{level}, {of}"), [&before, &[first][..], length].concat()));
            }
        }
        let properties: &[u8] = if level == 5 { b"\xff\xff\xff\x7f" } else { b"" };
        for (packet, of) in [
            (&b"\x30\x0a\xff\xff"[..], "PUBLISH with a topic of 65,535 bytes in 10"),
            (b"\x82\x0a\0\x01\xff\xff", "SUBSCRIBE with a filter of 65,535 bytes in 10"),
            (b"\xa2\x0a\0\x01\xff\xff", "UNSUBSCRIBE with a filter of 65,535 bytes in 10"),
        ] {
            claims.push((format!("{of}, v{level}"), [&connect(level), packet, &[0; 8]].concat()));
        }
        if level == 5 {
            let publish = [b"\x30\x0a\0\x01a", properties, &[0; 3]].concat();
            claims.push((
                "PUBLISH with the longest properties in 10 bytes".into(),
                [connect(5), publish].concat(),
            ));
            let text = [b"\x30\x0a\0\x01a\x06\x03\xff\xff", &[0; 2][..]].concat();
            claims.push((
                "PUBLISH with a content type of 65,535 bytes in 6".into(),
                [connect(5), text].concat(),
            ));
        }
    }
    claims
}

/// Sends and reads until the server closes.
fn until_closed(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may close before it has all.
    let _ = stream.write_all(&[bytes, &[0; 4096]].concat());
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("not closed"),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lengths_that_packets_claim_are_refused_or_waited_for_without_memory() {
    let dir = tempfile::TempDir::new().unwrap();
    let settings = MqttServerSettings { address_connects_per_second: 0, ..MqttServerSettings::default() };
    let bytes_max = settings.packet_bytes_max;
    let sessions = Sessions::open(dir.path(), settings).await.unwrap();
    let (server, stop) = (MqttServer::new(sessions, Arc::new(Program)), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(server.clone().serve_tcp(listener, stop.clone()));
    let tried = tokio::task::spawn_blocking(move || {
        let before = memory_bytes();
        for (of, bytes) in mqtt_claims() {
            let closed = std::panic::catch_unwind(|| until_closed(address, &bytes));
            assert!(closed.is_ok(), "{of}");
        }
        // As long as the longest that is taken, and never sent.
        let mut length = bytes_max;
        let mut header = vec![0x30];
        while length > 0 {
            header.push((length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 });
            length >>= 7;
        }
        let waiting: Vec<TcpStream> = (0..WAITING)
            .map(|n| {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut connect = connect(4);
                let name = format!("d{n:03}");
                connect[1] += 2;
                connect[13] = 4;
                connect.truncate(14);
                connect.extend(name.as_bytes());
                stream.write_all(&[&connect[..], &header, b"\0\x01a", &[0; 1000]].concat()).unwrap();
                let mut connack = [0; 4];
                stream.read_exact(&mut connack).unwrap();
                stream
            })
            .collect();
        let grown = memory_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes");
        drop(waiting);
    });
    tried.await.unwrap();
    stop.cancel();
    served.await.unwrap();
    server.close().await;
}

/// A frame's header: 0x82 is a whole binary message.
fn frame(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

#[tokio::test]
async fn a_websocket_frame_of_any_length_costs_what_it_sends() {
    let before = memory_bytes();
    let mut waiting = Vec::new();
    for first in [0x82_u8, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8a] {
        for length in [1 << 63, u64::MAX, (1 << 63) - 1, 1 << 62, 1 << 32, 126, 0xffff] {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let mut websocket = WebSocket::new(near, Bytes::new());
            far.write_all(&frame(first, length)).await.unwrap();
            far.write_all(&[0; 10_000]).await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = websocket.read(&mut buffer);
            // A frame that goes on with a message that never began, a control frame that is too long, and one beyond 2^63 - 1.
            let is_wrong = length >> 63 == 1 || first & 0x0f != 2;
            if is_wrong {
                let mut answer = [0; 4];
                let (read, ()) = tokio::join!(tokio::time::timeout(PATIENCE, read), async {
                    far.read_exact(&mut answer).await.unwrap();
                    // It waits for the other side to close.
                    drop(far);
                });
                let read = read.expect("it ends");
                assert!(read.is_err(), "{first:#x} {length}");
                assert_eq!(answer, [0x88, 2, 3, 0xea], "{first:#x} {length}: a close frame with 1002");
            } else {
                assert_ne!(read.await.unwrap(), 0);
                waiting.push((websocket, far));
            }
        }
    }
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
}

/// Sends a request and reads the answer.
fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(!matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "not closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_of_any_claimed_length_is_refused_without_memory() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let limits = HttpLimits { body_timeout: Duration::from_secs(1), ..HttpLimits::default() };
    let api = Router::new().route("/length", post(async |body: Bytes| body.len().to_string()));
    let (listener, stop) = (UnixListener::bind(&socket).unwrap(), CancellationToken::new());
    let served = tokio::spawn(HttpServer::new("test", limits).serve_unix(listener, api, stop.clone()));
    let tried = tokio::task::spawn_blocking(move || {
        let before = memory_bytes();
        let request =
            |head: &str, body: &str| format!("POST /length HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}");
        for length in [
            "1048577",
            "4294967296",
            "9007199254740992",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999999999999999999",
            "-1",
            "+7",
            "0x10",
            "1e9",
            "NaN",
            "7, 8",
            "",
        ] {
            let answer = ask(&socket, &request(&format!("Content-Length: {length}"), "xxxxxxx"));
            // 431: a length that the HTTP library cannot count up to.
            let is_refused =
                ["400", "413", "431"].iter().any(|code| answer.starts_with(&format!("HTTP/1.1 {code}")));
            assert!(is_refused, "Content-Length: {length}: {answer}");
        }
        for chunk in [
            "100001",
            "ffffffff",
            "7fffffffffffffff",
            "ffffffffffffffff",
            "10000000000000000",
            "ffffffffffffffffffffffffffffffff",
            "-1",
            "0x10",
            "g",
            "",
        ] {
            let body = format!("{chunk}\r\n{}", "x".repeat(1000));
            let answer = ask(&socket, &request("Transfer-Encoding: chunked", &body));
            // One that could be is waited for until the body's time is over.
            assert!(!answer.starts_with("HTTP/1.1 200"), "chunk {chunk}: {answer}");
        }
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(1 << 20));
        assert!(
            !ask(&socket, &request("Transfer-Encoding: chunked", &extension)).starts_with("HTTP/1.1 200")
        );
        let twice = request("Content-Length: 1\r\nContent-Length: 2", "xx");
        assert!(ask(&socket, &twice).starts_with("HTTP/1.1 400"));
        let both = request("Content-Length: 1\r\nTransfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n");
        assert!(!ask(&socket, &both).starts_with("HTTP/1.1 500"));
        assert!(ask(&socket, &request("Content-Length: 7", "xxxxxxx")).ends_with("\r\n\r\n7"), "it goes on");
        let grown = memory_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes");
    });
    tried.await.unwrap();
    stop.cancel();
    served.await.unwrap();
}
