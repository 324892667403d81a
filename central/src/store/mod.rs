//! What central keeps, in one SQLite file: one thread writes in groups, a few connections read.
//!
//! # Guarantees
//! - Work that is submitted first is done first, and its place is fixed when [`Store::submit`] returns.
//! - The future of a submitted work ends after the COMMIT that holds it (`synchronous = FULL`: on disk). All works that
//!   arrived while the last commit ran share the next one.
//! - A work that fails undoes itself only; the others of its group are committed.

pub mod audit;
pub mod backup;
pub mod changes;
pub mod cloud_messages;
pub mod commands;
pub mod devices;
pub mod enrollments;
pub mod filter;
pub mod grid;
pub mod integrity;
pub mod last_values;
pub mod losses;
pub mod manifests;
pub mod modules;
pub mod overview;
pub mod queues;
pub mod record;
pub mod schema;
pub mod selection;
pub mod series;
mod series_compaction;
pub mod series_reading;
mod series_task;
pub mod sessions;
mod space;
pub mod telemetry;
pub mod templates;
pub mod tokens;
pub mod twins;
pub mod unreadable;
pub mod users;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_hub::tasks;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::clock::now_ms;
use record::{CommitRecord, LostCommits, Recorded, Verdict};
use series_task::keep_series;
pub use space::Disk;
use space::Space;
use writer::{CHECKPOINT_AFTER, Finish, Job, Shared, Work, Writer};

/// Works that may wait for the writer; about a second of the fastest ingest measured.
const WAITING_WORKS_MAX: usize = 16_384;
/// Bytes of payload that may wait for the writer.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Connections that read. Reads are short; on the machines that central runs on, more would only contend.
const READERS: usize = 4;
/// How long a whole check of a store that lost commits may take; telemetry beyond it is not looked at.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

/// How long the rows of last values wait for messages.
const LAST_VALUES_AFTER: Duration = Duration::from_secs(1);
/// How much longer than they take their reading rests while more messages wait, so that it takes a twentieth of one processor.
const LAST_VALUES_REST: u32 = 19;
/// With more messages waiting it does not rest.
const LAST_VALUES_BEHIND_MAX: u64 = 1_000_000;

/// How long [`Store::close`] waits for another program that holds the store.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// The store in the data directory.
pub const FILE: &str = "central.db";
/// The lock of the data directory: of `central serve`, and of commands that replace the store.
pub const LOCK_FILE: &str = "central.lock";

/// How much history is kept; the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Telemetry messages of all devices together.
    pub messages: u64,
    /// Commands of all devices together.
    pub commands: u64,
}

