//! The store as a whole: its ID scope, backups, and beginning with an empty one.

use std::path::Path;

use central::clock;
use central::identity;
use central::store::{LOCK_FILE, backup, enrollments};
use edge_hub::data_lock::DataLock;
use edge_hub::logging;

use super::data::{DataArgs, in_store};

pub(crate) fn id_scope(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let configured = config.dps.id_scope.clone();
    let scope = in_store(&config, move |c| enrollments::id_scope(c, configured.as_deref()))?;
    logging::print(&scope.to_string());
    Ok(())
}

pub(crate) fn back_up(data: &DataArgs, file: &Path) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let made = backup::make(&config.data_dir, file, clock::now_ms())?;
    logging::print(&format!(
        "backup written and checked: {}, {} commits, telemetry up to message {}",
        file.display(),
        made.position.commits,
        made.position.messages
    ));
    Ok(())
}

pub(crate) fn restore(data: &DataArgs, file: &Path, replace: bool) -> anyhow::Result<()> {
    let config = data.config_for_new()?;
    let restored = backup::restore(&config.data_dir, file, replace, clock::now_ms())?;
    logging::print(&format!(
        "restored into {}: the store of {}, {} commits, telemetry up to message {}; what came later is not in it",
        config.data_dir.display(),
        schemas::timestamp::rfc3339(restored.made_ms),
        restored.position.commits,
        restored.position.messages
    ));
    Ok(())
}

pub(crate) fn new_authority(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let _lock = DataLock::acquire(&config.data_dir, LOCK_FILE, "central")?;
    identity::make_authority(&config.data_dir)?;
    let path = config.data_dir.join("ca.pem");
    logging::print(&format!(
        "{} is the certificate authority that gateways and devices must trust",
        path.display()
    ));
    Ok(())
}

pub(crate) fn new_store(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_new()?;
    backup::begin_anew(&config.data_dir, clock::now_ms())?;
    logging::print(&format!("an empty store was made in {}", config.data_dir.display()));
    Ok(())
}
