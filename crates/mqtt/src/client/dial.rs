//! The stream of bytes that MQTT is spoken on: TCP or a proxy's tunnel, TLS, and a WebSocket where one is asked for.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::options::{ClientOptions, ConnectError, Transport};
use super::tcp;
use super::websocket;

/// What a connection is read from and written to.
pub(super) type Stream = Box<dyn Bytes>;

pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

pub(super) async fn dial(options: &ClientOptions) -> Result<Stream, ConnectError> {
    let tcp = match &options.proxy {
        // TLS and MQTT need their time too.
        None => {
            let reached = tcp::connect(&options.host, options.port, options.connect_timeout / 2).await;
            reached.map_err(ConnectError::Io)?
        }
        Some(proxy) => {
            let tunnel = proxy.tunnel(&options.host, options.port).await;
            tunnel.map_err(|why| ConnectError::Proxy { proxy: proxy.to_string(), why })?
        }
    };
    tcp.set_nodelay(true).map_err(ConnectError::Io)?;
    let tls = match &options.transport {
        Transport::Plain => return Ok(Box::new(tcp)),
        Transport::Tls(tls) | Transport::WebSocket { tls, .. } => tls.clone(),
    };
    let name = ServerName::try_from(options.host.clone())
        .map_err(|_| ConnectError::Tls(format!("`{}` is not a host name", options.host)))?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    match &options.transport {
        Transport::WebSocket { path, .. } => {
            Ok(Box::new(websocket::open(stream, &options.host, path).await?))
        }
        _ => Ok(Box::new(stream)),
    }
}
