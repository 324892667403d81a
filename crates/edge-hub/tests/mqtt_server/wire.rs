//! The bytes themselves: malformed packets, silence, and whatever else comes in through an open port.

use std::net::SocketAddr;
use std::time::Duration;

use edge_hub::settings::MqttServerSettings;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::octets::{CLEAN, Octets, packet, text};
use crate::site::{PATIENCE, Site};

/// Client id `d1`, a clean session, this keep-alive, user name `u`.
pub(crate) fn connect(keep_alive: u8) -> Vec<u8> {
    let mut packet = b"\x10\x11\0\x04MQTT\x04\x82\0\0\0\x02d1\0\x01u".to_vec();
    packet[11] = keep_alive;
    packet
}

pub(crate) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// Sends bytes and gives everything that comes back until the server stops.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server did not close").unwrap();
    answer
}

#[tokio::test]
async fn what_is_no_mqtt_closes_its_connection_in_order() {
    let site = Site::open(MqttServerSettings::default()).await;
    for (bytes, answer, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], &b""[..], "HTTP"),
        (b"\xc0\0", b"", "PINGREQ before CONNECT"),
        (
            b"\x10\x0e\0\x04MQTT\x06\x02\0\0\0\0\x02d1",
            b"\x20\x03\0\x84\0",
            "a protocol level that does not exist",
        ),
        (b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0", b"\x20\x02\0\x02", "an empty client id"),
        (b"\x10\x0c\0\x04MQTT\x04\x03\0\0\0\0", b"", "a reserved CONNECT flag"),
        (b"\x10\xff\xff\x7f", b"", "a CONNECT larger than allowed"),
    ] {
        assert_eq!(exchange(site.address, bytes).await, answer, "{why}");
    }
    for (bytes, why) in [
        (&b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02d1"[..], "a second CONNECT"),
        (b"\x20\x02\0\0", "a CONNACK"),
        (b"\x90\x03\0\x01\0", "a SUBACK"),
        (b"\x00\x00", "packet type 0"),
        (b"\xf0\x00", "packet type 15"),
        (b"\x36\x05\0\x01a\0\x01", "QoS 3"),
        (b"\x32\x05\0\x01a\0\0", "packet id 0"),
        (b"\x30\x03\0\x01+", "a wildcard in a topic"),
        (b"\x30\x02\0\0", "an empty topic"),
        (b"\x30\x03\0\x01\0", "NUL in a topic"),
        (b"\x80\x06\0\x01\0\x01a\0", "SUBSCRIBE without its reserved flag"),
        (b"\x82\x02\0\x01", "SUBSCRIBE without a filter"),
        (b"\xa2\x02\0\x01", "UNSUBSCRIBE without a filter"),
        (b"\x30\xff\xff\xff\xff\x7f", "a length of five bytes"),
        (b"\x30\xff\xff\xff\x7f", "a packet larger than allowed"),
        (b"\xe0\x00", "DISCONNECT, which is right"),
    ] {
        let sent = [&connect(0)[..], bytes].concat();
        assert_eq!(exchange(site.address, &sent).await, CONNACK, "{why}");
    }
    site.close().await;
}

#[tokio::test]
async fn a_bad_filter_is_refused_and_the_good_one_beside_it_is_not() {
    let site = Site::open(MqttServerSettings::default()).await;
    let subscribe = b"\x82\x0b\0\x07\0\x02a#\0\0\x01b\x01\xe0\0";
    let answer = exchange(site.address, &[&connect(0)[..], subscribe].concat()).await;
    assert_eq!(answer, [&CONNACK[..], b"\x90\x04\0\x07\x80\x01"].concat());
    site.close().await;
}

#[tokio::test]
async fn packets_in_pieces_and_many_at_once_are_the_same() {
    let site = Site::open(MqttServerSettings::default()).await;
    let bytes = [&connect(0)[..], b"\x32\x06\0\x01a\0\x01x\x32\x06\0\x01a\0\x02y\xc0\0\xe0\0"].concat();
    let expected = [&CONNACK[..], b"\x40\x02\0\x01\x40\x02\0\x02\xd0\0"].concat();
    assert_eq!(exchange(site.address, &bytes).await, expected);
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, expected);
    site.close().await;
}

