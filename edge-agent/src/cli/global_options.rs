//! The options that every command has.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use edge_hub::logging;
use serde_json::Value;

use crate::config::Config;
use crate::control::client::request;

const DEFAULT_CONFIG: &str = "/etc/edge-agent/edge.toml";

#[derive(Args)]
pub(crate) struct GlobalOptions {
    /// The configuration.
    #[arg(long, global = true, default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
    /// Print JSON, for machines.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl GlobalOptions {
    pub(super) fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let config = self.load()?;
        Ok(request(&config.data_dir, method, path, body).await?)
    }

    pub(super) fn print(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        let out = if self.json { format!("{json:#}") } else { text() };
        logging::print(out.trim_end());
        Ok(())
    }
}
