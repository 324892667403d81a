//! The thread that writes: works that arrived while the last commit ran share the next one.

use edge_core::error_chain::chain;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use edge_core::metrics::histogram::{DISK_BOUNDS, Histogram};
use edge_hub::tasks;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use super::damage::{Damage, Sign};
use super::error::StoreError;
use super::file_reserve::FileReserve;
use super::limits::{Keep, LOCKED_TRY};
use super::log::{LogBroken, LogMove, WriteAheadLog};
use super::opened_files::OpenedFiles;
use super::record::{self, CommitRecord};
use super::space::{Disk, Space, TRIM_BYTES_OF_WORKS};
use super::{commands, telemetry_retention};
use crate::clock::now_ms;

/// Works in one commit: enough to share a sync, few enough that none waits long behind the others.
const GROUP_MAX: usize = 1000;
/// Commits that delete history on a full disk, one after the other, for which works wait, and for how long.
const TRIMS_AT_ONCE: usize = 8;
const TRIMS_WITHIN: Duration = Duration::from_secs(1);
/// How long works wait for another program that holds the file; then they fail, and gateways send again.
const LOCKED_MAX: Duration = Duration::from_secs(60);
/// How long a commit may be in the log alone.
pub(super) const CHECKPOINT_AFTER: Duration = Duration::from_secs(5);

pub(super) type Finish = Box<dyn FnOnce(bool) + Send>;
pub(super) type Work = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

pub(super) enum Job {
    Work(Work, OwnedSemaphorePermit),
    /// Time to move commits from the log into the file.
    Checkpoint,
    Close,
}

/// What the writer and those who hand in works tell each other.
pub(super) struct Shared {
    /// Names this opening of the store.
    pub(super) opened: Uuid,
    failure: Mutex<Option<String>>,
    /// When each work that is not finished was handed in, oldest first.
    waiting: Mutex<VecDeque<Instant>>,
    /// Once it was found, no work is done any more.
    pub(super) damage: Damage,
    /// When works are given up that wait for another program: central stops.
    give_up_at: OnceLock<Instant>,
    disk: Mutex<Disk>,
    /// Of transactions that were committed.
    pub(super) commit_times: Histogram,
    /// Numbers that were added to time series.
    pub(super) points: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            opened: Uuid::new_v4(),
            failure: Mutex::default(),
            waiting: Mutex::default(),
            damage: Damage::default(),
            give_up_at: OnceLock::new(),
            disk: Mutex::default(),
            commit_times: Histogram::new(&DISK_BOUNDS),
            points: AtomicU64::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    /// Why the last commit failed, or why nothing is committed any more; `None` when it did not.
    pub(super) fn failure(&self) -> Option<String> {
        let damage = self.damage.found().map(|found| format!("the store is damaged: {found}"));
        damage.or_else(|| lock(&self.failure).clone())
    }

    /// How many works are not finished, and since when the oldest waits.
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let waiting = lock(&self.waiting);
        (waiting.len(), waiting.front().copied())
    }

    /// Submits a work by `send`; its time is noted in the order in which the writer gets the works.
    pub(super) fn submit<E>(&self, send: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut waiting = lock(&self.waiting);
        send()?;
        waiting.push_back(Instant::now());
        Ok(())
    }

    pub(super) fn disk(&self) -> Disk {
        *lock(&self.disk)
    }

    pub(super) fn set_disk(&self, disk: Disk) {
        *lock(&self.disk) = disk;
    }

    /// Has works that wait for another program fail from `at` on. The first call counts.
    pub(super) fn give_up(&self, at: Instant) {
        // A second one: central is stopping already.
        let _ = self.give_up_at.set(at);
    }

    fn is_given_up(&self) -> bool {
        self.give_up_at.get().is_some_and(|at| Instant::now() >= *at)
    }
}

/// What the thread owns.
pub(super) struct Writer<'a> {
    pub(super) connection: Connection,
    pub(super) keep: Keep,
    pub(super) space: Space,
    pub(super) shared: &'a Shared,
    pub(super) record: CommitRecord,
    /// The files that `connection` has open.
    pub(super) files: OpenedFiles,
    pub(super) log: WriteAheadLog,
    /// What the file will grow by when the log is moved.
    pub(super) reserve: FileReserve,
    /// The last group was not committed because the disk is full.
    pub(super) is_full: bool,
    /// The disk was full, and history beyond its quotas has not all been deleted since: it goes in commits of its own.
    pub(super) trims_alone: bool,
}

