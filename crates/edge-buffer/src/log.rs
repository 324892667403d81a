//! The log as its users see it: open, append, read, advance, close.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::commit::Committer;
use crate::error::{AppendError, OpenError};
use crate::fence::Fence;
use crate::format::Epoch;
use crate::ledger::LossRecord;
use crate::limits::{Full, LogOptions};
use crate::losses::{Cause, Loss};
use crate::pool::{Member, PooledLog};
use crate::reader::{Reader, Records};
use crate::recover::recover;
use crate::shared::Shared;
use crate::state::{Pending, State};
use crate::stats::Stats;
use crate::storage::{Directory, Storage};
use crate::threads;
use crate::writer::{Thread, Writers};

struct Handle {
    shared: Arc<Shared>,
    writers: Arc<Writers>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn stop(&self) {
        self.shared.state().is_closing = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An open log. Cheap to clone; the commit thread ends when it is closed or the last clone is dropped.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

impl Log {
    /// Opens the log in `dir`, or makes it there. Blocking: scans the last segment, cuts off a torn tail, and starts the
    /// commit thread.
    ///
    /// # Errors
    /// [`OpenError`]. Damage inside of segments is not one: [`Log::losses`] counts it when it is found.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, OpenError> {
        let storage = Directory::open(dir).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
            _ => OpenError::Io {
                dir: dir.to_owned(),
                doing: "make it, or lock its file `lock`".into(),
                source,
            },
        })?;
        Self::open_on(Arc::new(storage), options)
    }

    pub(crate) fn open_on(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Self, OpenError> {
        let recovered = recover(&*storage, &options)?;
        let dir = storage.path().to_owned();
        let shared = Arc::new(Shared::new(storage, recovered.id, recovered.epoch, options, recovered.state));
        let committer = Committer::new(shared.clone(), recovered.active, recovered.ledger, recovered.mirror);
        let writers = Arc::new(Writers::new(shared.clone(), committer));
        if let Some(pool) = &shared.options.pool {
            let member = Member {
                number: shared.pool_number,
                rank: shared.options.rank,
                drops_oldest: shared.options.full == Full::DropOldest,
            };
            pool.join(member, Arc::downgrade(&(writers.clone() as Arc<dyn PooledLog>)));
        }
        let its_writers = writers.clone();
        let thread = std::thread::Builder::new()
            .name(threads::COMMIT.into())
            .spawn(move || its_writers.run())
            .map_err(|source| OpenError::Io { dir, doing: "start its thread".into(), source })?;
        Ok(Self { handle: Arc::new(Handle { shared, writers, thread: Mutex::new(Some(thread)) }) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Appends a record that does not expire by itself. `now_ms` is the time, ms of Unix time.
    ///
    /// Its place in the log, behind all that was handed in before, is fixed when this returns; the future ends when it is
    /// on disk. Dropping the future does not take the record back.
    pub fn append(&self, record: Bytes, now_ms: u64) -> Append {
        let mut append = self.append_awaited(record, now_ms, None);
        append.detach();
        append
    }

    /// As [`Log::append`], for a record that nobody wants from `expires_ms` on, ms of Unix time.
    pub fn append_expiring(&self, record: Bytes, now_ms: u64, expires_ms: u64) -> Append {
        let mut append = self.append_awaited(record, now_ms, Some(expires_ms));
        append.detach();
        append
    }

    /// As [`Log::append`], for who awaits it at once, and nothing beside it: on an idle log and a fast disk the first poll
    /// writes and syncs on its own thread instead of waiting for another, whose turn would cost as much as half a sync.
    /// Nothing is written before it is polled, handed over or dropped.
    pub fn append_awaited(&self, record: Bytes, now_ms: u64, expires_ms: Option<u64>) -> Append {
        self.append_fenced(record, now_ms, expires_ms, None)
    }

    /// As [`Log::append_awaited`], for a producer that appends again what failed: refused when its `fence` is set.
    pub fn append_fenced(
        &self,
        record: Bytes,
        now_ms: u64,
        expires_ms: Option<u64>,
        fence: Option<Fence>,
    ) -> Append {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { record, enqueued_ms: now_ms, expires_ms, fence, reply };
        match self.submit(pending) {
            Ok(has_leader) => {
                let unnotified = has_leader.then(|| self.handle.clone());
                Append { waiting: Waiting::Answer(answer), unnotified }
            }
            Err(error) => Append { waiting: Waiting::Refused(Some(error)), unnotified: None },
        }
    }

    /// Whether the task that awaits it may write it itself: the commit thread has not been notified of it then.
    fn submit(&self, pending: Pending) -> Result<bool, AppendError> {
        let (bytes, max) = (pending.record.len() as u64, self.shared().options.record_bytes_max());
        let mut state = self.shared().state();
        state.now_ms = pending.enqueued_ms;
        let submitted = if bytes > max {
            Err((AppendError::TooLong { bytes, max }, pending))
        } else {
            let submitted = state.submit(pending, self.shared().options.waiting_bytes_max);
            self.shared().waiting_bytes.store(state.queue_bytes, Ordering::Relaxed);
            submitted
        };
        let (answer, must_wake) = match submitted {
            Ok(()) => {
                let may_be_led = state.may_be_led();
                (Ok(may_be_led), !may_be_led && state.must_wake())
            }
            Err((error @ (AppendError::Closed | AppendError::Fenced), _)) => (Err(error), false),
            Err((error, Pending { record, .. })) => {
                state.refuse(self.shared().options.refused_tag(&record).as_deref());
                (Err(error), true)
            }
        };
        drop(state);
        if must_wake {
            self.shared().work.notify_one();
        }
        answer
    }

    /// Bytes handed in that are not being written yet. Cheap: for those who stop before an append would be
    /// [`AppendError::Busy`].
    pub fn waiting_bytes(&self) -> u64 {
        self.shared().waiting_bytes.load(Ordering::Relaxed)
    }

    /// Ends when no more than so many bytes wait.
    pub async fn until_waiting(&self, bytes_max: u64) {
        loop {
            let mut taken = std::pin::pin!(self.shared().taken.notified());
            taken.as_mut().enable();
            if self.waiting_bytes() <= bytes_max {
                return;
            }
            taken.await;
        }
    }

    /// A reader that begins behind the cursor. Several readers each see every record.
    pub fn reader(&self) -> Reader {
        Reader::new(self.handle.shared.clone())
    }

    /// The records that are on disk now and not done with, whether expired or not. Blocking, and without waiting for more.
    pub fn records(&self) -> Records {
        Records::new(self.handle.shared.clone())
    }

    /// Everything up to and including `sequence` is done with; segments that hold nothing else are deleted. Goes forward
    /// only. The cursor reaches the disk within about a second, never ahead of this.
    pub fn advance(&self, sequence: u64) {
        self.change(|state| state.finish(sequence));
    }

    /// Changes what the ledger holds, and wakes the commit thread when there is something to write or to delete.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared().state();
        let was_behind = state.is_ledger_behind;
        let answer = change(&mut state);
        let must_wake = (state.is_ledger_behind && !was_behind) || state.has_done_segment();
        let must_wake = must_wake && std::mem::take(&mut state.is_asleep);
        drop(state);
        if must_wake {
            self.shared().work.notify_one();
        }
        answer
    }

    /// Upstream has confirmed the record of this sequence, and what is up to `done` is done with, as with [`Log::advance`].
    pub fn confirm(&self, sequence: u64, done: Option<u64>) {
        self.change(|state| state.confirm(sequence, done));
    }

    /// Upstream has all of an epoch up to the sequence that `stored` gives for it: that much is done with.
    pub fn advance_stored(&self, stored: impl Fn(Epoch) -> Option<u64>) {
        self.change(|state| state.advance_stored(stored));
    }

    /// Upstream has said how far it has the log, and [`Log::advance_stored`] took that in: what was given out and is not done
    /// with has not arrived, and may expire again.
    pub fn settle(&self) {
        self.change(|state| state.settle());
    }

    /// Compares what upstream has confirmed with what it has: `has` gives the highest sequence of an epoch. What is missing is
    /// counted as [`Cause::Restored`], once, and given as ranges of sequences. `receiver` names upstream's store: another
    /// one owes nothing. `is_complete`: upstream has forgotten none of this log's epochs.
    pub fn reconcile(
        &self,
        receiver: Uuid,
        has: impl Fn(Epoch) -> Option<u64>,
        is_complete: bool,
        now_ms: u64,
    ) -> Vec<(u64, u64)> {
        self.change(|state| state.reconcile(receiver, has, is_complete, now_ms))
    }

    /// The epoch of a sequence; `None` when it is older than all that are known.
    pub fn epoch_of(&self, sequence: u64) -> Option<Epoch> {
        self.shared().state().ledger.epochs.of(sequence)
    }

    /// The last sequence of an epoch, `u64::MAX` of the one that goes on; `None` when the epoch is not known.
    pub fn last_of(&self, epoch: Epoch) -> Option<u64> {
        self.shared().state().ledger.epochs.last_of(epoch)
    }

    /// The epochs that have records, ascending, each with its last sequence at this moment: the newest 128, and those of all
    /// segments that are there. It says how far the log reaches so that it is right after the directory went back, too.
    pub fn epochs(&self) -> Vec<(Epoch, u64)> {
        let state = self.shared().state();
        state.ledger.epochs.all(state.stats().next_sequence)
    }

    /// Takes one record out, wherever it is in the log: it is not pending any more, and it is no loss. Ends when that is on disk;
    /// false when it is not pending, or when so many were taken out between others that no more can be remembered.
    ///
    /// # Errors
    /// [`AppendError`] when the disk failed or the log was closed.
    pub async fn take_out(&self, sequence: u64) -> Result<bool, AppendError> {
        let is_taken = self.shared().state().take_out(sequence);
        if is_taken {
            self.written().await?;
        }
        Ok(is_taken)
    }

    /// As [`Log::take_out`], for a record that somebody gives up: in the same write of the ledger it is counted as
    /// [`Cause::Dropped`] of `tag`. `now_ms` is the time, ms of Unix time.
    ///
    /// # Errors
    /// As [`Log::take_out`].
    pub async fn give_up(&self, sequence: u64, tag: &str, now_ms: u64) -> Result<bool, AppendError> {
        let is_taken = self.shared().state().give_up(sequence, tag, now_ms);
        if is_taken {
            self.written().await?;
        }
        Ok(is_taken)
    }

    /// Whether [`Log::take_out`] of a pending record would be remembered.
    pub fn may_take_out(&self, sequence: u64) -> bool {
        self.shared().state().may_take_out(sequence)
    }

    /// Ends when what is done with and what was lost up to now is on disk.
    ///
    /// # Errors
    /// [`AppendError`] when the disk failed or the log was closed.
    pub async fn written(&self) -> Result<(), AppendError> {
        let (reported, written) = oneshot::channel();
        {
            let mut state = self.shared().state();
            if state.is_closing {
                return Err(AppendError::Closed);
            }
            state.ledger_waits.push(reported);
        }
        self.shared().work.notify_one();
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(AppendError::Write {
                dir: self.shared().storage.path().to_owned(),
                doing: "write the ledger",
                source: Arc::new(source),
            }),
            Err(_) => Err(AppendError::Closed),
        }
    }

    /// Whether a record is on disk and neither done with nor lost.
    pub fn is_pending(&self, sequence: u64) -> bool {
        self.shared().state().is_pending(sequence)
    }

    /// Made once when the log was created. With it, a sequence names one record for ever.
    pub fn id(&self) -> Uuid {
        self.shared().id
    }

    /// The numbers of the log at this moment.
    pub fn stats(&self) -> Stats {
        self.shared().state().stats()
    }

    /// What was lost and has not been reported upstream yet, by cause and sender: it survives restarts, and is bounded by
    /// joining the loss records of senders.
    pub fn loss_records(&self) -> Vec<LossRecord> {
        self.shared().state().ledger.loss_records().to_vec()
    }

    /// Whether anything was lost that has not been reported upstream yet.
    pub fn has_loss_records(&self) -> bool {
        !self.shared().state().ledger.loss_records().is_empty()
    }

    /// The loss records to report upstream. They are on disk and do not grow any more: later losses are in other loss records, so that a
    /// loss record that is reported twice is recognized by its number. Those reported but not yet passed to [`Log::losses_reported`] are among them.
    ///
    /// # Errors
    /// [`AppendError`] when the disk failed or the log was closed.
    pub async fn losses_to_report(&self) -> Result<Vec<LossRecord>, AppendError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared().state();
            if state.is_closing {
                return Err(AppendError::Closed);
            }
            state.reporting.push(reply);
        }
        self.shared().work.notify_one();
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Upstream has the loss records up to this number: they are forgotten here.
    pub fn losses_reported(&self, number: u64) {
        let mut state = self.shared().state();
        if state.ledger.reported(number) {
            state.is_ledger_behind = true;
            drop(state);
            self.shared().work.notify_one();
        }
    }

    /// Gives up everything that is not done with, and counts it as [`Cause::Dropped`]. Blocking: the files are read for whose
    /// it was, and deleted.
    pub fn give_up_all(&self, now_ms: u64) {
        self.handle.writers.give_up(now_ms);
    }

    /// Counts as [`Cause::Expired`] what has expired by now and no reader has given out since it was made or rewound; how many
    /// records. To be called from time to time, for a log that may have no reader for long. Blocking.
    ///
    /// # Errors
    /// When a file cannot be read; it is tried again by the next call.
    pub fn expire(&self, now_ms: u64) -> io::Result<u64> {
        crate::expire::expire(self.shared(), now_ms)
    }

    /// Checks whether somebody removed files of it, and counts what was in them as damaged. It does so itself about every second
    /// while records are appended; to be called from time to time for a log that nobody appends to. Blocking.
    pub fn check_files(&self) {
        self.handle.writers.check_files();
    }

    /// Passes over a record that its reader cannot make sense of: it is done with, and counted as damaged.
    pub fn pass_damaged(&self, sequence: u64) {
        self.shared().state().pass(sequence, sequence, Cause::Damaged, "");
        self.shared().work.notify_one();
    }

    /// What was lost since this was last called, or since open, whoever lost it.
    pub fn losses(&self) -> Vec<Loss> {
        self.shared().state().take_losses()
    }

    /// As [`Log::close`], for threads that are not a runtime's. Blocking.
    pub fn close_blocking(&self) {
        self.handle.stop();
        let thread = self.handle.thread.lock().expect("nothing panics with it").take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(dir = %self.shared().storage.path().display(), "a queue's thread ended in a panic");
        }
    }

    /// Takes nothing more in, commits what was handed in, persists the cursor and ends the commit thread.
    pub async fn close(&self) {
        self.handle.stop();
        let mut published = self.shared().published.subscribe();
        // The sender lives in what this handle holds.
        let _ended = published.wait_for(|published| published.has_ended).await;
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared().storage.path()).field("id", &self.id()).finish()
    }
}

