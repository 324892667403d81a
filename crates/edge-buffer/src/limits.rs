//! The limits of a log, and what is dropped when one is met.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::{Record, SEGMENT_HEADER, frame_len};
use crate::pool::Pool;

/// The longest record. Sixteen times the largest telemetry message of the dialect (256 KiB).
pub const RECORD_BYTES_MAX: u64 = 4 << 20;

/// How far a segment's file is read at least, whatever the options are: the longest that makes sense. Another version, or
/// other options, may have written longer segments than these do.
const FOUND_LEN_MIN: u64 = 64 << 20;

/// Says whose record it is, from the record's bytes, by which losses are counted. It runs for records that are lost only.
pub type Tag = fn(&[u8]) -> Option<String>;

/// The limits of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment is closed before it grows over this. Space is given back in segments, so it is never taken larger than
    /// a quarter of `bytes_max`; a longer record gets a segment of its own. 1 to 64 MiB make sense; a log takes no more
    /// than twice of what it holds, so a small one does not pay for it.
    pub segment_bytes: u64,
    /// Bytes of all segments together.
    pub bytes_max: u64,
    /// Records older than this are expired, in ms.
    pub age_max_ms: Option<u64>,
    /// Bytes that the log leaves free on its file system.
    pub keep_free_bytes: u64,
    /// Bytes handed in that the commit thread has not taken yet; over it an append ends with
    /// [`AppendError::Busy`](crate::AppendError::Busy). 8 MiB are about a second of what a slow SD card writes.
    pub waiting_bytes_max: u64,
    /// What is dropped when a limit is met.
    pub full: Full,
    /// The logs that share these bytes and this disk with it.
    pub pool: Option<Pool>,
    /// How little it matters among those: a higher rank is dropped first, and a log is never evicted from for one of a higher rank.
    pub rank: u32,
    /// Whose a record is; without it losses are counted by cause only.
    pub tag: Option<Tag>,
    /// Whether an append that is refused is a loss. Not where whoever appends keeps the record and tries again.
    pub is_refused_lost: bool,
    /// How many records readers can have given out at once without knowing whether they arrived; 0: they always know. Such
    /// records, also those of an earlier run, do not expire before [`Log::settle`](crate::Log::settle): they may have arrived,
    /// and would be counted as lost.
    pub unsettled_max: u64,
    /// A file outside of the log's directory that keeps a copy of its ledger: by it an open knows what was there when the
    /// directory, or files in it, are gone. Without it a directory that is gone is a new log.
    pub mirror: Option<PathBuf>,
    /// How long a change of the ledger, such as a moved cursor, waits for company before it is written: a restart resends that much.
    /// The files are checked then, too.
    pub ledger_lag: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            bytes_max: 1 << 30,
            age_max_ms: None,
            keep_free_bytes: 64 << 20,
            waiting_bytes_max: 8 << 20,
            full: Full::DropOldest,
            pool: None,
            rank: 0,
            tag: None,
            is_refused_lost: true,
            unsettled_max: 0,
            mirror: None,
            ledger_lag: Duration::from_secs(1),
        }
    }
}

impl LogOptions {
    /// The size at which a segment is closed.
    pub(crate) fn segment_len_max(&self) -> u64 {
        self.segment_bytes.min(self.bytes_max / 4)
    }

    /// The longest file of a segment: a full one, or one of a single long record.
    pub(crate) fn file_len_max(&self) -> u64 {
        self.segment_len_max().max(SEGMENT_HEADER + frame_len(self.record_bytes_max() as usize))
    }

    /// How much of a segment's file is read at open: a file that somebody enlarged must not delay a start.
    pub(crate) fn found_len_max(&self) -> u64 {
        self.file_len_max().max(FOUND_LEN_MIN)
    }

    /// From when on nobody wants a record.
    pub(crate) fn gone_ms(&self, record: &Record) -> u64 {
        let too_old_ms = self.age_max_ms.map_or(u64::MAX, |max| record.enqueued_ms.saturating_add(max));
        record.expires_ms.unwrap_or(u64::MAX).min(too_old_ms)
    }

    /// Whose the record is; empty when nobody says so.
    pub(crate) fn tag_of(&self, record: &[u8]) -> String {
        self.tag.and_then(|tag| tag(record)).unwrap_or_default()
    }

    /// Whose loss it is that a record was refused; `None` when it is none.
    pub(crate) fn refused_tag(&self, record: &[u8]) -> Option<String> {
        self.is_refused_lost.then(|| self.tag_of(record))
    }

    /// The longest record that these limits allow.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        RECORD_BYTES_MAX.min(self.bytes_max.saturating_sub(SEGMENT_HEADER + frame_len(0)))
    }
}

/// What is dropped when there is no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The oldest segment goes and is counted as evicted. When another program has filled the disk so far that
    /// dropping everything would not help, nothing is dropped and the append is refused.
    DropOldest,
    /// The append ends with [`AppendError::Full`].
    Refuse,
}