/// How many bytes telemetry may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of one device with its modules; its own oldest messages give way.
    pub device_bytes: u64,
    /// Of all devices; the oldest of the device with the most give way. `None`: half of the file system.
    pub total_bytes: Option<u64>,
    /// Left free on the file system: with less, telemetry is refused, and gateways keep it. `None`: a twentieth of the file
    /// system, 512 MB at most.
    pub free_bytes: Option<u64>,
    /// Of the series of all devices; the oldest points of the device with the most go. Those of one device may take
    /// [`Quotas::device_bytes`]. `None`: a quarter of the file system.
    pub series_bytes: Option<u64>,
    /// Days after which points go; `None`: never.
    pub series_days: Option<u32>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            device_bytes: 256 << 20,
            total_bytes: None,
            free_bytes: None,
            series_bytes: None,
            series_days: None,
        }
    }
}

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
    #[error("the store refused a statement: {0}")]
    Sqlite(#[from] rusqlite::Error),
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

impl StoreError {
    /// The file could not be opened, or not as what it should be.
    fn opening(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if integrity::is_damage(&source) {
            Self::Damaged { path, findings: vec![source.to_string()] }
        } else {
            Self::Open { path, source }
        }
    }
}

/// A handle to the store; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    shared: Arc<Shared>,
    losses: Arc<[(u64, LostCommits)]>,
    ended: watch::Receiver<()>,
    /// The tasks that write last values and series behind the messages; they hold connections, so [`Store::close`] waits for them.
    behind: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Store {
    /// Opens or makes the store in `dir` and starts its writer. Commits that the store had and has not any more are told
    /// in the log and noted in the store. To be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there was a store, [`StoreError::Damaged`], [`StoreError::Newer`],
    /// [`StoreError::Open`], [`StoreError::File`] or [`StoreError::Writer`].
    pub fn open(dir: &Path, keep: Keep) -> Result<Self, StoreError> {
        Self::open_with(dir, keep, Quotas::default())
    }

    /// [`Store::open`] with limits on bytes.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(dir: &Path, keep: Keep, quotas: Quotas) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        integrity::present(dir, &path)?;
        let recorded = record::read(dir)?;
        let connection = schema::open(&path)?;
        let record = reconcile(dir, &path, &connection, &recorded)?;
        let losses = record::losses(&connection).map_err(|source| StoreError::opening(&path, source))?;
        let readers = (0..READERS).map(|_| schema::open(&path)).collect::<Result<Vec<_>, _>>()?;
        let (jobs, waiting) = mpsc::channel(WAITING_WORKS_MAX);
        let shared = Arc::new(Shared::default());
        let (ending, ended) = watch::channel(());
        let its_shared = shared.clone();
        let mut space = Space::new(dir, quotas);
        shared.set_disk(space.look(&connection));
        let writer = std::thread::Builder::new()
            .name(tasks::STORE_THREAD.into())
            .spawn(move || {
                // Dropped however the thread ends.
                let _ending = ending;
                Writer { connection, keep, space, shared: &its_shared, record, is_log_ahead: true }
                    .run(waiting);
            })
            .map_err(StoreError::Writer)?;
        tasks::spawn_essential("checkpoints of the store", remind(jobs.downgrade()));
        let store = Self {
            jobs,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            readers: Arc::new(Mutex::new(readers)),
            reading: Arc::new(Semaphore::new(READERS)),
            writer: Arc::new(Mutex::new(Some(writer))),
            shared,
            losses: losses.into(),
            ended,
            behind: Arc::default(),
        };
        let started = [
            tasks::spawn_essential("last values", keep_last_values(store.downgrade(), store.ended.clone())),
            tasks::spawn_essential("series", keep_series(store.downgrade(), store.ended.clone())),
        ];
        store.behind.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(started);
        Ok(store)
    }

    fn downgrade(&self) -> WeakStore {
        let Self { room, readers, reading, writer, shared, losses, ended, .. } = self.clone();
        let with = move |jobs| Self {
            jobs,
            room: room.clone(),
            readers: readers.clone(),
            reading: reading.clone(),
            writer: writer.clone(),
            shared: shared.clone(),
            losses: losses.clone(),
            ended: ended.clone(),
            // Not their own handles: a task that held one would keep itself.
            behind: Arc::default(),
        };
        WeakStore { jobs: self.jobs.downgrade(), with: Box::new(with) }
    }

    /// Why the last commit failed; `None` when it did not.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// How many works the writer has not finished, and for how long the oldest of them has waited.
    pub fn waiting(&self) -> (usize, Duration) {
        let (works, since) = self.shared.waiting();
        (works, since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// What is free on the store's disk.
    pub fn disk(&self) -> Disk {
        self.shared.disk()
    }

    /// Makes sure that telemetry may be taken.
    ///
    /// # Errors
    /// [`StoreError::DiskLow`].
    pub fn check_disk(&self) -> Result<(), StoreError> {
        let disk = self.disk();
        if disk.is_low { Err(StoreError::DiskLow { free_bytes: disk.free_bytes }) } else { Ok(()) }
    }

    /// Losses of commits that were found whenever this store was opened, each with when, in milliseconds since the Unix
    /// epoch.
    pub fn losses(&self) -> &[(u64, LostCommits)] {
        &self.losses
    }

    /// Has works that wait for another program fail after `within`: central stops.
    pub fn give_up_after(&self, within: Duration) {
        self.shared.give_up(Instant::now() + within);
    }

    /// Ends when the writer has ended: by [`Store::close`], or by a fault after which nothing can be stored any more.
    pub async fn ended(&self) {
        // The sender is only ever dropped.
        let _ = self.ended.clone().changed().await;
    }

    /// Hands work to the writer. `size_bytes` is what the work holds in memory while it waits. `after` runs on the
    /// writer's thread once the work is committed, in the order of commits: what must not overtake (messages about a
    /// version, say) is sent from there. It must not block.
    ///
    /// # Errors
    /// The future gives the work's own error, [`StoreError::Busy`] when too much waits, or
    /// [`StoreError::NotCommitted`].
    pub fn submit_then<T, E>(
        &self,
        size_bytes: usize,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = work(connection);
            let is_done = result.is_ok();
            let finish: Finish = Box::new(move |is_committed| {
                let result = match result {
                    Ok(value) if is_committed => {
                        after(&value);
                        Ok(value)
                    }
                    Ok(_) => Err(StoreError::NotCommitted.into()),
                    Err(error) => Err(error),
                };
                // Nobody waits any more when the asker was dropped; the work is done all the same.
                let _ = answer.send(result);
            });
            (is_done, finish)
        });
        let bytes = u32::try_from(size_bytes.clamp(1, WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let handed_in = match self.room.clone().try_acquire_many_owned(bytes) {
            Err(_) => Err(StoreError::Busy),
            Ok(permit) => {
                self.shared.hand_in(|| self.jobs.try_send(Job::Work(work, permit))).map_err(|error| {
                    match error {
                        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                        mpsc::error::TrySendError::Closed(_) => StoreError::NotCommitted,
                    }
                })
            }
        };
        Box::pin(async move {
            handed_in?;
            answered.await.unwrap_or_else(|_| Err(StoreError::NotCommitted.into()))
        })
    }

    /// [`Store::submit_then`] for small work with nothing after it.
    ///
    /// # Errors
    /// As there.
    pub fn submit<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.submit_then(1024, work, |_| {})
    }

    /// Reads on a connection of its own, off the async threads. All that the work reads is of one moment.
    ///
    /// # Errors
    /// The work's own error.
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = self.reading.clone().acquire_owned().await.expect("the semaphore is never closed");
        let readers = self.readers.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut lease = Lease { connection: None, readers, _permit: permit };
            let connection = lease.take();
            let moment = connection.unchecked_transaction().map_err(StoreError::from)?;
            work(&moment)
        });
        match done.await {
            Ok(result) => result,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(StoreError::NotCommitted.into()),
        }
    }

    /// Commits what was submitted and ends the writer. What is submitted later is refused. While another program holds the
    /// store this takes seconds, and then what was submitted is not committed.
    pub async fn close(&self) {
        self.give_up_after(CLOSE_WITHIN);
        // An error means that the writer has ended already.
        let _ = self.jobs.send(Job::Close).await;
        let writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer ended by a panic");
            }
        }
        let behind =
            std::mem::take(&mut *self.behind.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for task in behind {
            // A panic of it has ended the program.
            let _ended = task.await;
        }
    }
}

