//! Who writes to the files: the commit thread, or an append that finds nobody writing and nothing before it.
//!
//! ```text
//! nobody ── appends wait, a chore is due ──> thread ── nothing left ──> nobody
//!    └── one append is awaited, and the last batch had one ──> leader ── written ──> nobody, or the thread for the rest
//! ```
//!
//! Under load the thread writes everything that arrived during the last sync with the next one. How long it waits for
//! company follows the load: the producers of the batches before are on the way back with their next records, so it waits
//! for a part of them, but never longer than a fraction of what a sync takes here. Where many wait and nobody else is on the
//! way, half of them go first, so that the disk always has the one half while the producers of the other are answered.
//!
//! On an idle gateway one producer waits for one answer, and two changes of thread would cost it as much as half of a fast
//! disk's sync: it writes itself. For that time a thread of the runtime does nothing else, so it is only done where syncs
//! are short, where the runtime has another thread, and by one log at a time: a disk that hangs stops one thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::commit::Committer;
use crate::format::SEGMENT_HEADER;
use crate::losses::Cause;
use crate::pool::PooledLog;
use crate::shared::Shared;
use crate::state::{Pending, State, Writer};
use crate::threads;

/// Of the last sync's time, how much a busy log waits for company: one in so many.
const PATIENCE: u32 = 4;
/// And never more: a card that takes a second for a sync must not cost a quarter more.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

/// What a sync may take, by the last one, for an append to write itself: less than a task of a runtime may well take.
const LEAD_SYNC_MAX: Duration = Duration::from_micros(500);

/// A log of this process has a leader on a thread of a runtime.
static HAS_LEADER: AtomicBool = AtomicBool::new(false);

/// What writes, and who may.
pub(crate) struct Writers {
    pub(crate) shared: Arc<Shared>,
    /// Taken by whoever [`State::writer`] names, and by a log of the same pool that needs space; `None` when the log has ended.
    committer: Mutex<Option<Committer>>,
}

/// Tells the readers and `close` that nothing follows, also when the thread panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closing = true;
        // Dropped outside of the lock: dropping an append ends the future of its caller.
        let unanswered = std::mem::take(&mut state.queue);
        drop(state);
        drop(unanswered);
        self.0.storage.release();
        self.0.published.send_modify(|published| published.has_ended = true);
    }
}

/// A leader's turn. When it panics, the log ends as when the thread does.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.writer = Writer::Nobody;
        // What a panic left in memory is unknown, and on disk all is whole: nothing more is appended until the next open.
        state.is_closing |= std::thread::panicking();
        let has_set_timer = state.is_ledger_behind && state.ledger_due.is_none();
        if has_set_timer {
            state.ledger_due = Some(Instant::now() + self.0.options.ledger_lag);
        }
        let must_wake = has_set_timer || !state.queue.is_empty() || state.has_chores();
        drop(state);
        if must_wake {
            self.0.work.notify_one();
        }
    }
}

const UNPOISONED: &str = "a writer that panics ends the log";

impl Writers {
    pub(crate) fn new(shared: Arc<Shared>, committer: Committer) -> Self {
        Self { shared, committer: Mutex::new(Some(committer)) }
    }

    /// Takes the oldest segment for the sake of another log of the pool; the bytes given back. `None` when this log is being
    /// written to, or has nothing to give.
    fn evict_oldest(&self, cause: Cause, now_ms: u64) -> Option<u64> {
        // Never waits: two logs of a pool that both need space would wait for each other.
        let mut committer = self.committer.try_lock().ok()?;
        committer.as_mut()?.evict_oldest(cause, now_ms)
    }

    /// Takes everything, because somebody said so. Blocking.
    pub(crate) fn give_up(&self, now_ms: u64) {
        if let Some(committer) = self.committer.lock().expect(UNPOISONED).as_mut() {
            while self.shared.state().has_pending()
                && committer.evict_oldest(Cause::Dropped, now_ms).is_some()
            {}
        }
    }

    /// Maintains the files. Blocking.
    pub(crate) fn check_files(&self) {
        if let Some(committer) = self.committer.lock().expect(UNPOISONED).as_mut() {
            committer.check_files();
        }
    }

    /// The commit thread's life.
    pub(crate) fn run(&self) {
        let ending = Ending(self.shared.clone());
        let mut batch = VecDeque::new();
        loop {
            let is_closing = self.wait(&mut batch);
            let mut committer = self.committer.lock().expect(UNPOISONED);
            let Some(committer_now) = committer.as_mut() else { break };
            // Here tests make the thread panic.
            threads::turn(threads::COMMIT);
            committer_now.commit(&mut batch);
            committer_now.expire_segments();
            // After the batch: its answers do not wait for the sync of the ledger.
            committer_now.persist(is_closing);
            if is_closing {
                committer_now.seal();
                *committer = None;
                break;
            }
        }
        drop(ending);
    }

