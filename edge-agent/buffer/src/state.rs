//! What is true of an open log, in memory: the queue to the commit thread, the segments, the cursor and the counts.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::AppendError;
use crate::format::{SEGMENT_HEADER, frame_len};
use crate::limits::LogOptions;
use crate::losses::{Cause, Loss, Losses, Passed};
use crate::storage::Storage;

/// Bytes handed in that the commit thread has not taken yet; over it an append ends with `Busy`. About a second of
/// what a slow SD card writes.
pub(crate) const QUEUE_BYTES_MAX: u64 = 8 << 20;
/// One mark per this many bytes of a segment: how far a reader that seeks must scan.
const MARK_BYTES: u64 = 64 << 10;
/// Enqueue times of the oldest pending records that are remembered one by one.
const HEAD_MAX: usize = 4096;

/// The numbers of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records on disk that are not done with.
    pub records: u64,
    /// Bytes of all segment files. At least one segment stays, so it is not zero when `records` is.
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
    /// Records lost by age or expiry since the log was opened.
    pub expired: u64,
    /// Records lost to make room since the log was opened.
    pub evicted: u64,
    /// Appends refused since the log was opened: no room, queue full, or too long.
    pub refused: u64,
}

/// An append that waits for the commit thread.
pub(crate) struct Pending {
    pub(crate) record: Bytes,
    pub(crate) enqueued_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) reply: oneshot::Sender<Result<u64, AppendError>>,
}

/// A place in a segment where a frame begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
}

/// A segment file. Sorted by `first`; the last one is appended to.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// Bytes that are on disk, header included.
    pub(crate) len: u64,
    pub(crate) created_ms: u64,
    /// Never empty: the first is the place behind the header.
    pub(crate) marks: Vec<Mark>,
}

impl Segment {
    pub(crate) fn new(first: u64, len: u64, created_ms: u64) -> Self {
        let start = Mark { sequence: first, offset: SEGMENT_HEADER, enqueued_ms: created_ms };
        Self { first, len, created_ms, marks: vec![start] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len <= SEGMENT_HEADER
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        if self.marks.last().is_none_or(|last| mark.offset >= last.offset + MARK_BYTES) {
            self.marks.push(mark);
        }
    }

    /// The last mark at or before `sequence`.
    pub(crate) fn mark_before(&self, sequence: u64) -> Mark {
        let at = self.marks.partition_point(|mark| mark.sequence <= sequence);
        self.marks[at.saturating_sub(1)]
    }
}

/// What a reader must know to read on.
pub(crate) struct Stretch {
    pub(crate) segment: u64,
    pub(crate) start: Mark,
    /// Frames end here.
    pub(crate) end: u64,
    /// Sequences below it and at or above `start` were written into this segment.
    pub(crate) until: u64,
}

pub(crate) struct State {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) queue_bytes: u64,
    /// Nothing more is taken in.
    pub(crate) is_closing: bool,
    /// Never empty.
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) next_sequence: u64,
    pub(crate) cursor: u64,
    /// The cursor in the file is behind.
    pub(crate) cursor_moved: bool,
    passed: Passed,
    /// (sequence, enqueued) of the oldest pending records, as far as known, ascending.
    head: VecDeque<(u64, u64)>,
    losses: Losses,
    appended: u64,
    expired: u64,
    evicted: u64,
    refused: u64,
}

