//! Logs that share a disk: together they keep to a number of bytes, and when one of them is short of it or of free disk
//! space, the least important of them all gives way, its oldest records first.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::format::SEGMENT_HEADER;
use crate::limits::Full;
use crate::losses::Cause;
use crate::shared::Shared;
use crate::writer::Writers;

/// How long a log waits for another one, which is writing, to give way; then its append is refused.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// A number of logs on one disk. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    bytes_max: u64,
    members: Mutex<Vec<Weak<Writers>>>,
}

impl Pool {
    /// A pool that takes at most so many bytes; a batch more when several of its logs write at the same moment.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner { bytes_max, members: Mutex::default() }))
    }

    pub(crate) fn join(&self, writers: &Arc<Writers>) {
        let mut members = self.0.members.lock().expect("nothing panics with it");
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(writers));
    }

    fn members(&self) -> Vec<Arc<Writers>> {
        let members = self.0.members.lock().expect("nothing panics with it");
        members.iter().filter_map(Weak::upgrade).collect()
    }

    /// Bytes that may still be written.
    pub(crate) fn room(&self) -> u64 {
        let taken: u64 = self.members().iter().map(|member| member.shared.state().bytes()).sum();
        self.0.bytes_max.saturating_sub(taken)
    }

    /// Bytes that would be free if all that may give way to a log of this rank did.
    pub(crate) fn in_reach(&self, rank: u32) -> u64 {
        self.members()
            .iter()
            .filter(|member| may_give_way(member, rank))
            .map(|m| m.shared.state().bytes())
            .sum()
    }

    /// Takes the oldest segment of a log in which everything has expired. Bytes given back.
    pub(crate) fn expire(&self, now_ms: u64) -> Option<u64> {
        let has_expired = |member: &&Arc<Writers>| member.shared.state().has_expired_segment(now_ms);
        self.members().iter().filter(has_expired).find_map(|member| member.give_way(Cause::Expired, now_ms))
    }

    /// Who gives way to a log of this rank: of the least important logs the one with the oldest record.
    fn victims(&self, rank: u32) -> Vec<Arc<Writers>> {
        let mut all: Vec<(u32, u64, Arc<Writers>)> = Vec::new();
        for member in self.members().into_iter().filter(|member| may_give_way(member, rank)) {
            let state = member.shared.state();
            let has_something = state.segments.len() > 1 || state.bytes() > SEGMENT_HEADER;
            let oldest_ms = state.stats().oldest_ms.unwrap_or(0);
            drop(state);
            if has_something {
                all.push((member.shared.options.rank, oldest_ms, member));
            }
        }
        all.sort_by_key(|(rank, oldest_ms, _)| (std::cmp::Reverse(*rank), *oldest_ms));
        all.into_iter().map(|(_, _, member)| member).collect()
    }

    /// Lets the least important log give way to one that is being written to. `None`: nothing does, or not in time.
    pub(crate) fn evict(&self, asks: &Arc<Shared>, now_ms: u64) -> Option<Given> {
        let begun = std::time::Instant::now();
        loop {
            let victims = self.victims(asks.options.rank);
            let first = victims.first()?;
            if Arc::ptr_eq(&first.shared, asks) {
                return Some(Given::Ours);
            }
            if let Some(bytes) = first.give_way(Cause::Evicted, now_ms) {
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
    /// It is the turn of the log that asked.
    Ours,
    /// Given back by another one.
    Bytes(u64),
}

fn may_give_way(member: &Writers, rank: u32) -> bool {
    let options = &member.shared.options;
    options.full == Full::DropOldest && options.rank >= rank
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("bytes_max", &self.0.bytes_max).finish_non_exhaustive()
    }
}
