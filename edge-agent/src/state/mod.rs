//! The gateway's small durable state: identities, twins, the deployment in force, command answers, sessions.
//!
//! Nobody else in the program knows how it is kept:
//!
//! ```text
//! put ─> journal (a log of edge-buffer: one fdatasync for all that arrived) ─> "saved"
//!           │ every minute, what changed
//!           ├─> sled, synced and stamped with the journal's sequence
//!           └─> every few MB: export, lines of text with checksums ─> the journal forgets what both exports hold
//! ```
//!
//! sled 0.34 alone does not keep its word: its flush does not survive a power cut, and one flipped bit makes its open
//! panic. Here nothing depends on it alone. A start takes sled's values when they are what the stamp says, otherwise the
//! export's, and in either case applies what the journal holds beyond. See docs/decisions, "A journal before sled".
//!
//! Every namespace keeps its own part in memory; all this is read once, when the daemon starts.

mod error;
mod export;
mod journal;
mod keeper;
mod line;
mod position;
mod removed;
mod reserve;
mod store;
#[cfg(test)]
mod tests;
mod values;

use edge_buffer::AppendError;
use edge_core::error_chain::chain;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use edge_hub::tasks;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

pub use self::error::StateError;
pub use self::removed::RemovedState;
use self::values::Change;
pub use self::values::Namespace;

/// Writes that may wait for the disk at one time. Beyond it a write is refused: its caller tells its client to try again.
const WAITING_MAX: usize = 4096;
/// Of which those that one call of [`State::remove_all`] may have.
const REMOVALS_AT_ONCE: usize = 256;

struct Write {
    change: Change,
    saved: oneshot::Sender<Result<(), AppendError>>,
}

/// A handle on the one thread that writes. Cheap to clone; the thread ends, with everything saved, with the last one.
#[derive(Clone)]
pub struct State {
    writes: SyncSender<Write>,
    loaded: Arc<Vec<(Namespace, String, Vec<u8>)>>,
    journal: edge_buffer::Log,
    removed: Arc<OnceLock<RemovedState>>,
    has_lost_changes: bool,
    ended: Arc<tokio::sync::watch::Receiver<()>>,
}