/// A store that somebody else keeps open.
struct WeakStore {
    jobs: mpsc::WeakSender<Job>,
    with: Box<dyn Fn(mpsc::Sender<Job>) -> Store + Send + Sync>,
}

impl WeakStore {
    fn upgrade(&self) -> Option<Store> {
        self.jobs.upgrade().map(|jobs| (self.with)(jobs))
    }
}

/// A reading connection on loan; it goes back however the work ends.
struct Lease {
    connection: Option<Connection>,
    readers: Arc<Mutex<Vec<Connection>>>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn take(&mut self) -> &Connection {
        let free = self.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        self.connection.insert(free.expect("a permit stands for a connection that is not lent"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
        }
    }
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

/// Writes last values behind the messages that are stored, until the store is closed or nobody has it any more.
async fn keep_last_values(weak: WeakStore, mut ended: watch::Receiver<()>) {
    let mut rest = LAST_VALUES_AFTER;
    loop {
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            // The sender is only ever dropped, by the writer that ends.
            _ = ended.changed() => return,
        }
        let Some(store) = weak.upgrade() else { return };
        let since = Instant::now();
        let tail = store.read(|c| Ok::<_, StoreError>(last_values::read_tail(c)?)).await;
        let is_closed = |error: &StoreError| matches!(error, StoreError::NotCommitted);
        rest = match tail {
            Ok(None) => LAST_VALUES_AFTER,
            Ok(Some(tail)) => {
                let took = since.elapsed();
                let left = tail.left;
                let written = store.submit(move |c| Ok::<_, StoreError>(last_values::write_tail(c, &tail)?));
                match written.await {
                    Ok(()) if left == 0 => LAST_VALUES_AFTER,
                    Ok(()) if left > LAST_VALUES_BEHIND_MAX => Duration::ZERO,
                    Ok(()) => (took * LAST_VALUES_REST).min(LAST_VALUES_AFTER),
                    Err(error) if is_closed(&error) => return,
                    Err(error) => {
                        tracing::warn!(error = %edge_core::error_chain::chain(&error), "writing last values failed");
                        LAST_VALUES_AFTER
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %edge_core::error_chain::chain(&error), "reading messages for last values failed");
                LAST_VALUES_AFTER
            }
        };
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
        Verdict::Complete => {}
        Verdict::Unknown => tracing::warn!(
            path = %record::path(dir).display(),
            "the commit record is missing or damaged; whether the store lost commits cannot be said"
        ),
        Verdict::OtherStore { recorded } => tracing::error!(
            store = found.store,
            expected = recorded.store,
            commits = recorded.commits,
            messages = recorded.messages,
            "central.db is another store than the one that was here: all commits of that one are missing"
        ),
        Verdict::Lost(lost) => {
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

/// Reads a JSON column.
fn json_column<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable::column(row, column, error.into()))
}

/// Reads a column that holds a name or another type that parses.
fn parsed_column<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error: T::Err| unreadable::column(row, column, error.into()))
}

/// Milliseconds and counters as SQLite's integers.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { messages: 100, commands: 100 };

