//! Keeps journal, sled and export in step, and finds the state again from whichever of them is whole.

use edge_core::error_chain::chain;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_buffer::{AppendError, Log, OpenError};

use super::error::StateError;
use super::export;
use super::journal::Journal;
use super::position::Position;
use super::reserve::{Reserve, is_full};
use super::store::{OpenFailure, Store, StoreError};
use super::values::{Change, Namespace, Values};

/// How often it is tried to reserve space again that was given away.
const RESTORE_EVERY: Duration = Duration::from_millis(250);
/// How far sled may lag behind the journal.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Nothing waits for it while nothing changes.
const IDLE: Duration = Duration::from_secs(3600);
/// Changes that are remembered for sled before the minute is over.
const CHANGED_BYTES_MAX: usize = 1 << 20;
/// How often the files are looked after.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How much may be in the journal that is in no export.
const EXPORT_BYTES: u64 = 4 << 20;

pub(super) struct Keeper {
    dir: PathBuf,
    journal: Journal,
    reserve: Reserve,
    /// `None` while it cannot be used: then the journal alone grows.
    store: Option<Store>,
    /// What sled does not have yet.
    changed: BTreeMap<(Namespace, String), Option<Vec<u8>>>,
    changed_bytes: usize,
    changed_since: Option<Instant>,
    exported_at_bytes: u64,
    has_export: bool,
    /// It began empty where there had been a state.
    has_begun_anew: bool,
    /// Changes were missing at the start, in its journal or with all of it.
    has_lost_changes: bool,
    checked_at: Instant,
    /// Records of the journal that were found missing.
    damaged: u64,
    /// Files were removed, and are not all made again.
    must_remake: bool,
}

impl Keeper {
    /// Everything that was saved, and the keeper of it. `is_removed` as of `State::open_with`.
    pub(super) fn open(
        dir: &Path,
        ledger_copy: Option<&Path>,
        is_removed: bool,
    ) -> Result<(Self, Values), StateError> {
        let failed = |doing| move |source| StateError::Directory { dir: dir.to_owned(), doing, source };
        std::fs::create_dir_all(dir).map_err(failed("making the directory"))?;
        for synced in
            [Some(dir), dir.parent().filter(|parent| !parent.as_os_str().is_empty())].into_iter().flatten()
        {
            File::open(synced).and_then(|d| d.sync_all()).map_err(failed("syncing the directory"))?;
        }
        let reserve = Reserve::new(dir);
        // Neither is damaged: they were removed, perhaps with the beginning of the journal.
        let has_no_copies = !export::is_there(dir) && !sled_in(dir).exists();
        let journal = match Journal::open(dir, ledger_copy) {
            Err(error) if is_full_at_open(&error) && reserve.release() => Journal::open(dir, ledger_copy),
            opened => opened,
        };
        let journal = journal.map_err(|source| StateError::Journal { dir: dir.to_owned(), source })?;
        let has_begun_anew = has_no_copies && (is_removed || !journal.is_complete());
        if has_begun_anew {
            tracing::error!(dir = %dir.display(), "the state was removed: it begins with what its journal still has; what central knows comes again, local users and devices must be added anew, or the data directory be restored from a backup");
        }
        let (store, mut values, position) = match find(dir, &journal, &reserve) {
            Err(StateError::Damaged { .. }) if has_begun_anew => {
                (Store::open(&sled_in(dir)).ok().map(|(store, _, _)| store), Values::new(), None)
            }
            found => found?,
        };
        let damaged = journal.check_files();
        let unreadable =
            |source: edge_buffer::ReadError| failed("reading its journal")(std::io::Error::other(source));
        journal.apply_to(&mut values, position.as_ref()).map_err(unreadable)?;
        let mut keeper = Self {
            dir: dir.to_owned(),
            journal,
            reserve,
            store,
            changed: BTreeMap::new(),
            changed_bytes: 0,
            changed_since: None,
            exported_at_bytes: 0,
            has_export: false,
            has_begun_anew,
            has_lost_changes: has_begun_anew || damaged > 0,
            checked_at: Instant::now(),
            damaged,
            must_remake: false,
        };
        keeper.follow(&values);
        keeper.reserve.restore();
        Ok((keeper, values))
    }

    /// Returns true when it began empty, where there had been a state.
    pub(super) fn has_begun_anew(&self) -> bool {
        self.has_begun_anew
    }

    /// Returns true when changes that had been saved were missing at the start.
    pub(super) fn has_lost_changes(&self) -> bool {
        self.has_lost_changes
    }

    /// How long until the files should be looked after.
    pub(super) fn check_due(&self) -> Duration {
        CHECK_EVERY.saturating_sub(self.checked_at.elapsed())
    }

