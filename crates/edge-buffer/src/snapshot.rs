//! The numbers of a log as they are now.

use crate::state::State;
use crate::stats::Stats;

impl State {
    pub(crate) fn stats(&self) -> Stats {
        let last = self.next_sequence - 1;
        let pending = last - self.cursor;
        let records =
            if pending == 0 { 0 } else { pending - self.ledger.passed.count(self.cursor + 1, last) };
        let oldest = || {
            let start = self.stretch(self.cursor + 1).map(|stretch| stretch.start.enqueued_ms);
            // 0: nobody has read the first record of a segment that was made before the time was known.
            self.head.front().map(|(_, enqueued_ms)| *enqueued_ms).or(start.filter(|at_ms| *at_ms > 0))
        };
        Stats {
            records,
            bytes: self.segments.iter().map(|segment| segment.allocated).sum(),
            segments: self.segments.len() as u64,
            oldest_ms: (records > 0).then(oldest).flatten(),
            next_sequence: self.next_sequence,
            cursor: self.cursor,
            appended: self.counters.appended,
            done: self.counters.done,
            expired: self.counters.expired,
            evicted: self.counters.evicted,
            damaged: self.counters.damaged,
            unproven: self.unproven_count(),
            refused: self.counters.refused,
            lost: self.ledger.lost,
            payload_bytes: self.counters.payload_bytes,
            written_bytes: self.counters.written_bytes,
            syncs: self.counters.syncs,
            sync_times: self.counters.sync_times,
            headroom: self.headroom,
            failing: self.failing.now(),
            busy_ms: self.failing.busy_ms(),
            set_aside: self.set_aside,
        }
    }
}
