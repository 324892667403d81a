//! `edge-agent init`: a new gateway, or what is missing of one.

pub mod gateway;
pub mod repair;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use schemas::connection_string::ConnectionString;
use schemas::host_name::HostName;
use schemas::join::JoinToken;
use schemas::names::DeviceId;
use serde_json::json;

use super::exit::Exit;
use super::global_options::GlobalOptions;
use gateway::{InitOptions, UpstreamCa, init};
use repair::Repair;

#[derive(Args)]
pub(super) struct Init {
    /// The text that `central gateway add` printed; replaces --device-id, --upstream and --upstream-ca.
    #[arg(long, value_name = "WORD", conflicts_with_all = ["device_id", "upstream", "upstream_ca"])]
    join: Option<String>,
    /// Create missing keys and certificates again, by the existing configuration; overwrites nothing.
    #[arg(long, conflicts_with_all = ["join", "device_id", "hostname", "data_dir", "upstream", "upstream_ca"])]
    repair: bool,
    /// This gateway's id, as central knows it.
    #[arg(long, required_unless_present_any = ["join", "repair"])]
    device_id: Option<DeviceId>,
    /// The name or address under which leaf devices and modules reach it, without a port; with --join the machine's name when left out.
    #[arg(long, required_unless_present_any = ["join", "repair"])]
    hostname: Option<HostName>,
    /// Directory of its keys, state and queues.
    #[arg(long, default_value = "/var/lib/edge-agent")]
    data_dir: PathBuf,
    /// The connection string of this gateway at central.
    #[arg(long)]
    upstream: Option<String>,
    /// The certificate authority of central, as a PEM file.
    #[arg(long)]
    upstream_ca: Option<PathBuf>,
}

impl Init {
    pub(crate) fn run(&self, options: &GlobalOptions) -> Result<(), Exit> {
        if self.repair {
            return Ok(repair(options)?);
        }
        // Not read by clap, whose errors show the value: both hold a key.
        let join: Option<JoinToken> = read_secret(self.join.as_deref(), "--join")?;
        let upstream: Option<ConnectionString> = read_secret(self.upstream.as_deref(), "--upstream")?;
        let (device_id, upstream, upstream_ca) = match join {
            Some(token) => (
                Some(token.upstream.device_id.clone()),
                Some(token.upstream),
                Some(UpstreamCa::Pem(token.ca_pem.into_bytes())),
            ),
            None => (self.device_id.clone(), upstream, self.upstream_ca.clone().map(UpstreamCa::File)),
        };
        let hostname = match &self.hostname {
            Some(hostname) => hostname.to_string(),
            None => edge_hub::machine::name()
                .context("--hostname: the machine has no name to take in its place")?,
        };
        init(InitOptions {
            device_id: device_id.context("--device-id or --join is needed")?,
            hostname: hostname.clone(),
            data_dir: self.data_dir.clone(),
            config: options.config.clone(),
            upstream,
            upstream_ca,
        })
        .map_err(anyhow::Error::from)?;
        options.print(&json!({"config": options.config, "hostname": hostname}), || {
            let config = options.config.display();
            format!(
                "wrote {config}; devices and modules reach this gateway as {hostname}\nnext: edge-agent run --config {config}"
            )
        })?;
        Ok(())
    }
}

/// Reads an argument that holds a key.
fn read_secret<T>(text: Option<&str>, argument: &'static str) -> Result<Option<T>, Exit>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: T::Err| Exit(2, anyhow::Error::from(error).context(argument)))
}

fn repair(options: &GlobalOptions) -> Result<()> {
    let done = repair::repair(&options.load()?)?;
    let (mut made, mut left) = (Vec::new(), Vec::new());
    for done in done {
        match done {
            Repair::Made(what) => made.push(what),
            Repair::Left(what) => left.push(what),
        }
    }
    let lines = || {
        let made = made.iter().map(|what| format!("made {what}"));
        let lines: Vec<String> = made.chain(left.iter().map(|what| format!("LEFT {what}"))).collect();
        if lines.is_empty() { "nothing is missing".to_owned() } else { lines.join("\n") }
    };
    options.print(&json!({"made": made, "left": left}), lines)?;
    if !left.is_empty() {
        anyhow::bail!("{} of these need an operator", left.len());
    }
    Ok(())
}
