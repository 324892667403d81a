//! Why the store could not do something.

use std::path::{Path, PathBuf};

use super::damage::{self, is_damage};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or brought to this version's tables.
    #[error("opening the store {path}")]
    Open { path: PathBuf, source: rusqlite::Error },
    /// The file was written by a newer central.
    #[error(
        "the store {path} has tables of version {found}, this central knows up to {known}; start the newer one"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// The store has gone.
    #[error(
        "the store {path} is missing or empty, and {beside} shows that there was one; restore a backup with \
         `central restore FILE`, or begin with an empty store on purpose with `central new-store`"
    )]
    Missing {
        path: PathBuf,
        /// What was made with it.
        beside: PathBuf,
    },
    /// `central restore` was ended before it was done.
    #[error(
        "a restore of {dir} was cut: {marker} is there; run `central restore --replace FILE` again, what was here before is in \
         a folder replaced-… beside it"
    )]
    RestoreCut { dir: PathBuf, marker: PathBuf },
    /// SQLite finds the file damaged.
    #[error(
        "the store {path} is damaged: {}; restore a backup with `central restore --replace FILE`",
        findings.join(" | ")
    )]
    Damaged { path: PathBuf, findings: Vec<String> },
    /// A file beside the store cannot be read or written.
    #[error("the file {path}")]
    File { path: PathBuf, source: std::io::Error },
    /// The writer thread could not be started.
    #[error("starting the store's writer")]
    Writer(#[source] std::io::Error),
    #[error("the store refused a statement")]
    Sqlite(#[source] rusqlite::Error),
    /// The file system has less left than `[keep] free_bytes`.
    #[error(
        "the disk of the store has {free_bytes} bytes left, less than keep.free_bytes; telemetry is not taken"
    )]
    DiskLow {
        /// What is left, with what is free within the store's file.
        free_bytes: u64,
    },
    /// More waits to be written than may wait.
    #[error("the store has more to write than it may hold; try again")]
    Busy,
    /// The commit failed or the store is closed: nothing was kept of this work. The cause is in the log.
    #[error("the store did not commit; the log tells why")]
    NotCommitted,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        damage::note(&error);
        Self::Sqlite(error)
    }
}

impl StoreError {
    /// The file could not be opened, or not as what it should be.
    pub(super) fn opening(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if is_damage(&source) {
            Self::Damaged { path, findings: vec![source.to_string()] }
        } else {
            Self::Open { path, source }
        }
    }
}
