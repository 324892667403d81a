//! The stream of bytes that MQTT is spoken on: TCP or a proxy's tunnel, TLS, and a WebSocket where one is asked for. HTTPS needs the
//! same of it, so [`dial`] is public.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::options::{ClientOptions, ConnectError, Transport};
use super::proxy::Proxy;
use super::tcp;
use super::websocket;

/// What a connection is read from and written to.
pub type ByteStream = Box<dyn Duplex>;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A server and the way to it.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// Host name or address; the server's certificate must name it.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// What lies between TCP and the protocol.
    pub transport: &'a Transport,
    /// Proxy between here and the server, if any.
    pub proxy: Option<&'a Proxy>,
    /// For everything together.
    pub connect_timeout: Duration,
}

impl<'a> Destination<'a> {
    pub(super) fn of(options: &'a ClientOptions) -> Self {
        Self {
            host: &options.host,
            port: options.port,
            transport: &options.transport,
            proxy: options.proxy.as_ref(),
            connect_timeout: options.connect_timeout,
        }
    }
}

/// Opens the stream of bytes to a server, through its proxy and TLS.
///
/// # Errors
/// [`ConnectError`]; [`ConnectError::TimedOut`] when the server is not reached within [`Destination::connect_timeout`].
pub async fn dial(destination: Destination<'_>) -> Result<ByteStream, ConnectError> {
    match tokio::time::timeout(destination.connect_timeout, open(destination)).await {
        Ok(opened) => opened,
        Err(_) => Err(ConnectError::TimedOut),
    }
}

async fn open(destination: Destination<'_>) -> Result<ByteStream, ConnectError> {
    let Destination { host, port, transport, proxy, connect_timeout } = destination;
    let tcp = match proxy {
        // TLS and the protocol need their time too.
        None => tcp::connect(host, port, connect_timeout / 2).await.map_err(ConnectError::Io)?,
        Some(proxy) => {
            let tunnel = proxy.tunnel(host, port).await;
            tunnel.map_err(|why| ConnectError::Proxy { proxy: proxy.to_string(), why })?
        }
    };
    tcp.set_nodelay(true).map_err(ConnectError::Io)?;
    let tls = match transport {
        Transport::Plain => return Ok(Box::new(tcp)),
        Transport::Tls(tls) | Transport::WebSocket { tls, .. } => tls.clone(),
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Tls(format!("`{host}` is not a host name")))?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    match transport {
        Transport::WebSocket { path, .. } => Ok(Box::new(websocket::open(stream, host, path).await?)),
        _ => Ok(Box::new(stream)),
    }
}
