//! Losses in ranges of sequences, of which loss records are made.

use std::collections::BTreeMap;

/// Ranges that wait to be taken. Beyond it, a range is joined to the last one of its cause; no loss goes uncounted.
const LOSSES_MAX: usize = 256;
/// Ranges of records above the cursor that a reader passed over. Beyond it, one may be counted again after a rewind.
const PASSED_MAX: usize = 65_536;

/// Ranges that are written; more of them are forgotten by a restart, and counted again. As many as 1,000 records in flight
/// and as many more that were read can leave, every other of which has expired.
pub(crate) const PASSED_WRITTEN_MAX: usize = 1100;

/// Why a record will not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was older than its expiry or the log's age limit.
    Expired,
    /// It was the oldest when there was no space for a new one.
    Evicted,
    /// Its bytes on disk are not what was written.
    Damaged,
    /// It was never acknowledged: there was no space, the queue in memory was full, or it was too long.
    Refused,
    /// Somebody said so: an operator gave it up, or nothing leads to where it was to go any more.
    Dropped,
    /// Upstream had confirmed it and has it no more: it was restored from a backup.
    Restored,
}

impl Cause {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::Evicted, Self::Damaged, Self::Refused, Self::Dropped, Self::Restored];

    /// Its number in the ledger's file.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Evicted => 2,
            Self::Damaged => 3,
            Self::Refused => 4,
            Self::Dropped => 5,
            Self::Restored => 6,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// One word, for logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Restored => "central-restored",
        }
    }
}

/// Records that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Sequence of the first one.
    pub first: u64,
    /// Sequence of the last one.
    pub last: u64,
    /// How many in that range; fewer than its length when others in between were not lost.
    pub count: u64,
    /// Why.
    pub cause: Cause,
}

/// Losses since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Losses(Vec<Loss>);

impl Losses {
    pub(crate) fn add(&mut self, loss: Loss) {
        let is_full = self.0.len() >= LOSSES_MAX;
        let same = self.0.iter_mut().rev().find(|last| last.cause == loss.cause);
        match same {
            Some(last) if is_full || last.last.checked_add(1) == Some(loss.first) => {
                last.first = last.first.min(loss.first);
                last.last = last.last.max(loss.last);
                last.count += loss.count;
            }
            _ => self.0.push(loss),
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.0)
    }
}

/// Sequences above the cursor that were passed over (expired or damaged), as ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed(BTreeMap<u64, u64>);

impl Passed {
    /// All of them, ascending.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether a restart would forget one more of them.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= PASSED_WRITTEN_MAX
    }

    pub(crate) fn holds(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// How many of `first..=last` are in here.
    pub(crate) fn count(&self, first: u64, last: u64) -> u64 {
        let reaching = self.0.range(..=last).rev().take_while(|(_, end)| **end >= first);
        reaching.map(|(start, end)| (*end).min(last) - (*start).max(first) + 1).sum()
    }

    /// Adds `first..=last`; how many of them were not in here yet.
    pub(crate) fn add(&mut self, first: u64, last: u64) -> u64 {
        let new = (last - first + 1) - self.count(first, last);
        if new == 0 || self.0.len() >= PASSED_MAX {
            return new;
        }
        let (mut start, mut end) = (first, last);
        // Those that overlap or touch become one with it.
        while let Some((&s, &e)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if e.saturating_add(1) < first {
                break;
            }
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
        new
    }

    /// Forgets what is at or below the cursor, and says how far the cursor can go because all behind it was passed.
    pub(crate) fn carry(&mut self, mut cursor: u64) -> u64 {
        while let Some((&start, &end)) = self.0.first_key_value() {
            if start > cursor.saturating_add(1) {
                break;
            }
            self.0.remove(&start);
            cursor = cursor.max(end);
        }
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_ranges_join_and_are_counted_once() {
        let mut passed = Passed::default();
        assert_eq!(passed.add(5, 6), 2);
        assert_eq!(passed.add(8, 9), 2);
        assert_eq!(passed.add(6, 8), 1);
        assert_eq!(passed.count(1, 100), 5);
        assert_eq!(passed.count(9, 9), 1);
        assert_eq!(passed.carry(3), 3);
        assert_eq!(passed.carry(4), 9);
        assert_eq!(passed.count(1, 100), 0);
    }

    #[test]
    fn no_loss_goes_uncounted_when_too_many_ranges_wait() {
        let mut losses = Losses::default();
        for n in 0..1000 {
            losses.add(Loss { first: n * 2, last: n * 2, count: 1, cause: Cause::Expired });
        }
        let taken = losses.take();
        assert!(taken.len() <= LOSSES_MAX);
        assert_eq!(taken.iter().map(|loss| loss.count).sum::<u64>(), 1000);
        assert_eq!(taken.last().map(|loss| loss.last), Some(1998));
        assert!(losses.take().is_empty());
    }
}
