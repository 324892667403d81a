//! What is true of an open log, in memory: the queue to the commit thread, the segments, the cursor and the counts.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::AppendError;
use crate::failures::Failures;
use crate::fence::Fence;
use crate::format::frame_len;
use crate::given_out::GivenOut;
use crate::ledger::{Ledger, LossRecord};
use crate::losses::{Cause, Loss, Losses};
use crate::segment::{IndexEntry, Segment, Stretch, Tally};
use crate::segments::Segments;
use crate::stats::{Counters, Headroom};

/// Fewer appends than these are answered by who wrote them: to wake another thread for them would take longer.
pub(crate) const MANY: usize = 128;
/// Enqueue times of the oldest pending records that are remembered one by one.
const HEAD_MAX: usize = 4096;

/// An append that waits for the commit thread.
pub(crate) struct Pending {
    pub(crate) record: Bytes,
    pub(crate) enqueued_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) fence: Option<Fence>,
    pub(crate) reply: oneshot::Sender<Result<u64, AppendError>>,
}

/// Who writes to the files now. Whoever it is checks the queue again before it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Nobody,
    /// The commit thread.
    Thread,
    /// An append that found nobody and nothing before it.
    Leader,
}

pub(crate) struct State {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) queue_bytes: u64,
    pub(crate) writer: Writer,
    /// The commit thread sleeps, and nobody has woken it.
    pub(crate) is_asleep: bool,
    /// The commit thread wants to be woken when so many appends wait.
    pub(crate) awaited: usize,
    /// Appends in the last batch.
    pub(crate) last_batch: usize,
    /// And in the one before.
    batch_before: usize,
    /// What its write and sync took.
    pub(crate) last_sync: Duration,
    /// A large batch is on disk and its answers are not given yet: who waits for them appends nothing meanwhile.
    pub(crate) are_answers_held: bool,
    /// Nothing more is taken in.
    pub(crate) is_closing: bool,
    /// Never empty.
    pub(crate) segments: Segments,
    pub(crate) next_sequence: u64,
    pub(crate) cursor: u64,
    /// The ledger's file is behind.
    pub(crate) is_ledger_behind: bool,
    /// So is it with something that a reader found lost.
    pub(crate) is_loss_behind: bool,
    /// Who waits until it is on disk.
    pub(crate) ledger_waits: Vec<oneshot::Sender<io::Result<()>>>,
    /// When it is written at the latest.
    pub(crate) ledger_due: Option<Instant>,
    pub(crate) ledger: Ledger,
    /// Who wants to report the loss records upstream, once they are on disk.
    pub(crate) reporting: Vec<oneshot::Sender<Result<Vec<LossRecord>, AppendError>>>,
    pub(crate) set_aside: u64,
    /// Ranges that were missing at open, until upstream says which of them arrived. A reader counts what is left of them.
    pub(crate) unproven: Vec<(u64, u64)>,
    pub(crate) headroom: Headroom,
    given_out: GivenOut,
    /// (sequence, enqueued) of the oldest pending records, as far as known, ascending.
    pub(crate) head: VecDeque<(u64, u64)>,
    /// The time that was given last, ms of Unix time: losses are dated by it.
    pub(crate) now_ms: u64,
    losses: Losses,
    pub(crate) counters: Counters,
    pub(crate) failing: Failures,
}

