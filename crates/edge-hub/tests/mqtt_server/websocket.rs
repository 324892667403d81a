//! MQTT over WebSocket over TLS, and the program's own API beside it, through the bytes on the wire.

use std::time::Duration;

use axum::routing::post;
use axum::{Extension, Router};
use edge_hub::https::Caller;
use edge_hub::settings::MqttServerSettings;
use edge_tls::config::server_config;
use edge_tls::issue::{Authority, issue_ca};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::site::{PATIENCE, Seen, Site};
use crate::tls::{answers, client, handshake, issue};
use crate::wire::{CONNACK, connect};

const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
const CLOSE: OpCode = OpCode::Control(Control::Close);
const PINGREQ: &[u8] = b"\xc0\0";
const PINGRESP: &[u8] = b"\xd0\0";

async fn open(settings: MqttServerSettings) -> (Site, Authority) {
    let ca = issue_ca("site").unwrap();
    let issued = issue(&ca);
    let config = server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let api = Router::new().route(
        "/who",
        post(|Extension(caller): Extension<Caller>, body: String| async move {
            format!("{} {} {body}", caller.peer.ip(), caller.client_cert.is_some())
        }),
    );
    let site =
        Site::serve(settings, |server, listener, stop| server.serve_https(listener, config, api, stop)).await;
    (site, ca)
}

async fn stream(site: &Site, ca: &Authority) -> TlsStream<TcpStream> {
    handshake(site, client(ca, &TLS13, None)).await.unwrap()
}