#[tokio::test]
async fn the_silent_are_let_go_and_the_server_has_a_bound() {
    let connect_timeout = Duration::from_secs(1);
    let site = Site::open(MqttServerSettings { connect_timeout, ..MqttServerSettings::default() }).await;
    assert_eq!(exchange(site.address, b"").await, b"", "no CONNECT");
    assert_eq!(exchange(site.address, &connect(0)[..9]).await, b"", "half a CONNECT");
    site.close().await;
    let settings =
        MqttServerSettings { connect_timeout: PATIENCE, connections_max: 2, ..MqttServerSettings::default() };
    let mut site = Site::open(settings).await;
    assert_eq!(exchange(site.address, &connect(1)).await, CONNACK, "no ping");
    site.until_seen(crate::site::Seen::Disconnected("d1".into())).await;
    let mut held = Vec::new();
    for client_id in ["d1", "d2"] {
        held.push(site.mqtt(client_id).await);
    }
    let refused = exchange(site.address, b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02d3").await;
    assert_eq!(refused, b"\x20\x02\0\x03", "a third connection");
    assert_eq!(site.server.counts().connections_refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    site.close().await;
}

#[tokio::test]
async fn what_came_while_the_server_had_no_turn_is_no_silence() {
    // One of them would be lucky; and the last one is there before the first one is silent for too long.
    const CLIENTS: usize = 64;
    const KEEP_ALIVE: u8 = 4;
    let site = Site::open(MqttServerSettings::default()).await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = Octets::open(&site).await;
        let connect = packet(0x10, &[&text("MQTT"), &[4, CLEAN, 0, KEEP_ALIVE], &text(&format!("d{n}"))]);
        client.ask(&connect, &CONNACK).await;
        clients.push(client);
    }
    // The clients ping, and the machine stands still before the server reads it.
    clients.iter().for_each(|client| client.send_now(b"\xc0\0"));
    std::thread::sleep(Duration::from_millis(u64::from(KEEP_ALIVE) * 1_500 + 100));
    for client in &mut clients {
        client.expect(b"\xd0\0").await;
    }
    drop(clients);
    site.close().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let moment = Duration::from_millis(100);
    let settings =
        MqttServerSettings { write_timeout: moment, finish_timeout: moment, ..MqttServerSettings::default() };
    let mut site = Site::open(settings).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(&connect(0)).await.unwrap();
    stream.write_all(b"\x82\x06\0\x01\0\x01a\0").await.unwrap();
    let subscribed = edge_core::dialect::client::Subscribe::Free;
    site.until_seen(crate::site::Seen::Subscribed("d1".into(), subscribed)).await;
    let publisher = site.mqtt("publisher").await;
    let publishing = tokio::spawn(async move {
        let client = publisher.client.clone();
        let driver = tokio::spawn(publisher.closed());
        while client.publish("a", rumqttc::QoS::AtMostOnce, false, "x".repeat(8_000)).await.is_ok() {}
        driver.await.unwrap();
    });
    site.until_seen(crate::site::Seen::Disconnected("d1".into())).await;
    publishing.abort();
    site.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_server_survives_any_bytes(
        is_connected in any::<bool>(),
        packets in proptest::collection::vec((0u8..16, 0u8..16, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = if is_connected { connect(0) } else { Vec::new() };
        for (kind, flags, body) in packets {
            bytes.extend([kind << 4 | flags, u8::try_from(body.len()).unwrap()]);
            bytes.extend(body);
        }
        bytes.extend(rest);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let site = Site::open(MqttServerSettings::default()).await;
            let mut stream = TcpStream::connect(site.address).await.unwrap();
            // The server may close before it has everything.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("the server hangs");
            let mut other = site.mqtt("d2").await;
            other.publish("devices/d2/messages/events/", "x").await;
            other.acknowledged().await;
            drop((stream, other));
            site.close().await;
        });
    }
}
