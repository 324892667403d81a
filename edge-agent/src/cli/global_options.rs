//! The options that every command has.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_hub::logging;
use serde::de::DeserializeOwned;
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

    /// What the daemon answers: the whole of it, for `--json`, and what this version reads of it.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Value, T)> {
        let answer = self.ask(method, path, body).await?;
        let read = T::deserialize(&answer).context("reading the daemon's answer")?;
        Ok((answer, read))
    }

    pub(super) fn print(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        let out = if self.json { format!("{json:#}") } else { text() };
        logging::print(out.trim_end());
        Ok(())
    }
}
