//! How much of something a client may do in a second: a token bucket.
//!
//! A client that is over its rate is not refused and loses nothing: its session stops reading until there is space
//! again, and TCP tells the client to wait.

/// Fills by `per_second` up to one second's worth, and may be overdrawn by one taking: a message is larger than any rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    per_second: u64,
    /// In thousandths, so that what trickles in between two checks is not lost.
    level_milli: i64,
    filled_ms: u64,
}

impl Bucket {
    /// Full, at a time of the caller's clock in milliseconds. `None` for no limit (0 in a configuration).
    pub fn new(per_second: u64, now_ms: u64) -> Option<Self> {
        // A second's worth in thousandths must fit an i64.
        let per_second = per_second.min(1 << 40);
        (per_second > 0).then(|| Self { per_second, level_milli: milli(per_second), filled_ms: now_ms })
    }

    /// Takes; what lacks is owed.
    pub fn take(&mut self, count: u64, now_ms: u64) {
        self.fill(now_ms);
        self.level_milli = self.level_milli.saturating_sub(milli(count));
    }

    /// How long nothing more may be taken, in milliseconds; 0 when it may.
    pub fn wait_ms(&mut self, now_ms: u64) -> u64 {
        self.fill(now_ms);
        match u64::try_from(-self.level_milli) {
            Ok(owed) => owed.div_ceil(self.per_second),
            Err(_) => 0,
        }
    }

    /// Whether nothing is lacking: whoever it belongs to may be forgotten.
    pub fn is_full(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        self.level_milli >= milli(self.per_second)
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.filled_ms);
        // A clock that goes back must not fill the bucket a second time for the same moments.
        self.filled_ms = self.filled_ms.max(now_ms);
        // Thousandths in a millisecond are as many as ones in a second.
        let more = i64::try_from(passed.saturating_mul(self.per_second)).unwrap_or(i64::MAX);
        self.level_milli = self.level_milli.saturating_add(more).min(milli(self.per_second));
    }
}

fn milli(count: u64) -> i64 {
    i64::try_from(count.saturating_mul(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_may_come_at_once_and_then_it_comes_as_it_is_allowed() {
        assert_eq!(Bucket::new(0, 0), None, "0 is no limit");
        let mut bucket = Bucket::new(10, 0).unwrap();
        for _ in 0..10 {
            assert_eq!(bucket.wait_ms(0), 0);
            bucket.take(1, 0);
        }
        assert_eq!(bucket.wait_ms(0), 0, "an empty one may be overdrawn once");
        bucket.take(1, 0);
        assert_eq!((bucket.wait_ms(0), bucket.wait_ms(50), bucket.wait_ms(100)), (100, 50, 0));
        bucket.take(1_000, 100);
        assert_eq!(bucket.wait_ms(100), 100_000);
    }

    proptest! {
        #[test]
        fn whoever_waits_as_requested_stays_within_the_rate(
            per_second in 1u64..1_000,
            takes in prop::collection::vec(1u64..500, 1..100),
        ) {
            let mut bucket = Bucket::new(per_second, 0).unwrap();
            let (mut now, mut taken) = (0, 0);
            for count in takes {
                now += bucket.wait_ms(now);
                // What was taken before this one fits into the time, and the second that the bucket holds.
                prop_assert!(taken * 1000 <= per_second * (now + 1000), "{taken} in {now} ms at {per_second}");
                bucket.take(count, now);
                taken += count;
            }
        }
    }
}
