//! How far a gateway's wall clock is trusted: what it may decide while nobody has proven it.
//!
//! - A clock before [`BUILT_SECS`] is wrong for certain: nothing is made that lasts by it.
//! - Any other clock is plausible, not proven. What is right but for the time is neither refused for good nor replaced at
//!   once: a client whose token or certificate only the time speaks against is told to come back later, and a certificate that
//!   is not valid yet is made anew only when the clock has had [`SETTLED_SECS`] to be set.

/// No clock of a program that was built from this source can be before it: 2026-11-01. To be moved on with each release.
pub const BUILT_SECS: u64 = 1_793_491_200;

/// How long after a start a clock without battery has usually been set by its time server.
pub const SETTLED_SECS: u64 = 600;

/// Whether the clock is wrong for certain.
pub fn is_before_build(now_secs: u64) -> bool {
    now_secs < BUILT_SECS
}

/// Whether what is not valid yet may be made anew: the clock is plausible, and has run for `uptime_secs` without being set to
/// a time at which it is valid.
pub fn may_replace_future(now_secs: u64, uptime_secs: u64) -> bool {
    !is_before_build(now_secs) && uptime_secs >= SETTLED_SECS
}

/// A jump of the wall clock that is worth noting; a time server that slews the clock stays below.
const JUMP_MS: i64 = 5_000;
/// A plausible time is corrected only when the clock was set forward by so much: less may be a pause of a virtual machine, in which
/// the steady clock stood still.
const FORWARD_MS: i64 = 3_600_000;
/// Jumps that are remembered; of a clock that jumps more often, the oldest are forgotten.
const JUMPS_MAX: usize = 256;

/// What the wall clock was set to while the program ran, so that times that were taken from it before can be corrected when
/// they are told. Times in milliseconds: `wall` since the Unix epoch, `steady` of a clock that never jumps and counts on while
/// the machine sleeps.
#[derive(Debug, Default)]
pub struct WallHistory {
    settings: Vec<Setting>,
}

/// From `from` of the steady clock on, the wall clock was ahead of it by `ahead`.
#[derive(Debug, Clone, Copy)]
struct Setting {
    ahead: i64,
    from: u64,
}

impl WallHistory {
    /// Of a program that starts.
    pub const fn new() -> Self {
        Self { settings: Vec::new() }
    }

    /// Notes both clocks, read at one moment. To be called whenever a time is taken from the wall clock, before it is used.
    pub fn note(&mut self, wall: u64, steady: u64) {
        let ahead = ahead(wall, steady);
        if self.settings.last().is_some_and(|last| (ahead - last.ahead).abs() < JUMP_MS) {
            return;
        }
        if self.settings.len() == JUMPS_MAX {
            self.settings.remove(0);
        }
        self.settings.push(Setting { ahead, from: steady });
    }

    /// The time that stands for one that was taken from the wall clock, by the clock as it was noted last:
    ///
    /// - what the clock cannot have been (before the build, or later than now) is corrected by the steady clock when the clock
    ///   was set while the program ran, and is `None` otherwise;
    /// - what is plausible is corrected when the clock was set forward by an hour or more after it, and stays otherwise;
    /// - while the clock itself stands before the build date, nothing is known better.
    pub fn corrected(&self, wall: u64, steady_now: u64) -> Option<u64> {
        let now = self.settings.last()?;
        let now_wall = i64::try_from(steady_now).unwrap_or(i64::MAX).saturating_add(now.ahead);
        let taken = i64::try_from(wall).unwrap_or(i64::MAX);
        let is_impossible = is_before_build(wall / 1000) || taken > now_wall.saturating_add(JUMP_MS);
        let mut until = steady_now;
        for setting in self.settings.iter().rev() {
            let range = at(setting.from, setting.ahead) - JUMP_MS..=at(until, setting.ahead) + JUMP_MS;
            until = setting.from;
            if !range.contains(&taken) {
                continue;
            }
            let by = now.ahead - setting.ahead;
            if is_impossible || by >= FORWARD_MS {
                let corrected = u64::try_from(taken.saturating_add(by)).ok()?;
                return (!is_before_build(corrected / 1000)).then_some(corrected);
            }
            return Some(wall);
        }
        (!is_impossible).then_some(wall)
    }
}

