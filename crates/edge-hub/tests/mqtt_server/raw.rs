//! A client that says what it is told to, byte by byte, and acknowledges nothing by itself.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::PATIENCE;

pub(crate) struct Raw {
    stream: TcpStream,
    pub(crate) was_present: bool,
}

/// A packet of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Publish { id: u16, qos: u8, dup: bool, payload: String },
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    SubAck(Vec<u8>),
    Other(u8),
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr, client_id: &str, is_clean: bool) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let flags = if is_clean { 0x82 } else { 0x80 };
        let mut body = b"\0\x04MQTT\x04".to_vec();
        body.extend([flags, 0, 0, 0, client_id.len() as u8]);
        body.extend(client_id.as_bytes());
        body.extend(b"\0\x01u");
        stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).await.unwrap();
        let mut connack = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut connack)).await.expect("no CONNACK").unwrap();
        assert_eq!([connack[0], connack[1], connack[3]], [0x20, 2, 0]);
        Self { stream, was_present: connack[2] == 1 }
    }

    pub(crate) async fn publish(&mut self, qos: u8, id: u16, dup: bool, topic: &str, payload: &str) {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        body.extend(id.to_be_bytes());
        body.extend(payload.as_bytes());
        let first = 0x30 | qos << 1 | u8::from(dup) << 3;
        self.write(&[&[first, body.len() as u8][..], &body].concat()).await;
    }

    pub(crate) async fn subscribe(&mut self, id: u16, filter: &str, qos: u8) {
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        body.push(qos);
        self.write(&[&[0x82, body.len() as u8][..], &body].concat()).await;
    }

    /// An acknowledgement by its first byte.
    pub(crate) async fn ack(&mut self, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.write(&[first, 2, high, low]).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet.
    pub(crate) async fn sent(&mut self) -> Sent {
        timeout(PATIENCE, self.read()).await.expect("nothing came")
    }

    async fn read(&mut self) -> Sent {
        let first = self.stream.read_u8().await.unwrap();
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match first >> 4 {
            3 => {
                let (qos, topic_end) = ((first >> 1) & 3, 2 + usize::from(id(0)));
                let (id, payload_at) = if qos > 0 { (id(topic_end), topic_end + 2) } else { (0, topic_end) };
                let payload = String::from_utf8(body[payload_at..].to_vec()).unwrap();
                Sent::Publish { id, qos, dup: first & 8 != 0, payload }
            }
            4 => Sent::PubAck(id(0)),
            5 => Sent::PubRec(id(0)),
            6 => Sent::PubRel(id(0)),
            7 => Sent::PubComp(id(0)),
            9 => Sent::SubAck(body[2..].to_vec()),
            other => Sent::Other(other),
        }
    }
}
