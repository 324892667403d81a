//! How an upstream is reached: from the configuration to what a client takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_hub::client::{self, ClientOptions};
use edge_hub::codec::packet::Version;
use edge_hub::tls;

use crate::config::{Kind, Transport, Upstream};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What lies between TCP and MQTT, with the files that it names read.
///
/// # Errors
/// When a file cannot be read or used, naming its key.
pub fn transport(upstream: &Upstream) -> Result<client::Transport> {
    Ok(match &upstream.transport {
        Transport::Plain => client::Transport::Plain,
        Transport::Tls => client::Transport::Tls(client_config(upstream)?),
        Transport::WebSocket(path) => {
            client::Transport::WebSocket { tls: client_config(upstream)?, path: path.clone() }
        }
    })
}

/// Goes as far as an upstream can be reached without saying who is there: a second connection of one identity would end the
/// daemon's.
///
/// # Errors
/// Why it is not reached.
pub async fn attempt(upstream: &Upstream, transport: client::Transport) -> Result<(), client::ConnectError> {
    let (host, port) = upstream.address();
    let options = ClientOptions {
        host,
        port,
        transport,
        proxy: upstream.proxy(),
        version: Version::V4,
        client_id: String::new(),
        user_name: None,
        password: None,
        keep_alive: CONNECT_TIMEOUT,
        connect_timeout: CONNECT_TIMEOUT,
    };
    client::reach(&options).await
}

fn client_config(upstream: &Upstream) -> Result<Arc<rustls::ClientConfig>> {
    let ca = upstream.ca.as_ref().context("[upstream] ca: the file of the authorities to trust is needed")?;
    let ca = read("ca", ca)?;
    let shown = match &upstream.kind {
        Kind::Mqtt(broker) => broker.certificate.as_ref(),
        _ => None,
    };
    match shown {
        None => tls::client_config(&ca).context("[upstream] ca"),
        Some((cert, key)) => {
            let (cert, key) = (read("cert", cert)?, read("key", key)?);
            tls::client_config_showing(&ca, &cert, &key).context("[upstream] ca, cert and key")
        }
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("[upstream] {key}: reading {}", path.display()))
}
