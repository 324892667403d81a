//! The gateway's small durable state: identities, twins, the deployment in force, command answers, sessions.
//!
//! It lives in sled 0.34, which nobody else in the program knows, because sled alone does not keep its word:
//! `flush` leaves the data in the page cache, and a damaged file makes `open` panic. So one thread owns the database,
//! syncs its file after every flush before it says "saved", opens it under guard, and exports everything to a plain
//! file from which a damaged database is restored.
//!
//! Every room keeps its own part in memory; the database is read once, when the daemon starts.

mod export;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Writes that may wait for the disk at one time. Beyond it a write is refused: its caller tells its client to try again.
const WAITING_MAX: usize = 4096;

/// What a value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Twins by identity.
    Twins,
    /// Leaf devices: those that central assigned (one list) and those added here.
    Devices,
    /// The deployment in force.
    Deployment,
    /// Commands that run, and answers that central has not acknowledged.
    Commands,
    /// Subscriptions by MQTT client id.
    Sessions,
}

impl Room {
    const ALL: [Self; 5] = [Self::Twins, Self::Devices, Self::Deployment, Self::Commands, Self::Sessions];

    fn name(self) -> &'static str {
        match self {
            Self::Twins => "twins",
            Self::Devices => "devices",
            Self::Deployment => "deployment",
            Self::Commands => "commands",
            Self::Sessions => "sessions",
        }
    }
}

