//! When a certificate that the gateway or central made for itself is made anew.
//!
//! A certificate of somebody else is never replaced, only told of. One that is not valid yet was made by a clock that was ahead,
//! or is looked at by one that is behind: [`crate::clock`] says why it is replaced in either case.

use std::fmt;

use crate::clock::is_before_build;

/// What is known of a certificate that is served. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Its first second.
    pub not_before_secs: u64,
    /// Its last second.
    pub not_after_secs: u64,
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// Whether the site's own authority, whose key is here, signed it.
    pub is_own: bool,
}

/// What to do with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing before this time (seconds since the Unix epoch).
    Keep {
        /// When it is due.
        until_secs: u64,
    },
    /// Make a new one now.
    Renew(RenewalReason),
    /// Tell an operator: it is somebody else's and ends.
    Tell {
        /// Its last second.
        not_after_secs: u64,
    },
}

/// Why a certificate is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalReason {
    /// Two thirds of its time are over.
    Due,
    /// All of it is.
    Expired,
    /// It begins later than now: a clock that was ahead made it.
    NotYetValid,
    /// It is not for this name.
    Name(String),
}

impl fmt::Display for RenewalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Due => f.write_str("two thirds of its time are over"),
            Self::Expired => f.write_str("it has expired"),
            Self::NotYetValid => f.write_str("it is not valid yet: it was made while the clock was ahead"),
            Self::Name(name) => write!(f, "it is not for {name}"),
        }
    }
}

/// When two thirds of a certificate's time are over: early enough that a gateway which is off for weeks comes back in
/// time, late enough that clients see few changes.
fn due_secs(served: &Served) -> u64 {
    let life = served.not_after_secs.saturating_sub(served.not_before_secs);
    served.not_after_secs - life / 3
}

/// Checks a certificate that must be for all of `names` (compared without case).
pub fn renewal(served: &Served, names: &[String], now_secs: u64) -> Renewal {
    let due_secs = due_secs(served);
    if !served.is_own {
        return if now_secs >= due_secs {
            Renewal::Tell { not_after_secs: served.not_after_secs }
        } else {
            Renewal::Keep { until_secs: due_secs }
        };
    }
    let missing = names.iter().find(|name| !served.names.iter().any(|has| has.eq_ignore_ascii_case(name)));
    match missing {
        Some(name) => Renewal::Renew(RenewalReason::Name(name.clone())),
        None if now_secs > served.not_after_secs => Renewal::Renew(RenewalReason::Expired),
        None if now_secs >= due_secs => Renewal::Renew(RenewalReason::Due),
        None if now_secs < served.not_before_secs && !is_before_build(now_secs) => {
            Renewal::Renew(RenewalReason::NotYetValid)
        }
        None => Renewal::Keep { until_secs: due_secs },
    }
}

/// From when on an operator is told that the site's own authority ends: whoever plans once a year hears of it in time.
const AUTHORITY_NOTICE_SECS: u64 = 365 * 24 * 3_600;

/// What is to be said of the site's own authority, which nothing makes anew: every device and module trusts it by a file
/// that somebody has to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaRenewal {
    Good,
    /// It ends within a year.
    Ends {
        /// Whole days until then.
        days_left: u64,
    },
    /// It has ended: clients refuse what it signed.
    Over,
}

