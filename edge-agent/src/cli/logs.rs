//! `edge-agent logs`.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_hub::logging;

use super::global_options::GlobalOptions;
use super::text::encoded;
use crate::control::client::stream;

#[derive(Args)]
pub(super) struct Logs {
    /// The module's id in the manifest.
    module: String,
    /// Go on with what it writes from now on, until its container ends.
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only what was written after this time: 2026-11-29T03:00:00Z, or how long ago: 90s, 15min, 2h, 1d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Begin each line with the time at which it was written.
    #[arg(long)]
    timestamps: bool,
}

impl Logs {
    /// Prints the log as it comes. A terminal is shown no control characters but ends of lines and tabs: what a module writes must
    /// not move its reader's cursor. A reader that goes away ends it.
    pub(super) async fn run(&self, options: &GlobalOptions) -> Result<()> {
        let config = options.load()?;
        let mut out = std::io::stdout();
        let is_terminal = out.is_terminal();
        let mut failure = None;
        stream(&config.data_dir, &self.path(), |part| {
            let written = if is_terminal {
                out.write_all(printable(&String::from_utf8_lossy(part)).as_bytes())
            } else {
                out.write_all(part)
            };
            match written.and_then(|()| out.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error).filter(|error| error.kind() != ErrorKind::BrokenPipe);
                    ControlFlow::Break(())
                }
            }
        })
        .await?;
        failure.map_or(Ok(()), |error| Err(error).context("writing to standard output"))
    }

    fn path(&self) -> String {
        let mut path = format!(
            "/modules/{}/log?follow={}&timestamps={}",
            encoded(&self.module),
            self.follow,
            self.timestamps
        );
        let tail = self.tail.map(|lines| lines.to_string());
        for (name, value) in [("tail", &tail), ("since", &self.since), ("until", &self.until)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        path
    }
}

fn printable(text: &str) -> String {
    let is_shown = |c: &char| !logging::is_unsafe(*c) || matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_shown(&c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}");
    }

    #[test]
    fn the_path_of_a_request_has_what_was_requested() {
        let logs = Logs {
            module: "filter".into(),
            follow: true,
            tail: Some(5),
            since: Some("2026-11-29T03:00:00+01:00".into()),
            until: None,
            timestamps: false,
        };
        let expected = "/modules/filter/log?follow=true&timestamps=false&tail=5&since=2026%2D11%2D29T03%3A00%3A00%2B01%3A00";
        assert_eq!(logs.path(), expected);
    }
}
