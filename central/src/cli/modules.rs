//! `central module …`: answered by the central that serves.

use central::ask;
use central::token::Role;
use clap::{Args, Subcommand};
use edge_hub::logging;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemas::names::{DeviceId, ModuleId};

use super::data::DataArgs;
use super::serving::ask_serving;

#[derive(Subcommand)]
pub(crate) enum ModuleCommand {
    /// Prints the log of a module, read from its gateway now: the last 200 lines, or those that the options choose. Texts with the
    /// form of a secret are hidden. Needs a running central, which notes it in the audit log.
    Logs(LogOptions),
}

#[derive(Args)]
pub(crate) struct LogOptions {
    /// The gateway's device id.
    gateway: DeviceId,
    /// The module's id in the manifest.
    module: ModuleId,
    /// Only the last lines, 1 to 10000, before the other options.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only what was written after this time: 2026-11-29T03:00:00Z, or how long ago: 90s, 15min, 2h, 1d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only lines that match this regular expression.
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only lines of this severity of syslog: 0 (emergency) to 7 (debug).
    #[arg(long, value_name = "LEVEL")]
    level: Option<u8>,
}

impl LogOptions {
    fn path(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = [
            ("tail", self.tail.map(|lines| lines.to_string())),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
            ("regex", self.grep.clone()),
            ("logLevel", self.level.map(|level| level.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))))
        .collect();
        let (gateway, module) = (encoded(self.gateway.as_str()), encoded(self.module.as_str()));
        format!("/api/ext/devices/{gateway}/modules/{module}/logs?{}", query.join("&"))
    }
}

pub(crate) fn run(data: &DataArgs, command: ModuleCommand) -> anyhow::Result<()> {
    match command {
        ModuleCommand::Logs(options) => logs(data, &options),
    }
}

fn logs(data: &DataArgs, options: &LogOptions) -> anyhow::Result<()> {
    let path = options.path();
    let answer = ask_serving(data, Role::Operator, |listen, line| ask::get(listen, &path, line))?;
    for line in answer["lines"].as_array().into_iter().flatten() {
        let text = line["text"].as_str().unwrap_or_default();
        match line["time"].as_str() {
            Some(time) => logging::print(&format!("{time} {text}")),
            None => logging::print(text),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: ModuleCommand,
    }

    #[test]
    fn what_the_options_choose_is_requested_whatever_it_has_in_it() {
        let line = ["central", "logs", "gw", "m$", "--grep", "a&b=c d", "--since", "1 h"];
        let Line { command: ModuleCommand::Logs(options) } = Line::parse_from(line);
        let expected = "/api/ext/devices/gw/modules/m%24/logs?since=1%20h&regex=a%26b%3Dc%20d";
        assert_eq!(options.path(), expected);
    }
}
