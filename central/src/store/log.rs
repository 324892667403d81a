//! The store's log (SQLite's WAL) on its way into the store's file.
//!
//! SQLite copies frames of the log into the file, syncs the file, and only then writes over the log. It does not sync when readers keep
//! it from copying all, and counts the copied frames as moved all the same. If the disk loses such pages, the kernel says so once, to
//! the next sync of the file, and takes the pages for written. SQLite's next move then copies only the frames behind them, and the log
//! that still had them is written over: the file has lost pages that were committed.
//!
//! # Guarantees
//! - The log is moved by the writer only, where the error of each move is seen. Neither a commit nor the end of a connection moves it.
//! - After a move that failed for the disk nothing is committed or moved by this process. The next start opens the log anew, and
//!   then SQLite copies all of it.
//! - After a commit that failed for the disk nothing is moved either, and central ends as soon as a commit succeeds: what was moved while
//!   the disk failed may be lost without an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use edge_core::error_chain::chain;
use rusqlite::{Connection, ErrorCode};

use super::error::StoreError;
use super::limits::LOCKED_TRY;
use super::paths::FILE;
use super::space::disk_bytes;

/// Pages (4 KB) in the log before they are moved into the file: what a busy site writes again and again, the ends of its
/// indexes, is moved once in so many commits and not after each. What is in the log alone, one flipped bit takes back; so
/// the writer also moves it every few seconds.
const PAGES_MAX: u64 = 4096;
/// On a small disk they are fewer: the log takes a sixteenth of it, and the file needs as much again to grow by.
const DISK_PART: u64 = 16;
const PAGES_MIN: u64 = 64;
/// A log that takes more than this is cut when the disk is nearly full; of any length when it is full.
const CUT_BYTES: u64 = 1 << 20;
/// How long a move waits for readers of older states. The next one is soon.
const READERS_MAX: Duration = Duration::from_millis(50);

/// What the writer knows of the log.
#[derive(Debug)]
pub(super) struct WriteAheadLog {
    path: PathBuf,
    /// Pages in it after the last commit.
    pages: Arc<AtomicI32>,
    /// From so many on it is moved without a reminder.
    pages_max: i32,
    /// Whether anything was committed since it was moved whole. The log of an earlier process may not have been.
    pub(super) is_ahead: bool,
    /// A move failed for the disk.
    is_broken: bool,
    /// A commit failed for the disk: what was moved lately may not be in the file.
    is_doubted: bool,
}

/// How far the log is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogMove {
    /// As far as readers let it, without a wait.
    WhatIsFree,
    /// Whole, and begun anew by the next commit.
    Whole,
    /// Whole, and cut to nothing: central stops, or the disk is nearly full.
    Cut,
}

/// The disk failed while the log was moved.
#[derive(Debug, thiserror::Error)]
#[error(
    "the disk failed while the store's log was moved into its file; the next start moves all of it again"
)]
pub(super) struct LogBroken;