impl State {
    /// Opens the state in `dir`, restoring it from export and journal when the database is damaged. Blocking.
    ///
    /// # Errors
    /// [`StateError`] when the directory cannot be used, or too much of it is damaged.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Self::open_with(dir, None, false)
    }

    /// As [`State::open`], with a copy of the journal's ledger outside of `dir`: when `dir` is gone, that is noticed by it. `is_removed`:
    /// somebody removed both while the daemon did not run.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(dir: &Path, ledger_copy: Option<&Path>, is_removed: bool) -> Result<Self, StateError> {
        let (mut keeper, values) = keeper::Keeper::open(dir, ledger_copy, is_removed)?;
        let removed = Arc::new(OnceLock::new());
        if keeper.has_begun_anew() {
            let _first = removed.set(RemovedState::BeforeStart);
        }
        let has_lost_changes = keeper.has_lost_changes();
        let noticed = removed.clone();
        let loaded =
            Arc::new(values.into_iter().map(|((namespace, key), value)| (namespace, key, value)).collect());
        let journal = keeper.log();
        let (writes, incoming) = sync_channel::<Write>(WAITING_MAX);
        let (ending, ended) = tokio::sync::watch::channel(());
        std::thread::Builder::new()
            .name(tasks::STATE_THREAD.into())
            .spawn(move || {
                loop {
                    match incoming.recv_timeout(keeper.checkpoint_due().min(keeper.check_due())) {
                        Ok(first) => {
                            tasks::essential_turn(tasks::STATE_THREAD);
                            // One sync for all that arrived while the last one ran.
                            let (changes, answers): (Vec<_>, Vec<_>) = std::iter::once(first)
                                .chain(incoming.try_iter())
                                .map(|write| (write.change, write.saved))
                                .unzip();
                            for (result, saved) in keeper.save(changes).into_iter().zip(answers) {
                                // A caller that did not wait for the disk gets no result.
                                let _ = saved.send(result);
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    keeper.checkpoint_when_due();
                    if keeper.check_when_due() {
                        let _first = noticed.set(RemovedState::WhileRunning);
                    }
                }
                keeper.close();
                drop(ending);
            })
            .map_err(|source| StateError::Directory {
                dir: dir.to_owned(),
                doing: "starting its thread",
                source,
            })?;
        Ok(Self { writes, loaded, journal, removed, has_lost_changes, ended: Arc::new(ended) })
    }

    /// What a namespace held when the state was opened, by key. A value that cannot be read is left where it is, reported by an ERROR
    /// in the log, and left out: it must stop neither the start nor what does not depend on it.
    pub fn load<T: DeserializeOwned>(&self, namespace: Namespace) -> Vec<(String, T)> {
        let values = self.loaded.iter().filter(|(of, _, _)| *of == namespace);
        values
            .filter_map(|(_, key, value)| {
                Some((key.clone(), readable(namespace, key, serde_json::from_slice(value))?))
            })
            .collect()
    }

    /// What was found removed first since the daemon started, if anything was.
    pub fn removed(&self) -> Option<RemovedState> {
        self.removed.get().copied()
    }

    /// Returns true when changes that had been saved were missing when the state was opened: what it holds may be older than what the
    /// daemon did.
    pub fn has_lost_changes(&self) -> bool {
        self.has_lost_changes
    }

    /// The numbers of the journal's log.
    pub fn journal_stats(&self) -> edge_buffer::Stats {
        self.journal.stats()
    }

    /// Saves a value. The order of writes is fixed before this returns; the future ends when it is on disk.
    pub fn put<T: Serialize>(&self, namespace: Namespace, key: &str, value: &T) -> Saved {
        match schemas::json::to_stored(value) {
            Ok(value) => self.write(namespace, key, Some(value)),
            Err(error) => Saved(Err(StateError::NotSaved(chain(&error).to_string()))),
        }
    }

    pub fn remove(&self, namespace: Namespace, key: &str) -> Saved {
        self.write(namespace, key, None)
    }

    /// Forgets values; ends when that is on disk. However many, few of them wait for the disk at one time.
    ///
    /// # Errors
    /// [`StateError::NotSaved`] when one did not get there; others may have.
    pub async fn remove_all(
        &self,
        namespace: Namespace,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<(), StateError> {
        let mut waiting = VecDeque::new();
        for key in keys {
            if waiting.len() >= REMOVALS_AT_ONCE
                && let Some(first) = waiting.pop_front()
            {
                Saved::durable(first).await?;
            }
            waiting.push_back(self.remove(namespace, &key));
        }
        for saved in waiting {
            saved.durable().await?;
        }
        Ok(())
    }

    fn write(&self, namespace: Namespace, key: &str, value: Option<Vec<u8>>) -> Saved {
        let (saved, answer) = oneshot::channel();
        let change = Change { namespace, key: key.to_owned(), value };
        match self.writes.try_send(Write { change, saved }) {
            Ok(()) => Saved(Ok(answer)),
            Err(TrySendError::Full(_)) => {
                Saved(Err(StateError::NotSaved(format!("{WAITING_MAX} writes wait for the disk already"))))
            }
            Err(TrySendError::Disconnected(_)) => {
                Saved(Err(StateError::NotSaved("the writing thread has ended".into())))
            }
        }
    }

    /// Gives this handle back and, when it was the last one, waits until everything is saved and exported.
    pub async fn close(self) {
        let Self { writes, ended, .. } = self;
        drop(writes);
        match Arc::into_inner(ended) {
            // An error is what is waited for: the thread has dropped its end.
            Some(mut ended) => drop(ended.changed().await),
            None => {
                tracing::warn!("the state is in use while the daemon ends: its last export may be missing")
            }
        }
    }
}

/// A part of a stored value as the type that its key says. As [`State::load`] for what cannot be read.
pub(crate) fn shaped<T: DeserializeOwned>(
    namespace: Namespace,
    key: &str,
    value: serde_json::Value,
) -> Option<T> {
    readable(namespace, key, serde_json::from_value(value))
}

fn readable<T>(namespace: Namespace, key: &str, read: Result<T, serde_json::Error>) -> Option<T> {
    read.inspect_err(|error| {
        tracing::error!(namespace = namespace.name(), key, error = %chain(&error), "a stored value cannot be read and is left out");
    })
    .ok()
}

/// A write on its way to the disk. Dropping it does not undo the write.
#[must_use = "await it where something is promised; `.later()` where a loss costs only a repetition"]
pub struct Saved(Result<oneshot::Receiver<Result<(), AppendError>>, StateError>);

impl Saved {
    /// Ends when the write is on disk.
    ///
    /// # Errors
    /// [`StateError::NotSaved`] when it did not get there.
    pub async fn durable(self) -> Result<(), StateError> {
        match self.0?.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StateError::NotSaved(chain(&error).to_string())),
            Err(_) => Err(StateError::NotSaved("the writing thread has ended".into())),
        }
    }

    /// Whether the write is on disk; `None` while it is on its way. For who writes again what is not; once there is an answer, there is no
    /// other.
    pub fn is_saved(&mut self) -> Option<bool> {
        match self.0.as_mut().map(oneshot::Receiver::try_recv) {
            Ok(Ok(result)) => Some(result.is_ok()),
            Ok(Err(oneshot::error::TryRecvError::Empty)) => None,
            Ok(Err(oneshot::error::TryRecvError::Closed)) | Err(_) => Some(false),
        }
    }

    /// Does not wait. A failure was logged by the writing thread, or is logged here.
    pub fn later(self) {
        if let Err(error) = self.0 {
            tracing::error!(error = %chain(&error), "a write was not taken");
        }
    }
}
