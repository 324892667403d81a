//! The writing half of a connection to a server.

use std::collections::HashSet;
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt as _, WriteHalf};

use super::dial::ByteStream;
use crate::codec::message::Message;
use crate::codec::packet::{
    Ack, ConnAckProperties, Disconnect, Filter, PublishProperties, Subscribe, Version,
};
use crate::codec::reason::Reason;
use crate::codec::text::UserProperties;
use crate::codec::write::{self, AckKind};

/// The writing half. Packets wait in a buffer until [`Sender::flush`].
pub struct Sender {
    out: BytesMut,
    /// TLS may still hold what was taken from `out`.
    is_flushed: bool,
    version: Version,
    last_id: u16,
    in_flight: HashSet<u16>,
    publishes_max: usize,
    packet_bytes_max: usize,
    writer: WriteHalf<ByteStream>,
}

/// A QoS 1 message to publish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'a> {
    /// A topic name of at most 65,535 bytes.
    pub topic: &'a str,
    /// Any bytes.
    pub payload: &'a [u8],
    /// It may have been sent before.
    pub is_repeated: bool,
    /// MQTT 5 only.
    pub properties: Option<&'a PublishProperties>,
}

impl<'a> Outgoing<'a> {
    fn message(&self, id: u16) -> Message<'a> {
        Message {
            topic: self.topic.as_bytes(),
            payload: self.payload,
            qos: 1,
            id,
            dup: self.is_repeated,
            properties: self.properties,
            ..Message::default()
        }
    }
}

impl Sender {
    pub(super) fn new(writer: WriteHalf<ByteStream>, version: Version) -> Self {
        Self {
            out: BytesMut::new(),
            is_flushed: true,
            version,
            last_id: 0,
            in_flight: HashSet::new(),
            publishes_max: usize::from(u16::MAX),
            packet_bytes_max: usize::MAX,
            writer,
        }
    }

    /// Notes what the server takes at most, from its CONNACK.
    pub(super) fn note_limits(&mut self, properties: &ConnAckProperties) {
        if let Some(max) = properties.receive_max {
            self.publishes_max = usize::from(max);
        }
        if let Some(max) = properties.packet_bytes_max {
            self.packet_bytes_max = max as usize;
        }
    }

    pub(super) fn queue(&mut self, write: impl FnOnce(&mut BytesMut, Version)) {
        write(&mut self.out, self.version);
    }

    /// How many more messages the server takes before it has acknowledged one (MQTT 5: its receive maximum).
    pub fn space(&self) -> usize {
        self.publishes_max.saturating_sub(self.in_flight.len())
    }

    /// Whether everything that was sent is acknowledged.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// How many messages may be in flight at once.
    pub fn publishes_max(&self) -> usize {
        self.publishes_max
    }

    /// Bytes of a message's packet when the server has said that it does not take so large a one.
    pub fn too_large(&self, message: &Outgoing<'_>) -> Option<usize> {
        let bytes = message.message(1).packet_bytes(self.version);
        (bytes > self.packet_bytes_max).then_some(bytes)
    }

    /// Queues a QoS 1 PUBLISH and gives its packet id, which is in flight until [`Sender::acknowledged`].
    ///
    /// # Panics
    /// When all 65,535 packet ids are in flight, or the topic is longer than 65,535 bytes: the caller bounds both.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        self.send(&Outgoing { topic, payload, ..Outgoing::default() })
    }

    /// As [`Sender::publish`], for a message that says more.
    ///
    /// # Panics
    /// As [`Sender::publish`].
    pub fn send(&mut self, message: &Outgoing<'_>) -> u16 {
        let id = self.take_id();
        message.message(id).write(&mut self.out, self.version);
        id
    }

    /// Queues a QoS 0 PUBLISH: it may be lost with the connection.
    ///
    /// # Panics
    /// When the topic is longer than 65,535 bytes.
    pub fn publish_at_most_once(&mut self, topic: &str, payload: &[u8]) {
        let message = Message { topic: topic.as_bytes(), payload, ..Message::default() };
        message.write(&mut self.out, self.version);
    }

    /// Queues a SUBSCRIBE of one filter at QoS 1 and gives its packet id, in flight like that of a publish.
    ///
    /// # Panics
    /// As [`Sender::publish`].
    pub fn subscribe(&mut self, filter: &str) -> u16 {
        self.subscribe_at(filter, 1)
    }

    /// As [`Sender::subscribe`], at QoS 0.
    ///
    /// # Panics
    /// As [`Sender::publish`].
    pub fn subscribe_at_most_once(&mut self, filter: &str) -> u16 {
        self.subscribe_at(filter, 0)
    }

    fn subscribe_at(&mut self, filter: &str, qos: u8) -> u16 {
        let id = self.take_id();
        let subscribe = Subscribe {
            id,
            filters: vec![Filter::v4(filter.to_owned(), qos)],
            subscription_id: None,
            user_properties: UserProperties::default(),
        };
        write::subscribe(&mut self.out, self.version, &subscribe);
        id
    }

    /// Queues the PUBACK of a message.
    pub fn acknowledge(&mut self, packet_id: u16) {
        write::ack(&mut self.out, self.version, AckKind::PubAck, &Ack::success(packet_id));
    }

    /// Queues a PINGREQ; the server answers with [`super::Incoming::Pong`].
    pub fn ping(&mut self) {
        write::pingreq(&mut self.out);
    }

    /// Queues the DISCONNECT by which the server knows that the end of the connection is no fault.
    pub fn disconnect(&mut self) {
        write::disconnect(&mut self.out, self.version, &Disconnect::because(Reason::SUCCESS));
    }

    /// Frees the packet id of an acknowledged publish or subscribe.
    pub fn acknowledged(&mut self, packet_id: u16) {
        self.in_flight.remove(&packet_id);
    }

    /// Whether there is something to write.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.is_flushed
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes everything that is queued. When it is dropped before it ended, the rest stays queued.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.is_flushed = false;
        while !self.out.is_empty() {
            if self.writer.write_buf(&mut self.out).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.writer.flush().await?;
        self.is_flushed = true;
        Ok(())
    }

    fn take_id(&mut self) -> u16 {
        assert!(self.in_flight.len() < usize::from(u16::MAX), "every packet id is in flight");
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && self.in_flight.insert(self.last_id) {
                return self.last_id;
            }
        }
    }
}