/// Checks the site's own authority by its last second.
pub fn judge_authority(not_after_secs: u64, now_secs: u64) -> CaRenewal {
    match not_after_secs.checked_sub(now_secs) {
        None => CaRenewal::Over,
        Some(left) if left <= AUTHORITY_NOTICE_SECS => CaRenewal::Ends { days_left: left / 86_400 },
        Some(_) => CaRenewal::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(is_own: bool) -> Served {
        let names = vec!["Edge1".to_owned(), "127.0.0.1".to_owned()];
        Served { not_before_secs: 1_000, not_after_secs: 4_000, names, is_own }
    }

    #[test]
    fn our_own_certificate_is_made_anew_at_two_thirds_of_its_time_or_when_it_lacks_a_name() {
        let names = ["edge1".to_owned()];
        let renewal = |names: &[String], now| renewal(&served(true), names, now);
        assert_eq!(renewal(&names, 2_999), Renewal::Keep { until_secs: 3_000 });
        assert_eq!(renewal(&names, 3_000), Renewal::Renew(RenewalReason::Due));
        assert_eq!(renewal(&names, 4_000), Renewal::Renew(RenewalReason::Due));
        assert_eq!(renewal(&names, 4_001), Renewal::Renew(RenewalReason::Expired));
        let two = ["127.0.0.1".to_owned(), "edge2".to_owned()];
        assert_eq!(renewal(&two, 1_500), Renewal::Renew(RenewalReason::Name("edge2".to_owned())));
    }

    #[test]
    fn a_clock_that_woke_up_in_the_past_changes_nothing() {
        assert_eq!(renewal(&served(true), &[], 0), Renewal::Keep { until_secs: 3_000 });
    }

    #[test]
    fn the_certificate_of_another_authority_is_told_of_and_never_replaced() {
        let names = ["edge2".to_owned()];
        assert_eq!(renewal(&served(false), &names, 2_999), Renewal::Keep { until_secs: 3_000 });
        assert_eq!(renewal(&served(false), &names, 9_000), Renewal::Tell { not_after_secs: 4_000 });
    }

    #[test]
    fn an_authority_is_told_of_a_year_before_it_ends() {
        let year = 365 * 86_400;
        assert_eq!(judge_authority(10 * year, 9 * year - 1), CaRenewal::Good);
        assert_eq!(judge_authority(10 * year, 9 * year), CaRenewal::Ends { days_left: 365 });
        assert_eq!(judge_authority(10 * year, 10 * year - 1), CaRenewal::Ends { days_left: 0 });
        assert_eq!(judge_authority(10 * year, 10 * year + 1), CaRenewal::Over);
    }

    const DAY: u64 = 86_400;

    /// As the programs make it: an hour back, and for 90 days.
    fn made(now_secs: u64) -> Served {
        let (not_before_secs, not_after_secs) = (now_secs.saturating_sub(3_600), now_secs + 90 * DAY);
        Served { not_before_secs, not_after_secs, names: Vec::new(), is_own: true }
    }

    #[test]
    fn a_certificate_made_while_the_clock_was_ahead_is_made_anew_when_it_is_right() {
        let now = crate::clock::BUILT_SECS + DAY;
        let ahead = made(now + 300 * DAY);
        assert_eq!(renewal(&ahead, &[], now), Renewal::Renew(RenewalReason::NotYetValid));
        let unset = renewal(&made(now), &[], 0);
        assert!(matches!(unset, Renewal::Keep { .. }), "a clock in 1970 replaces nothing: {unset:?}");
    }

    proptest::proptest! {
        /// Any schedule: the clock is wrong by days for minutes, again and again, with restarts or without, and right at the end. One
        /// look by the right clock is enough, and while the clock can be right what it made is valid by it.
        #[test]
        fn after_any_schedule_of_wrong_clocks_one_look_by_a_right_clock_leads_to_a_valid_certificate(
            wrong in proptest::collection::vec((-20_000_i64..4_000, 1_u64..2_000), 0..12),
        ) {
            let mut real = crate::clock::BUILT_SECS + 365 * DAY;
            let mut served = made(real);
            let right = (0, 1);
            for (days, minutes) in wrong.into_iter().chain([right]) {
                for _ in 0..minutes {
                    let now = real.saturating_add_signed(days * DAY.cast_signed());
                    if let Renewal::Renew(_) = renewal(&served, &[], now) {
                        served = made(now);
                    }
                    let is_valid = (served.not_before_secs..=served.not_after_secs).contains(&now);
                    proptest::prop_assert!(is_valid || crate::clock::is_before_build(now));
                    real += 60;
                }
            }
            real -= 60;
            proptest::prop_assert!((served.not_before_secs..=served.not_after_secs).contains(&real));
        }
    }
}
