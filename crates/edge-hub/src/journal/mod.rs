//! The journal: what outlives the daemon, as events in one log on disk and as the state that they make, in memory.
//!
//! ```text
//! event ─> state in memory ─> record in the log ─> on disk: the publisher may be acknowledged
//!               │
//!               └─ when the log has grown: a snapshot is appended, and what is before it goes
//! ```
//!
//! # Guarantees
//! - After a kill or a power cut the state is that of all events up to some moment, and every event that was waited for is
//!   before that moment.
//! - A record that cannot be read is skipped, counted and logged; it never keeps the server from opening.
//!
//! Why one log for all sessions: docs/decisions/0005-one-journal-for-all-sessions.md. The records are described in the
//! module `record`.

pub(crate) mod event;
mod fold;
mod record;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use edge_buffer::{Append, AppendError, Full, Log, LogOptions, OpenError};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use self::event::Event;
use self::state::State;
use crate::clock::now_ms;

/// A snapshot is due when so much was written since the last one, and more than so many times what it would hold.
const SNAPSHOT_BYTES: u64 = 16 << 20;
const SNAPSHOT_TIMES: u64 = 2;
/// Of the journal's bytes, how many a snapshot may use beyond them: one in so many. It is what gives the others back.
const SNAPSHOT_SHARE: u64 = 2;
/// What the log adds to a record, at most.
const FRAME_BYTES: u64 = 64;
/// How much is written between two checks at what the files hold.
const CHECK_EVERY: u64 = 256 << 10;
/// Bytes that wait for the disk from which on clients are not read from until it has taken them.
const CONGESTED_BYTES: u64 = 4 << 20;
/// Bytes that wait for the disk beyond which an event is refused. Above [`CONGESTED_BYTES`] comes only what no client is
/// made to wait for: retained messages for a new subscription, wills, acknowledgements.
const WAITING_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a snapshot that wait for the disk at once; well below what the log takes in before it is busy.
const SNAPSHOT_AHEAD: usize = 1 << 20;

/// An open journal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    log: Log,
    dir: PathBuf,
    max: JournalMax,
    inner: Mutex<Inner>,
    /// A snapshot is due.
    due: Notify,
    unwritten: AtomicU64,
}

struct Inner {
    state: State,
    /// Bytes written since the last snapshot.
    written: u64,
    /// Bytes written since the last look at what the files hold.
    unseen: u64,
    /// The files hold all that they may.
    is_full: bool,
    /// An event did not reach the disk: what is there is not what is true until the next snapshot.
    is_behind: bool,
    /// Records that were found missing.
    damaged: u64,
}

/// What a journal takes on its disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JournalMax {
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that it leaves free on its file system.
    pub keep_free_bytes: u64,
}

/// A journal and what it holds.
pub(crate) struct Recovered {
    pub journal: Journal,
    pub state: State,
    /// Records that could not be read.
    pub skipped: u64,
}

impl Journal {
    /// Opens the journal in `dir`, or makes it there, and reads it. `ledger_copy` is [`LogOptions::mirror`].
    ///
    /// # Errors
    /// [`OpenError`] when the disk says no or another program has it.
    pub(crate) async fn open(
        dir: &Path,
        ledger_copy: Option<&Path>,
        max: JournalMax,
    ) -> Result<Recovered, OpenError> {
        let options = LogOptions {
            segment_bytes: 4 << 20,
            // What is beyond `max` is for a snapshot.
            bytes_max: max.bytes + max.bytes / SNAPSHOT_SHARE,
            keep_free_bytes: max.keep_free_bytes,
            // The oldest segment may hold the only word of a session.
            full: Full::Refuse,
            waiting_bytes_max: WAITING_BYTES_MAX,
            mirror: ledger_copy.map(Path::to_owned),
            ..LogOptions::default()
        };
        let (dir, of_log) = (dir.to_owned(), dir.to_owned());
        let opening = tokio::task::spawn_blocking(move || Log::open(&of_log, options));
        let log = opening.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
        let (state, skipped) = fold::read(&log).await;
        let (sessions, retained, wills) = (state.sessions.len(), state.retained.len(), state.wills.len());
        info!(sessions, retained, wills, bytes = log.stats().bytes, "MQTT journal was read");
        if skipped > 0 {
            error!(records = skipped, "records of the MQTT journal were unreadable and skipped");
        }
        let inner = Inner {
            state: state.clone(),
            written: log.stats().bytes,
            unseen: CHECK_EVERY,
            is_full: false,
            is_behind: false,
            damaged: log.stats().damaged,
        };
        let inner = Mutex::new(inner);
        let shared = Shared { log, dir, max, inner, due: Notify::new(), unwritten: AtomicU64::new(0) };
        Ok(Recovered { journal: Self { shared: Arc::new(shared) }, state, skipped })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what is true now.
    #[cfg(test)]
    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// What the messages in the queues of durable sessions hold in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().state.bytes()
    }

    /// Makes an event true now, in the order of the calls; the answer comes when it is on disk.
    pub(crate) fn write(&self, event: &Event) -> Stored {
        let record = record::of_event(event);
        let bytes = record.len() as u64;
        // State and log change under one lock: the order in the log is the order in which events became true.
        let mut inner = self.lock();
        // Also if the log refuses it below: the session goes on, and the next snapshot writes what is true.
        inner.state.apply(event);
        inner.written += bytes;
        inner.unseen += bytes;
        // Reading the sizes of the files costs a lock of the log: not for each event, but for each while it is full.
        if inner.is_full || inner.unseen > CHECK_EVERY {
            inner.unseen = 0;
            inner.is_full = self.shared.log.stats().bytes > self.shared.max.bytes;
        }
        let append = if inner.is_full {
            Append::refused(self.full())
        } else {
            self.shared.log.append(record, now_ms())
        };
        // In proportion to what is held: a snapshot of much state must not be due again at once.
        let limit = SNAPSHOT_BYTES.max(SNAPSHOT_TIMES * inner.state.bytes() as u64);
        let is_due = inner.written > limit;
        drop(inner);
        if is_due {
            self.shared.due.notify_one();
        }
        Stored { append, journal: self.clone(), before: None }
    }

