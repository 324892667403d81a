//! Buckets: what a chart shows of the points of a short time.

use std::collections::BTreeMap;

use super::point::Point;

/// The points of one step of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// When it begins: a multiple of the step, in milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// The least number.
    pub min: f64,
    pub max: f64,
    /// All of them together.
    pub sum: f64,
    pub count: u64,
    pub last: f64,
    /// When it was made.
    pub last_at_ms: u64,
}

impl Bucket {
    fn of(start_ms: u64, at_ms: u64, value: f64) -> Self {
        Self { start_ms, min: value, max: value, sum: value, count: 1, last: value, last_at_ms: at_ms }
    }

    /// Takes what is in another bucket of the same time, or of a part of it.
    fn add(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.count += other.count;
        if other.last_at_ms >= self.last_at_ms {
            (self.last, self.last_at_ms) = (other.last, other.last_at_ms);
        }
    }

    /// The mean of the numbers.
    #[allow(clippy::cast_precision_loss, reason = "nobody counts 2^53 points")]
    pub fn avg(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// The buckets of points, which are sorted by time. A time without numbers has none.
pub fn buckets(points: &[Point], step_ms: u64) -> Vec<Bucket> {
    let mut found: Vec<Bucket> = Vec::new();
    for point in points {
        let Some(value) = point.value else { continue };
        let start_ms = point.at_ms - point.at_ms % step_ms;
        let new = Bucket::of(start_ms, point.at_ms, value);
        match found.last_mut() {
            Some(last) if last.start_ms == start_ms => last.add(&new),
            _ => found.push(new),
        }
    }
    found
}

/// Buckets of several sources that share no points, as buckets of `step_ms`, which is a multiple of theirs.
pub fn together(sources: impl IntoIterator<Item = Bucket>, step_ms: u64) -> Vec<Bucket> {
    let mut found: BTreeMap<u64, Bucket> = BTreeMap::new();
    for bucket in sources {
        let start_ms = bucket.start_ms - bucket.start_ms % step_ms;
        found.entry(start_ms).and_modify(|known| known.add(&bucket)).or_insert(Bucket { start_ms, ..bucket });
    }
    found.into_values().collect()
}

/// Steps that divide the clock as people do, in milliseconds; those of a minute and more are multiples of one, those of an hour and more
/// of one.
const NICE_MS: [u64; 27] = {
    const S: u64 = 1000;
    const M: u64 = 60 * S;
    const H: u64 = 60 * M;
    [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        S,
        2 * S,
        5 * S,
        10 * S,
        15 * S,
        30 * S,
        M,
        2 * M,
        5 * M,
        10 * M,
        15 * M,
        30 * M,
        H,
        2 * H,
        3 * H,
        6 * H,
        12 * H,
        24 * H,
    ]
};

/// The shortest step with which a time has no more buckets than wanted; days beyond the longest of [`NICE_MS`].
pub fn step_ms(from_ms: u64, to_ms: u64, buckets: u64) -> u64 {
    let span = to_ms.saturating_sub(from_ms);
    let day = NICE_MS[NICE_MS.len() - 1];
    // The first and the last bucket may be cut.
    let fits = |step: &&u64| span.div_ceil(**step) < buckets.max(2);
    NICE_MS
        .iter()
        .find(fits)
        .copied()
        .unwrap_or_else(|| span.div_ceil(buckets.max(2) - 1).div_ceil(day) * day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(at_ms: u64, value: i32) -> Point {
        Point {
            at_ms,
            enqueued_ms: at_ms,
            is_stated: true,
            value: (value % 7 != 0).then(|| f64::from(value)),
        }
    }

    #[test]
    fn buckets_of_parts_put_together_are_the_buckets_of_all() {
        let one = (0..100_000_u64, -50..50_i32);
        proptest!(|(found in prop::collection::vec(one, 0..200), step in 1..20_u64, times in 1..20_u64, cut in 0..200_usize)| {
            let mut points: Vec<Point> = found.into_iter().map(|(at, value)| point(at, value)).collect();
            points.sort_by_key(|point| point.at_ms);
            let (early, late) = points.split_at(cut.min(points.len()));
            let expected = buckets(&points, step * times);
            prop_assert_eq!(together(buckets(&points, step), step * times), expected.clone());
            // In any order.
            let parts = buckets(late, step).into_iter().chain(buckets(early, step));
            let found = together(parts, step * times);
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!((found.start_ms, found.count, found.min, found.max), (expected.start_ms, expected.count, expected.min, expected.max));
                prop_assert_eq!(found.sum, expected.sum);
            }
        });
    }

    #[test]
    fn a_step_is_one_that_people_use_and_gives_no_more_buckets_than_requested() {
        assert_eq!(step_ms(0, 24 * 3_600_000, 500), 5 * 60_000);
        assert_eq!(step_ms(0, 3_600_000, 500), 10_000);
        assert_eq!(step_ms(0, 365 * 24 * 3_600_000, 500), 24 * 3_600_000);
        assert_eq!(step_ms(5, 5, 500), 1);
        proptest!(|(from in 0..1_u64 << 40, span in 0..1_u64 << 42, buckets in 2..5000_u64)| {
            let step = step_ms(from, from + span, buckets);
            prop_assert!((from + span) / step - from / step < buckets, "{step}");
            prop_assert!(step < 60_000 || step.is_multiple_of(60_000));
            prop_assert!(step < 3_600_000 || step.is_multiple_of(3_600_000));
        });
    }
}
