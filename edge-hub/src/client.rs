//! The gateway's end of the link: one MQTT connection over TLS, in two halves, and no decisions.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::codec::message::Message;
use crate::codec::packet::{Ack, Connect, ConnectProperties, Disconnect, Filter, Packet, Subscribe, Version};
use crate::codec::read::{Read, read};
use crate::codec::reason::Reason;
use crate::codec::text::UserProperties;
use crate::codec::write::{self, AckKind};
use crate::reach::reach;

/// The largest packet taken: a deployment manifest travels whole and may be much larger than telemetry.
const PACKET_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Where to connect and as whom.
#[derive(Clone)]
pub struct ClientOptions {
    /// Host name or address; the server's certificate must name it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whom to trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub user_name: String,
    /// MQTT password: a SAS token.
    pub password: String,
    /// Told to the server, in whole seconds; the caller pings.
    pub keep_alive: Duration,
    /// For TCP, TLS and the answer to CONNECT together.
    pub connect_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not reached, or lost on the way.
    #[error("connecting: {0}")]
    Io(io::Error),
    /// Not the server that is trusted, or no TLS at all.
    #[error("TLS handshake: {0}")]
    Tls(String),
    /// CONNACK with another code than 0: 3 means try again, 5 means not authorised.
    #[error("refused by the server with CONNACK code {0}")]
    Refused(u8),
    /// Nothing came in time.
    #[error("no answer within the connect timeout")]
    TimedOut,
    /// The server does not speak MQTT 3.1.1.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// Why there is nothing more to receive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection broke.
    #[error("receiving: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server refused a subscription.
    #[error("the server refused subscription {0}")]
    SubscriptionRefused(u16),
    /// The server does not speak MQTT 3.1.1.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// It has the message with this packet id.
    Acknowledged(u16),
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

/// The writing half. What it is told waits in a buffer until [`Sender::flush`].
pub struct Sender {
    out: BytesMut,
    /// TLS may still hold what was taken from `out`.
    is_flushed: bool,
    last_id: u16,
    in_flight: HashSet<u16>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

/// The reading half.
pub struct Receiver {
    buffer: BytesMut,
    reader: ReadHalf<TlsStream<TcpStream>>,
}

/// Connects, with a clean session.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(options: &ClientOptions) -> Result<(Sender, Receiver), ConnectError> {
    match tokio::time::timeout(options.connect_timeout, try_connect(options)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::TimedOut),
    }
}

async fn try_connect(options: &ClientOptions) -> Result<(Sender, Receiver), ConnectError> {
    let name = ServerName::try_from(options.host.clone())
        .map_err(|_| ConnectError::Tls(format!("`{}` is not a host name", options.host)))?;
    // TLS and MQTT need their time too.
    let within = options.connect_timeout / 2;
    let stream = reach(&options.host, options.port, within).await.map_err(ConnectError::Io)?;
    stream.set_nodelay(true).map_err(ConnectError::Io)?;
    let stream = TlsConnector::from(options.tls.clone())
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    let (reader, writer) = tokio::io::split(stream);
    let mut sender =
        Sender { out: BytesMut::new(), is_flushed: true, last_id: 0, in_flight: HashSet::new(), writer };
    let mut receiver = Receiver { buffer: BytesMut::new(), reader };

    let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let connect = Connect {
        version: Version::V4,
        client_id: options.client_id.clone(),
        user_name: Some(options.user_name.clone()),
        password: Some(options.password.clone().into_bytes()),
        is_clean: true,
        keep_alive,
        will: None,
        properties: ConnectProperties::default(),
    };
    write::connect(&mut sender.out, &connect);
    sender.flush().await.map_err(ConnectError::Io)?;
    match receiver.packet().await {
        Ok(Packet::ConnAck(ack)) if ack.reason == Reason::SUCCESS => Ok((sender, receiver)),
        Ok(Packet::ConnAck(ack)) => Err(ConnectError::Refused(ack.reason.v4_connack())),
        Ok(_) => Err(ConnectError::Protocol("the first packet was no CONNACK".to_owned())),
        Err(ReceiveError::Io(error)) => Err(ConnectError::Io(error)),
        Err(ReceiveError::Closed) => Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(ConnectError::Protocol(error.to_string())),
    }
}

impl Sender {
    /// Queues a QoS 1 PUBLISH and gives its packet id, which is in flight until [`Sender::acknowledged`].
    ///
    /// # Panics
    /// When all 65,535 packet ids are in flight, or the topic is longer than 65,535 bytes: the caller bounds both.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let id = self.take_id();
        let message = Message { topic: topic.as_bytes(), payload, qos: 1, id, ..Message::default() };
        message.write(&mut self.out, Version::V4);
        id
    }

    /// Queues a SUBSCRIBE of one filter at QoS 1 and gives its packet id, in flight like that of a publish.
    ///
    /// # Panics
    /// As [`Sender::publish`].
    pub fn subscribe(&mut self, filter: &str) -> u16 {
        let id = self.take_id();
        let subscribe = Subscribe {
            id,
            filters: vec![Filter::v4(filter.to_owned(), 1)],
            subscription_id: None,
            user_properties: UserProperties::default(),
        };
        write::subscribe(&mut self.out, Version::V4, &subscribe);
        id
    }

    /// Queues the PUBACK of a message.
    pub fn acknowledge(&mut self, packet_id: u16) {
        write::ack(&mut self.out, Version::V4, AckKind::PubAck, &Ack::success(packet_id));
    }

    /// Queues a PINGREQ.
    pub fn ping(&mut self) {
        write::pingreq(&mut self.out);
    }

    /// Queues a DISCONNECT.
    pub fn disconnect(&mut self) {
        write::disconnect(&mut self.out, Version::V4, &Disconnect::because(Reason::SUCCESS));
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

impl Receiver {
    /// What the server says next. May be dropped at any time; nothing is lost.
    ///
    /// # Errors
    /// [`ReceiveError`]; the connection is then of no more use.
    pub async fn next(&mut self) -> Result<Incoming, ReceiveError> {
        loop {
            return match self.packet().await? {
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
                _ => Err(ReceiveError::Protocol("a packet that no server sends here".to_owned())),
            };
        }
    }

    async fn packet(&mut self) -> Result<Packet, ReceiveError> {
        loop {
            let missing = match read(&mut self.buffer, Version::V4, PACKET_BYTES_MAX) {
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
