//! How far a gateway's wall clock is trusted: what it may decide while nobody has proven it.
//!
//! - A clock before [`BUILT_SECS`] is wrong for certain: nothing is made that lasts by it.
//! - Any other clock is plausible, not proven. What is right but for the time is not refused for good: a client whose token or
//!   certificate only the time speaks against is asked for again later. A certificate of the site's own that is not valid yet
//!   is made anew at once: if the clock is behind, the new one is valid now and is renewed when the clock was set.
//! - No age is measured by it, and nothing that waits ends by it: see [`ages`] and [`lifetime`].

pub mod ages;
pub mod lifetime;

/// No clock of a program that was built from this source can be before it: 2026-11-01. To be moved on with each release.
pub const BUILT_SECS: u64 = 1_793_491_200;

/// Whether the clock is wrong for certain.
pub fn is_before_build(now_secs: u64) -> bool {
    now_secs < BUILT_SECS
}

/// How far two steady clocks drift apart: 200 millionths, ten times what a good quartz does.
const DRIFT_PART: u64 = 5_000;
/// An offset below it is no finding: time servers hold clocks well below.
const OFFSET_GOOD_MS: u64 = 2_000;
/// Upstream's time, measured by questions and answers: upstream read its clock at some moment between the two, so the shortest
/// round trip gives the best estimate. It is kept against the steady clock, so that it holds when the wall clock is set.
#[derive(Debug, Default)]
pub struct UpstreamTime {
    best: Option<Estimate>,
    /// Number of the last question, and when it was sent.
    requested: Option<(u64, u64)>,
    questions: u64,
}

/// At `at` of the steady clock, upstream's clock was ahead of it by `ahead`, give or take `within`.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    ahead: i64,
    within: u64,
    at: u64,
}

impl Estimate {
    fn within_at(&self, steady: u64) -> u64 {
        self.within.saturating_add(steady.saturating_sub(self.at) / DRIFT_PART)
    }
}

/// The wall clock against upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// Milliseconds by which the wall clock is ahead; negative when it is behind.
    pub ahead_ms: i64,
    /// How exact that is.
    pub within_ms: u64,
}

impl ClockOffset {
    /// Milliseconds by which the wall clock is ahead, for whoever checks; `None` while a long round trip leaves open whether that is a
    /// finding at all.
    pub fn reported_ms(&self) -> Option<i64> {
        let shown = self.ahead_ms.unsigned_abs();
        let is_open = shown >= OFFSET_GOOD_MS && shown.saturating_sub(self.within_ms) < OFFSET_GOOD_MS;
        (!is_open).then_some(self.ahead_ms)
    }
}

impl UpstreamTime {
    /// Of a program that starts.
    pub const fn new() -> Self {
        Self { best: None, requested: None, questions: 0 }
    }

    /// Notes that a request for the time is sent now, and returns its number.
    pub fn ask(&mut self, steady: u64) -> u64 {
        self.questions += 1;
        self.requested = Some((self.questions, steady));
        self.questions
    }

    /// Takes an answer. One to another question than the last counts for nothing.
    pub fn answered(&mut self, number: u64, upstream: u64, steady: u64) {
        let Some((_, requested)) = self.requested.take_if(|(requested, _)| *requested == number) else {
            return;
        };
        // Half a millisecond up, for what clocks cut off.
        let within = steady.saturating_sub(requested).div_ceil(2) + 1;
        let ahead = ahead(upstream, requested + (steady.saturating_sub(requested)) / 2);
        let new = Estimate { ahead, within, at: steady };
        let is_better = self.best.is_none_or(|best| {
            let aged = best.within_at(steady);
            // Estimates that exclude each other: one of the clocks was set.
            within <= aged || best.ahead.abs_diff(ahead) > aged.saturating_add(within)
        });
        if is_better {
            self.best = Some(new);
        }
    }

    /// The wall clock against upstream's, both clocks read at one moment; `None` before the first answer.
    pub fn offset(&self, wall: u64, steady: u64) -> Option<ClockOffset> {
        let best = self.best?;
        let ahead_ms = ahead(wall, steady).saturating_sub(best.ahead);
        Some(ClockOffset { ahead_ms, within_ms: best.within_at(steady) })
    }
}

fn ahead(wall: u64, steady: u64) -> i64 {
    i64::try_from(wall).unwrap_or(i64::MAX).saturating_sub(i64::try_from(steady).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const BUILT_MS: u64 = BUILT_SECS * 1000;

    #[test]
    fn an_offset_is_reported_when_it_is_certain_to_be_a_finding_or_none() {
        for (ahead_ms, within_ms, is_reported) in [
            (0, 1, true),
            (1_999, 5_000, true),
            (-2_000, 0, true),
            (2_500, 600, false),
            (-2_600, 600, true),
            (i64::MIN, 0, true),
        ] {
            let reported = ClockOffset { ahead_ms, within_ms }.reported_ms();
            assert_eq!(reported, is_reported.then_some(ahead_ms), "{ahead_ms} {within_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_set_shows_at_once_and_so_does_an_upstream_that_was_set() {
        let mut time = UpstreamTime::new();
        assert_eq!(time.offset(BUILT_MS, 0), None);
        let number = time.ask(1_000);
        time.answered(number, BUILT_MS + 1_010, 1_020);
        let offset = |time: &UpstreamTime, ahead: u64| time.offset(BUILT_MS + ahead + 5_000, 5_000).unwrap();
        assert_eq!(offset(&time, 0).ahead_ms, 0);
        assert_eq!(offset(&time, HOUR).ahead_ms, i64::try_from(HOUR).unwrap());
        let number = time.ask(6_000);
        time.answered(number, BUILT_MS + HOUR + 6_100, 6_400);
        assert!((offset(&time, HOUR).ahead_ms).abs() <= 200, "{:?}", offset(&time, HOUR));
        time.answered(number, 0, 6_500);
        time.answered(99, 0, 6_500);
        assert!((offset(&time, HOUR).ahead_ms).abs() <= 200, "an answer nobody waits for counts for nothing");
    }

    proptest! {
        /// Any line and any clocks: the truth is within what is told, and a short round trip is not given up for a long one.
        #[test]
        fn the_true_offset_is_within_what_is_reported(
            trips in proptest::collection::vec((0u64..60_000, 0u64..60_000, 1u64..600_000), 1..20),
            upstream_ahead in -100_000_000i64..100_000_000, wall_ahead in -100_000_000i64..100_000_000,
        ) {
            let (mut time, mut steady) = (UpstreamTime::new(), 1_000u64);
            let at = |steady: u64, by: i64| (BUILT_MS + steady).checked_add_signed(by).unwrap();
            let mut shortest = u64::MAX;
            for (there, back, pause) in trips {
                let number = time.ask(steady);
                time.answered(number, at(steady + there, upstream_ahead), steady + there + back);
                steady += there + back;
                shortest = shortest.min(there + back);
                let reported = time.offset(at(steady, wall_ahead), steady).unwrap();
                let truth = wall_ahead - upstream_ahead;
                prop_assert!(reported.ahead_ms.abs_diff(truth) <= reported.within_ms, "{truth} {reported:?}");
                prop_assert!(reported.within_ms <= shortest / 2 + 2 + steady / DRIFT_PART);
                steady += pause;
            }
        }
    }
}
