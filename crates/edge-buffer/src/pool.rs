//! Logs that share a disk: together they keep to a number of bytes, and when one of them is short of it or of free disk
//! space, the least important of them all is dropped, its oldest records first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How long a log waits for another one, which is writing, to free space; then its append is refused.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// A number of logs on one disk. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    bytes_max: u64,
    next_number: AtomicU64,
    members: Mutex<Vec<(Member, Weak<dyn PooledLog>)>>,
}

/// What a pool asks of a log.
pub(crate) trait PooledLog: Send + Sync {
    /// Bytes of its records, with frames and headers.
    fn bytes(&self) -> u64;

    /// When its oldest record was handed in, in ms of Unix time; `None` if it has nothing to give.
    fn oldest_ms(&self) -> Option<u64>;

    /// Takes its oldest segment if all in it has expired; the bytes given back. `None` also if it is being written to.
    fn expire(&self, now_ms: u64) -> Option<u64>;

    /// Takes its oldest segment; the bytes given back. `None` if it is being written to, or has nothing to give.
    fn evict(&self, now_ms: u64) -> Option<u64>;
}

/// A log of the pool, as it was opened.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    /// From [`Pool::next_number`].
    pub(crate) number: u64,
    pub(crate) rank: u32,
    /// Its oldest records may be dropped for new ones.
    pub(crate) drops_oldest: bool,
}

impl Member {
    fn may_evict(&self, rank: u32) -> bool {
        self.drops_oldest && self.rank >= rank
    }
}

impl Pool {
    /// A pool that takes at most so many bytes; a batch more when several of its logs write at the same moment.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner { bytes_max, next_number: AtomicU64::new(1), members: Mutex::default() }))
    }

    /// A number for a log that is to join.
    pub(crate) fn next_number(&self) -> u64 {
        self.0.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn join(&self, member: Member, log: Weak<dyn PooledLog>) {
        let mut members = self.0.members.lock().expect("nothing panics with it");
        members.retain(|(_, log)| log.strong_count() > 0);
        members.push((member, log));
    }

    fn members(&self) -> Vec<(Member, Arc<dyn PooledLog>)> {
        let members = self.0.members.lock().expect("nothing panics with it");
        members.iter().filter_map(|(member, log)| Some((*member, log.upgrade()?))).collect()
    }

    /// Bytes that may still be written.
    pub(crate) fn headroom(&self) -> u64 {
        let taken: u64 = self.members().iter().map(|(_, log)| log.bytes()).sum();
        self.0.bytes_max.saturating_sub(taken)
    }

    /// Bytes that would be free if all that may be dropped for a log of this rank were.
    pub(crate) fn evictable(&self, rank: u32) -> u64 {
        let members = self.members();
        members.iter().filter(|(member, _)| member.may_evict(rank)).map(|(_, log)| log.bytes()).sum()
    }

    /// Takes the oldest segment of a log in which everything has expired. Bytes given back.
    pub(crate) fn expire(&self, now_ms: u64) -> Option<u64> {
        self.members().iter().find_map(|(_, log)| log.expire(now_ms))
    }

    /// The log that is evicted from for one of this rank: of the least important logs the one with the oldest record.
    fn victim(&self, rank: u32) -> Option<(Member, Arc<dyn PooledLog>)> {
        let members = self.members().into_iter().filter(|(member, _)| member.may_evict(rank));
        let ready = members.filter_map(|(member, log)| Some((log.oldest_ms()?, member, log)));
        let first = ready.min_by_key(|(oldest_ms, member, _)| (std::cmp::Reverse(member.rank), *oldest_ms));
        first.map(|(_, member, log)| (member, log))
    }

    /// Evicts from the least important log for the one of this number and rank, which is being written to. `None`: nothing
    /// does, or not in time.
    pub(crate) fn evict(&self, number: u64, rank: u32, now_ms: u64) -> Option<Given> {
        let begun = std::time::Instant::now();
        loop {
            let (member, log) = self.victim(rank)?;
            if member.number == number {
                return Some(Given::Ours);
            }
            if let Some(bytes) = log.evict(now_ms) {
                return Some(Given::Bytes(bytes));
            }
            if begun.elapsed() > PATIENCE {
                return None;
            }
            // It is writing: a batch takes a sync.
            std::thread::sleep(PAUSE);
        }
    }
}

/// What giving way came to.
pub(crate) enum Given {
    /// It is the turn of the log that waits.
    Ours,
    /// Given back by another one.
    Bytes(u64),
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("bytes_max", &self.0.bytes_max).finish_non_exhaustive()
    }
}