/// What history one commit deletes.
#[derive(Clone, Copy)]
struct Trim {
    /// Of messages and of series together, about so many bytes at most.
    bytes_max: u64,
    /// Also what is beyond the quotas of bytes and age, and not the number of messages only.
    is_whole: bool,
}

/// A commit that succeeded.
struct Committed {
    /// Commits and messages of the store with it.
    count: (u64, u64),
    /// Messages and chunks of series that it deleted because of quotas.
    trimmed: usize,
}

impl Writer<'_> {
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        if let Err(error) = self.connection.busy_timeout(LOCKED_TRY) {
            tracing::warn!(error = %chain(&error), "setting how long the writer waits for a lock failed");
        }
        while self.group(&mut jobs) {}
        self.inspect_files();
        if self.shared.damage.wants_log_moved() {
            self.rescue_log();
        } else if self.shared.damage.found().is_none() {
            // What is not moved is in the log, and is moved by the next start.
            let _moved = self.move_log(LogMove::Cut);
        }
        self.record.sync();
    }

    /// Takes what waits and commits it; false when the store is closed, or when the disk lost what was in its log.
    fn group(&mut self, jobs: &mut mpsc::Receiver<Job>) -> bool {
        let mut group = Vec::new();
        let mut is_due = false;
        match jobs.blocking_recv() {
            Some(Job::Work(work, permit)) => group.push((work, permit)),
            Some(Job::Checkpoint) => is_due = true,
            Some(Job::Close) | None => return false,
        }
        let mut is_open = true;
        // One transaction, and so one sync, for all that came while the last one was committed.
        while group.len() < GROUP_MAX {
            match jobs.try_recv() {
                Ok(Job::Work(work, permit)) => group.push((work, permit)),
                Ok(Job::Checkpoint) => is_due = true,
                Ok(Job::Close) => {
                    is_open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        tasks::essential_turn(tasks::STORE_THREAD);
        let is_space_due = self.space.is_due();
        if is_space_due {
            self.shared.set_disk(self.space.measure(&self.connection));
        }
        let is_idle = group.is_empty();
        let committed = if is_idle { Ok(()) } else { self.commit_and_notify(group, is_space_due) };
        if committed.is_err() {
            return false;
        }
        if !self.goes_on(is_due) {
            return false;
        }
        // A damaged page that is moved from the log may destroy one that is whole.
        if !is_open || self.shared.damage.found().is_some() {
            return is_open;
        }
        let is_full = self.is_full || self.trims_alone;
        let is_due = is_due || is_full && is_space_due;
        let wants_cut = (is_full || self.shared.disk().is_low) && self.log.is_worth_cutting(is_full);
        let moved = if is_due && (self.log.is_ahead || wants_cut) {
            self.checkpoint(if wants_cut { LogMove::Cut } else { LogMove::Whole })
        } else if self.log.is_long() {
            self.move_log(LogMove::WhatIsFree).map(drop)
        } else {
            Ok(())
        };
        // While telemetry is refused there may be no works that history could be deleted with.
        let wants_trim = is_space_due && (is_full || is_idle && self.shared.disk().is_low);
        moved.is_ok() && (!wants_trim || self.trim_alone().is_ok())
    }

    /// Deletes history beyond its quotas in commits of its own: with works that do not fit it would be undone with them. What is deleted is
    /// written to the log before, so each deletes no more than fits, and is moved before the next.
    fn trim_alone(&mut self) -> Result<(), LogBroken> {
        let since = Instant::now();
        for _ in 0..TRIMS_AT_ONCE {
            let trim = Trim { bytes_max: self.space.trim_bytes_max(), is_whole: true };
            match self.commit_whole(Vec::new(), trim, &mut Vec::new()) {
                Ok(Committed { count: (commits, messages), trimmed }) => {
                    self.record.committed(commits, messages);
                    self.log.committed()?;
                    self.space.trimmed(true);
                    self.trims_alone = trimmed > 0;
                    if !self.trims_alone {
                        break;
                    }
                }
                Err(error) => {
                    self.log.commit_failed(&error);
                    tracing::warn!(error = %chain(&error), bytes = trim.bytes_max, "deleting history on a full disk failed");
                    if !is_full(&error) {
                        break;
                    }
                    self.space.trimmed(false);
                    self.trims_alone = true;
                }
            }
            // What was written to the log takes space also when it was not committed.
            self.move_log(LogMove::Cut)?;
            if since.elapsed() > TRIMS_WITHIN {
                break;
            }
        }
        Ok(())
    }

    /// Checks the files when that is due; false when only a new start can go on with what was found.
    fn goes_on(&mut self, is_due: bool) -> bool {
        if is_due {
            self.inspect_files();
            if self.shared.damage.found().is_none() {
                self.record.keep_in_place();
            }
        }
        if self.shared.damage.wants_check() {
            tracing::error!("central ends: its next start checks whether the store is damaged");
            return false;
        }
        !(self.shared.damage.wants_log_moved() && self.rescue_log())
    }

    /// Commits a group and tells those who wait.
    ///
    /// # Errors
    /// [`LogBroken`] when nothing may be committed any more by this process.
    fn commit_and_notify(
        &mut self,
        group: Vec<(Work, OwnedSemaphorePermit)>,
        is_space_due: bool,
    ) -> Result<(), LogBroken> {
        let works = group.len();
        let mut finishes = Vec::with_capacity(works);
        let bytes_max = if self.trims_alone { 0 } else { TRIM_BYTES_OF_WORKS };
        let trim = Trim { bytes_max, is_whole: is_space_due };
        let committed = self.commit_whole(group, trim, &mut finishes);
        let mut goes_on = Ok(());
        match &committed {
            Ok(Committed { count: (commits, messages), .. }) => {
                // After the commit: the record must never claim more than the file has.
                self.record.committed(*commits, *messages);
                self.is_full = false;
                goes_on = self.log.committed();
            }
            // Said once, when it was found.
            Err(_) if self.shared.damage.found().is_some() => {}
            Err(error) => {
                self.log.commit_failed(error);
                self.is_full = is_full(error);
                self.trims_alone |= self.is_full;
                tracing::error!(error = %chain(error), works, "a group was not committed");
            }
        }
        *lock(&self.shared.failure) = committed.as_ref().err().map(|error| chain(error).to_string());
        // Before they are notified: a count that is read then does not include works that are done.
        lock(&self.shared.waiting).drain(..works);
        for (finish, _permit) in finishes {
            finish(committed.is_ok());
        }
        goes_on
    }

    /// Commits a group, and confirms it if the store is whole afterwards: what is committed to a file that is gone, or damaged, must
    /// not be confirmed. Once it was found not to be whole, works are not done any more.
    fn commit_whole(
        &mut self,
        group: Vec<(Work, OwnedSemaphorePermit)>,
        trim: Trim,
        finishes: &mut Vec<(Finish, OwnedSemaphorePermit)>,
    ) -> Result<Committed, StoreError> {
        let shared = self.shared;
        let check = || shared.damage.found().map_or(Ok(()), |_| Err(StoreError::NotCommitted));
        check()?;
        let committed = shared.damage.watch(|| self.commit(group, trim, finishes).map_err(StoreError::from));
        self.inspect_files();
        if let Ok(Committed { count: (commits, _), .. }) = committed
            && commits <= self.record.commits()
        {
            let former = self.record.commits();
            let found = format!("the store went back from commit {former} to {commits} while central runs");
            shared.damage.report(found, Sign::Cut);
        }
        check()?;
        committed
    }

    /// Checks whether what was committed is where the next start reads it.
    fn inspect_files(&mut self) {
        if self.shared.damage.found().is_none()
            && let Some((found, sign)) = self.files.harm(&self.connection, self.log.pages())
        {
            self.shared.damage.report(found, sign);
        }
    }

    /// Moves the log, which is open though it is not in its place any more, into the store's file, where the next start finds all of
    /// it; true when it has. Else the next reminder tries again: a reader was in the way, or the store's file is gone too.
    fn rescue_log(&mut self) -> bool {
        if !self.files.may_take_log(&self.connection) {
            return false;
        }
        // A log that somebody put there would be taken for that of the store by the next start.
        if let Err(error) = self.files.set_foreign_aside(now_ms()) {
            tracing::error!(error = %chain(&error), "moving a file out of the place of the store's log failed");
            return false;
        }
        match self.move_log(LogMove::Whole) {
            Ok(true) => {
                tracing::error!(
                    "all that was confirmed was moved into central.db; central ends, so that its next start makes the \
                     store's log anew"
                );
                true
            }
            Ok(false) => false,
            // It commits nothing more, and what it has open no start would find.
            Err(LogBroken) => false,
        }
    }

    /// Begins to write; waits while another program writes to the file, [`LOCKED_MAX`] at most and not for long when
    /// central stops. Works that wait lose nothing.
    fn begin<'c>(connection: &'c Connection, shared: &Shared) -> rusqlite::Result<Transaction<'c>> {
        let since = Instant::now();
        let mut is_reported = false;
        loop {
            match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
                Err(error) if is_locked(&error) && since.elapsed() < LOCKED_MAX && !shared.is_given_up() => {
                    if !is_reported {
                        tracing::warn!("another program holds the store; works wait until it is free");
                    }
                    is_reported = true;
                }
                begun => return begun,
            }
        }
    }

    fn commit(
        &mut self,
        group: Vec<(Work, OwnedSemaphorePermit)>,
        trim: Trim,
        finishes: &mut Vec<(Finish, OwnedSemaphorePermit)>,
    ) -> rusqlite::Result<Committed> {
        let mut transaction = Self::begin(&self.connection, self.shared)?;
        let begun = Instant::now();
        for (work, permit) in group {
            // Each work is undone alone: a refused write must not undo those of others in the group.
            let savepoint = transaction.savepoint()?;
            // A fault in one work must not end the writer, on which all others depend.
            match catch_unwind(AssertUnwindSafe(|| work(&savepoint))) {
                Ok((is_done, finish)) => {
                    finishes.push((finish, permit));
                    // A savepoint that is dropped rolls back.
                    if is_done {
                        savepoint.commit()?;
                    }
                }
                Err(_) => tracing::error!("a work of the store panicked; what it wrote was undone"),
            }
        }
        commands::trim(&transaction, self.keep.commands)?;
        let (mut trimmed, mut bytes_left) = (0, trim.bytes_max);
        if bytes_left > 0 {
            trimmed += telemetry_retention::trim(&transaction, self.keep.messages, &mut bytes_left)?;
            if trim.is_whole {
                trimmed += self.space.trim(&transaction, &mut bytes_left)?;
            }
        }
        // In the same transaction: the number of commits and what they wrote are on disk together.
        let count = record::count(&transaction)?;
        self.reserve.keep(&transaction)?;
        transaction.commit()?;
        self.shared.commit_times.observe(begun.elapsed());
        Ok(Committed { count, trimmed })
    }

    /// Moves what the log holds into the file, and begins the log anew: SQLite would take frames that stand before a
    /// damaged one for newer than the file, also when the file has had all of them.
    fn checkpoint(&mut self, how: LogMove) -> Result<(), LogBroken> {
        if self.move_log(how)?
            && let Err(error) = self.begin_log()
        {
            tracing::warn!(error = %chain(&error), "beginning the store's log anew failed");
        }
        self.record.sync();
        Ok(())
    }

    /// Moves the log, with the space that is reserved for it. What of the log stays has its space reserved again; if another program
    /// took it meanwhile, by the next commit or never.
    fn move_log(&mut self, how: LogMove) -> Result<bool, LogBroken> {
        self.reserve.give_back();
        let moved = self.log.move_into_file(&self.connection, how);
        if !matches!(moved, Ok(true))
            && let Err(error) = self.reserve.keep(&self.connection)
        {
            tracing::warn!(error = %chain(&error), "reserving space for what is left of the store's log failed");
        }
        moved
    }

    fn begin_log(&mut self) -> rusqlite::Result<()> {
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let (commits, messages) = record::count(&transaction)?;
        transaction.commit()?;
        self.record.committed(commits, messages);
        Ok(())
    }
}

fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Sqlite(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