impl WriteAheadLog {
    /// Counts the pages of the log of `store` from now on.
    pub(super) fn watch(connection: &mut Connection, store: &Path) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let count = pages.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            count.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            path: log_path(store),
            pages,
            pages_max: pages_max(store),
            is_ahead: true,
            is_broken: false,
            is_doubted: false,
        })
    }

    /// Returns true when so much is in the log that it shall be moved before the next reminder.
    pub(super) fn is_long(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= self.pages_max
    }

    /// Returns true when so much of the disk is the log's that cutting it would help a disk that is nearly full. SQLite writes over a log
    /// that was moved, and keeps its length.
    pub(super) fn is_worth_cutting(&self, is_full: bool) -> bool {
        let least = if is_full { 0 } else { CUT_BYTES };
        std::fs::metadata(&self.path).is_ok_and(|log| log.len() > least)
    }

    /// Pages in it after the last commit of this connection.
    pub(super) fn pages(&self) -> u32 {
        u32::try_from(self.pages.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Notes that a commit failed. The next one writes to the same places of the log.
    pub(super) fn commit_failed(&mut self, error: &StoreError) {
        if !matches!(error, StoreError::Sqlite(source) if is_of_disk(source)) {
            return;
        }
        self.is_doubted = true;
        // SQLite has no locks on the log's file that closing it would release.
        if let Err(error) = edge_buffer::forget_cached(&self.path) {
            tracing::error!(error = %chain(&error), path = %self.path.display(), "the store's log, of which a part could not be written, stays in memory");
        }
    }

    /// Notes that a commit succeeded.
    ///
    /// # Errors
    /// [`LogBroken`] when one had failed for the disk before.
    pub(super) fn committed(&mut self) -> Result<(), LogBroken> {
        self.is_ahead = true;
        if self.is_doubted {
            tracing::error!(
                "the disk failed and works again; central ends, so that its next start moves all of the store's log"
            );
            self.is_broken = true;
            return Err(LogBroken);
        }
        Ok(())
    }

    /// Moves the log; true if all of it was moved.
    ///
    /// # Errors
    /// [`LogBroken`] when the disk failed, now or before. An error that may pass is logged.
    pub(super) fn move_into_file(
        &mut self,
        connection: &Connection,
        how: LogMove,
    ) -> Result<bool, LogBroken> {
        if self.is_broken {
            return Err(LogBroken);
        }
        if self.is_doubted {
            return Ok(false);
        }
        match checkpoint(connection, how) {
            Ok(is_whole) => {
                // Frames that stand before damaged ones are read again as long as the log was not begun anew.
                self.is_ahead &= !is_whole || how == LogMove::WhatIsFree;
                Ok(is_whole)
            }
            Err(error) if is_of_disk(&error) => {
                self.is_broken = true;
                tracing::error!(error = %chain(&error), "the disk failed while the store's log was moved into its file");
                Err(LogBroken)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "moving the store's log into its file failed");
                Ok(false)
            }
        }
    }
}

fn pages_max(store: &Path) -> i32 {
    let disk = store.parent().and_then(|dir| disk_bytes(dir).ok());
    // A page and its header in the log take a little more than a page; the part is rough anyway.
    let part = disk.unwrap_or(u64::MAX) / DISK_PART / 4096;
    i32::try_from(part.clamp(PAGES_MIN, PAGES_MAX)).unwrap_or(i32::MAX)
}

fn is_of_disk(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// Has the kernel forget what it remembers of the store in `dir`, so that its files are read as the disk has them. To be called by whoever
/// holds the lock of the directory, before SQLite opens the store: closing a file releases the locks that this process has on it (fcntl(2)),
/// and a central that serves needs in memory what it reads.
///
/// A commit that failed, and was never confirmed, may look whole to the next process. Were it moved into the file, or followed by commits
/// that are confirmed, then after the next power cut the log would end before it: what follows would be lost, and the file would
/// have parts of what the log has no more. Were pages written again that could not be written before, the disk might lose them.
///
/// # Errors
/// [`StoreError::File`] when a file cannot be opened.
pub fn forget_cached(dir: &Path) -> Result<(), StoreError> {
    let store = dir.join(FILE);
    let log = log_path(&store);
    for path in [store, log] {
        match edge_buffer::forget_cached(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            forgotten => forgotten.map_err(|source| StoreError::File { path, source })?,
        }
    }
    Ok(())
}

/// The log of a store.
pub(super) fn log_path(store: &Path) -> PathBuf {
    beside(store, "-wal")
}

/// The index of the log of a store: which pages are in it, and how far it goes.
pub(super) fn index_path(store: &Path) -> PathBuf {
    beside(store, "-shm")
}

fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// Returns true if all of the log was moved.
fn checkpoint(connection: &Connection, how: LogMove) -> rusqlite::Result<bool> {
    let mode = match how {
        LogMove::WhatIsFree => "PASSIVE",
        LogMove::Whole => "RESTART",
        LogMove::Cut => "TRUNCATE",
    };
    connection.busy_timeout(READERS_MAX)?;
    let moved = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (is_busy, pages, moved): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!is_busy && pages == moved)
    });
    connection.busy_timeout(LOCKED_TRY)?;
    moved
}