/// Why state could not be opened, read or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory could not be used.
    #[error("state in {dir}: {doing}")]
    Directory {
        /// Which.
        dir: std::path::PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The database did not open and no export could take its place.
    #[error("state in {dir}: the database is damaged and was set aside as {set_aside}; no export to restore")]
    Damaged {
        /// Which.
        dir: std::path::PathBuf,
        /// Its new name.
        set_aside: String,
    },
    /// A value does not have the shape that this version writes.
    #[error("state: {room} `{key}` cannot be read")]
    Value {
        /// Its room.
        room: &'static str,
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The write did not reach the disk.
    #[error("state was not saved: {0}")]
    NotSaved(String),
}

struct Write {
    room: Room,
    key: String,
    value: Option<Vec<u8>>,
    saved: oneshot::Sender<Result<(), String>>,
}

/// A handle on the one thread that writes. Cheap to clone; the thread ends, with everything saved, with the last one.
#[derive(Clone)]
pub struct State {
    writes: SyncSender<Write>,
    loaded: Arc<Vec<(Room, String, Vec<u8>)>>,
    ended: Arc<tokio::sync::watch::Receiver<()>>,
}

impl State {
    /// Opens the state in `dir`, restoring it from its export when the database is damaged. Blocking.
    ///
    /// # Errors
    /// [`StateError`] when the directory cannot be used, or neither database nor export can be read.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let mut store = store::Store::open(dir)?;
        let loaded = Arc::new(store.all());
        let (writes, incoming) = sync_channel::<Write>(WAITING_MAX);
        let (ending, ended) = tokio::sync::watch::channel(());
        std::thread::Builder::new()
            .name("state".into())
            .spawn(move || {
                while let Ok(first) = incoming.recv() {
                    // One sync for all that arrived while the last one ran.
                    let batch: Vec<Write> = std::iter::once(first).chain(incoming.try_iter()).collect();
                    let changes = batch.iter().map(|w| (w.room, w.key.as_str(), w.value.as_deref()));
                    let result = store.save(changes).map_err(|error| {
                        tracing::error!(%error, writes = batch.len(), "state was not saved");
                        error.to_string()
                    });
                    for write in batch {
                        // A caller that did not wait for the disk is not told.
                        let _ = write.saved.send(result.clone());
                    }
                    store.export_when_due();
                }
                store.export();
                drop(store);
                drop(ending);
            })
            .map_err(|source| StateError::Directory {
                dir: dir.to_owned(),
                doing: "starting its thread",
                source,
            })?;
        Ok(Self { writes, loaded, ended: Arc::new(ended) })
    }

    /// What a room held when the state was opened, by key.
    ///
    /// # Errors
    /// [`StateError::Value`] for a value of another shape.
    pub fn load<T: DeserializeOwned>(&self, room: Room) -> Result<Vec<(String, T)>, StateError> {
        self.loaded
            .iter()
            .filter(|(of, _, _)| *of == room)
            .map(|(_, key, value)| match serde_json::from_slice(value) {
                Ok(value) => Ok((key.clone(), value)),
                Err(source) => Err(StateError::Value { room: room.name(), key: key.clone(), source }),
            })
            .collect()
    }

    /// Saves a value. The order of writes is fixed before this returns; the future ends when it is on disk.
    pub fn put<T: Serialize>(&self, room: Room, key: &str, value: &T) -> Saved {
        match serde_json::to_vec(value) {
            Ok(value) => self.write(room, key, Some(value)),
            Err(error) => Saved(Err(StateError::NotSaved(error.to_string()))),
        }
    }

    /// Forgets a value.
    pub fn remove(&self, room: Room, key: &str) -> Saved {
        self.write(room, key, None)
    }

    fn write(&self, room: Room, key: &str, value: Option<Vec<u8>>) -> Saved {
        let (saved, answer) = oneshot::channel();
        match self.writes.try_send(Write { room, key: key.to_owned(), value, saved }) {
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
        if let Some(mut ended) = Arc::into_inner(ended) {
            // An error is what is waited for: the thread has dropped its end.
            let _ = ended.changed().await;
        }
    }
}

/// A write on its way to the disk. Dropping it does not undo the write.
#[must_use = "await it where something is promised; `.later()` where a loss costs only a repetition"]
pub struct Saved(Result<oneshot::Receiver<Result<(), String>>, StateError>);

impl Saved {
    /// Ends when the write is on disk.
    ///
    /// # Errors
    /// [`StateError::NotSaved`] when it did not get there.
    pub async fn durable(self) -> Result<(), StateError> {
        match self.0?.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StateError::NotSaved(error)),
            Err(_) => Err(StateError::NotSaved("the writing thread has ended".into())),
        }
    }

    /// Does not wait. A failure was logged by the writing thread, or is logged here.
    pub fn later(self) {
        if let Err(error) = self.0 {
            tracing::error!(%error, "a write was not taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_saved_is_there_after_a_restart_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.put(Room::Twins, "press-1", &"first").durable().await.unwrap();
        state.put(Room::Twins, "press-1", &"second").durable().await.unwrap();
        state.put(Room::Twins, "press-2", &"gone").durable().await.unwrap();
        state.remove(Room::Twins, "press-2").durable().await.unwrap();
        // Larger than what sled would put into a file of its own.
        let large = "x".repeat(300_000);
        state.put(Room::Deployment, "large", &large).durable().await.unwrap();
        state.close().await;

        let state = State::open(dir.path()).unwrap();
        let twins: Vec<(String, String)> = state.load(Room::Twins).unwrap();
        assert_eq!(twins, [("press-1".to_owned(), "second".to_owned())]);
        assert_eq!(state.load::<String>(Room::Deployment).unwrap(), [("large".to_owned(), large)]);
        assert!(state.load::<u8>(Room::Twins).is_err(), "a value of another shape is an error");
    }

    #[tokio::test]
    async fn a_damaged_database_is_set_aside_and_restored_from_the_export() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.put(Room::Devices, "press-1", &"key").durable().await.unwrap();
        state.close().await;
        for entry in std::fs::read_dir(dir.path().join("sled")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let length = std::fs::metadata(&path).unwrap().len() as usize;
                std::fs::write(&path, vec![0xA5; length.min(4096)]).unwrap();
            }
        }
        let state = State::open(dir.path()).unwrap();
        let devices: Vec<(String, String)> = state.load(Room::Devices).unwrap();
        assert_eq!(devices, [("press-1".to_owned(), "key".to_owned())]);
        let aside = std::fs::read_dir(dir.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sled.damaged-")
        });
        assert_eq!(aside.count(), 1);
        state.put(Room::Devices, "press-2", &"key").durable().await.unwrap();
    }
}
