//! How long to wait before trying again: doubling, capped, with full jitter that the caller draws.
//!
//! Full jitter, a wait drawn from the whole of 0 to the doubled wait, spreads callers that all failed at one moment more
//! evenly than a doubled wait with some jitter around it, at the same mean load.

use std::time::Duration;

/// How long a connection must have lasted to count as one that works. A server that takes a connection and drops it at
/// once is waited for like one that takes none.
pub const STEADY: Duration = Duration::from_secs(10);

/// A doubling wait. `attempts` counts failures since the last success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits up to `first` after the first failure, up to twice as long after each further one, up to `cap` at the most.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempts: 0 }
    }

    /// Notes a failure and gives the wait before the next attempt: the point that `jitter` in 0..=1 picks between nothing
    /// and the whole wait.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        let whole = self.first.saturating_mul(2u32.saturating_pow(self.attempts.min(30))).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// Notes a success: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.attempts = 0;
    }

    /// Notes how long a connection lasted: a success when it was [`STEADY`].
    pub fn lasted(&mut self, time: Duration) {
        if time >= STEADY {
            self.succeeded();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap_and_starts_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.failed(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.failed(0.0), Duration::ZERO);
        assert_eq!(backoff.failed(0.5), Duration::from_millis(2500));
        backoff.lasted(STEADY / 2);
        assert_eq!(
            backoff.failed(1.0),
            Duration::from_secs(5),
            "a connection that was dropped at once is no success"
        );
        backoff.lasted(STEADY);
        assert_eq!(backoff.failed(1.0), Duration::from_secs(1));
    }

    /// A generator of jitter that needs no crate: a gateway's draws depend on its number and a seed.
    fn jitter(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_wait_is_longer_than_the_cap_and_the_mean_is_half_of_it(seed: u64, first_ms in 1u64..5_000, cap_ms in 1u64..120_000) {
            let cap = Duration::from_millis(cap_ms);
            let mut state = seed;
            let mut backoff = Backoff::new(Duration::from_millis(first_ms), cap);
            let waits: Vec<Duration> = (0..2_040).map(|_| backoff.failed(jitter(&mut state))).collect();
            prop_assert!(waits.iter().all(|wait| *wait <= cap));
            // Behind the doublings every wait is drawn from the whole of 0 to the cap.
            let mean = waits[40..].iter().map(Duration::as_secs_f64).sum::<f64>() / 2_000.0;
            prop_assert!((mean / cap.as_secs_f64() - 0.5).abs() < 0.05, "mean {} of {:?}", mean, cap);
        }

        #[test]
        fn five_thousand_gateways_do_not_come_back_in_the_same_second(seed: u64, away_s in 30u32..600) {
            // All lose central at one moment, with the link's waits.
            let (away, mut come_back) = (f64::from(away_s), vec![0u32; 31]);
            for gateway in 0..5_000u64 {
                let mut state = seed ^ gateway.wrapping_mul(0x2545_f491_4f6c_dd1d);
                let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
                let mut at = 0.0;
                while at < away {
                    at += backoff.failed(jitter(&mut state)).as_secs_f64();
                }
                come_back[(at - away) as usize] += 1;
            }
            // Without jitter it would be all of them; with waits of half to whole, about 500.
            let most = come_back.iter().max().copied().unwrap_or_default();
            prop_assert!(most < 450, "{} of 5,000 in one second: {:?}", most, come_back);
        }
    }
}
