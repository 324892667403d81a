//! How long to wait before trying again: doubling, capped, with jitter that the caller draws.

use std::time::Duration;

/// A doubling wait. `attempts` counts failures since the last success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure, twice as long after each further one, `cap` at the most.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempts: 0 }
    }

    /// Notes a failure and gives the wait before the next attempt. `jitter` in 0..=1 picks a point between half the
    /// wait and the whole of it, so that a thousand gateways do not come back in the same second.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        let whole = self.first.saturating_mul(2u32.saturating_pow(self.attempts.min(30))).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// Notes a success: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap_and_starts_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.failed(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.failed(0.0), Duration::from_millis(2500));
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0), Duration::from_secs(1));
    }
}
