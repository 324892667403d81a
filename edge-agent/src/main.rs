//! `edge-agent`: the gateway's daemon and its command line.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

use std::process::ExitCode;

use edge_hub::logging;

#[tokio::main]
async fn main() -> ExitCode {
    // Without a log the daemon would not say what it loses.
    let Ok(_logging) = logging::start() else { return ExitCode::FAILURE };
    edge_agent::cli::Cli::start().await
}
