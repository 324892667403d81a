//! A client of MQTT 5 that sends what it is told to and shows every packet of the server.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use mqtt::codec::packet::{
    Ack, ConnAck, Connect, ConnectProperties, Filter, Packet, Publish, PublishProperties, RetainHandling,
    Subscribe, Version, Will,
};
use mqtt::codec::read::{Read, read};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::UserProperties;
use mqtt::codec::write;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::PATIENCE;

pub(crate) struct Five {
    stream: TcpStream,
    buffer: BytesMut,
    pub(crate) connack: ConnAck,
}

pub(crate) fn connect(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        client_id: client_id.to_owned(),
        user_name: Some("hub/d/?api-version=1".to_owned()),
        password: None,
        is_clean: false,
        is_bridge: false,
        keep_alive: 0,
        will: None,
        properties: ConnectProperties::default(),
    }
}

pub(crate) fn will(topic: &str, delay: u32) -> Will {
    let payload = Bytes::from_static(b"gone");
    Will { topic: topic.to_owned(), payload, qos: 1, retain: false, delay, properties: None }
}

pub(crate) fn filter(path: &str, qos: u8) -> Filter {
    Filter {
        path: path.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

pub(crate) fn publish(topic: &str, payload: &str, qos: u8, id: u16) -> Publish {
    Publish {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        id,
        dup: false,
        retain: false,
        properties: None,
    }
}

pub(crate) fn with(publish: Publish, properties: PublishProperties) -> Publish {
    Publish { properties: Some(Box::new(properties)), ..publish }
}

impl Five {
    pub(crate) async fn open(address: SocketAddr, connect: Connect) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let nothing = ConnAck {
            is_session_present: false,
            reason: Reason::UNSPECIFIED,
            properties: mqtt::codec::packet::ConnAckProperties::default(),
        };
        let mut five = Self { stream, buffer: BytesMut::new(), connack: nothing };
        five.send(Packet::Connect(Box::new(connect))).await;
        match five.packet().await {
            Packet::ConnAck(connack) => five.connack = *connack,
            other => panic!("{other:?} instead of CONNACK"),
        }
        five
    }

    pub(crate) async fn new(address: SocketAddr, client_id: &str) -> Self {
        Self::open(address, connect(client_id)).await
    }

    /// With a session that outlives the connection by so many seconds.
    pub(crate) async fn staying(address: SocketAddr, client_id: &str, seconds: u32) -> Self {
        let properties = ConnectProperties { session_expiry: Some(seconds), ..ConnectProperties::default() };
        Self::open(address, Connect { properties, ..connect(client_id) }).await
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        write::any(&mut out, Version::V5, &packet);
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn publish(&mut self, publish: Publish) {
        self.send(Packet::Publish(publish)).await;
    }

    /// Publishes at QoS 1 and gives the PUBACK.
    pub(crate) async fn acknowledged(&mut self, publish: Publish) -> Ack {
        self.publish(publish).await;
        match self.packet().await {
            Packet::PubAck(ack) => ack,
            other => panic!("{other:?} instead of PUBACK"),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: Filter, subscription_id: Option<u32>) -> Reason {
        let user_properties = UserProperties::default();
        self.send(Packet::Subscribe(Subscribe {
            id: 99,
            filters: vec![filter],
            subscription_id,
            user_properties,
        }))
        .await;
        match self.packet().await {
            Packet::SubAck(ack) => ack.reasons[0],
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    pub(crate) async fn ack(&mut self, id: u16) {
        self.send(Packet::PubAck(Ack::success(id))).await;
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Why the server ends the connection.
    pub(crate) async fn ended(&mut self) -> Reason {
        loop {
            if let Packet::Disconnect(disconnect) = self.packet().await {
                return disconnect.reason;
            }
        }
    }

    /// That nothing came before the answer to a PINGREQ.
    pub(crate) async fn nothing(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.packet().await, Packet::PingResp);
    }

    pub(crate) async fn packet(&mut self) -> Packet {
        loop {
            if let Read::Packet(packet) = read(&mut self.buffer, Version::V5, 1 << 20).unwrap() {
                return packet;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            assert_ne!(read.expect("nothing came").unwrap(), 0, "the server closed");
        }
    }
}
