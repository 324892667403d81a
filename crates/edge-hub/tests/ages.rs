//! Sessions and messages expire by the clock of ages, whatever the wall clock says. In a process of its own, which has one such clock.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

#[allow(dead_code, reason = "other tests use the rest")]
mod idle_program;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_hub::age_clock;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use idle_program::Program;

const PATIENCE: Duration = Duration::from_secs(60);

/// Far behind the wall clock: where it is taken for it, everything has expired.
const BEGINS_AT_MS: u64 = 1_000_000;

/// Sets the clock of ages, as another run of the program would have left it.
fn set(age_ms: impl FnOnce(u64) -> u64) {
    let mut saved = serde_json::to_value(age_clock::saved()).unwrap();
    saved["ageMs"] = age_ms(saved["ageMs"].as_u64().unwrap()).into();
    age_clock::resume(Some(serde_json::from_value(saved).unwrap()));
}

fn pass(seconds: u64) {
    set(|age_ms| age_ms + seconds * 1_000);
}

/// A client of MQTT 5 whose session outlives it for ten hours.
struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr, id: &str, flags: u8) -> (Self, bool) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let expiry = 36_000_u32.to_be_bytes();
        let mut body =
            [&b"\0\x04MQTT\x05"[..], &[flags, 0, 0, 5, 0x11], &expiry, &[0, id.len() as u8]].concat();
        body.extend(id.as_bytes());
        stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).await.unwrap();
        let mut client = Self(stream);
        let (first, body) = client.packet().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        let is_present = body[0] == 1;
        (client, is_present)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next packet: its first byte and what is behind its length, which is short.
    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let (first, length) = (self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap());
            let mut body = vec![0; usize::from(length)];
            self.0.read_exact(&mut body).await.unwrap();
            (first, body)
        };
        timeout(PATIENCE, read).await.expect("a packet")
    }

    async fn leave(mut self) {
        self.send(b"\xe0\0").await;
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut Vec::new())).await.expect("closed");
    }
}

/// A message that expires in an hour.
async fn publish(address: SocketAddr) {
    let (mut publisher, _) = Client::connect(address, "publisher", 2).await;
    publisher.send(b"\x32\x0c\0\x01a\0\x01\x05\x02\0\0\x0e\x10x").await;
    assert_eq!(publisher.packet().await.0, 0x40, "PUBACK");
    publisher.leave().await;
}

#[tokio::test]
async fn sessions_and_messages_expire_by_the_clock_of_ages() {
    set(|_| BEGINS_AT_MS);
    let dir = tempfile::TempDir::new().unwrap();
    let sessions = Sessions::open(dir.path(), MqttServerSettings::default()).await.unwrap();
    let (server, stop) = (MqttServer::new(sessions, Arc::new(Program)), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(server.clone().serve_tcp(listener, stop.clone()));

    let (mut subscriber, _) = Client::connect(address, "subscriber", 2).await;
    subscriber.send(b"\x82\x07\0\x01\0\0\x01a\x01").await;
    assert_eq!(subscriber.packet().await.0, 0x90, "SUBACK");
    subscriber.leave().await;
    publish(address).await;
    pass(1_800);
    let (mut subscriber, is_present) = Client::connect(address, "subscriber", 0).await;
    assert!(is_present);
    let (first, body) = subscriber.packet().await;
    // Less what the test itself took.
    let left = u32::from_be_bytes(body[7..11].try_into().unwrap());
    assert_eq!((first, &body[5..7], &body[11..]), (0x32, &b"\x05\x02"[..], &b"x"[..]));
    assert!((1_200..=1_800).contains(&left), "{left} s; half of its time is left");
    subscriber.send(&[0x40, 2, body[3], body[4]]).await;
    subscriber.leave().await;

    publish(address).await;
    pass(3_601);
    let (mut subscriber, is_present) = Client::connect(address, "subscriber", 0).await;
    assert!(is_present);
    subscriber.send(b"\xc0\0").await;
    assert_eq!(subscriber.packet().await.0, 0xd0, "PINGRESP, and no message before it");
    subscriber.leave().await;

    pass(36_001);
    let ended = async {
        while server.session_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the sessions end");
    assert!(!Client::connect(address, "subscriber", 0).await.1);
    stop.cancel();
    served.await.unwrap();
    server.close().await;
}