    /// Maintains the files when it is time: what somebody removed is made again from the database, which is open. True when
    /// that was done.
    pub(super) fn check_when_due(&mut self) -> bool {
        if !self.check_due().is_zero() {
            return false;
        }
        self.checked_at = Instant::now();
        let damaged = self.journal.check_files();
        let is_journal_cut = damaged > std::mem::replace(&mut self.damaged, damaged);
        let is_export_gone = self.has_export && !export::is_there(&self.dir);
        let is_database_gone = self.store.as_ref().is_some_and(|store| !store.is_at(&sled_in(&self.dir)));
        let is_removed = is_journal_cut || is_export_gone || is_database_gone;
        if is_removed {
            tracing::error!(dir = %self.dir.display(), "files of the state were removed while the daemon runs; they are made again");
        }
        if !is_removed && !self.must_remake {
            return false;
        }
        let remade = self.remake();
        self.must_remake = remade.is_err();
        if let Err(error) = &remade {
            tracing::error!(dir = %self.dir.display(), error = %chain(error), "files of the state were not made again");
        }
        remade.is_ok()
    }

    /// Writes all values to an export, and to the database or a new one in its place.
    fn remake(&mut self) -> Result<(), ReopenError> {
        let Some(store) = self.store.take() else {
            return if self.reopen() { Ok(()) } else { Err(ReopenError::Unavailable) };
        };
        let mut values = store.all()?;
        for (name, value) in &self.changed {
            match value {
                Some(value) => values.insert(name.clone(), value.clone()),
                None => values.remove(name),
            };
        }
        let position = self.journal.position();
        // First what needs nothing else: from here on the values are in a file again.
        self.export(&values, &position);
        let path = sled_in(&self.dir);
        let mut store = if store.is_at(&path) {
            store
        } else {
            drop(store);
            let _none = std::fs::remove_dir_all(&path);
            Store::open(&path).map_err(|_| ReopenError::Unavailable)?.0
        };
        store.follow(&values, &position)?;
        self.changed.clear();
        (self.changed_since, self.changed_bytes) = (None, 0);
        self.store = Some(store);
        self.reserve.restore();
        Ok(())
    }

    /// The journal's log, for its numbers.
    pub(super) fn log(&self) -> Log {
        self.journal.log()
    }

    /// Brings sled and the export to what was just read: what was damaged is whole again before anything relies on it.
    fn follow(&mut self, values: &Values) {
        let position = self.journal.position();
        if let Some(store) = &mut self.store
            && let Err(error) = store.follow(values, &position)
        {
            tracing::warn!(
                error = %chain(&error),
                "the state's database could not be brought up to date; its journal goes on"
            );
            self.store = None;
        }
        self.export(values, &position);
    }

    fn export(&mut self, values: &Values, position: &Position) {
        match export::write(&self.dir, values, position) {
            Ok(()) => {
                self.has_export = true;
                self.exported_at_bytes = self.journal.written();
                // The older export and the journal from there on are enough to begin with, too.
                if let Some(older) = export::older_position(&self.dir) {
                    self.journal.forget(&older);
                }
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the state's export was not written"),
        }
    }

    /// On disk when it returns; the answer to each change.
    pub(super) fn save(&mut self, changes: Vec<Change>) -> Vec<Result<(), AppendError>> {
        let mut answers = self.journal.append(&changes);
        let is_full = |answer: &Result<(), AppendError>| answer.as_ref().is_err_and(is_for_want_of_space);
        if answers.iter().any(is_full) && self.reserve.release() {
            // All of them, in their order: a later change of a key must not be undone by an earlier one.
            answers = self.journal.append(&changes);
        }
        let failed = answers.iter().filter_map(|answer| answer.as_ref().err());
        if let Some(error) = failed.clone().next() {
            tracing::error!(
                error = error as &dyn std::error::Error,
                writes = failed.count(),
                "state was not saved"
            );
        }
        for (change, _) in changes.into_iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            self.changed_bytes += change.value.as_ref().map_or(0, Vec::len);
            self.changed.insert((change.namespace, change.key), change.value);
            self.changed_since.get_or_insert_with(Instant::now);
        }
        answers
    }

    /// How long until sled should hear of the changes.
    pub(super) fn checkpoint_due(&self) -> Duration {
        let checkpoint =
            self.changed_since.map_or(IDLE, |since| CHECKPOINT_EVERY.saturating_sub(since.elapsed()));
        if self.reserve.is_there() {
            checkpoint
        } else {
            // A disk that was full and has space again may be full once more in a moment.
            checkpoint.min(RESTORE_EVERY)
        }
    }

    pub(super) fn checkpoint_when_due(&mut self) {
        if !self.reserve.is_there() {
            self.reserve.restore();
        }
        let is_due = self.checkpoint_due().is_zero() || self.changed_bytes > CHANGED_BYTES_MAX;
        if is_due && self.changed_since.is_some() {
            self.checkpoint();
        }
    }

