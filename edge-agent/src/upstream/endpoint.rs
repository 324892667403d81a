//! How an upstream is reached: from the configuration to what a client takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_core::health::facts::LinkFailure;
use edge_tls::config;
use edge_tls::input_file;
use mqtt::client::{self, ClientOptions};
use mqtt::codec::packet::Version;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Kind, Transport, Upstream};
use crate::upstream::status::LinkStatus;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often files that cannot be used are read again; as often as a connection is tried.
const READ_FILES_EVERY: Duration = Duration::from_secs(5);

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

/// The transport as soon as its files can be used; `None` when the daemon stops before. Leaf devices and modules are served
/// meanwhile, and `status` says what is wrong.
pub async fn usable_transport(
    upstream: &Upstream,
    status: &watch::Sender<LinkStatus>,
    stop: &CancellationToken,
) -> Option<client::Transport> {
    loop {
        let why = match transport(upstream) {
            Ok(transport) => return Some(transport),
            Err(error) => format!("{error:#}"),
        };
        let is_new = status.send_if_modified(|status| {
            let is_new = status.why != why;
            status.why.clone_from(&why);
            status.failure = Some(LinkFailure::Files);
            is_new
        });
        if is_new {
            tracing::error!(
                why,
                "upstream cannot be reached until its files are mended; devices are served meanwhile"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(READ_FILES_EVERY) => {}
            () = stop.cancelled() => return None,
        }
    }
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
    client::probe(&options).await
}

fn client_config(upstream: &Upstream) -> Result<Arc<rustls::ClientConfig>> {
    let ca = upstream.ca.as_ref().context("[upstream] ca: the file of the authorities to trust is needed")?;
    let ca = read("ca", ca)?;
    let shown = match &upstream.kind {
        Kind::Mqtt(broker) => broker.certificate.as_ref(),
        _ => None,
    };
    match shown {
        None => config::client_config(&ca).context("[upstream] ca"),
        Some((cert, key)) => {
            let (cert, key) = (read("cert", cert)?, read("key", key)?);
            config::client_config_showing(&ca, &cert, &key).context("[upstream] ca, cert and key")
        }
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    input_file::read(path, input_file::SMALL_BYTES_MAX)
        .with_context(|| format!("[upstream] {key}: reading {}", path.display()))
}
