//! `edge-agent check`, and what the daemon tells central of itself: facts gathered for [`edge_core::health::findings`]. Gathering
//! changes nothing, and every look has an end.

mod engine;
pub(crate) mod files;
mod host;
mod inspect;
pub mod watch;

use std::path::Path;
use std::time::Duration;

use edge_core::error_chain::chain;
use edge_core::health::facts::{ConfigFacts, DaemonFacts, DockerFacts, Facts, Probe, Reached, UpstreamFacts};
use edge_core::health::finding::Finding;
use edge_core::health::findings;
use mqtt::client::ConnectError;
use unix_http::RequestError;

use self::inspect::{PROBE_TIMEOUT, blocking};
use crate::clock::now_ms;
use crate::config::{Config, ConfigError, Transport};
use crate::control::client::{CallError, request};
use crate::upstream::endpoint;

/// How long reaching upstream may take, TCP, proxy and TLS together.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Inspects everything that this process may read, and asks the daemon for the rest.
pub async fn check(path: &Path) -> Vec<Finding> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            let config = ConfigFacts { path: path.display().to_string(), read: unread(&error), crc32c: None };
            let now_secs = now_ms() / 1000;
            return findings(&Facts { now_secs, config, version, ..Facts::default() });
        }
    };
    let (mut facts, upstream, daemon) = tokio::join!(gather(&config), upstream(&config), ask(&config));
    facts.config =
        ConfigFacts { path: path.display().to_string(), read: Probe::Found(()), crc32c: Some(config.crc32c) };
    facts.upstream.reached = upstream;
    match daemon {
        Probe::Found(daemon) => {
            facts.answer = Probe::Found(());
            facts.daemon = Some(daemon);
        }
        Probe::Missing(why) => {
            facts.answer = Probe::Missing(why);
            facts.host.listeners = host::listeners(&config).await;
        }
        Probe::Denied(why) => facts.answer = Probe::Denied(why),
        Probe::Failed(why) => facts.answer = Probe::Failed(why),
        Probe::NotProbed => {}
    }
    findings(&facts)
}

/// What the running daemon finds: it is connected to upstream, or knows why not, and need not ask itself.
pub async fn of_daemon(config: &Config, daemon: DaemonFacts) -> Vec<Finding> {
    let mut facts = gather(config).await;
    facts.daemon = Some(daemon);
    findings(&facts)
}

/// What can be seen without the daemon.
async fn gather(config: &Config) -> Facts {
    let (host, certificates, docker) =
        tokio::join!(host::gather(config), files::certificates(config), docker(config));
    let upstream = config.upstream.as_ref();
    Facts {
        now_secs: now_ms() / 1000,
        host,
        certificates,
        docker,
        upstream: UpstreamFacts {
            is_configured: Some(upstream.is_some()),
            place: upstream.map_or_else(String::new, place),
            via: upstream
                .and_then(|up| up.proxy())
                .map(|proxy| format!(" through {proxy}"))
                .unwrap_or_default(),
            is_encrypted: upstream.is_some_and(|up| up.transport != Transport::Plain),
            has_ca: upstream.is_some_and(|up| up.ca.is_some()),
            reached: None,
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Facts::default()
    }
}

fn unread(error: &ConfigError) -> Probe<()> {
    let why = chain(error).to_string();
    match error {
        ConfigError::Read { path, source } => match files::of_io(path, source) {
            Probe::Failed(_) => Probe::Failed(why),
            known => known,
        },
        ConfigError::Wrong { .. } | ConfigError::File(_) => Probe::Failed(why),
    }
}

/// Asks the daemon; within a bounded time, since one that was stopped accepts connections and never answers.
async fn ask(config: &Config) -> Probe<DaemonFacts> {
    let answer = match request(&config.data_dir, "GET", "/facts", None, PROBE_TIMEOUT).await {
        Ok(answer) => answer,
        Err(CallError::Away { socket, source }) => {
            return match files::of_io(&socket, &source) {
                // Its file outlives a daemon that was killed.
                Probe::Failed(_) => Probe::Missing(format!("nobody listens on {}", socket.display())),
                known => known,
            };
        }
        // An older daemon knows no facts.
        Err(CallError::Refused { status: 404, .. }) => return Probe::Found(DaemonFacts::default()),
        Err(CallError::Broken(RequestError::Timeout(after))) => {
            let secs = after.as_secs();
            return Probe::Failed(format!("no answer within {secs} s; it may be stopped or stuck"));
        }
        Err(error) => return Probe::Failed(chain(&error).to_string()),
    };
    match serde_json::from_value(answer) {
        Ok(daemon) => Probe::Found(daemon),
        Err(error) => Probe::Failed(format!("its answer cannot be read: {error}")),
    }
}

fn place(upstream: &crate::config::Upstream) -> String {
    let (host, port) = upstream.address();
    format!("{} at {host}:{port}", upstream.kind_name())
}

/// Tries upstream without logging in: a second connection of this gateway would end the daemon's.
async fn upstream(config: &Config) -> Option<Reached> {
    let upstream = config.upstream.as_ref()?;
    let transport = match endpoint::transport(upstream) {
        Ok(transport) => transport,
        Err(error) => return Some(Reached::Unusable(format!("{error:#}"))),
    };
    Some(match tokio::time::timeout(UPSTREAM_TIMEOUT, endpoint::attempt(upstream, transport)).await {
        Ok(Ok(())) => Reached::Yes,
        Ok(Err(error @ ConnectError::Tls(_))) => Reached::Untrusted(chain(&error).to_string()),
        Ok(Err(error)) => Reached::No(chain(&error).to_string()),
        Err(_) => Reached::No(format!("no answer within {} s", UPSTREAM_TIMEOUT.as_secs())),
    })
}

async fn docker(config: &Config) -> DockerFacts {
    let (engine, has_network) = engine::inspect(&config.docker.socket, &config.docker.network).await;
    let watch_folder = match config.deploy.watch.clone() {
        None => Probe::NotProbed,
        Some(folder) => blocking(move || files::folder(&folder)).await,
    };
    DockerFacts {
        socket: config.docker.socket.display().to_string(),
        engine,
        network: config.docker.network.clone(),
        has_network,
        policy_is_open: Some(config.deploy.policy == edge_core::deploy::policy::Policy::default()),
        watch_folder,
    }
}

#[cfg(test)]
mod tests;
