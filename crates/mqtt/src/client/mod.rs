//! The client's end of one MQTT connection, in two halves: a [`Sender`] and a [`Receiver`]. It decides nothing: when to connect,
//! to ping and to give up is for whoever holds them.
//!
//! ```text
//! TCP, or a tunnel through a proxy ─► TLS ─► WebSocket, where asked for ─► CONNECT ─► Sender, Receiver
//! ```

mod dial;
mod options;
mod proxy;
mod receiver;
mod sender;
mod tcp;
mod websocket;

use std::io;

use options::PACKET_BYTES_MAX;

use crate::codec::packet::{ConnAck, Connect, ConnectProperties, Packet, Version};
use crate::codec::reason::Reason;
use crate::codec::write;

pub use dial::{ByteStream, Destination, Duplex, dial};
pub use options::{ClientOptions, ConnectError, Transport};
pub use proxy::{Proxy, ProxyError, TunnelError};
pub use receiver::{Incoming, ReceiveError, Receiver};
pub use sender::{Outgoing, Sender};

/// Connects with a clean session: the server forgets what an earlier connection of this client id left.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(options: &ClientOptions) -> Result<(Sender, Receiver), ConnectError> {
    connect_with(options, true).await
}

/// Connects and resumes the session that the server keeps of this client id, if it keeps one.
///
/// # Errors
/// [`ConnectError`].
pub async fn resume(options: &ClientOptions) -> Result<(Sender, Receiver), ConnectError> {
    connect_with(options, false).await
}

async fn connect_with(options: &ClientOptions, is_clean: bool) -> Result<(Sender, Receiver), ConnectError> {
    match tokio::time::timeout(options.connect_timeout, try_connect(options, is_clean)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::TimedOut),
    }
}

/// Goes as far as [`connect`] before the CONNECT, and closes.
///
/// # Errors
/// [`ConnectError`].
pub async fn probe(options: &ClientOptions) -> Result<(), ConnectError> {
    dial(Destination::of(options)).await.map(drop)
}

async fn try_connect(options: &ClientOptions, is_clean: bool) -> Result<(Sender, Receiver), ConnectError> {
    let stream = dial(Destination::of(options)).await?;
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
        is_clean,
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
            sender.note_limits(&ack.properties);
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
