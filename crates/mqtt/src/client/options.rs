//! Where and how a client connects, and why it could not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{Proxy, TunnelError};
use crate::codec::packet::Version;
use crate::codec::reason::Reason;

/// The largest packet taken: a deployment manifest travels whole and may be much larger than telemetry.
pub(super) const PACKET_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What lies between TCP and MQTT.
#[derive(Clone)]
pub enum Transport {
    /// Nothing: whoever listens on the network reads passwords and messages.
    Plain,
    /// TLS; whom to trust and what to show.
    Tls(Arc<rustls::ClientConfig>),
    /// TLS, and inside it a WebSocket with the sub-protocol `mqtt`, for networks that let only HTTPS out.
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
    /// TCP port of the server; [`Transport::default_port`] is the usual one.
    pub port: u16,
    /// What lies between TCP and MQTT.
    pub transport: Transport,
    /// Proxy between here and the server, if any.
    pub proxy: Option<Proxy>,
    /// MQTT 5 tells why a message was refused; 3.1.1 is what IoT Hub speaks.
    pub version: Version,
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub user_name: Option<String>,
    /// MQTT password, for example a SAS token.
    pub password: Option<String>,
    /// Sent to the server, in whole seconds; the caller pings.
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
    #[error("proxy {proxy}: {why}")]
    Proxy {
        /// Its URL without user and password.
        proxy: String,
        /// What it answered, or why it was not reached.
        why: TunnelError,
    },
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
        /// The server's own text after ": ", or nothing.
        why: String,
    },
    /// Nothing came in time.
    #[error("no answer within the connect timeout")]
    TimedOut,
    /// The server does not speak this version of MQTT.
    #[error("protocol: {0}")]
    Protocol(String),
}
