//! Times counted in buckets, without a lock: one observation is two relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in a histogram, beside the one without a bound.
pub const BUCKETS: usize = 12;

/// Upper bounds of the buckets, ascending.
pub type Bounds = [Duration; BUCKETS];

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// For writes to a disk: 0.5 ms, a fast SSD, to 2 s, a card that hangs.
pub const DISK_BOUNDS: Bounds = [
    Duration::from_micros(500),
    ms(1),
    ms(2),
    ms(5),
    ms(10),
    ms(20),
    ms(50),
    ms(100),
    ms(200),
    ms(500),
    ms(1_000),
    ms(2_000),
];

/// For round trips to an upstream: 5 ms in one building to 30 s over a bad connection.
pub const LINK_BOUNDS: Bounds = [
    ms(5),
    ms(10),
    ms(20),
    ms(50),
    ms(100),
    ms(200),
    ms(500),
    ms(1_000),
    ms(2_000),
    ms(5_000),
    ms(10_000),
    ms(30_000),
];

/// Times that were observed since the program started. The sum wraps after 584,000 years.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    buckets: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, buckets: Default::default(), sum_us: AtomicU64::new(0) }
    }

    pub fn observe(&self, took: Duration) {
        // Prometheus' buckets include their upper bound (`le`).
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    pub fn distribution(&self) -> Distribution {
        Distribution {
            // An observation between these loads may be in one and not in the other, which metrics can bear.
            bounds: self.bounds,
            counts: self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)),
        }
    }
}

/// What a histogram has counted: of each bucket, and of the one above the last bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    pub bounds: &'static Bounds,
    pub counts: [u64; BUCKETS + 1],
    pub sum: Duration,
}

impl Distribution {
    /// One without observations.
    pub fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, counts: [0; BUCKETS + 1], sum: Duration::ZERO }
    }

    /// Adds what another one with the same bounds has counted.
    pub fn add(&mut self, counts: &[u64; BUCKETS + 1], sum: Duration) {
        for (count, other) in self.counts.iter_mut().zip(counts) {
            *count += other;
        }
        self.sum += sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&LINK_BOUNDS);
        for took in [ms(0), ms(5), ms(6), ms(30_000), ms(30_001)] {
            histogram.observe(took);
        }
        let distribution = histogram.distribution();
        assert_eq!(distribution.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(distribution.sum, ms(60_012));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [DISK_BOUNDS, LINK_BOUNDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
