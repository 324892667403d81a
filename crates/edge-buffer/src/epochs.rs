//! Which epoch each sequence of a log is of, and how far upstream has confirmed each epoch.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::format::{Epoch, u64_at};
use crate::segment::Segment;

/// Epochs that the ledger holds. Older ones are known as long as their segments are there.
pub(crate) const EPOCHS_WRITTEN_MAX: usize = 128;
pub(crate) const EPOCH_BYTES: usize = 24;

/// The sequences of one open of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    /// It ends where the next one begins.
    first: u64,
    epoch: Epoch,
    /// Highest sequence of it that upstream has confirmed; 0 when none.
    confirmed: u64,
}

/// The epochs of a log's sequences, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    ranges: Vec<Range>,
    /// Who confirmed; nil when nobody.
    pub(crate) receiver: Uuid,
}

impl Epochs {
    /// Brings what the ledger says to what the segments say, which may be older or newer, and begins an epoch. `end`: the
    /// sequence behind the last record that can be read.
    pub(crate) fn follow(
        &mut self,
        segments: &VecDeque<Segment>,
        end: u64,
        epoch: Epoch,
        next_sequence: u64,
    ) {
        for (at, segment) in segments.iter().enumerate() {
            let until = segments.get(at + 1).map_or(end, |next| next.first.min(end));
            self.ranges.retain(|range| {
                !(segment.first..until).contains(&range.first) || range.epoch == segment.epoch
            });
            if until > segment.first && self.of(segment.first) != Some(segment.epoch) {
                let behind = self.ranges.partition_point(|range| range.first <= segment.first);
                self.ranges
                    .insert(behind, Range { first: segment.first, epoch: segment.epoch, confirmed: 0 });
            }
        }
        // Of those that were begun and got no record, none is left.
        self.ranges.retain(|range| range.first < next_sequence && range.epoch != epoch);
        let oldest = segments.front().map_or(next_sequence, |segment| segment.first);
        let beyond = self.ranges.len().saturating_sub(EPOCHS_WRITTEN_MAX - 1);
        let needed = self.ranges.partition_point(|range| range.first <= oldest).saturating_sub(1);
        self.ranges.drain(..beyond.min(needed));
        self.ranges.push(Range { first: next_sequence, epoch, confirmed: 0 });
    }

    /// Of what is appended now.
    pub(crate) fn current(&self) -> Epoch {
        self.ranges.last().map_or(Epoch::NONE, |range| range.epoch)
    }

    fn at(&self, sequence: u64) -> Option<usize> {
        self.ranges.partition_point(|range| range.first <= sequence).checked_sub(1)
    }

    /// The epoch of a sequence; `None` when it is older than all that are known.
    pub(crate) fn of(&self, sequence: u64) -> Option<Epoch> {
        Some(self.ranges[self.at(sequence)?].epoch)
    }

    /// The last sequence of an epoch; `None` when the epoch is not known.
    pub(crate) fn last_of(&self, epoch: Epoch) -> Option<u64> {
        let at = self.ranges.iter().rposition(|range| range.epoch == epoch)?;
        Some(self.last_at(at))
    }

    /// The epochs that have records, each with its last sequence; `next_sequence` is that of the next record.
    pub(crate) fn all(&self, next_sequence: u64) -> Vec<(Epoch, u64)> {
        let lasts = (0..self.ranges.len()).map(|at| self.last_at(at).min(next_sequence.saturating_sub(1)));
        let all = self.ranges.iter().zip(lasts);
        all.filter(|(range, last)| range.first <= *last).map(|(range, last)| (range.epoch, last)).collect()
    }

    fn last_at(&self, at: usize) -> u64 {
        self.ranges.get(at + 1).map_or(u64::MAX, |next| next.first - 1)
    }

    /// Upstream has a record, and says so itself.
    pub(crate) fn confirm(&mut self, sequence: u64) {
        if let Some(range) = self.at(sequence).and_then(|at| self.ranges.get_mut(at)) {
            range.confirmed = range.confirmed.max(sequence);
        }
    }

    /// Whether upstream has confirmed a record of these epochs.
    pub(crate) fn has_confirmed(&self) -> bool {
        self.ranges.iter().any(|range| range.confirmed != 0)
    }

    /// Takes what upstream says to have: the highest sequence by epoch. Gives the ranges that it had confirmed and does not
    /// have any more. An epoch that it does not know proves nothing by itself, for it may have forgotten old ones; it does
    /// when upstream knows an older one, or says that it has forgotten none (`is_complete`). Where upstream knows a newer one it
    /// proves nothing again: records go up in order, so upstream had all of the older epochs when it took the newer one.
    pub(crate) fn reconcile(
        &mut self,
        receiver: Uuid,
        has: impl Fn(Epoch) -> Option<u64>,
        is_complete: bool,
    ) -> Vec<(u64, u64)> {
        if self.receiver != receiver {
            // Another upstream: what the one before it has is its own affair.
            self.receiver = receiver;
            self.ranges.iter_mut().for_each(|range| range.confirmed = 0);
        }
        let mut lost = Vec::new();
        let newest_known = self.ranges.iter().rposition(|range| has(range.epoch).is_some());
        let mut must_know = is_complete;
        for at in 0..self.ranges.len() {
            let last = self.last_at(at);
            let range = &mut self.ranges[at];
            let found = has(range.epoch);
            must_know |= found.is_some();
            let up_to = match found {
                Some(up_to) => up_to.min(last),
                None if must_know && newest_known.is_none_or(|newest| at > newest) => 0,
                None => continue,
            };
            if up_to < range.confirmed {
                lost.push((up_to.saturating_add(1).max(range.first), range.confirmed));
            }
            range.confirmed = if up_to < range.first { 0 } else { up_to };
        }
        lost
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for range in &self.ranges[self.ranges.len().saturating_sub(EPOCHS_WRITTEN_MAX)..] {
            for number in [range.first, range.epoch.number(), range.confirmed] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// `None` when the bytes are no whole list.
    pub(crate) fn decode(receiver: Uuid, bytes: &[u8]) -> Option<Self> {
        let (ranges, rest) = bytes.as_chunks::<EPOCH_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let ranges = ranges.iter().map(|range| Range {
            first: u64_at(range, 0),
            epoch: Epoch::from_number(u64_at(range, 8)),
            confirmed: u64_at(range, 16),
        });
        Some(Self { ranges: ranges.collect(), receiver })
    }
}
