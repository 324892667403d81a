//! `edge-agent support-bundle`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_core::moment;
use edge_hub::logging;
use schemas::timestamp::rfc3339;
use serde_json::json;

use super::global_options::GlobalOptions;
use crate::clock::now_ms;
use crate::diagnostics::bundle::{BundleOptions, TAIL_DEFAULT, write};

#[derive(Args)]
pub(super) struct SupportBundle {
    /// The file to write; it must not exist. Left out: edge-agent-support-TIME.tar.gz in the current directory.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// The beginning of the logs: 2026-11-29T03:00:00Z, or how long ago: 90s, 15min, 2h, 1d.
    #[arg(long, value_name = "TIME", default_value = "1d")]
    since: String,
    /// Lines of each module's log: the last ones.
    #[arg(long, value_name = "LINES", default_value_t = TAIL_DEFAULT)]
    tail: u32,
}

impl SupportBundle {
    /// Writes the archive and prints its name, and what could not be put into it.
    pub(super) async fn run(&self, options: &GlobalOptions) -> Result<()> {
        let now_ms = now_ms();
        let since_ms = moment::parse(&self.since, now_ms).with_context(|| {
            format!("--since: found {:?}; write a time, or how long ago: 2h, 1d", self.since)
        })?;
        let file = self.output.clone().unwrap_or_else(|| {
            let digits: String = rfc3339(now_ms).chars().filter(char::is_ascii_digit).take(14).collect();
            format!("edge-agent-support-{digits}.tar.gz").into()
        });
        // For its owner alone: names of devices and addresses are in it.
        let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
        let out = out.with_context(|| format!("creating {}", file.display()))?;
        let bundle = BundleOptions::new(options.config.clone(), since_ms, None, self.tail);
        let written = write(&bundle, &out).await.and_then(|left_out| out.sync_all().map(|()| left_out));
        let left_out = written.with_context(|| format!("writing {}", file.display()))?;
        for line in &left_out {
            logging::print_error(line);
        }
        options.print(&json!({"file": file, "leftOut": left_out}), || file.display().to_string())
    }
}
