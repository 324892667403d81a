//! A log with a copy of its ledger, in a directory of its own.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{options, payload};
use crate::{Log, LogOptions};

/// A directory with the log and the copy of its ledger.
pub(super) struct Site(pub(super) TempDir);

impl Site {
    pub(super) fn queue(&self) -> PathBuf {
        self.0.path().join("buffer/upstream")
    }

    pub(super) fn mirror(&self) -> PathBuf {
        self.0.path().join("ledgers/upstream.ledger")
    }

    pub(super) fn open(&self) -> Log {
        let mirror = Some(self.mirror());
        // Larger than a file of a segment is ever counted, so that nothing is evicted.
        Log::open(&self.queue(), LogOptions { mirror, bytes_max: 64 << 20, ..options() }).unwrap()
    }
}

/// Appends `count` records of `len` bytes that are numbered by their sequence, all at once.
pub(super) async fn fill_at_once(log: &Log, count: u64, len: usize) {
    let next = log.stats().next_sequence;
    let appends: Vec<_> = (next..next + count).map(|n| (n, log.append(payload(n, len), n))).collect();
    for (n, append) in appends {
        assert_eq!(append.await.unwrap(), n);
    }
}
