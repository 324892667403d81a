//! A copy of a log's ledger outside of its directory: what says that acknowledged records were there when the directory, its
//! ledger or its segments are gone.
//!
//! It has the format of the ledger. Both slots and the end record are written right after those of the ledger, and synced when a
//! segment begins: it is exact after a kill, and never ahead of the ledger. What cannot be written here fails nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::chain;
use crate::ledger::{LedgerFile, Slot};
use crate::storage::{File, entry_identity, file_at, sync_parent};

pub(crate) struct Mirror {
    path: PathBuf,
    /// `None` while it cannot be used.
    file: Option<LedgerFile>,
    /// The last write failed, which was logged.
    is_behind: bool,
}

impl Mirror {
    /// Opens or makes the copy at `path`, and reads what it says.
    pub(crate) fn open(path: &Path) -> (Self, Option<Slot>) {
        let (file, slot) = match open(path) {
            Ok((file, slot)) => (Some(file), slot),
            Err(error) => {
                tracing::warn!(file = %path.display(), error = chain(&error), "the copy of a queue's ledger cannot be used");
                (None, None)
            }
        };
        (Self { path: path.to_owned(), file, is_behind: false }, slot)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// As [`LedgerFile::end_of`].
    pub(crate) fn end_of(&self, id: Uuid) -> u64 {
        self.file.as_ref().map_or(0, |file| file.end_of(id))
    }

    /// Begins anew with the ledger's image of this generation, in both slots: nothing of what it said before counts any more.
    pub(crate) fn begin(&mut self, image: &[u8], generation: u64) {
        for _ in 0..2 {
            self.write(image);
        }
        self.follow(generation);
    }

    fn follow(&mut self, generation: u64) {
        if let Some(file) = &mut self.file {
            file.generation = generation;
        }
    }

    /// Writes what was written to the ledger, without a sync.
    pub(crate) fn write(&mut self, image: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let written = file.write_unsynced(image);
        let was_behind = std::mem::replace(&mut self.is_behind, written.is_err());
        if let Err(error) = written
            && !was_behind
        {
            tracing::warn!(file = %self.path.display(), error = chain(&error), "the copy of a queue's ledger was not written");
        }
    }

    /// As [`LedgerFile::write_end`].
    pub(crate) fn write_end(&mut self, id: Uuid, next_sequence: u64) {
        if let Some(file) = &mut self.file {
            file.write_end(id, next_sequence);
        }
    }

    pub(crate) fn sync(&self) {
        if let Some(Err(error)) = self.file.as_ref().map(LedgerFile::sync) {
            tracing::warn!(file = %self.path.display(), error = chain(&error), "the copy of a queue's ledger was not synced");
        }
    }

    /// Makes the file again when it was removed, or could not be used before; true when `write` must follow.
    pub(crate) fn check_file(&mut self) -> bool {
        let there = entry_identity(&self.path).ok().flatten();
        let is_there =
            self.file.as_ref().is_some_and(|file| there.is_some() && file.identity().ok() == there);
        if is_there {
            return false;
        }
        if self.file.is_some() {
            tracing::error!(file = %self.path.display(), "the copy of a queue's ledger was removed while the daemon runs; it is made again");
        }
        let generation = self.file.as_ref().map_or(0, |file| file.generation);
        self.file = open(&self.path).ok().map(|(file, _)| file);
        self.follow(generation);
        self.file.is_some()
    }
}

fn open(path: &Path) -> io::Result<(LedgerFile, Option<Slot>)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let is_new = !path.exists();
    let file: Arc<dyn File> = file_at(path)?;
    if is_new {
        sync_parent(path)?;
    }
    // A newer program's says nothing to this one.
    let (file, slot) = LedgerFile::read(file)?.unwrap_or_else(|(file, _version)| (file, None));
    Ok((file, slot))
}