    /// Sleeps until there is something to do; takes the appends that wait. True when they are the last ones.
    fn wait(&self, batch: &mut VecDeque<Pending>) -> bool {
        let unpoisoned = "no step on the state panics";
        let shared = &self.shared;
        let mut state = shared.state();
        if state.writer == Writer::Thread {
            state.writer = Writer::Nobody;
        }
        loop {
            if state.is_ledger_behind && state.ledger_due.is_none() {
                state.ledger_due = Some(Instant::now() + shared.options.ledger_lag);
            }
            let left = state.ledger_due.map(|due| due.saturating_duration_since(Instant::now()));
            let is_due = left.is_some_and(|left| left.is_zero());
            // A leader wakes the thread when it leaves something.
            let is_free = state.writer == Writer::Nobody;
            if is_free && (is_due || !state.queue.is_empty() || state.has_chores()) {
                break;
            }
            state.is_asleep = true;
            state = match left.filter(|_| is_free) {
                None => shared.work.wait(state).expect(unpoisoned),
                Some(left) => shared.work.wait_timeout(state, left).expect(unpoisoned).0,
            };
        }
        state.writer = Writer::Thread;
        let company = state.company();
        if (1..company).contains(&state.queue.len()) {
            let patience = (state.last_sync / PATIENCE).min(PATIENCE_MAX);
            state.awaited = company;
            let is_alone = |state: &mut State| {
                state.is_asleep = state.queue.len() < company && !state.is_closing;
                state.is_asleep
            };
            state = shared.work.wait_timeout_while(state, patience, is_alone).expect(unpoisoned).0;
            state.awaited = 1;
        }
        state.is_asleep = false;
        state.take_batch(batch);
        shared.has_taken(state.queue_bytes);
        state.is_closing
    }

    /// Sees to an append that somebody waits for: writes it here and now, on the caller's thread, when nobody is writing
    /// and it comes alone; otherwise the writer is notified. `on`: what else the caller's thread has to do.
    pub(crate) fn see_to(&self, on: Thread) {
        let mut state = self.shared.state();
        let Some(lent) = state.may_be_led().then(|| on.lend(state.last_sync)).flatten() else {
            let must_wake = state.must_wake();
            drop(state);
            if must_wake {
                self.shared.work.notify_one();
            }
            return;
        };
        state.writer = Writer::Leader;
        // Lock order: the state is released before the committer is taken, and taken again by it in short steps.
        let mut batch = VecDeque::new();
        state.take_batch(&mut batch);
        drop(state);
        self.shared.has_taken(0);
        let turn = Turn(&self.shared);
        if let Some(committer) = self.committer.lock().expect(UNPOISONED).as_mut() {
            committer.commit(&mut batch);
        }
        drop((turn, lent));
    }

    /// As [`Writers::see_to`], for an append that nobody waits for.
    pub(crate) fn notify(&self) {
        if self.shared.state().must_wake() {
            self.shared.work.notify_one();
        }
    }
}

impl PooledLog for Writers {
    fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    fn oldest_ms(&self) -> Option<u64> {
        let state = self.shared.state();
        // Nobody waits for one that closes: it gives nothing back any more.
        let has_something = state.segments.len() > 1 || state.bytes() > SEGMENT_HEADER;
        (has_something && !state.is_closing).then(|| state.stats().oldest_ms.unwrap_or(0))
    }

    fn expire(&self, now_ms: u64) -> Option<u64> {
        let mut committer = self.committer.try_lock().ok()?;
        // Looked at again where nobody else takes the segment away: the next one may hold what is wanted.
        let has_expired = self.shared.state().has_expired_segment(now_ms);
        committer.as_mut().filter(|_| has_expired)?.evict_oldest(Cause::Expired, now_ms)
    }

    fn evict(&self, now_ms: u64) -> Option<u64> {
        self.evict_oldest(Cause::Evicted, now_ms)
    }
}

/// The thread that an append is awaited on.
#[derive(Clone, Copy)]
pub(crate) enum Thread {
    /// It has nothing else to do.
    Own,
    /// A runtime's, perhaps, with other tasks.
    Shared,
}

/// A thread that was lent to a writer.
struct Lent(Thread);

impl Thread {
    /// `None` when it has better things to do.
    fn lend(self, last_sync: Duration) -> Option<Lent> {
        if let Thread::Shared = self {
            let is_short = (Duration::from_nanos(1)..LEAD_SYNC_MAX).contains(&last_sync);
            let has_another = is_short
                && Handle::try_current().is_ok_and(|runtime| {
                    runtime.runtime_flavor() == RuntimeFlavor::MultiThread
                        && runtime.metrics().num_workers() > 1
                });
            if !has_another || HAS_LEADER.swap(true, Ordering::Acquire) {
                return None;
            }
        }
        Some(Lent(self))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Thread::Shared = self.0 {
            HAS_LEADER.store(false, Ordering::Release);
        }
    }
}
