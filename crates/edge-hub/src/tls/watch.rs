//! Tells when files of certificates changed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Why changes of files would not be noticed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The directory of a file cannot be watched.
    #[error("{path}: changes cannot be watched")]
    Directory {
        path: PathBuf,
        #[source]
        source: notify::Error,
    },
    /// SIGHUP would not be heard.
    #[error("listening for SIGHUP")]
    Signal(#[source] io::Error),
}

/// Files are read when nothing has happened beside them for so long: a certificate and its key are two files.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// Tells `changed` when something happens in the directories of the files: whoever replaces a file renames another one
/// onto it. Holds until it is dropped.
pub(super) fn watch(files: &[&Path], changed: &Arc<Notify>) -> Result<RecommendedWatcher, WatchError> {
    let told = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if event.kind.is_access() => {}
        // An event that was lost counts as one.
        Ok(_) | Err(_) => told.notify_one(),
    });
    let path = files.first().map_or_else(PathBuf::new, |file| directory(file));
    let mut watcher = watcher.map_err(|source| WatchError::Directory { path, source })?;
    let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
    for path in directories {
        let watched = watcher.watch(&path, RecursiveMode::NonRecursive);
        watched.map_err(|source| WatchError::Directory { path, source })?;
    }
    Ok(watcher)
}

/// Waits, after a change, until the files are whole again.
pub(super) async fn quiet(changed: &Notify) {
    while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {}
}

/// The directory of a file.
pub(super) fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
