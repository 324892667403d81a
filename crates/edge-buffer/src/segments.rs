//! The segments of an open log, ascending. There is always one: the last, which is appended to.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use crate::segment::{Segment, Stretch};

pub(crate) struct Segments(pub(crate) VecDeque<Segment>);

impl Deref for Segments {
    type Target = VecDeque<Segment>;

    fn deref(&self) -> &VecDeque<Segment> {
        &self.0
    }
}

impl DerefMut for Segments {
    fn deref_mut(&mut self) -> &mut VecDeque<Segment> {
        &mut self.0
    }
}

impl Segments {
    /// The segments up to a sequence were not searched for what has expired meanwhile.
    pub(crate) fn recheck(&mut self, highest: u64) {
        for segment in self.iter_mut().take_while(|segment| segment.first <= highest) {
            segment.first_gone_ms = 0;
        }
    }

    /// The first segment with a record, at or above `from` and below `end`, that may be gone by now: its first such sequence.
    /// The segment counts as searched.
    pub(crate) fn take_expiring(&mut self, from: u64, now_ms: u64, end: u64) -> Option<u64> {
        let firsts: Vec<u64> = self.iter().skip(1).map(|segment| segment.first).collect();
        let ends = firsts.into_iter().chain([end]);
        let mut candidates = self.iter_mut().zip(ends);
        let (segment, end) =
            candidates.find(|(segment, end)| *end > from && segment.first_gone_ms <= now_ms)?;
        // Whoever reads it now reports the earliest record that stays (`stays`); until then it must not be searched again.
        segment.first_gone_ms = u64::MAX;
        let start = from.max(segment.first);
        (start < end).then_some(start)
    }

    /// A record of a segment that was read is not gone before `gone_ms`.
    pub(crate) fn stays(&mut self, segment: u64, gone_ms: u64) {
        if let Some(segment) = self.iter_mut().find(|known| known.first == segment) {
            segment.first_gone_ms = segment.first_gone_ms.min(gone_ms);
        }
    }

    /// The segment of this sequence is damaged.
    pub(crate) fn note_damage(&mut self, sequence: u64) {
        let at = self.partition_point(|segment| segment.first <= sequence);
        if let Some(segment) = self.get_mut(at.saturating_sub(1)) {
            segment.is_damaged = true;
        }
    }

    /// Whether every record of the first segment is at or below `cursor`. The last one is never.
    pub(crate) fn is_first_below(&self, cursor: u64) -> bool {
        self.get(1).is_some_and(|next| next.first <= cursor + 1)
    }

    /// Takes out the segments of which every record is at or below `cursor`.
    pub(crate) fn drop_below(&mut self, cursor: u64) -> Vec<Segment> {
        let mut below = Vec::new();
        while self.is_first_below(cursor) {
            below.extend(self.pop_front());
        }
        below
    }

    /// The part of one segment that holds `sequence` and what follows, below `end`; `None` when it is at or above that.
    pub(crate) fn stretch(&self, sequence: u64, end: u64) -> Option<Stretch> {
        if sequence >= end {
            return None;
        }
        let at = self.partition_point(|segment| segment.first <= sequence).saturating_sub(1);
        let segment = &self[at];
        Some(Stretch {
            segment: segment.first,
            epoch: segment.epoch,
            start: segment.entry_before(sequence),
            end: segment.len,
            until: self.get(at + 1).map_or(end, |next| next.first),
        })
    }
}
