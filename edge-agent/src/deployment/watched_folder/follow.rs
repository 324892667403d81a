//! Follows a path, whichever folder it leads to: a watch is one of a folder, and says nothing of another that takes its place.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use edge_core::error_chain::chain;
use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// A folder is read when nothing has happened in it for so long: a file may be written in pieces.
const QUIET: Duration = Duration::from_millis(300);

/// Which folder a path leads to. The time at which it was made is there because file systems give the number of a removed
/// folder to the next one.
#[derive(Debug, PartialEq, Eq)]
struct FolderId {
    device: u64,
    inode: u64,
    made: Option<SystemTime>,
}

/// A folder that is watched.
struct Watched {
    id: FolderId,
    /// Whether it was removed or moved: the watch goes on at another place or not at all.
    is_over: Arc<AtomicBool>,
    _watcher: RecommendedWatcher,
}

/// A path to a folder, and the folder that is watched for it.
pub(super) struct FollowedFolder {
    path: PathBuf,
    /// How often the path is looked at without an event: what replaces a parent, or is mounted over the folder, causes none.
    every: Duration,
    changed: Arc<Notify>,
    watched: Option<Watched>,
    /// Why nothing is watched, as it was logged.
    failure: Option<String>,
}

impl FollowedFolder {
    pub(super) fn new(path: PathBuf, every: Duration) -> Self {
        // Events name absolute paths.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { path, every, changed: Arc::default(), watched: None, failure: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until files of the folder may have changed, or the path leads to another folder; the first time, until there is one.
    pub(super) async fn changed(&mut self) {
        loop {
            let has_event = tokio::time::timeout(self.wait(), self.changed.notified()).await.is_ok();
            if has_event {
                while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {}
            }
            // A new watch is set before the folder is read, so that nothing is missed between the two.
            if self.follow().await || has_event {
                return;
            }
        }
    }

    /// How long it may be until the path is checked: not at all before the first check.
    fn wait(&self) -> Duration {
        if self.watched.is_none() && self.failure.is_none() { Duration::ZERO } else { self.every }
    }

    /// Watches the folder that the path leads to now. Returns whether that is another one than before.
    async fn follow(&mut self) -> bool {
        match self.check().await {
            Ok(is_new) => {
                if self.failure.take().is_some() {
                    tracing::info!(folder = %self.path.display(), "the folder of `[deploy] watch` is watched again");
                }
                is_new
            }
            Err(failure) => {
                let failure = format!("{failure:#}");
                self.watched = None;
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!(
                        folder = %self.path.display(),
                        error = failure,
                        "the folder of `[deploy] watch` cannot be watched: manifests there are not applied until it can"
                    );
                    self.failure = Some(failure);
                }
                false
            }
        }
    }

    async fn check(&mut self) -> anyhow::Result<bool> {
        let metadata = tokio::fs::metadata(&self.path).await?;
        if !metadata.is_dir() {
            bail!("it is not a folder");
        }
        let id = FolderId { device: metadata.dev(), inode: metadata.ino(), made: metadata.created().ok() };
        let is_same = |watched: &Watched| watched.id == id && !watched.is_over.load(Ordering::Acquire);
        if self.watched.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let is_other = self.watched.is_some();
        self.watched = Some(Watched::new(&self.path, id, &self.changed)?);
        if is_other {
            tracing::info!(
                folder = %self.path.display(),
                "the folder of `[deploy] watch` was moved or replaced; the one that is there now is watched"
            );
        }
        Ok(true)
    }
}

impl Watched {
    /// `id` was found before: when the path leads elsewhere by now, the next check finds that.
    fn new(path: &Path, id: FolderId, changed: &Arc<Notify>) -> notify::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (notified, ended, folder) = (changed.clone(), is_over.clone(), path.to_owned());
        let mut watcher = notify::recommended_watcher(
            move |event: notify::Result<notify::Event>| match event {
                Ok(event) if event.kind.is_access() => {}
                Ok(event) => {
                    let is_end =
                        matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
                    if is_end && event.paths.contains(&folder) {
                        ended.store(true, Ordering::Release);
                    }
                    notified.notify_one();
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the folder of manifests could not be watched for a moment");
                    notified.notify_one();
                }
            },
        )?;
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(Self { id, is_over, _watcher: watcher })
    }
}

#[cfg(test)]
mod tests;
