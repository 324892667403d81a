//! `central device …`: answered by the central that serves.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use central::token::Role;
use clap::Subcommand;
use edge_hub::logging;
use edge_tls::input_file;
use schemas::names::DeviceId;
use serde_json::{Value, json};

use super::data::DataArgs;
use super::serving::ask_serving;

/// Of a file of devices: what a request may hold.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Between two questions how far an import is.
const POLL: Duration = Duration::from_millis(200);

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
    /// Adds the devices of a CSV file with IoT Central's columns, and prints each line that cannot be added. Asks the central that
    /// serves.
    Import {
        /// The file, UTF-8; `-` for standard input.
        file: PathBuf,
        /// The template of all of them, for example 'dtmi:contoso:press;1'.
        #[arg(long, value_name = "DTMI")]
        template: Option<String>,
        /// Print what would be added, and add nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints all gateways and devices as a CSV file with IoT Central's columns. Asks the central that serves.
    Export {
        /// Include keys and thumbprints.
        #[arg(long)]
        keys: bool,
    },
}

pub(crate) fn run(data: &DataArgs, command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Why { id } => why(data, &id),
        DeviceCommand::Approve { ids } => decide(data, &ids, "approve"),
        DeviceCommand::Reject { ids } => decide(data, &ids, "reject"),
        DeviceCommand::Import { file, template, dry_run } => import(data, &file, template, dry_run),
        DeviceCommand::Export { keys } => export(data, keys),
    }
}

fn why(data: &DataArgs, id: &DeviceId) -> anyhow::Result<()> {
    let id = percent_encoding::utf8_percent_encode(id.as_str(), percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/api/ext/devices/{id}/why");
    let answer = ask_serving(data, Role::Operator, |listen, line| central::ask::get(listen, &path, line))?;
    logging::print(answer["text"].as_str().unwrap_or("the answer has no text"));
    Ok(())
}

fn decide(data: &DataArgs, ids: &[DeviceId], decision: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({"devices": ids, "decision": decision});
    let answer = ask_serving(data, Role::Operator, |listen, line| {
        central::ask::post(listen, "/api/ext/approvals", line, &body)
    })?;
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

fn import(data: &DataArgs, file: &Path, template: Option<String>, is_dry_run: bool) -> anyhow::Result<()> {
    let reading = || format!("reading {}", file.display());
    let bytes = input_file::read_or_stdin(file, FILE_BYTES_MAX).with_context(reading)?;
    let csv = String::from_utf8(bytes).with_context(reading)?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut body = json!({"csv": csv, "fileName": name.filter(|name| name != "-")});
    body["template"] = template.into();
    let body = without_nulls(body);
    if is_dry_run {
        let shown = ask_serving(data, Role::Operator, |listen, line| {
            central::ask::post(listen, "/api/ext/devices/import/preview", line, &body)
        })?;
        return print_result(&shown["faults"], &shown["valid"], &shown["failed"], "can be added");
    }
    let ended = ask_serving(data, Role::Operator, |listen, line| {
        let begun = central::ask::post(listen, "/api/ext/devices/import", line, &body)?;
        let path = format!("/api/ext/operations/{}", begun["operation"]);
        loop {
            let shown = central::ask::get(listen, &path, line)?;
            if shown["state"] != "running" {
                return Ok(shown);
            }
            std::thread::sleep(POLL);
        }
    })?;
    anyhow::ensure!(ended["state"] == "done", "central ended before the import did; import the file again");
    let added = ended["done"].as_u64().unwrap_or(0).saturating_sub(ended["failed"].as_u64().unwrap_or(0));
    print_result(&ended["faults"], &added.into(), &ended["failed"], "are added")
}

fn without_nulls(mut body: Value) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.retain(|_, value| !value.is_null());
    }
    body
}

/// Prints each line that failed, and the sum; fails when one did.
fn print_result(faults: &Value, added: &Value, failed: &Value, outcome: &str) -> anyhow::Result<()> {
    for fault in faults.as_array().into_iter().flatten() {
        let why = fault["why"].as_str().unwrap_or("?");
        logging::print(&format!("line {}: {why}", fault["line"]));
    }
    logging::print(&format!("{added} devices {outcome}"));
    anyhow::ensure!(failed.as_u64() == Some(0), "{failed} lines cannot be added");
    Ok(())
}

fn export(data: &DataArgs, with_keys: bool) -> anyhow::Result<()> {
    let role = if with_keys { Role::Administrator } else { Role::Operator };
    let mut after = Value::Null;
    loop {
        let body = without_nulls(json!({"keys": with_keys, "after": after}));
        let part = ask_serving(data, role, |listen, line| {
            central::ask::post(listen, "/api/ext/devices/export", line, &body)
        })?;
        let text = part["csv"].as_str().context("the answer has no text")?;
        std::io::stdout().lock().write_all(text.as_bytes()).context("writing to standard output")?;
        after = part["next"].clone();
        if after.is_null() {
            return Ok(());
        }
    }
}
