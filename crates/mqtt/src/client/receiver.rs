//! The reading half of a connection to a server.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadHalf};

use super::dial::ByteStream;
use super::options::PACKET_BYTES_MAX;
use crate::codec::packet::{Packet, ReasonProperties, Version};
use crate::codec::read::{Read, read};
use crate::codec::reason::Reason;
use crate::codec::text::Text;

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Why there is nothing more to receive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Reading from the connection failed.
    #[error("receiving: {0}")]
    Io(io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server said why it closes the connection (MQTT 5).
    #[error("the server ended the connection: {reason}{why}")]
    Ended {
        /// The reason code of its DISCONNECT.
        reason: Reason,
        /// Its own text after ": ", or nothing.
        why: String,
    },
    /// The server refused a subscription.
    #[error("the server refused subscription {0}")]
    SubscriptionRefused(u16),
    /// The server does not speak this version of MQTT.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// It has the message with this packet id.
    Acknowledged(u16),
    /// It will not have the message with this packet id (MQTT 5).
    Refused {
        /// The message that the server refuses, by the id that [`super::Sender::publish`] gave.
        packet_id: u16,
        /// 0x80 or above.
        reason: Reason,
        /// The server's own text, or nothing.
        why: String,
    },
    /// It granted the subscription with this packet id.
    Subscribed(u16),
    /// A message; `packet_id` is to be acknowledged when there is one.
    Message {
        /// As the server wrote it.
        topic: String,
        /// As the server wrote it.
        payload: Bytes,
        /// Of QoS 1.
        packet_id: Option<u16>,
    },
    /// The answer to a ping.
    Pong,
}

/// The reading half. Packets of QoS 2 end the connection: this client never asks for it.
pub struct Receiver {
    buffer: BytesMut,
    version: Version,
    reader: ReadHalf<ByteStream>,
}

impl Receiver {
    pub(super) fn new(reader: ReadHalf<ByteStream>, version: Version) -> Self {
        Self { buffer: BytesMut::new(), version, reader }
    }

    /// What the server says next. May be dropped at any time; nothing is lost.
    ///
    /// # Errors
    /// [`ReceiveError`]; the connection is then of no more use.
    pub async fn next(&mut self) -> Result<Incoming, ReceiveError> {
        loop {
            return match self.packet().await? {
                Packet::PubAck(ack) if ack.reason.is_failure() => {
                    let why = ack.properties.as_deref().and_then(reason_string).unwrap_or_default();
                    Ok(Incoming::Refused { packet_id: ack.id, reason: ack.reason, why })
                }
                Packet::PubAck(ack) => Ok(Incoming::Acknowledged(ack.id)),
                Packet::SubAck(ack) if ack.reasons.iter().any(|reason| reason.is_failure()) => {
                    Err(ReceiveError::SubscriptionRefused(ack.id))
                }
                Packet::SubAck(ack) => Ok(Incoming::Subscribed(ack.id)),
                Packet::Publish(publish) if publish.qos < 2 => Ok(Incoming::Message {
                    topic: publish.topic().to_owned(),
                    payload: publish.payload,
                    packet_id: (publish.qos == 1).then_some(publish.id),
                }),
                Packet::PingResp => Ok(Incoming::Pong),
                Packet::UnsubAck(_) => continue,
                Packet::Disconnect(end) if self.version == Version::V5 => {
                    let why = end.reason_string.as_ref().map(|text| format!(": {}", text.as_str()));
                    Err(ReceiveError::Ended { reason: end.reason, why: why.unwrap_or_default() })
                }
                _ => Err(ReceiveError::Protocol("a packet that no server sends here".to_owned())),
            };
        }
    }

    pub(super) async fn packet(&mut self) -> Result<Packet, ReceiveError> {
        loop {
            let missing = match read(&mut self.buffer, self.version, PACKET_BYTES_MAX) {
                Ok(Read::Packet(packet)) => return Ok(packet),
                Ok(Read::Missing(missing)) => missing,
                Err(error) => return Err(ReceiveError::Protocol(error.to_string())),
            };
            self.buffer.reserve(missing.max(READ_BYTES));
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(ReceiveError::Closed);
            }
        }
    }
}

fn reason_string(properties: &ReasonProperties) -> Option<String> {
    properties.reason_string.as_ref().map(|text| Text::as_str(text).to_owned())
}
