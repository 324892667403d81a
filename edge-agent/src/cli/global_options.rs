//! The options that every command has.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_hub::logging;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Config;
use crate::control::client::{ANSWER_TIMEOUT, request};

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

    /// Sends a request to the daemon and returns the JSON of its answer.
    pub(super) async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let config = self.load()?;
        Ok(request(&config.data_dir, method, path, body, ANSWER_TIMEOUT).await?)
    }

    /// As [`Self::request`], and also the answer in the type that this version reads. The JSON, which `--json` prints, has what a
    /// newer daemon adds.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Value, T)> {
        self.answer_after(Duration::ZERO, method, path, body).await
    }

    /// As [`Self::answer`], for a request that the daemon may take `wait` to carry out.
    pub(super) async fn answer_after<T: DeserializeOwned>(
        &self,
        wait: Duration,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Value, T)> {
        let config = self.load()?;
        let timeout = wait.saturating_add(ANSWER_TIMEOUT);
        let answer = request(&config.data_dir, method, path, body, timeout).await?;
        let read = T::deserialize(&answer).context("reading the daemon's answer")?;
        Ok((answer, read))
    }

    pub(super) fn print(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            logging::print_json(json)
        } else {
            logging::print(text().trim_end())
        }
        Ok(())
    }
}
