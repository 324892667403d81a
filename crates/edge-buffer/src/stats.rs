//! What a log tells of itself.

use std::time::Duration;

use crate::ledger::Lost;

/// The numbers of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records on disk that are not done with.
    pub records: u64,
    /// Bytes of all segment files, with what is allocated ahead. At least one segment stays, so it is not zero when
    /// `records` is.
    pub bytes: u64,
    /// When the oldest pending record was enqueued, ms of Unix time; behind a long backlog without a reader it may be
    /// the time of a somewhat older record.
    pub oldest_ms: Option<u64>,
    /// The sequence that the next record will get.
    pub next_sequence: u64,
    /// Everything up to and including it is done with; 0 at first.
    pub cursor: u64,
    /// Records committed since the log was opened.
    pub appended: u64,
    /// Records that were done with since the log was opened, other than by a loss.
    pub done: u64,
    /// Records lost by age or expiry since the log was opened.
    pub expired: u64,
    /// Records lost to free space since the log was opened.
    pub evicted: u64,
    /// Records found damaged or missing since the log was opened, at open or by a reader.
    pub damaged: u64,
    /// Records that were missing at open, until upstream says which of them arrived; they count as pending.
    pub unproven: u64,
    /// Appends refused since the log was opened: no space, queue full, or too long.
    pub refused: u64,
    /// Records lost since the log was made, however often it was opened.
    pub lost: Lost,
    /// Bytes of the records committed since the log was opened.
    pub payload_bytes: u64,
    /// Bytes written to files for them since the log was opened; over `payload_bytes`, how fast flash wears.
    pub written_bytes: u64,
    /// `fdatasync`s since the log was opened.
    pub syncs: u64,
    /// Those of records, by how long the write and the sync took.
    pub sync_times: SyncTimes,
    /// Segment files.
    pub segments: u64,
    /// What became of the last append that found little space.
    pub headroom: Headroom,
    /// What it cannot do, since when; `None` when its last write went well.
    pub failing: Option<Failing>,
    /// For how many milliseconds the write that is under way takes; 0 when there is none.
    pub busy_ms: u64,
    /// Segments with damage in them that were set aside and are kept for analysis.
    pub set_aside: u64,
}

/// A log that cannot write: its last write failed, and none went well since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// For how many milliseconds.
    pub for_ms: u64,
    /// What failed, for example "write records".
    pub doing: &'static str,
    /// The system's number of the error, if it was the system's.
    pub os_error: Option<i32>,
}

/// Whether there is space for what is appended, as the last append found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headroom {
    /// It was there.
    #[default]
    Enough,
    /// It was made: older records, of this log or of another one of its pool, gave way.
    Evicting,
    /// There was none: the append was refused.
    Refusing,
}

const SYNC_BUCKETS: usize = 12;
/// Upper bounds of the buckets of [`SyncTimes`]: from a fast SSD to a card that hangs.
pub static SYNC_BOUNDS: [Duration; SYNC_BUCKETS] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];

/// How many syncs took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// By [`SYNC_BOUNDS`]: up to the first bound, up to the second, and so on; the last count is above all of them.
    pub counts: [u64; SYNC_BUCKETS + 1],
    /// All of them together.
    pub sum: Duration,
}

impl SyncTimes {
    pub(crate) fn add(&mut self, took: Duration) {
        self.counts[SYNC_BOUNDS.partition_point(|bound| *bound < took)] += 1;
        self.sum += took;
    }
}

/// What a log has counted since it was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) appended: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) damaged: u64,
    pub(crate) refused: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_times: SyncTimes,
    pub(crate) done: u64,
}
