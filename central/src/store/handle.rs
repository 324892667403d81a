//! The handle to the store: submits writes to the writer thread, and lends connections for reading.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use super::error::StoreError;
use super::record::LostCommits;
use super::space::Disk;
use super::writer::{Finish, Job, Shared, Work};

/// Bytes of payload that may wait for the writer.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long [`Store::close`] waits for another program that holds the store.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// A handle to the store; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// A permit for each byte that may wait for the writer.
    bytes: Arc<Semaphore>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    pub(super) shared: Arc<Shared>,
    losses: Arc<[(u64, LostCommits)]>,
    ended: watch::Receiver<()>,
    /// The tasks that write last values and series behind the messages; they hold connections, so [`Store::close`] waits for them.
    behind: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

/// What a store is made of.
pub(super) struct StoreParts {
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) readers: Vec<Connection>,
    pub(super) writer: JoinHandle<()>,
    pub(super) shared: Arc<Shared>,
    pub(super) losses: Vec<(u64, LostCommits)>,
    /// Closed when the writer's thread has ended.
    pub(super) ended: watch::Receiver<()>,
}

impl Store {
    pub(super) fn new(parts: StoreParts) -> Self {
        let StoreParts { jobs, readers, writer, shared, losses, ended } = parts;
        Self {
            jobs,
            bytes: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            reading: Arc::new(Semaphore::new(readers.len())),
            readers: Arc::new(Mutex::new(readers)),
            writer: Arc::new(Mutex::new(Some(writer))),
            shared,
            losses: losses.into(),
            ended,
            behind: Arc::default(),
        }
    }

    /// Has [`Store::close`] wait for these tasks, which hold connections.
    pub(super) fn close_after(&self, tasks: impl IntoIterator<Item = tokio::task::JoinHandle<()>>) {
        self.behind.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(tasks);
    }

    pub(super) fn downgrade(&self) -> WeakStore {
        let Self { bytes, readers, reading, writer, shared, losses, ended, .. } = self.clone();
        let with = move |jobs| Self {
            jobs,
            bytes: bytes.clone(),
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

    /// Names this opening of the store. Between two openings it may have gone back in time.
    pub fn opened(&self) -> Uuid {
        self.shared.opened
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

    /// Submits work to the writer. `size_bytes` is what the work holds in memory while it waits. `after` runs on the
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
        // A work that is larger than the limit is taken when nothing else waits.
        let bytes = u32::try_from(size_bytes.clamp(1, WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        // Rejected at once: what waited for its turn would use the memory that the limit protects.
        let submitted = match self.bytes.clone().try_acquire_many_owned(bytes) {
            Err(_) => Err(StoreError::Busy),
            Ok(permit) => self.shared.submit(|| self.jobs.try_send(Job::Work(work, permit))).map_err(
                |error| match error {
                    mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                    mpsc::error::TrySendError::Closed(_) => StoreError::NotCommitted,
                },
            ),
        };
        Box::pin(async move {
            submitted?;
            answered.await.unwrap_or_else(|_| Err(StoreError::NotCommitted.into()))
        })
    }

    /// [`Store::submit_then`] for small work with nothing after it.
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
        let (readers, shared) = (self.readers.clone(), self.shared.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut lease = Lease { connection: None, readers, _permit: permit };
            let connection = lease.take();
            shared.damage.watch(|| {
                // Unchecked: the connection is lent to this work alone, so nothing else has a transaction on it.
                let moment = connection.unchecked_transaction().map_err(StoreError::from)?;
                work(&moment)
            })
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
pub(super) struct WeakStore {
    jobs: mpsc::WeakSender<Job>,
    with: Box<dyn Fn(mpsc::Sender<Job>) -> Store + Send + Sync>,
}

impl WeakStore {
    pub(super) fn upgrade(&self) -> Option<Store> {
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
