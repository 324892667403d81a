//! What of a log's writes fails at present, or hangs.

use std::io;
use std::time::Instant;

use crate::error::AppendError;
use crate::stats::Failing;

/// The first failure of a row that has not ended.
#[derive(Debug)]
pub(crate) struct Failure {
    since: Instant,
    doing: &'static str,
    os_error: Option<i32>,
}

impl Failure {
    fn new(doing: &'static str, error: &io::Error) -> Self {
        Self { since: Instant::now(), doing, os_error: error.raw_os_error() }
    }
}

/// Each failure goes with the next write of its kind that is good.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) records: Option<Failure>,
    /// The ledger is then tried when it is due, not whenever there is a segment to delete.
    pub(crate) ledger: Option<Failure>,
    /// When whoever writes took the batch that it writes.
    pub(crate) busy_since: Option<Instant>,
}

impl Failures {
    /// A batch was not written.
    pub(crate) fn failed(&mut self, error: &AppendError) {
        if let AppendError::Write { doing, source, .. } = error {
            self.records.get_or_insert(Failure::new(doing, source));
        }
    }

    /// The ledger was written, or not.
    pub(crate) fn ledger_ended(&mut self, error: Option<&io::Error>) {
        let before = self.ledger.take();
        self.ledger = error.map(|error| before.unwrap_or(Failure::new("write the ledger", error)));
    }

    /// The one that matters most.
    pub(crate) fn now(&self) -> Option<Failing> {
        let Failure { since, doing, os_error } = self.records.as_ref().or(self.ledger.as_ref())?;
        Some(Failing { for_ms: millis_since(*since), doing, os_error: *os_error })
    }

    /// As [`crate::Stats::busy_ms`].
    pub(crate) fn busy_ms(&self) -> u64 {
        self.busy_since.map_or(0, millis_since)
    }
}

fn millis_since(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
