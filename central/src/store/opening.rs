//! Opens the store: compares it with its commit record, and starts its writer and the tasks behind it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_hub::tasks;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::error::StoreError;
use super::file_reserve::FileReserve;
use super::handle::{Store, StoreParts};
use super::last_values_task::keep_last_values;
use super::limits::{Keep, Quotas};
use super::log::WriteAheadLog;
use super::opened_files::OpenedFiles;
use super::paths::FILE;
use super::record::{self, CommitRecord, RecordCheck, Recorded};
use super::series_task::keep_series;
use super::space::Space;
use super::writer::{CHECKPOINT_AFTER, Job, Shared, Writer};
use super::{age_clock, integrity, schema};
use crate::clock::now_ms;

/// Works that may wait for the writer; about a second of the fastest ingest measured.
const WAITING_WORKS_MAX: usize = 16_384;
/// Connections that read. Reads are short; on the machines that central runs on, more would only contend.
const READERS: usize = 4;
/// How long a whole check of a store that lost commits may take; telemetry beyond it is not looked at.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

/// Opens or makes the store in `dir` and starts its writer. Commits that the store had and lost are logged, and noted in the
/// store. To be called in a tokio runtime.
///
/// # Errors
/// [`StoreError::Missing`] when there was a store, [`StoreError::Damaged`], [`StoreError::Newer`],
/// [`StoreError::Open`], [`StoreError::File`] or [`StoreError::Writer`].
pub fn open(dir: &Path, keep: Keep) -> Result<Store, StoreError> {
    open_with(dir, keep, Quotas::default())
}

/// [`open`] with limits on bytes.
pub fn open_with(dir: &Path, keep: Keep, quotas: Quotas) -> Result<Store, StoreError> {
    let path = dir.join(FILE);
    integrity::present(dir, &path)?;
    let recorded = record::read(dir)?;
    FileReserve::remove_former(dir)?;
    let mut connection = schema::open(&path)?;
    let record = reconcile(dir, &path, &connection, &recorded)?;
    age_clock::resume(&connection).map_err(|source| StoreError::opening(&path, source))?;
    let losses = record::losses(&connection).map_err(|source| StoreError::opening(&path, source))?;
    let readers = (0..READERS).map(|_| schema::open(&path)).collect::<Result<Vec<_>, _>>()?;
    let failed = |source| StoreError::opening(&path, source);
    let log = WriteAheadLog::watch(&mut connection, &path).map_err(failed)?;
    let files = OpenedFiles::of(&path, &connection)?;
    let reserve = FileReserve::of(&path, &connection).map_err(failed)?;
    let (jobs, waiting) = mpsc::channel(WAITING_WORKS_MAX);
    let shared = Arc::new(Shared::default());
    let (ending, ended) = watch::channel(());
    let its_shared = shared.clone();
    let mut space = Space::new(dir, quotas);
    shared.set_disk(space.measure(&connection));
    let writer = std::thread::Builder::new()
        .name(tasks::STORE_THREAD.into())
        .spawn(move || {
            // Dropped however the thread ends.
            let _ending = ending;
            let writer = Writer {
                connection,
                keep,
                space,
                shared: &its_shared,
                record,
                files,
                log,
                reserve,
                is_full: false,
                trims_alone: false,
            };
            writer.run(waiting);
        })
        .map_err(StoreError::Writer)?;
    tasks::spawn_essential("checkpoints of the store", remind(jobs.downgrade()));
    let store = Store::new(StoreParts { jobs, readers, writer, shared, losses, ended: ended.clone() });
    store.close_after([
        tasks::spawn_essential("last values", keep_last_values(store.downgrade(), ended.clone())),
        tasks::spawn_essential("series", keep_series(store.downgrade(), ended)),
    ]);
    Ok(store)
}

/// Reminds the writer of checkpoints until the store is gone.
async fn remind(jobs: mpsc::WeakSender<Job>) {
    let mut ticks = tokio::time::interval(CHECKPOINT_AFTER);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(jobs) = jobs.upgrade() else { return };
        // A writer that has too much to do is reminded the next time.
        if let Err(mpsc::error::TrySendError::Closed(_)) = jobs.try_send(Job::Checkpoint) {
            return;
        }
    }
}

/// Compares a store with its record, says and notes what was lost, and brings the record to where the store is.
fn reconcile(
    dir: &Path,
    path: &Path,
    connection: &Connection,
    recorded: &Recorded,
) -> Result<CommitRecord, StoreError> {
    let failed = |source| StoreError::opening(path, source);
    let found = record::position(connection).map_err(failed)?;
    match record::compare(recorded, &found) {
        RecordCheck::Complete => {}
        RecordCheck::Unknown => tracing::warn!(
            path = %record::path(dir).display(),
            "the commit record is missing or damaged; whether the store lost commits cannot be said"
        ),
        RecordCheck::OtherStore { recorded } => tracing::error!(
            store = found.store,
            expected = recorded.store,
            commits = recorded.commits,
            messages = recorded.messages,
            "central.db is another store than the one that was here: all commits of that one are missing"
        ),
        RecordCheck::Lost(lost) => {
            tracing::error!(
                commits = lost.commits,
                messages = lost.messages,
                "the store lost its last commits: the end of its log was damaged or cut, or an older file was put in \
                 its place; restore a backup if it has more"
            );
            // What was left of the log may be older than pages of the file.
            integrity::check(path, integrity::Depth::Whole, CHECK_WITHIN)?;
            record::note_loss(connection, &lost, now_ms()).map_err(failed)?;
        }
    }
    CommitRecord::open(dir, &found)
}
