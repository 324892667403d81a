//! The gateway's end of the link: one MQTT connection to a server, in two halves, and no decisions.
//!
//! ```text
//! TCP, or a tunnel through a proxy ─► TLS ─► WebSocket, where asked for ─► CONNECT ─► Sender, Receiver
//! ```

mod dial;
mod proxy;
mod receiver;
mod sender;
mod websocket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::packet::{ConnAck, Connect, ConnectProperties, Packet, Version};
use crate::codec::reason::Reason;
use crate::codec::write;

pub use proxy::{Proxy, ProxyError};
pub use receiver::{Incoming, ReceiveError, Receiver};
pub use sender::{Outgoing, Sender};

/// The largest packet taken: a deployment manifest travels whole and may be much larger than telemetry.
const PACKET_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What lies between TCP and MQTT.
#[derive(Clone)]
pub enum Transport {
    /// Nothing.
    Plain,
    /// TLS; whom to trust and what to show.
    Tls(Arc<rustls::ClientConfig>),
    /// WebSocket over TLS.
    WebSocket {
        /// Whom to trust and what to show.
        tls: Arc<rustls::ClientConfig>,
        /// The path that the server upgrades, for example `/mqtt`.
        path: String,
    },
}

impl Transport {
    /// Where it is served when nothing else is said.
    pub fn default_port(&self) -> u16 {
        match self {
            Self::Plain => 1883,
            Self::Tls(_) => 8883,
            Self::WebSocket { .. } => 443,
        }
    }
}

/// Where to connect and as whom.
#[derive(Clone)]
pub struct ClientOptions {
    /// Host name or address; the server's certificate must name it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What lies between TCP and MQTT.
    pub transport: Transport,
    /// What stands between here and the server; `None` for nothing.
    pub proxy: Option<Proxy>,
    /// MQTT 5 tells why a message was refused; 3.1.1 is what IoT Hub speaks.
    pub version: Version,
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub user_name: Option<String>,
    /// MQTT password, for example a SAS token.
    pub password: Option<String>,
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
    /// The proxy does not let us through.
    #[error("proxy {0}")]
    Proxy(String),
    /// Not the server that is trusted, or no TLS at all.
    #[error("TLS handshake: {0}")]
    Tls(String),
    /// What answers there does not upgrade to a WebSocket for MQTT.
    #[error("WebSocket handshake: {0}")]
    WebSocket(String),
    /// CONNACK with another code than 0.
    #[error("refused by the server: {reason}{why}")]
    Refused {
        /// Of MQTT 5; the one that says the same where MQTT 3.1.1 is spoken.
        reason: Reason,
        /// The server's own words after ": ", or nothing.
        why: String,
    },
    /// Nothing came in time.
    #[error("no answer within the connect timeout")]
    TimedOut,
    /// The server does not speak this version of MQTT.
    #[error("protocol: {0}")]
    Protocol(String),
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

/// Goes as far as [`connect`] before the CONNECT, and closes.
///
/// # Errors
/// [`ConnectError`].
pub async fn reach(options: &ClientOptions) -> Result<(), ConnectError> {
    match tokio::time::timeout(options.connect_timeout, dial::dial(options)).await {
        Ok(reached) => reached.map(drop),
        Err(_) => Err(ConnectError::TimedOut),
    }
}

async fn try_connect(options: &ClientOptions) -> Result<(Sender, Receiver), ConnectError> {
    let stream = dial::dial(options).await?;
    let (reader, writer) = tokio::io::split(stream);
    let mut sender = Sender::new(writer, options.version);
    let mut receiver = Receiver::new(reader, options.version);

    let properties = match options.version {
        Version::V4 => ConnectProperties::default(),
        Version::V5 => ConnectProperties {
            packet_bytes_max: u32::try_from(PACKET_BYTES_MAX).ok(),
            ..ConnectProperties::default()
        },
    };
    let connect = Connect {
        version: options.version,
        client_id: options.client_id.clone(),
        user_name: options.user_name.clone(),
        password: options.password.clone().map(String::into_bytes),
        is_clean: true,
        is_bridge: false,
        keep_alive: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
        will: None,
        properties,
    };
    sender.queue(|out, _| write::connect(out, &connect));
    sender.flush().await.map_err(ConnectError::Io)?;
    match receiver.packet().await {
        Ok(Packet::ConnAck(ack)) => {
            admitted(&ack)?;
            sender.told(&ack.properties);
            Ok((sender, receiver))
        }
        Ok(_) => Err(ConnectError::Protocol("the first packet was no CONNACK".to_owned())),
        Err(ReceiveError::Io(error)) => Err(ConnectError::Io(error)),
        Err(ReceiveError::Closed) => Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(ConnectError::Protocol(error.to_string())),
    }
}

fn admitted(ack: &ConnAck) -> Result<(), ConnectError> {
    if ack.reason == Reason::SUCCESS {
        return match ack.properties.qos_max {
            Some(0) => {
                Err(ConnectError::Protocol("the server takes QoS 0 only, which promises nothing".to_owned()))
            }
            _ => Ok(()),
        };
    }
    let why = ack.properties.reason_string.as_ref().map(|text| format!(": {}", text.as_str()));
    Err(ConnectError::Refused { reason: ack.reason, why: why.unwrap_or_default() })
}