    /// Gives sled what changed, and writes an export when the journal has grown.
    fn checkpoint(&mut self) {
        // Tried again in a minute when it fails; the journal has it all.
        self.changed_since = Some(Instant::now());
        self.changed_bytes = 0;
        if self.store.is_none() && !self.reopen() {
            return;
        }
        let position = self.journal.position();
        let Some(store) = &mut self.store else { return };
        if let Err(error) = store.save(&self.changed, &position) {
            tracing::warn!(error = %chain(&error), "the state's database did not take the changes; its journal has them");
            self.store = None;
            return;
        }
        self.changed.clear();
        self.changed_since = None;
        self.reserve.restore();
        let is_export_due =
            !self.has_export || self.journal.written() - self.exported_at_bytes >= EXPORT_BYTES;
        if is_export_due {
            match store.all() {
                Ok(values) => self.export(&values, &position),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the state's database could not be read for an export");
                    self.store = None;
                }
            }
        }
    }

    /// Opens sled again, or makes it again from export and journal.
    fn reopen(&mut self) -> bool {
        let open = || -> Result<Store, ReopenError> {
            let (store, mut values, position) = find(&self.dir, &self.journal, &self.reserve)?;
            let mut store = store.ok_or(ReopenError::Unavailable)?;
            self.journal.apply_to(&mut values, position.as_ref())?;
            store.follow(&values, &self.journal.position())?;
            Ok(store)
        };
        match open() {
            Ok(store) => {
                tracing::info!("the state's database is in use again");
                self.store = Some(store);
                true
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the state's database cannot be used; its journal goes on");
                false
            }
        }
    }

    /// Leaves everything in step.
    pub(super) fn close(mut self) {
        if self.changed_since.is_some() {
            self.checkpoint();
        }
        drop(self.store);
        self.journal.close();
    }
}

fn sled_in(dir: &Path) -> PathBuf {
    dir.join("sled")
}

/// Why sled is not in use again.
#[derive(Debug, thiserror::Error)]
enum ReopenError {
    #[error("the database cannot be opened for now")]
    Unavailable,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the journal cannot be read")]
    Journal(#[from] edge_buffer::ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The newest whole copy of the state from which the journal goes on, sled's or an export's, and how far it reaches.
fn find(
    dir: &Path,
    journal: &Journal,
    reserve: &Reserve,
) -> Result<(Option<Store>, Values, Option<Position>), StateError> {
    let path = sled_in(dir);
    let opened = match Store::open(&path) {
        Err(OpenFailure::Unavailable(error)) if error.is_full && reserve.release() => Store::open(&path),
        opened => opened,
    };
    let mut copies = Vec::new();
    let store = match opened {
        Ok((store, values, position)) => {
            // None of a database that is new, or was never stamped.
            copies.extend(position.map(|position| (values, position)));
            Some(store)
        }
        Err(OpenFailure::Unavailable(error)) => {
            tracing::warn!(error = error.why, "the state's database cannot be used for now");
            None
        }
        Err(OpenFailure::Damaged(error)) => {
            let set_aside = format!("sled.damaged-{}", uuid::Uuid::new_v4().simple());
            tracing::error!(error, set_aside, "the state's database is damaged; it was set aside");
            let failed = |source| StateError::Directory {
                dir: dir.to_owned(),
                doing: "setting the database aside",
                source,
            };
            forget_set_aside(dir);
            std::fs::rename(&path, dir.join(&set_aside)).map_err(failed)?;
            Store::open(&path).ok().map(|(store, _, _)| store)
        }
    };
    copies.extend(export::read(dir).map(|export| (export.values, export.position)));
    if let Some((values, position)) = newest(copies, journal) {
        return Ok((store, values, Some(position)));
    }
    if journal.is_complete() {
        return Ok((store, Values::new(), None));
    }
    Err(StateError::Damaged { dir: dir.to_owned() })
}

/// Of several copies the newest one that the journal follows; all are the same age in a directory that did not go back.
fn newest(copies: Vec<(Values, Position)>, journal: &Journal) -> Option<(Values, Position)> {
    let newer = |best: (Values, Position), next: (Values, Position)| {
        let is_better = match (journal.follows(&best.1), journal.follows(&next.1)) {
            (false, true) => true,
            (true, false) => false,
            _ => best.1.is_behind(&next.1),
        };
        if is_better { next } else { best }
    };
    let best = copies.into_iter().reduce(newer)?;
    if !journal.follows(&best.1) {
        tracing::error!(
            "the state is older than its journal, as after a restore of single files: changes in between are lost; restore \
             the whole data directory if that is not what was meant"
        );
    }
    Some(best)
}

/// One damaged database is kept for analysis.
fn forget_set_aside(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("sled.damaged-") {
            let _best_effort = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_full_at_open(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if is_full(source))
}

fn is_for_want_of_space(error: &AppendError) -> bool {
    match error {
        AppendError::Full { .. } => true,
        AppendError::Write { source, .. } => is_full(source),
        _ => false,
    }
}
