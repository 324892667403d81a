//! A client that is nothing but bytes: what is sent and what comes back is written out, and no codec stands between.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::{PATIENCE, Site};

/// A packet of this first byte and these parts.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            return [bytes, body].concat();
        }
    }
}

/// A text behind its length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// A CONNECT of 3.1.1 without keep-alive and login: these flags, and what follows them behind the client id.
pub(crate) fn connect_v4(client_id: &str, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[4, flags, 0, 0], &text(client_id), rest])
}

/// A CONNECT of 5 without keep-alive and login: these flags and properties, and what follows the client id.
pub(crate) fn connect_v5(client_id: &str, flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).unwrap();
    packet(0x10, &[&text("MQTT"), &[5, flags, 0, 0, length], properties, &text(client_id), rest])
}

/// A PUBLISH of 3.1.1; the packet id only with a QoS.
pub(crate) fn publish_v4(first: u8, topic: &str, id: u16, payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = if first & 0b0110 == 0 { &[][..] } else { &id[..] };
    packet(first, &[&text(topic), id, payload.as_bytes()])
}

/// A PUBLISH of 5.
pub(crate) fn publish_v5(first: u8, topic: &str, id: u16, properties: &[u8], payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = if first & 0b0110 == 0 { &[][..] } else { &id[..] };
    let length = [u8::try_from(properties.len()).unwrap()];
    packet(first, &[&text(topic), id, &length, properties, payload.as_bytes()])
}

pub(crate) const CLEAN: u8 = 0x02;
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

pub(crate) struct Octets(TcpStream);

impl Octets {
    /// A connection on which nothing was said yet.
    pub(crate) async fn open(site: &Site) -> Self {
        let stream = TcpStream::connect(site.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A client of 3.1.1 that is in, and whether its session was there.
    pub(crate) async fn v4(site: &Site, client_id: &str, flags: u8) -> (Self, bool) {
        let mut raw = Self::open(site).await;
        raw.send(&connect_v4(client_id, flags, b"")).await;
        match raw.packet().await[..] {
            [0x20, 2, session_present, 0] => (raw, session_present == 1),
            ref other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// A client of 3.1.1 with a clean session.
    pub(crate) async fn clean(site: &Site, client_id: &str) -> Self {
        Self::v4(site, client_id, CLEAN).await.0
    }

    /// A client of 5 that is in, and the CONNACK.
    pub(crate) async fn v5(site: &Site, client_id: &str, flags: u8, properties: &[u8]) -> (Self, Vec<u8>) {
        let mut raw = Self::open(site).await;
        raw.send(&connect_v5(client_id, flags, properties, b"")).await;
        let connack = raw.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?} instead of CONNACK");
        (raw, connack)
    }

    /// A client of 5 with a clean start, the session of which ends with the connection.
    pub(crate) async fn clean_v5(site: &Site, client_id: &str) -> Self {
        Self::v5(site, client_id, CLEAN, b"").await.0
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Sends at once, and nothing else has a turn before that.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        assert_eq!(self.0.try_write(bytes).unwrap(), bytes.len());
    }

    /// The next packet, whole.
    pub(crate) async fn packet(&mut self) -> Vec<u8> {
        let reading = async {
            let mut bytes = vec![self.0.read_u8().await.unwrap()];
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await.unwrap();
                bytes.push(byte);
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let start = bytes.len();
            bytes.resize(start + length, 0);
            self.0.read_exact(&mut bytes[start..]).await.unwrap();
            bytes
        };
        timeout(PATIENCE, reading).await.expect("no packet came")
    }

    /// The next packet is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let packet = self.packet().await;
            assert_eq!(packet, expected, "at {at}: {packet:02x?} instead of {expected:02x?}");
        }
    }

    /// Sends a packet and expects its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, bytes: &[u8], answer: &[u8]) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            self.send(bytes).await;
            let packet = self.packet().await;
            assert_eq!(packet, answer, "at {at}: {packet:02x?} instead of {answer:02x?}");
        }
    }

    /// Nothing waits for this client: of two answers to pings, the second one comes behind all that was there before.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            for _ in 0..2 {
                self.send(&[0xc0, 0]).await;
                let packet = self.packet().await;
                assert_eq!(packet, [0xd0, 0], "at {at}: {packet:02x?} though nothing should come");
            }
        }
    }

    /// What still comes until the server stops.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the server did not close").unwrap();
        rest
    }

    /// Nothing more comes, and the server stops.
    #[track_caller]
    pub(crate) fn closed(self) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let rest = self.rest().await;
            assert!(rest.is_empty(), "at {at}: {rest:02x?} before the server closed");
        }
    }

    /// Breaks the connection without a word, and waits until the server knows.
    pub(crate) async fn lost(mut self) {
        self.0.shutdown().await.unwrap();
        self.closed().await;
    }

    /// Says DISCONNECT and waits until the server has closed.
    pub(crate) async fn leave(mut self) {
        self.send(&DISCONNECT).await;
        self.closed().await;
    }
}
