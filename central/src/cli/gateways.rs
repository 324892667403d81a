//! `central gateway …`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use central::access::admission::Admission;
use central::join;
use central::store::devices;
use clap::Subcommand;
use edge_hub::logging;
use edge_hub::terminal::{Table, Tone};
use schemas::names::DeviceId;
use schemas::timestamp::rfc3339;

use super::data::{DataArgs, in_store};
use super::output::print_table;

#[derive(Subcommand)]
pub(crate) enum GatewayCommand {
    /// Registers a gateway, unless it is registered, and prints the command to run on it as root. The command contains the
    /// gateway's key. Works while central runs.
    Add {
        /// The gateway's device id.
        id: DeviceId,
        /// The certificate authority that signed `[tls] cert`, as a PEM file; by default central's own.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Lists every gateway with its id and name, whether it may connect, and when it was last seen. The output is separated by
    /// tabs if it is not a terminal.
    List,
}

pub(crate) fn run(data: &DataArgs, command: GatewayCommand) -> anyhow::Result<()> {
    match command {
        GatewayCommand::Add { id, ca } => add(data, id, ca.as_deref()),
        GatewayCommand::List => list(data),
    }
}

fn add(data: &DataArgs, id: DeviceId, ca: Option<&Path>) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let name = id.clone();
    let gateway = in_store(&config, move |c| join::add_gateway(c, id))?;
    let gateway = gateway.with_context(|| {
        format!("device `{name}` is registered and is not a gateway; choose another id, or delete that device first")
    })?;
    let text = join::join_token(&config, &gateway, ca)?;
    logging::print(&format!("edge-agent init --join {text}"));
    Ok(())
}

fn list(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let devices = in_store(&config, |c| devices::list(c, "", u32::MAX))?;
    let mut table = Table::new(&["ID", "NAME", "MAY CONNECT", "LAST SEEN"]);
    for gateway in devices.into_iter().filter(|device| device.is_gateway) {
        let enabled = match gateway.admission() {
            Admission::Admitted => (Tone::Good, "yes"),
            Admission::Waiting => (Tone::Bad, "no, it waits for approval"),
            Admission::Blocked => (Tone::Bad, "no"),
        };
        table.row([
            (Tone::Plain, gateway.id.to_string()),
            (Tone::Plain, gateway.display_name),
            (enabled.0, enabled.1.to_owned()),
            (Tone::Plain, gateway.last_seen_ms.map_or_else(|| "never".to_owned(), rfc3339)),
        ]);
    }
    print_table(&table);
    Ok(())
}
