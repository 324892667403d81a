//! How far a queue may forget, when what was taken from it is done with in any order.

use std::collections::VecDeque;

/// The sequences of one queue that were taken and not all done with.
#[derive(Debug, Default)]
pub struct Progress(VecDeque<(u64, bool)>);

impl Progress {
    /// Notes that a sequence was taken. They are taken in ascending order.
    pub fn taken(&mut self, sequence: u64) {
        debug_assert!(self.0.back().is_none_or(|(last, _)| *last < sequence));
        self.0.push_back((sequence, false));
    }

    /// Notes that a sequence is done with. Gives the one up to which all are, when that moved.
    pub fn done(&mut self, sequence: u64) -> Option<u64> {
        let at = self.0.binary_search_by_key(&sequence, |(taken, _)| *taken).ok()?;
        self.0[at].1 = true;
        let mut up_to = None;
        while let Some((first, _)) = self.0.pop_front_if(|(_, is_done)| *is_done) {
            up_to = Some(first);
        }
        up_to
    }

    /// How many are not forgotten.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_forgets_only_up_to_the_first_that_is_not_done_with() {
        let mut progress = Progress::default();
        for sequence in [3, 4, 9] {
            progress.taken(sequence);
        }
        assert_eq!(progress.done(4), None);
        assert_eq!(progress.done(5), None, "it was never taken");
        assert_eq!(progress.done(3), Some(4));
        assert_eq!(progress.done(3), None);
        assert_eq!((progress.done(9), progress.is_empty()), (Some(9), true));
    }
}
