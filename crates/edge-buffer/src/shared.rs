//! What the handles, the readers and the writers of a log share.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use crate::format::Epoch;
use crate::limits::LogOptions;
use crate::pool::Pool;
use crate::state::State;
use crate::storage::Storage;

/// What readers wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) next_sequence: u64,
    /// The commit thread is gone: nothing will follow.
    pub(crate) has_ended: bool,
}

/// What the handles, the readers and the commit thread share.
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) id: Uuid,
    /// Of what is appended from this open on.
    pub(crate) epoch: Epoch,
    pub(crate) options: LogOptions,
    /// Its number in its pool; 0 without one.
    pub(crate) pool_number: u64,
    state: Mutex<State>,
    /// There is something to do for the commit thread.
    pub(crate) work: Condvar,
    pub(crate) published: watch::Sender<Published>,
    /// Bytes handed in that the commit thread has not taken yet: `queue_bytes` for those who only look.
    pub(crate) waiting_bytes: AtomicU64,
    /// The commit thread has taken what waited.
    pub(crate) taken: Notify,
}

impl Shared {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        id: Uuid,
        epoch: Epoch,
        options: LogOptions,
        mut state: State,
    ) -> Self {
        state.doubt_first(options.unsettled_max);
        let pool_number = options.pool.as_ref().map_or(0, Pool::next_number);
        let published =
            watch::Sender::new(Published { next_sequence: state.next_sequence, has_ended: false });
        Self {
            storage,
            id,
            epoch,
            options,
            pool_number,
            state: Mutex::new(state),
            work: Condvar::new(),
            published,
            waiting_bytes: AtomicU64::new(0),
            taken: Notify::new(),
        }
    }

    /// Ends when what readers found lost is on disk; `None` when it is, or when the log is being closed.
    pub(crate) fn losses_written(&self) -> Option<oneshot::Receiver<io::Result<()>>> {
        let mut state = self.state();
        if !state.is_loss_behind || state.is_closing {
            return None;
        }
        let (notify, written) = oneshot::channel();
        state.ledger_waits.push(notify);
        Some(written)
    }

    /// Appends that waited are on their way to the disk; so many bytes still wait.
    pub(crate) fn has_taken(&self, still_waiting: u64) {
        // A figure for metrics and for who waits for space; the bound itself is kept under the lock.
        self.waiting_bytes.store(still_waiting, Ordering::Relaxed);
        self.taken.notify_waiters();
    }

    /// Held for short steps in memory only, never while a file is touched or a task waits.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no step on the state panics")
    }
}