    /// The numbers of its log.
    pub(crate) fn stats(&self) -> edge_buffer::Stats {
        self.shared.log.stats()
    }

    /// Whether the disk is so far behind that clients should not be read from.
    pub(crate) fn is_congested(&self) -> bool {
        self.shared.log.waiting_bytes() > CONGESTED_BYTES
    }

    /// Ends when it is not.
    pub(crate) async fn decongested(&self) {
        self.shared.log.until_waiting(CONGESTED_BYTES).await;
    }

    /// As [`Journal::write`], for an event that nobody waits for.
    pub(crate) fn note(&self, event: &Event) {
        self.write(event).unawaited();
    }

    fn full(&self) -> AppendError {
        AppendError::Full { dir: self.shared.dir.clone() }
    }

    fn fell_behind(&self, why: &AppendError) {
        self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        let was_behind = std::mem::replace(&mut self.lock().is_behind, true);
        if !was_behind {
            error!("MQTT journal not written: {why}");
        }
        self.shared.due.notify_one();
    }

    /// Events that did not reach the disk.
    pub(crate) fn unwritten(&self) -> u64 {
        self.shared.unwritten.load(Ordering::Relaxed)
    }

    /// Checks whether somebody removed the files. What was in them is in memory, and is written again as a snapshot.
    pub(crate) async fn check_files(&self) {
        let log = self.shared.log.clone();
        let checked = tokio::task::spawn_blocking(move || log.check_files()).await;
        if let Err(failed) = checked
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
        let damaged = self.shared.log.stats().damaged;
        let mut inner = self.lock();
        if damaged > inner.damaged {
            (inner.damaged, inner.is_behind) = (damaged, true);
            drop(inner);
            error!(dir = %self.shared.dir.display(), "files of the MQTT journal were removed while the program runs; sessions and retained messages are written again");
            self.shared.due.notify_one();
        }
    }

    /// Ends when a snapshot is due.
    pub(crate) async fn snapshot_due(&self) {
        self.shared.due.notified().await;
    }

    /// Writes what is true now as a snapshot, and lets what is before it go. Events go on meanwhile.
    ///
    /// # Errors
    /// [`AppendError`]; what was written of the snapshot is then ignored.
    pub(crate) async fn snapshot(&self) -> Result<(), AppendError> {
        if self.lock().is_full {
            // One that is not finished would use up the space of those that come after it.
            let state = self.lock().state.clone();
            let bytes: u64 =
                state.events().map(|event| record::of_part(&event).len() as u64 + FRAME_BYTES).sum();
            let (max, held) = (self.shared.max.bytes, self.shared.log.stats().bytes);
            if held + bytes > max + max / SNAPSHOT_SHARE {
                return Err(self.full());
            }
        }
        // Copied under the lock in which the beginning is appended: every event is either in the copy or behind the beginning.
        let (state, begun, unwritten) = {
            let mut inner = self.lock();
            inner.written = 0;
            let begun = self.shared.log.append(record::SNAPSHOT_BEGUN, now_ms());
            (inner.state.clone(), begun, self.unwritten())
        };
        // Before the parts: without a beginning on disk they would be read as events.
        let begun = begun.await?;
        let mut ahead = 0;
        for event in state.events() {
            let part = record::of_part(&event);
            ahead += part.len();
            let append = self.shared.log.append(part, now_ms());
            // Few bytes at once: events of clients wait behind them in the same log.
            if ahead >= SNAPSHOT_AHEAD {
                ahead = 0;
                append.await?;
            }
        }
        self.shared.log.append(record::SNAPSHOT_ENDED, now_ms()).await?;
        // Only now is the snapshot whole, and what is before it not needed any more.
        self.shared.log.advance(begun - 1);
        let mut inner = self.lock();
        // An event that failed while the snapshot was written may be missing from it.
        if inner.is_behind && unwritten == self.unwritten() {
            inner.is_behind = false;
            warn!("MQTT journal is whole again");
        }
        Ok(())
    }

    /// Writes what was handed in and takes nothing more.
    pub(crate) async fn close(&self) {
        self.shared.log.close().await;
    }
}

/// Ends when an event is on disk.
#[must_use = "the event is on disk only when this has ended"]
pub(crate) struct Stored {
    append: Append,
    journal: Journal,
    /// What must be on disk too.
    before: Option<Box<Stored>>,
}

impl Stored {
    /// Ends when both are on disk.
    pub(crate) fn and(mut self, before: Option<Self>) -> Self {
        self.before = before.map(Box::new);
        self
    }

    /// For an event that nobody waits for.
    pub(crate) fn unawaited(self) {
        // An append that is refused says so at once; one that the disk fails is reported to those that wait for others. It is not
        // polled: whoever polls may have to write, and locks may be held here.
        for stored in [Some(&self), self.before.as_deref()].into_iter().flatten() {
            if let Some(why) = stored.append.refusal() {
                stored.journal.fell_behind(why);
            }
        }
    }
}

impl Future for Stored {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(before) = &mut self.before {
            match Pin::new(&mut **before).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.before = None,
                failed => return failed,
            }
        }
        let Poll::Ready(answer) = Pin::new(&mut self.append).poll(context) else { return Poll::Pending };
        if let Err(why) = &answer {
            self.journal.fell_behind(why);
        }
        Poll::Ready(answer.map(|_| ()))
    }
}
