//! What central keeps, in one SQLite file: one thread writes in groups, a few connections read.
//!
//! # Guarantees
//! - Work that is submitted first is done first, and its place is fixed when [`Store::submit`] returns.
//! - The future of a submitted work ends after the COMMIT that holds it (`synchronous = FULL`: on disk). All works that
//!   arrived while the last commit ran share the next one.
//! - A work that fails undoes itself only; the others of its group are committed.

pub mod cloud_messages;
pub mod commands;
pub mod devices;
pub mod enrollments;
pub mod losses;
pub mod manifests;
pub mod schema;
pub mod telemetry;
pub mod tokens;
pub mod twins;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Works that may wait for the writer; about a second of the fastest ingest measured.
const WAITING_WORKS_MAX: usize = 16_384;
/// Bytes of payload that may wait for the writer.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Works in one commit: enough to share a sync, few enough that none waits long behind the others.
const GROUP_MAX: usize = 1000;
/// Connections that read. Reads are short; on the machines that central runs on, more would only contend.
const READERS: usize = 4;
/// How long works wait for another program that holds the file; then they fail, and gateways send again.
const LOCKED_MAX: Duration = Duration::from_secs(60);
/// Between two tries, beside SQLite's own wait.
const LOCKED_PAUSE: Duration = Duration::from_millis(50);

/// How much history is kept; the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Telemetry messages of all devices together.
    pub messages: u64,
    /// Commands of all devices together.
    pub commands: u64,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or brought to this version's tables.
    #[error("opening the store {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file was written by a newer central.
    #[error(
        "the store {path} has tables of version {found}, this central knows up to {known}; start the newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// The writer thread could not be started.
    #[error("starting the store's writer")]
    Writer(#[source] std::io::Error),
    /// A statement failed.
    #[error("the store refused a statement: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// More waits to be written than may wait.
    #[error("the store has more to write than it may hold; try again")]
    Busy,
    /// The commit failed or the store is closed: nothing was kept of this work. The cause is in the log.
    #[error("the store did not commit; the log tells why")]
    NotCommitted,
}

type Finish = Box<dyn FnOnce(bool) + Send>;
type Work = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

enum Job {
    Work(Work, OwnedSemaphorePermit),
    Close,
}

/// A handle to the store; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    failure: Arc<Mutex<Option<String>>>,
    ended: watch::Receiver<()>,
}

impl Store {
    /// Opens or makes the store in `dir` and starts its writer.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Newer`] or [`StoreError::Writer`].
    pub fn open(dir: &Path, keep: Keep) -> Result<Self, StoreError> {
        let path = dir.join("central.db");
        let writing = schema::open(&path)?;
        let readers = (0..READERS).map(|_| schema::open(&path)).collect::<Result<Vec<_>, _>>()?;
        let (jobs, waiting) = mpsc::channel(WAITING_WORKS_MAX);
        let failure = Arc::new(Mutex::new(None));
        let (ending, ended) = watch::channel(());
        let its_failure = failure.clone();
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                // Dropped however the thread ends.
                let _ending = ending;
                write(writing, waiting, keep, &its_failure);
            })
            .map_err(StoreError::Writer)?;
        Ok(Self {
            jobs,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            readers: Arc::new(Mutex::new(readers)),
            reading: Arc::new(Semaphore::new(READERS)),
            writer: Arc::new(Mutex::new(Some(writer))),
            failure,
            ended,
        })
    }

    /// Why the last commit failed; `None` when it did not.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
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
            Ok(permit) => self.jobs.try_send(Job::Work(work, permit)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::NotCommitted,
            }),
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

    /// Commits what was submitted and ends the writer. What is submitted later is refused.
    pub async fn close(&self) {
        // An error means that the writer has ended already.
        let _ = self.jobs.send(Job::Close).await;
        let writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer ended by a panic");
            }
        }
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

fn write(
    mut connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    keep: Keep,
    failure: &Mutex<Option<String>>,
) {
    let mut is_open = true;
    while is_open {
        let mut group = Vec::new();
        match jobs.blocking_recv() {
            Some(Job::Work(work, permit)) => group.push((work, permit)),
            Some(Job::Close) | None => return,
        }
        while group.len() < GROUP_MAX {
            match jobs.try_recv() {
                Ok(Job::Work(work, permit)) => group.push((work, permit)),
                Ok(Job::Close) => {
                    is_open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        let mut finishes = Vec::with_capacity(group.len());
        let committed = commit(&mut connection, group, keep, &mut finishes);
        if let Err(error) = &committed {
            tracing::error!(%error, works = finishes.len(), "a group was not committed");
        }
        *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            committed.as_ref().err().map(ToString::to_string);
        for (finish, _permit) in finishes {
            finish(committed.is_ok());
        }
    }
}

/// Begins to write; waits while another program writes to the file, [`LOCKED_MAX`] at most. Works that wait lose nothing.
fn begin(connection: &Connection) -> rusqlite::Result<Transaction<'_>> {
    let since = Instant::now();
    loop {
        let begun = Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
        let is_locked = |error: &rusqlite::Error| {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
        };
        match begun {
            Err(error) if is_locked(&error) && since.elapsed() < LOCKED_MAX => {
                let waited = since.elapsed();
                tracing::warn!(?waited, "another program holds the store; works wait until it is free");
                std::thread::sleep(LOCKED_PAUSE);
            }
            begun => return begun,
        }
    }
}

fn commit(
    connection: &mut Connection,
    group: Vec<(Work, OwnedSemaphorePermit)>,
    keep: Keep,
    finishes: &mut Vec<(Finish, OwnedSemaphorePermit)>,
) -> rusqlite::Result<()> {
    let mut transaction = begin(connection)?;
    for (work, permit) in group {
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
    telemetry::trim(&transaction, keep.messages)?;
    commands::trim(&transaction, keep.commands)?;
    transaction.commit()
}

/// Reads a JSON column.
fn json_column<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| wrong_text(error.into()))
}

/// Reads a column that holds a name or another type that parses.
fn parsed_column<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?.parse().map_err(|error: T::Err| wrong_text(error.into()))
}

fn wrong_text(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error)
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
                c.execute("INSERT INTO tokens (hash, name, role, expires_ms) VALUES (?1, '', '', 0)", [id])?;
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
