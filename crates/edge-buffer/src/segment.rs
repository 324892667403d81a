//! What is known of a segment file while the log is open.

use crate::format::{Epoch, SEGMENT_HEADER};
use crate::losses::Cause;

/// One mark per this many bytes of the last segment: how far a reader that seeks must scan.
const INDEX_STEP_BYTES: u64 = 64 << 10;
/// Of the marks of a full segment one in so many is kept: memory that a long backlog does not feel.
const SEALED_INDEX_STEP: usize = 16;

/// A place in a segment where a frame begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
}

/// A segment file. Sorted by `first`; the last one is appended to.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// Of all its records.
    pub(crate) epoch: Epoch,
    /// Bytes that are on disk, header included.
    pub(crate) len: u64,
    /// Bytes of its file: `len` and what is allocated ahead. Less than `len` for a file that somebody enlarged.
    pub(crate) allocated: u64,
    /// Something that should stand in it does not.
    pub(crate) is_damaged: bool,
    /// It had no file when the log was opened: upstream says which of its records arrived, and a reader counts the others.
    pub(crate) is_missing: bool,
    /// From when on nobody wants any of its records.
    pub(crate) expires_ms: u64,
    /// None of its records expires before that; 0 when they have to be read to know.
    pub(crate) first_gone_ms: u64,
    pub(crate) created_ms: u64,
    /// Never empty: the first is the place behind the header.
    pub(crate) index: Vec<IndexEntry>,
}

impl Segment {
    pub(crate) fn new(first: u64, epoch: Epoch, len: u64, created_ms: u64) -> Self {
        let start = IndexEntry { sequence: first, offset: SEGMENT_HEADER, enqueued_ms: created_ms };
        Self {
            first,
            epoch,
            len,
            allocated: len,
            is_damaged: false,
            is_missing: false,
            expires_ms: 0,
            first_gone_ms: u64::MAX,
            created_ms,
            index: vec![start],
        }
    }

    /// One of which only the sequences are known, from `first` to that of the next segment.
    pub(crate) fn missing(first: u64, epoch: Epoch) -> Self {
        Self { is_missing: true, expires_ms: u64::MAX, ..Self::new(first, epoch, 0, 0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len <= SEGMENT_HEADER
    }

    /// Nothing more will be written to it, and its file was cut to its length.
    pub(crate) fn seal(&mut self) {
        self.allocated = self.len;
        self.index = self.index.iter().copied().step_by(SEALED_INDEX_STEP).collect();
    }

    pub(crate) fn add_entry(&mut self, entry: IndexEntry) {
        // The first segment of a log is made before any time is known.
        if entry.sequence == self.first && self.created_ms == 0 {
            self.created_ms = entry.enqueued_ms;
            self.index[0].enqueued_ms = entry.enqueued_ms;
        }
        if self.index.last().is_none_or(|last| entry.offset >= last.offset + INDEX_STEP_BYTES) {
            self.index.push(entry);
        }
    }

    /// The last mark at or before `sequence`.
    pub(crate) fn entry_before(&self, sequence: u64) -> IndexEntry {
        // The first mark is the place behind the header, so there is one before every sequence of the segment.
        let at = self.index.partition_point(|entry| entry.sequence <= sequence);
        self.index[at.saturating_sub(1)]
    }
}

/// What a reader must know to read on.
pub(crate) struct Stretch {
    pub(crate) segment: u64,
    pub(crate) epoch: Epoch,
    pub(crate) start: IndexEntry,
    /// Frames end here.
    pub(crate) end: u64,
    /// Sequences below it and at or above `start` were written into this segment.
    pub(crate) until: u64,
}

/// What is lost with one segment, read before it is dropped.
#[derive(Default)]
pub(crate) struct Tally {
    /// (sequence, which of `groups`), ascending.
    pub(crate) records: Vec<(u64, u16)>,
    /// For which cause, and whose.
    pub(crate) groups: Vec<(Cause, String)>,
}

impl Tally {
    /// For each group the first, the last and the number of its records above `cursor` that still count.
    pub(crate) fn ranges_after(
        &self,
        cursor: u64,
        counts: impl Fn(u64) -> bool,
    ) -> Vec<Option<(u64, u64, u64)>> {
        let mut ranges: Vec<Option<(u64, u64, u64)>> = vec![None; self.groups.len()];
        let behind = self.records.partition_point(|(sequence, _)| *sequence <= cursor);
        for (sequence, group) in self.records[behind..].iter().filter(|(sequence, _)| counts(*sequence)) {
            let (_, last, count) = ranges[usize::from(*group)].get_or_insert((*sequence, *sequence, 0));
            (*last, *count) = (*sequence, *count + 1);
        }
        ranges
    }
}
