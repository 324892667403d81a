//! Which data directory a command is about, and its store.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use central::config::Config;
use central::store::{self, LOCK_FILE, StoreError};
use clap::Args;
use edge_hub::data_lock::DataLock;

#[derive(Args)]
pub(crate) struct DataArgs {
    /// The file central.toml; without it, every setting has its default.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the store and the certificate authority; overrides `data_dir`.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgs {
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars_os())?;
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        Ok(config)
    }

    /// For commands that may begin a site.
    pub(crate) fn config_for_new(&self) -> anyhow::Result<Config> {
        let config = self.config()?;
        make_dir(&config.data_dir)?;
        Ok(config)
    }

    /// For commands about a site that is there: a mistyped path must not begin another one.
    pub(crate) fn config_for_existing(&self) -> anyhow::Result<Config> {
        let config = self.config()?;
        let store = config.data_dir.join(central::store::FILE);
        anyhow::ensure!(
            store.exists(),
            "there is no store at {}; give the --data-dir or --config that `central serve` has, which makes one at its first start",
            store.display()
        );
        Ok(config)
    }
}

/// Makes the data directory for its owner alone: the store in it holds the keys of devices.
fn make_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making the data directory {}", dir.display()))
}

/// Does something in the store, beside a central that serves or not.
pub(super) fn in_store<T: Send + 'static>(
    config: &Config,
    work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    in_store_with(config, move |c| Ok::<_, StoreError>(work(c)?))
}

/// [`in_store`] for work with errors of its own.
pub(super) fn in_store_with<T, E>(
    config: &Config,
    work: impl FnOnce(&rusqlite::Connection) -> Result<T, E> + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + From<StoreError> + Send + Sync + 'static,
{
    // A central that serves has done it.
    if let Ok(_alone) = DataLock::acquire(&config.data_dir, LOCK_FILE, "central") {
        store::forget_cached(&config.data_dir)?;
    }
    // The store checks its file at intervals.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.context("starting the async runtime")?;
    runtime.block_on(async {
        let store = store::open(&config.data_dir, config.keep.limits())?;
        let done = store.submit(work).await;
        store.close().await;
        Ok(done?)
    })
}