impl State {
    pub(crate) fn new(segments: VecDeque<Segment>, next_sequence: u64, cursor: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            is_closing: false,
            segments,
            next_sequence,
            cursor,
            cursor_moved: true,
            passed: Passed::default(),
            head: VecDeque::new(),
            losses: Losses::default(),
            appended: 0,
            expired: 0,
            evicted: 0,
            refused: 0,
        }
    }

    /// Puts an append behind the others.
    pub(crate) fn hand_in(&mut self, pending: Pending) -> Result<(), AppendError> {
        if self.is_closing {
            return Err(AppendError::Closed);
        }
        let bytes = frame_len(pending.record.len());
        if self.queue_bytes > 0 && self.queue_bytes + bytes > QUEUE_BYTES_MAX {
            self.refused += 1;
            return Err(AppendError::Busy);
        }
        self.queue_bytes += bytes;
        self.queue.push_back(pending);
        Ok(())
    }

    pub(crate) fn refuse(&mut self) {
        self.refused += 1;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    pub(crate) fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment from open to end")
    }

    /// Records that follow what the last segment holds are on disk now: (frame length, enqueued) of each.
    pub(crate) fn committed(&mut self, written: impl Iterator<Item = (u64, u64)>) {
        for (len, enqueued_ms) in written {
            let sequence = self.next_sequence;
            let segment = self.active();
            segment.mark(Mark { sequence, offset: segment.len, enqueued_ms });
            segment.len += len;
            self.appended += 1;
            if self.head.back().map_or(self.cursor, |(last, _)| *last) + 1 == sequence {
                self.see(sequence, enqueued_ms);
            }
            self.next_sequence += 1;
        }
    }

    /// A reader has this record in hand, so its time need not be looked up.
    pub(crate) fn see(&mut self, sequence: u64, enqueued_ms: u64) {
        let is_next = self.head.back().is_none_or(|(last, _)| *last < sequence);
        if sequence > self.cursor && is_next && self.head.len() < HEAD_MAX {
            self.head.push_back((sequence, enqueued_ms));
        }
    }

    pub(crate) fn advance(&mut self, sequence: u64) {
        let to = sequence.min(self.next_sequence - 1).max(self.cursor);
        let to = self.passed.carry(to);
        if to == self.cursor {
            return;
        }
        self.cursor = to;
        self.cursor_moved = true;
        while self.head.front().is_some_and(|(first, _)| *first <= to) {
            self.head.pop_front();
        }
    }

    /// `first..=last` will not be read; counted once however often a reader comes by.
    pub(crate) fn pass(&mut self, first: u64, last: u64, cause: Cause) {
        let first = first.max(self.cursor + 1);
        if first > last {
            return;
        }
        let count = self.passed.add(first, last);
        self.lose(first, last, count, cause);
        self.advance(self.cursor);
    }

    fn lose(&mut self, first: u64, last: u64, count: u64, cause: Cause) {
        if count == 0 {
            return;
        }
        match cause {
            Cause::Expired => self.expired += count,
            Cause::Evicted => self.evicted += count,
            Cause::Damaged => {
                tracing::error!(first, last, count, "queued records on disk were found damaged")
            }
        }
        self.losses.add(Loss { first, last, count, cause });
    }

    /// Takes the oldest segment out, with what in it was not done with. Not the last one.
    pub(crate) fn drop_oldest(&mut self, cause: Cause) -> Option<Segment> {
        let next_first = self.segments.get(1)?.first;
        let segment = self.segments.pop_front()?;
        self.pass(segment.first, next_first - 1, cause);
        self.advance(next_first - 1);
        Some(segment)
    }

    /// A whole segment is done with.
    pub(crate) fn has_done_segment(&self) -> bool {
        self.segments.get(1).is_some_and(|next| next.first <= self.cursor + 1)
    }

    /// Takes out the segments of which every record is at or below `cursor`; their first sequences.
    pub(crate) fn drop_done(&mut self, cursor: u64) -> Vec<u64> {
        let mut done = Vec::new();
        while self.segments.get(1).is_some_and(|next| next.first <= cursor + 1) {
            done.extend(self.segments.pop_front().map(|segment| segment.first));
        }
        done
    }

    /// The part of one segment that holds `sequence` and what follows; `None` when it is not committed yet.
    pub(crate) fn stretch(&self, sequence: u64) -> Option<Stretch> {
        if sequence >= self.next_sequence {
            return None;
        }
        let at = self.segments.partition_point(|segment| segment.first <= sequence).saturating_sub(1);
        let segment = &self.segments[at];
        Some(Stretch {
            segment: segment.first,
            start: segment.mark_before(sequence),
            end: segment.len,
            until: self.segments.get(at + 1).map_or(self.next_sequence, |next| next.first),
        })
    }

    pub(crate) fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }

    pub(crate) fn stats(&self) -> Stats {
        let last = self.next_sequence - 1;
        let pending = last - self.cursor;
        let records = if pending == 0 { 0 } else { pending - self.passed.count(self.cursor + 1, last) };
        let oldest = || {
            let start = self.stretch(self.cursor + 1).map(|stretch| stretch.start.enqueued_ms);
            self.head.front().map(|(_, enqueued_ms)| *enqueued_ms).or(start)
        };
        Stats {
            records,
            bytes: self.bytes(),
            oldest_ms: (records > 0).then(oldest).flatten(),
            next_sequence: self.next_sequence,
            cursor: self.cursor,
            appended: self.appended,
            expired: self.expired,
            evicted: self.evicted,
            refused: self.refused,
        }
    }
}

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
    pub(crate) options: LogOptions,
    state: Mutex<State>,
    /// There is something to do for the commit thread.
    pub(crate) work: Condvar,
    pub(crate) published: watch::Sender<Published>,
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, id: Uuid, options: LogOptions, state: State) -> Self {
        let published =
            watch::Sender::new(Published { next_sequence: state.next_sequence, has_ended: false });
        Self { storage, id, options, state: Mutex::new(state), work: Condvar::new(), published }
    }

    /// Held for short steps in memory only, never while a file is touched or a task waits.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no step on the state panics")
    }
}
