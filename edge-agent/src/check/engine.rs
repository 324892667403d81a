//! Asks the Docker Engine how it is.

use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::InspectNetworkOptions;
use edge_core::error_chain::chain;
use edge_core::health::facts::{EngineFacts, Probe};
use tokio::net::UnixStream;

use super::files;
use super::inspect::{PROBE_TIMEOUT, within};
use crate::deployment::docker::Engine;

/// Where the engine reads its defaults.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// How the engine is, and whether a network is there.
pub(super) async fn inspect(socket: &Path, network: &str) -> (Probe<EngineFacts>, Probe<bool>) {
    if let Err(error) = UnixStream::connect(socket).await {
        let probe = match files::of_io(socket, &error) {
            // The file outlives an engine that was killed.
            Probe::Failed(_) => Probe::Missing(format!("nobody listens on {}", socket.display())),
            Probe::Missing(_) => Probe::Missing(format!("{} is not there", socket.display())),
            known => known,
        };
        return (probe, Probe::NotProbed);
    }
    let probed = within(PROBE_TIMEOUT, async {
        match ask(socket, network).await {
            Ok(found) => Probe::Found(found),
            Err(why) => Probe::Failed(format!("{}: {}", socket.display(), chain(&*why))),
        }
    });
    match probed.await {
        Probe::Found((engine, has_network)) => (Probe::Found(engine), Probe::Found(has_network)),
        Probe::Failed(why) => {
            // Of a time that ran out the name is missing.
            let why = if why.starts_with("no answer") { format!("{}: {why}", socket.display()) } else { why };
            (Probe::Failed(why), Probe::NotProbed)
        }
        _ => (Probe::NotProbed, Probe::NotProbed),
    }
}

async fn ask(
    socket: &Path,
    network: &str,
) -> Result<(EngineFacts, bool), Box<dyn std::error::Error + Send + Sync>> {
    let docker = Engine::new(socket.to_owned()).client().await?.with_timeout(Duration::from_secs(60));
    let info = docker.info().await?;
    let has_network = match docker.inspect_network(network, None::<InspectNetworkOptions>).await {
        Ok(_) => true,
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let engine = EngineFacts {
        version: info.server_version.unwrap_or_default(),
        logging_driver: info.logging_driver.unwrap_or_default(),
        logs_are_bounded: None,
    };
    let logs_are_bounded = Some(match engine.logging_driver.as_str() {
        "json-file" => std::fs::read(DAEMON_JSON).is_ok_and(|text| has_max_size(&text)),
        _ => true,
    });
    Ok((EngineFacts { logs_are_bounded, ..engine }, has_network))
}

/// Whether the engine's daemon.json bounds logs.
fn has_max_size(daemon_json: &[u8]) -> bool {
    let parsed: serde_json::Value = serde_json::from_slice(daemon_json).unwrap_or_default();
    parsed["log-opts"]["max-size"].is_string()
}