/// Ends with the record's sequence when it is on disk.
///
/// Threads that are not a runtime's wait with [`Append::wait`].
#[must_use = "the record is on disk only when this has ended"]
pub struct Append {
    waiting: Waiting,
    /// The writer has not been notified of it yet.
    unnotified: Option<Arc<Handle>>,
}

enum Waiting {
    Refused(Option<AppendError>),
    Answer(oneshot::Receiver<Result<u64, AppendError>>),
}

impl Append {
    /// One that was refused: for who has a limit of its own in front of the log's.
    pub fn refused(why: AppendError) -> Self {
        Self { waiting: Waiting::Refused(Some(why)), unnotified: None }
    }

    /// Why it was refused, when that is so already.
    pub fn refusal(&self) -> Option<&AppendError> {
        match &self.waiting {
            Waiting::Refused(error) => error.as_ref(),
            Waiting::Answer(_) => None,
        }
    }

    /// Gives it to the commit thread, so that it goes on its way while the caller waits for something else.
    pub fn detach(&mut self) {
        if let Some(handle) = self.unnotified.take() {
            handle.writers.notify();
        }
    }

    /// Blocks until the record is on disk. Not for threads of a runtime.
    ///
    /// # Errors
    /// [`AppendError`], as when it is awaited.
    pub fn wait(mut self) -> Result<u64, AppendError> {
        if let Some(handle) = self.unnotified.take() {
            handle.writers.see_to(Thread::Own);
        }
        match &mut self.waiting {
            Waiting::Refused(error) => Err(error.take().unwrap_or(AppendError::Closed)),
            Waiting::Answer(answer) => {
                let (_, never) = oneshot::channel();
                std::mem::replace(answer, never).blocking_recv().unwrap_or(Err(AppendError::Closed))
            }
        }
    }
}

impl Future for Append {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(handle) = self.unnotified.take() {
            handle.writers.see_to(Thread::Shared);
        }
        match &mut self.waiting {
            Waiting::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(AppendError::Closed))),
            Waiting::Answer(answer) => {
                let answer = std::task::ready!(Pin::new(answer).poll(context));
                // It may be polled once more by whoever tidies up.
                self.waiting = Waiting::Refused(None);
                Poll::Ready(answer.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        self.detach();
    }
}

impl std::fmt::Debug for Append {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Append").field("is_told", &self.unnotified.is_none()).finish_non_exhaustive()
    }
}