fn ahead(wall: u64, steady: u64) -> i64 {
    i64::try_from(wall).unwrap_or(i64::MAX).saturating_sub(i64::try_from(steady).unwrap_or(i64::MAX))
}

fn at(steady: u64, ahead: i64) -> i64 {
    i64::try_from(steady).unwrap_or(i64::MAX).saturating_add(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const BUILT_MS: u64 = BUILT_SECS * 1000;

    #[test]
    fn what_was_taken_in_2000_has_its_time_once_the_clock_is_set() {
        let mut history = WallHistory::default();
        let in_2000 = 946_684_800_000;
        history.note(in_2000, 1_000);
        assert_eq!(history.corrected(in_2000, 1_000), None, "nothing is known yet");
        history.note(BUILT_MS + 61_000, 61_000);
        assert_eq!(history.corrected(in_2000, 61_000), Some(BUILT_MS + 1_000));
        assert_eq!(history.corrected(in_2000 + 59_000, 90_000), Some(BUILT_MS + 60_000));
        assert_eq!(history.corrected(BUILT_MS + 61_000, 90_000), Some(BUILT_MS + 61_000));
        assert_eq!(history.corrected(in_2000 - HOUR, 90_000), None, "of an earlier run: nobody knows");
    }

    #[test]
    fn what_was_taken_while_the_clock_was_ahead_has_its_time_once_it_is_set_back() {
        let mut history = WallHistory::default();
        history.note(BUILT_MS, 0);
        history.note(BUILT_MS + 7_200 * HOUR, 10_000);
        history.note(BUILT_MS + 85_000, 85_000);
        assert_eq!(history.corrected(BUILT_MS + 7_200 * HOUR + 5_000, 90_000), Some(BUILT_MS + 15_000));
        assert_eq!(history.corrected(BUILT_MS + 4_000, 90_000), Some(BUILT_MS + 4_000));
    }

    #[test]
    fn a_pause_in_which_the_steady_clock_stood_still_changes_no_time() {
        let mut history = WallHistory::default();
        history.note(BUILT_MS, 0);
        history.note(BUILT_MS + HOUR / 2, 1_000);
        assert_eq!(history.corrected(BUILT_MS, 1_000), Some(BUILT_MS));
    }

    proptest! {
        /// The clock is wrong in any way, several times, and right at the end.
        #[test]
        fn no_time_is_told_that_is_impossible_and_each_of_a_wrong_clock_is_mended(
            wrongs in proptest::collection::vec((0u64..2 * BUILT_MS, 1u64..1_000), 1..6),
            run in 1u64..1_000,
        ) {
            let mut history = WallHistory::default();
            let (mut steady, mut taken) = (0, Vec::new());
            let truth = |steady: u64| BUILT_MS + 1_000_000 * HOUR + steady;
            for (wall, secs) in wrongs {
                history.note(wall, steady);
                taken.push((wall, steady));
                steady += secs * 1000;
                taken.push((wall + secs * 1000, steady));
                history.note(wall + secs * 1000, steady);
            }
            history.note(truth(steady), steady);
            steady += run * 1000;
            for (wall, when) in taken {
                let told = history.corrected(wall, steady);
                let is_certain = is_before_build(wall / 1000) || wall > truth(steady) + HOUR;
                if let Some(told) = told {
                    prop_assert!(!is_before_build(told / 1000) && told <= truth(steady) + 5_000);
                }
                // Two settings that showed the same times cannot be told apart.
                let is_alone = history.settings.iter().filter(|setting| {
                    (at(0, setting.ahead) - JUMP_MS..=at(steady, setting.ahead) + JUMP_MS).contains(&at(wall, 0))
                }).count() == 1;
                if is_certain && is_alone {
                    prop_assert!(told.is_some_and(|told| told.abs_diff(truth(when)) <= 5_000), "{wall} {told:?}");
                }
            }
        }
    }
}