    #[tokio::test]
    async fn a_work_that_fails_undoes_itself_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), KEEP).unwrap();
        let insert = |id: &'static str, fails: bool| {
            store.submit(move |c| -> Result<(), StoreError> {
                c.execute("INSERT INTO tokens (hash, name, role, expires_ms) VALUES (?1, ?1, '', 0)", [id])?;
                if fails { Err(StoreError::Busy) } else { Ok(()) }
            })
        };
        let (one, two, three) = (insert("one", false), insert("two", true), insert("three", false));
        one.await.unwrap();
        assert!(matches!(two.await, Err(StoreError::Busy)));
        three.await.unwrap();
        let kept = store.read(|c| {
            let count = c.query_row("SELECT count(*) FROM tokens", [], |row| row.get::<_, i64>(0))?;
            Ok::<_, StoreError>(count)
        });
        assert_eq!(kept.await.unwrap(), 2);
        store.close().await;
        let late = store.submit(|_| Ok::<_, StoreError>(())).await;
        assert!(matches!(late, Err(StoreError::NotCommitted)));
    }

    #[tokio::test]
    async fn works_run_and_are_told_in_the_order_in_which_they_were_handed_in() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), KEEP).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let all: Vec<_> = (0..2500)
            .map(|n| {
                let told = told.clone();
                store.submit_then(1, move |_| Ok::<_, StoreError>(n), move |n| told.lock().unwrap().push(*n))
            })
            .collect();
        for (n, done) in all.into_iter().enumerate() {
            assert_eq!(done.await.unwrap(), n);
        }
        assert!(told.lock().unwrap().iter().copied().eq(0..2500));
    }
}
