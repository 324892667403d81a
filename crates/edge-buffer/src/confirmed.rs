//! What upstream says to have of a log: the cursor follows it, and what it had confirmed and lost is counted.

use uuid::Uuid;

use crate::format::Epoch;
use crate::log::Log;
use crate::losses::Cause;
use crate::state::State;

impl Log {
    /// Whether upstream itself has confirmed records that the ledger knows: they are lost without a trace if upstream goes back in
    /// time after the log's files are gone.
    pub fn has_confirmed(&self) -> bool {
        self.shared().state().ledger.epochs.has_confirmed()
    }
}

impl State {
    /// Upstream says by epoch up to where it has all of it: that much is done with. Its word on one epoch says nothing of
    /// the sequences of another, so it goes from epoch to epoch.
    pub(crate) fn advance_stored(&mut self, stored: impl Fn(Epoch) -> Option<u64>) {
        self.advance_missing(&stored);
        while self.has_pending() {
            let Some(epoch) = self.ledger.epochs.of(self.cursor + 1) else { return };
            let last = self.ledger.epochs.last_of(epoch).unwrap_or(0);
            let Some(up_to) = stored(epoch).filter(|up_to| *up_to > self.cursor) else { return };
            self.finish(up_to.min(last));
            if up_to < last {
                return;
            }
        }
    }

    /// Moves the cursor through records of which there is no file. Their epochs may be unknown, for the ledger can be older than
    /// they are. Records go up in order: when upstream has one of a later epoch, it had all before it, or got a loss record.
    fn advance_missing(&mut self, stored: impl Fn(Epoch) -> Option<u64>) {
        if !self.segments.front().is_some_and(|segment| segment.is_missing) {
            return;
        }
        let Some(next) = self.segments.get(1).map(|segment| segment.first) else { return };
        let later = self.segments.iter().skip(1).filter_map(|segment| stored(segment.epoch));
        if let Some(up_to) = later.max() {
            self.finish(up_to.min(next - 1));
        }
    }

    /// How many records were missing at open of which upstream has not said yet whether they arrived.
    pub(crate) fn unproven_count(&self) -> u64 {
        let pending = self.unproven.iter().map(|(first, last)| ((*first).max(self.cursor + 1), *last));
        let pending = pending.filter(|(first, last)| first <= last);
        pending.map(|(first, last)| last - first + 1 - self.ledger.passed.count(first, last)).sum()
    }

    /// Upstream has confirmed a record, and what is up to `done` is done with.
    pub(crate) fn confirm(&mut self, sequence: u64, done: Option<u64>) {
        self.ledger.epochs.confirm(sequence);
        self.is_ledger_behind = true;
        if let Some(done) = done {
            self.finish(done);
        }
    }

    /// Counts what upstream had confirmed and does not have any more; the ranges of it.
    pub(crate) fn reconcile(
        &mut self,
        receiver: Uuid,
        has: impl Fn(Epoch) -> Option<u64>,
        is_complete: bool,
        now_ms: u64,
    ) -> Vec<(u64, u64)> {
        let lost = self.ledger.epochs.reconcile(receiver, has, is_complete);
        self.now_ms = now_ms;
        self.is_ledger_behind = true;
        for (first, last) in &lost {
            self.lose(*first, *last, last - first + 1, Cause::Restored, "");
        }
        lost
    }
}
