//! `central device …`: answered by the central that serves.

use central::clock;
use central::store::tokens;
use central::token::{self, Role, TokenName};
use clap::Subcommand;
use edge_hub::logging;
use schemas::names::DeviceId;

use super::data::{DataArgs, in_store};

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Shows why a gateway or device sends nothing, or what is wrong with it: each cause with its evidence and its repair. Needs
    /// a running central.
    Why {
        /// The id of the gateway or device.
        id: DeviceId,
    },
    /// Approves devices that enrolled themselves and wait: they connect when they ask next. Asks the central that serves.
    Approve {
        /// Their ids.
        #[arg(required = true, num_args = 1..=1000)]
        ids: Vec<DeviceId>,
    },
    /// Rejects devices that enrolled themselves and wait: they are blocked. Asks the central that serves.
    Reject {
        /// Their ids.
        #[arg(required = true, num_args = 1..=1000)]
        ids: Vec<DeviceId>,
    },
}

pub(crate) fn run(data: &DataArgs, command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Why { id } => why(data, &id),
        DeviceCommand::Approve { ids } => decide(data, &ids, "approve"),
        DeviceCommand::Reject { ids } => decide(data, &ids, "reject"),
    }
}

fn why(data: &DataArgs, id: &DeviceId) -> anyhow::Result<()> {
    let id = percent_encoding::utf8_percent_encode(id.as_str(), percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/api/ext/devices/{id}/why");
    let answer = ask_serving(data, |listen, line| central::ask::get(listen, &path, line))?;
    logging::print(answer["text"].as_str().unwrap_or("the answer has no text"));
    Ok(())
}

fn decide(data: &DataArgs, ids: &[DeviceId], decision: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({"devices": ids, "decision": decision});
    let answer =
        ask_serving(data, |listen, line| central::ask::post(listen, "/api/ext/approvals", line, &body))?;
    let outcomes = answer["value"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut done, mut failed) = (0, Vec::new());
    for outcome in outcomes {
        let id = outcome["device"].as_str().unwrap_or("?");
        match outcome["outcome"].as_str() {
            Some("approved") => logging::print(&format!("device `{id}` is approved")),
            Some("rejected") => logging::print(&format!("device `{id}` is rejected and blocked")),
            Some("notRegistered") => failed.push(format!("device `{id}` is not registered")),
            _ => failed.push(format!("device `{id}` does not wait for approval")),
        }
        done += 1;
    }
    anyhow::ensure!(failed.is_empty() && done == ids.len(), "{}", failed.join("; "));
    Ok(())
}

/// Asks the central that serves this data directory. Whoever reads the directory may ask; the API knows nobody without a token.
fn ask_serving(
    data: &DataArgs,
    ask: impl FnOnce(std::net::SocketAddr, &str) -> Result<serde_json::Value, central::ask::AskError>,
) -> anyhow::Result<serde_json::Value> {
    const WITHIN_MS: u64 = 60_000;
    let config = data.config_for_existing()?;
    let now_ms = clock::now_ms();
    let name = TokenName::of_command_line();
    let new = token::create(&config.hostname, &name, Role::Operator, now_ms, now_ms + WITHIN_MS);
    let (hash, grant) = (new.hash, new.grant);
    in_store(&config, move |c| tokens::insert(c, &hash, &grant))?;
    let answer = ask(config.http.listen, &new.line);
    let name = name.as_str().to_owned();
    in_store(&config, move |c| tokens::delete(c, &name))?;
    Ok(answer?)
}
