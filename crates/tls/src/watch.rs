//! Notices changes of certificate files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Why changes of files cannot be noticed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The directory of a file cannot be watched.
    #[error("{path}: changes cannot be watched")]
    Directory {
        path: PathBuf,
        #[source]
        source: notify::Error,
    },
    /// No handler for SIGHUP could be installed.
    #[error("listening for SIGHUP")]
    Signal(#[source] io::Error),
}

/// Files are read after this long without a change: a certificate and its key are two files, and are replaced one after the other.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// Notifies `changed` of every change in the directories of the files, until the watcher is dropped. The directories are watched and not
/// the files, because a watch of a file ends when another file is renamed onto it.
pub(crate) fn watch(files: &[&Path], changed: &Arc<Notify>) -> Result<RecommendedWatcher, WatchError> {
    let notified = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if event.kind.is_access() => {}
        // After an error events may be missing.
        Ok(_) | Err(_) => notified.notify_one(),
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

/// Waits until nothing has changed for [`QUIET`].
pub(crate) async fn quiet(changed: &Notify) {
    while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {}
}

pub(crate) fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