/// Asks for an upgrade and gives the head of the answer.
async fn upgrade(stream: &mut TlsStream<TcpStream>, path: &str, protocol: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:443\r\nOrigin: https://localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-Websocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("no answer").unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn websocket(site: &Site, ca: &Authority, path: &str) -> TlsStream<TcpStream> {
    let mut stream = stream(site, ca).await;
    let head = upgrade(&mut stream, path, "mqtt").await;
    // RFC 6455 section 4.2.2; strict clients look at it.
    assert!(head.starts_with("http/1.1 101") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: mqtt\r\n") && !head.contains("extensions"), "{head}");
    stream
}

fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[tokio::test]
async fn packets_need_not_align_with_frames_and_pings_and_the_close_are_answered() {
    let (mut site, ca) = open(MqttServerSettings::default()).await;
    for path in ["/mqtt", "/$iothub/websocket", "/%24iothub/websocket?iothub-no-client-cert=true"] {
        let mut stream = websocket(&site, &ca, path).await;
        let connect = connect(0);
        let (first, rest) = connect.split_at(7);
        // One packet in three frames of one message with a ping between them, and two packets in one frame.
        stream.write_all(&frame(BINARY, false, first)).await.unwrap();
        stream.write_all(&frame(OpCode::Control(Control::Ping), true, b"are you there")).await.unwrap();
        stream.write_all(&frame(CONTINUATION, false, b"")).await.unwrap();
        stream.write_all(&frame(CONTINUATION, true, rest)).await.unwrap();
        answers(&mut stream, b"\x8a\x0dare you there").await;
        answers(&mut stream, &[&[0x82, 4][..], &CONNACK].concat()).await;
        assert_eq!(site.sees().await, Seen::Connected("d1".into()));
        stream.write_all(&frame(BINARY, true, &[PINGREQ, PINGREQ].concat())).await.unwrap();
        answers(&mut stream, &[&[0x82, 4][..], PINGRESP, PINGRESP].concat()).await;
        // A byte at a time.
        for byte in frame(BINARY, true, PINGREQ) {
            stream.write_all(&[byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        answers(&mut stream, &[&[0x82, 2][..], PINGRESP].concat()).await;
        stream.write_all(&frame(CLOSE, true, &1000_u16.to_be_bytes())).await.unwrap();
        answers(&mut stream, &[0x88, 2, 3, 0xe8]).await;
        assert_eq!(site.sees().await, Seen::Disconnected("d1".into()));
    }
    site.close().await;
}

#[tokio::test]
async fn a_large_message_goes_in_both_directions() {
    let (site, ca) = open(MqttServerSettings::default()).await;
    let mut stream = websocket(&site, &ca, "/mqtt").await;
    stream.write_all(&frame(BINARY, true, &connect(0))).await.unwrap();
    answers(&mut stream, &[&[0x82, 4][..], &CONNACK].concat()).await;
    stream.write_all(&frame(BINARY, true, b"\x82\x06\0\x01\0\x01a\0")).await.unwrap();
    answers(&mut stream, b"\x82\x05\x90\x03\0\x01\0").await;
    // A PUBLISH of 200,003 bytes to the topic that it subscribed to.
    let mut publish = b"\x30\xc3\x9a\x0c\0\x01a".to_vec();
    publish.resize(publish.len() + 200_000, 7);
    stream.write_all(&frame(BINARY, true, &publish)).await.unwrap();
    let mut received = Vec::new();
    while received.len() < publish.len() {
        let mut head = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut head[..2])).await.expect("nothing came").unwrap();
        let length = match head[1] {
            126 => usize::from(stream.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        assert_eq!(head[0], 0x82);
        let begin = received.len();
        received.resize(begin + length, 0);
        timeout(PATIENCE, stream.read_exact(&mut received[begin..])).await.expect("cut").unwrap();
    }
    assert!(received == publish);
    drop(stream);
    site.close().await;
}

#[tokio::test]
async fn who_breaks_the_websocket_protocol_gets_the_code_and_is_let_go() {
    let (site, ca) = open(MqttServerSettings::default()).await;
    let text = OpCode::Data(Data::Text);
    let connect = connect(0);
    let connected = frame(BINARY, true, &connect);
    for (bytes, code, why) in [
        (frame(text, true, &connect), 1003_u16, "a text frame"),
        ([&[0x82, 19][..], &connect].concat(), 1002, "an unmasked frame"),
        ([&[0xc2], &connected[1..]].concat(), 1002, "a compressed frame"),
        (frame(CONTINUATION, true, b""), 1002, "a continuation of nothing"),
        ([frame(BINARY, false, b"\x10"), connected.clone()].concat(), 1002, "a message within another"),
        (frame(OpCode::Control(Control::Ping), false, b""), 1002, "a ping in parts"),
        (frame(OpCode::Control(Control::Ping), true, &[0; 126]), 1002, "a ping too long"),
        ([&[0x83], &connected[1..]].concat(), 1002, "an unknown kind of frame"),
    ] {
        let mut stream = websocket(&site, &ca, "/mqtt").await;
        stream.write_all(&bytes).await.unwrap();
        // What the server does not read any more must not turn its answer into a reset.
        stream.write_all(&frame(BINARY, true, &[0; 20_000])).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("not closed").unwrap();
        assert_eq!(answer, [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{why}");
    }
    site.close().await;
}

#[tokio::test]
async fn other_sub_protocols_and_what_is_no_upgrade_get_400() {
    let (site, ca) = open(MqttServerSettings::default()).await;
    let mut amqp = stream(&site, &ca).await;
    let head = upgrade(&mut amqp, "/$iothub/websocket", "AMQPWSB10").await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let mut plain = stream(&site, &ca).await;
    plain.write_all(b"GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, plain.read_to_string(&mut answer)).await.expect("not closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("{\"message\":"), "{answer}");
    site.close().await;
}

#[tokio::test]
async fn the_programs_api_learns_its_caller_and_a_connection_carries_one_request() {
    let (site, ca) = open(MqttServerSettings::default()).await;
    let mut stream = stream(&site, &ca).await;
    let request = "POST /who HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    stream.write_all(request.repeat(2).as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("not closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n127.0.0.1 false hi"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    site.close().await;
}

#[tokio::test]
async fn a_client_that_stops_at_any_step_holds_its_place_for_the_connect_timeout_only_and_nobody_waits_for_it()
 {
    let settings = MqttServerSettings {
        connections_max: 4,
        connect_timeout: Duration::from_secs(10),
        ..MqttServerSettings::default()
    };
    let (site, ca) = open(settings).await;
    let _no_handshake = TcpStream::connect(site.address).await.unwrap();
    let mut no_head = stream(&site, &ca).await;
    no_head.write_all(b"GET /mqtt HTT").await.unwrap();
    let mut no_connect = websocket(&site, &ca, "/mqtt").await;
    // The fourth is served while the three are silent.
    drop(websocket(&site, &ca, "/mqtt").await);
    let mut rest = Vec::new();
    timeout(PATIENCE, no_head.read_to_end(&mut rest)).await.expect("not closed").ok();
    rest.clear();
    timeout(PATIENCE, no_connect.read_to_end(&mut rest)).await.expect("not closed").ok();
    assert_eq!(rest, [0x88, 2, 3, 0xe8], "closed in order");
    for _ in 0..8 {
        let mut one = websocket(&site, &ca, "/mqtt").await;
        one.write_all(&frame(CLOSE, true, b"")).await.unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, one.read_to_end(&mut rest)).await.expect("not closed").unwrap();
    }
    site.close().await;
}