impl State {
    pub(crate) fn new(segments: VecDeque<Segment>, next_sequence: u64, ledger: Ledger) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            writer: Writer::Nobody,
            is_asleep: false,
            awaited: 1,
            last_batch: 0,
            batch_before: 0,
            are_answers_held: false,
            last_sync: Duration::ZERO,
            is_closing: false,
            segments: Segments(segments),
            next_sequence,
            cursor: ledger.cursor,
            is_ledger_behind: false,
            is_loss_behind: false,
            ledger_waits: Vec::new(),
            ledger_due: None,
            ledger,
            reporting: Vec::new(),
            set_aside: 0,
            unproven: Vec::new(),
            headroom: Headroom::Enough,
            given_out: GivenOut::default(),
            head: VecDeque::new(),
            now_ms: 0,
            losses: Losses::default(),
            counters: Counters::default(),
            failing: Failures::default(),
        }
    }

    /// Puts an append behind the others.
    pub(crate) fn submit(
        &mut self,
        pending: Pending,
        waiting_bytes_max: u64,
    ) -> Result<(), (AppendError, Pending)> {
        if self.is_closing {
            return Err((AppendError::Closed, pending));
        }
        if pending.fence.as_ref().is_some_and(Fence::is_set) {
            return Err((AppendError::Fenced, pending));
        }
        let bytes = frame_len(pending.record.len());
        if self.queue_bytes > 0 && self.queue_bytes + bytes > waiting_bytes_max {
            return Err((AppendError::Busy, pending));
        }
        self.queue_bytes += bytes;
        self.queue.push_back(pending);
        Ok(())
    }

    /// Whether the commit thread should be woken for the appends that wait: once, however many come before it runs, for
    /// each time is a system call.
    pub(crate) fn must_wake(&mut self) -> bool {
        self.writer != Writer::Leader
            && self.queue.len() >= self.awaited
            && std::mem::take(&mut self.is_asleep)
    }

    /// Whether the one append that waits may be written by who waits for it. Not where space must be freed first, which takes
    /// other logs' time.
    pub(crate) fn may_be_led(&self) -> bool {
        let is_alone = self.queue.len() == 1 && self.last_batch <= 1;
        self.writer == Writer::Nobody && is_alone && !self.is_closing && self.headroom == Headroom::Enough
    }

    /// The appends that wait: all of them, or the first half of many when all their producers may be waiting. The other half
    /// is prepared and handed to the disk at once after it, and the producers of the first go on meanwhile.
    pub(crate) fn take_batch(&mut self, batch: &mut VecDeque<Pending>) {
        std::mem::swap(&mut self.queue, batch);
        self.queue_bytes = 0;
        if batch.len() >= 2 * MANY && !self.are_answers_held && !self.is_closing {
            self.queue = batch.split_off(batch.len() / 2);
            self.queue_bytes = self.queue.iter().map(|pending| frame_len(pending.record.len())).sum();
        }
        if !batch.is_empty() {
            self.failing.busy_since = Some(Instant::now());
            self.batch_before = std::mem::replace(&mut self.last_batch, batch.len());
        }
    }

    /// How many appends are worth waiting for. Those of a small batch were answered before the next one begins. Those of a
    /// large one are answered while the next is written, so that two halves take turns; a good part of a half is enough,
    /// since the rest comes while the writer is on its way.
    pub(crate) fn company(&self) -> usize {
        if self.last_batch.max(self.batch_before) < MANY {
            self.last_batch
        } else {
            (self.last_batch + self.batch_before) / 3
        }
    }

    /// Whether the next batch is there already.
    pub(crate) fn has_company(&self) -> bool {
        !self.queue.is_empty() && self.queue.len() >= self.company() && !self.is_closing
    }

    /// Whether there is something to do for the commit thread beside appends.
    pub(crate) fn has_chores(&self) -> bool {
        let has_done_segment = self.failing.ledger.is_none() && self.has_done_segment();
        has_done_segment || self.is_closing || !self.reporting.is_empty() || !self.ledger_waits.is_empty()
    }

    /// Counts an append that was refused; `tag`: whose loss that is, if anybody's.
    pub(crate) fn refuse(&mut self, tag: Option<&str>) {
        self.counters.refused += 1;
        let Some(tag) = tag else { return };
        self.ledger.lose(Cause::Refused, tag, self.next_sequence, self.next_sequence, 1, self.now_ms);
        self.is_ledger_behind = true;
    }

    /// Counts a write to the files.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.counters.written_bytes += bytes;
        self.counters.syncs += 1;
    }

    /// Counts how long records took to reach the disk.
    pub(crate) fn synced(&mut self, took: Duration) {
        self.last_sync = took;
        self.counters.sync_times.add(took);
    }

    /// Bytes of the records, with frames and headers.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len.min(segment.allocated)).sum()
    }

    /// The ledger that [`State::ledger_now`] gave did not reach the disk.
    pub(crate) fn has_not_written(&mut self) {
        self.is_ledger_behind = true;
        self.is_loss_behind = true;
    }

    /// The ledger as it should stand on disk now.
    pub(crate) fn ledger_now(&mut self) -> &Ledger {
        self.is_loss_behind = false;
        self.ledger.cursor = self.cursor;
        self.ledger.next_sequence = self.next_sequence;
        &self.ledger
    }

    pub(crate) fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment from open to end")
    }

    /// Records that follow what the last segment holds are on disk now.
    pub(crate) fn committed<'a>(
        &mut self,
        written: impl Iterator<Item = &'a Pending>,
        age_max_ms: Option<u64>,
    ) {
        self.is_ledger_behind = true;
        self.failing.records = None;
        for &Pending { ref record, enqueued_ms, expires_ms, .. } in written {
            let len = frame_len(record.len());
            let sequence = self.next_sequence;
            let segment = self.active();
            segment.add_entry(IndexEntry { sequence, offset: segment.len, enqueued_ms });
            segment.len += len;
            segment.expires_ms = segment.expires_ms.max(expires_ms.unwrap_or(u64::MAX));
            let too_old_ms = age_max_ms.map_or(u64::MAX, |max| enqueued_ms.saturating_add(max));
            let gone_ms = expires_ms.unwrap_or(u64::MAX).min(too_old_ms);
            segment.first_gone_ms = segment.first_gone_ms.min(gone_ms);
            segment.allocated = segment.allocated.max(segment.len);
            self.counters.appended += 1;
            self.counters.payload_bytes += len - frame_len(0);
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

    /// Everything up to `sequence` that was not lost is done with, and counted so.
    pub(crate) fn finish(&mut self, sequence: u64) {
        let to = sequence.min(self.next_sequence - 1);
        if to > self.cursor {
            self.counters.done += (to - self.cursor) - self.ledger.passed.count(self.cursor + 1, to);
        }
        self.advance(sequence);
    }

    pub(crate) fn advance(&mut self, sequence: u64) {
        let to = sequence.min(self.next_sequence - 1).max(self.cursor);
        let to = self.ledger.passed.carry(to);
        if to == self.cursor {
            return;
        }
        self.cursor = to;
        self.is_ledger_behind = true;
        while self.head.front().is_some_and(|(first, _)| *first <= to) {
            self.head.pop_front();
        }
    }

    pub(crate) fn is_pending(&self, sequence: u64) -> bool {
        sequence > self.cursor && sequence < self.next_sequence && !self.ledger.passed.holds(sequence)
    }

    /// Takes a record out that was not lost; false when it is not pending or there is no space to remember it.
    pub(crate) fn take_out(&mut self, sequence: u64) -> bool {
        if !self.is_pending(sequence) || !self.may_take_out(sequence) {
            return false;
        }
        self.ledger.passed.add(sequence, sequence);
        self.is_ledger_behind = true;
        self.advance(self.cursor);
        true
    }

    /// There is space to remember that a record was taken out.
    pub(crate) fn may_take_out(&self, sequence: u64) -> bool {
        sequence <= self.cursor + 1 || !self.ledger.passed.is_full()
    }

    /// Takes a record out as [`State::take_out`] does, and counts it as given up.
    pub(crate) fn give_up(&mut self, sequence: u64, tag: &str, now_ms: u64) -> bool {
        let is_taken = self.take_out(sequence);
        if is_taken {
            self.now_ms = now_ms;
            self.lose(sequence, sequence, 1, Cause::Dropped, tag);
        }
        is_taken
    }

    /// An earlier run may have given out the first `max` records.
    pub(crate) fn doubt_first(&mut self, max: u64) {
        if max == 0 {
            return;
        }
        let passed: u64 = self.ledger.passed.ranges().map(|(first, last)| last - first + 1).sum();
        let highest = self.cursor.saturating_add(max).saturating_add(passed);
        self.given_out.doubt(highest.min(self.next_sequence - 1));
    }

    /// Upstream has said how far it has the log: what is left of the records that were given out has not arrived.
    pub(crate) fn settle(&mut self) {
        let highest = self.given_out.settle();
        self.unproven.clear();
        self.segments.recheck(highest);
    }

    /// A reader gave out a record.
    pub(crate) fn gave_out(&mut self, reader: u64, sequence: u64) {
        self.given_out.add(reader, sequence);
    }

    /// What a reader gave out above `sequence` is not on its way any more.
    pub(crate) fn took_back(&mut self, reader: u64, sequence: u64) {
        if let Some(highest) = self.given_out.take_back(reader, sequence, self.cursor) {
            self.segments.recheck(highest);
        }
    }

    /// The first record that is neither done with nor perhaps on its way.
    pub(crate) fn first_at_rest(&self) -> u64 {
        self.given_out.highest().max(self.cursor) + 1
    }

    /// The first segment with a record, at or above `from`, that may be gone by now. Whoever takes it reads it: what is
    /// found there is returned by [`State::stays`].
    pub(crate) fn take_expiring(&mut self, from: u64, now_ms: u64) -> Option<Stretch> {
        let start = self.segments.take_expiring(from, now_ms, self.next_sequence)?;
        self.stretch(start)
    }

    /// A record of a segment that was read is not gone before `gone_ms`.
    pub(crate) fn stays(&mut self, segment: u64, gone_ms: u64) {
        self.segments.stays(segment, gone_ms);
    }

    /// Counts a record that has expired; false when it may be on its way, or when no more such can be remembered.
    pub(crate) fn expire(&mut self, sequence: u64, tag: &str, now_ms: u64) -> bool {
        if sequence < self.first_at_rest() || !self.may_take_out(sequence) {
            return false;
        }
        self.now_ms = now_ms;
        self.pass(sequence, sequence, Cause::Expired, tag);
        true
    }

    /// `first..=last` will not be read; counted once however often a reader comes by.
    pub(crate) fn pass(&mut self, first: u64, last: u64, cause: Cause, tag: &str) {
        let first = first.max(self.cursor + 1);
        if first > last {
            return;
        }
        let count = self.ledger.passed.add(first, last);
        self.lose(first, last, count, cause, tag);
        self.advance(self.cursor);
    }

    pub(crate) fn lose(&mut self, first: u64, last: u64, count: u64, cause: Cause, tag: &str) {
        if count == 0 {
            return;
        }
        self.ledger.lose(cause, tag, first, last, count, self.now_ms);
        self.is_ledger_behind = true;
        self.is_loss_behind = true;
        match cause {
            Cause::Expired => self.counters.expired += count,
            Cause::Evicted => self.counters.evicted += count,
            Cause::Damaged => {
                self.counters.damaged += count;
                self.segments.note_damage(first);
                tracing::error!(first, last, count, "queued records on disk were found damaged")
            }
            Cause::Refused => self.counters.refused += count,
            Cause::Dropped => {
                tracing::warn!(first, last, count, sender = tag, "queued records were given up")
            }
            Cause::Restored => {
                tracing::error!(first, last, count, "upstream has lost records that it had confirmed")
            }
        }
        self.losses.add(Loss { first, last, count, cause });
    }

    /// Takes the oldest segment out, with what in it was not done with. Not the last one.
    pub(crate) fn drop_oldest(&mut self, cause: Cause, tally: Option<Tally>) -> Option<Segment> {
        let last = self.segments.get(1)?.first - 1;
        let segment = self.segments.front()?.first;
        if let Some(tally) = tally {
            let groups = tally.ranges_after(self.cursor, |sequence| !self.ledger.passed.holds(sequence));
            let first = segment.max(self.cursor + 1);
            let mut left = if first > last { 0 } else { self.ledger.passed.add(first, last) };
            for ((cause, tag), lost) in tally.groups.iter().zip(groups) {
                let Some((first, last, count)) = lost else { continue };
                self.lose(first, last, count, *cause, tag);
                left = left.saturating_sub(count);
            }
            // What could not be read was not evicted: it was gone before.
            self.lose(first, last, left, Cause::Damaged, "");
        } else {
            self.pass(segment, last, cause, "");
        }
        self.advance(last);
        self.segments.pop_front()
    }

    /// The oldest segment holds something, and nothing that anybody still wants.
    pub(crate) fn has_expired_segment(&self, now_ms: u64) -> bool {
        let oldest = self.segments.front().filter(|_| !self.may_oldest_have_arrived());
        oldest.is_some_and(|oldest| !oldest.is_empty() && oldest.expires_ms <= now_ms)
    }

    /// Records of the oldest segment were given out, and upstream has not said yet whether it has them: they must not be counted
    /// as expired.
    pub(crate) fn may_oldest_have_arrived(&self) -> bool {
        let unsettled = self.given_out.unsettled();
        self.cursor < unsettled && self.segments.front().is_some_and(|oldest| oldest.first <= unsettled)
    }

    /// Whether there is a record that is not done with.
    pub(crate) fn has_pending(&self) -> bool {
        self.cursor + 1 < self.next_sequence
    }

    /// A whole segment is done with.
    pub(crate) fn has_done_segment(&self) -> bool {
        self.segments.is_first_below(self.cursor)
    }

    /// The part of one segment that holds `sequence` and what follows; `None` when it is not committed yet.
    pub(crate) fn stretch(&self, sequence: u64) -> Option<Stretch> {
        self.segments.stretch(sequence, self.next_sequence)
    }

    pub(crate) fn take_losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }
}
