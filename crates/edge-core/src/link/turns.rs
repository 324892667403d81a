//! Whose turn it is when messages of several priorities wait for one link.
//!
//! The highest priority goes first, always, so that an alarm overtakes a backlog. Only when lower ones have waited behind it
//! without a pause for [`PATIENCE_MS`] do they get one turn in [`SHARE`], the longest waiting of them first: a flood at the
//! highest priority slows them down and never stops them for good, as it does in IoT Edge's hub.

/// How long higher priorities have the link for themselves. Most backlogs of alarms are sent in less.
pub const PATIENCE_MS: u64 = 10_000;
/// One turn in so many goes to a lower priority after that.
pub const SHARE: u32 = 8;

/// The turns of one link.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Since when lower ones wait behind a higher one, without a pause.
    contended_since_ms: Option<u64>,
    turn: u32,
}

impl Turns {
    /// The index of the message to send next, of those that wait: when each was enqueued, highest priority first.
    /// `None` when nothing waits.
    pub fn next(&mut self, now_ms: u64, waiting: &[u64]) -> Option<usize> {
        if waiting.len() < 2 {
            self.contended_since_ms = None;
            return (!waiting.is_empty()).then_some(0);
        }
        let since_ms = *self.contended_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < PATIENCE_MS {
            return Some(0);
        }
        self.turn = (self.turn + 1) % SHARE;
        if self.turn != 0 {
            return Some(0);
        }
        let lower = waiting.iter().enumerate().skip(1);
        lower.min_by_key(|(_, enqueued_ms)| **enqueued_ms).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_alarm_overtakes_a_backlog() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(0, &[]), None);
        assert_eq!(turns.next(0, &[5]), Some(0));
        for now_ms in 0..PATIENCE_MS {
            assert_eq!(turns.next(now_ms, &[now_ms, 0]), Some(0));
        }
    }

    #[test]
    fn a_flood_of_alarms_leaves_every_eighth_turn_to_what_waits_longest() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(0, &[9, 4, 3]), Some(0));
        let chosen: Vec<_> = (0..16).filter_map(|_| turns.next(PATIENCE_MS, &[9, 4, 3])).collect();
        assert_eq!(chosen.iter().filter(|index| **index == 2).count(), 2);
        assert_eq!(chosen.iter().filter(|index| **index == 0).count(), 14);
        // A pause ends it.
        assert_eq!(turns.next(PATIENCE_MS, &[9]), Some(0));
        assert!((0..16).all(|_| turns.next(PATIENCE_MS, &[9, 4]) == Some(0)));
    }

    proptest! {
        #[test]
        fn nothing_that_waits_is_passed_over_for_ever(waiting in proptest::collection::vec(0u64..100, 1..6)) {
            let mut turns = Turns::default();
            let mut left = waiting.clone();
            let mut now_ms = 0;
            // The highest is refilled for ever; the others must still get through.
            while left.len() > 1 {
                now_ms += 1000;
                prop_assert!(now_ms < 1_000_000, "{:?} of {:?} still wait", left, waiting);
                let index = turns.next(now_ms, &left).unwrap();
                if index > 0 {
                    left.remove(index);
                }
            }
        }
    }
}
