//! When a server certificate is renewed.
//!
//! A certificate of another authority (CA) is never replaced; an operator is warned. One that is not valid yet was made by a clock
//! that was ahead, or is checked by one that is behind: [`crate::clock`] says why it is replaced in either case.

use std::fmt;

use crate::clock::is_before_build;

/// The certificate that a server serves. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// First second of validity.
    pub not_before_secs: u64,
    /// Last second of validity.
    pub not_after_secs: u64,
    /// DNS names and IP addresses of the subject alternative name.
    pub names: Vec<String>,
    /// Whether the site's own CA signed it.
    pub is_own: bool,
}

/// What to do with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing to do yet.
    Keep {
        /// When it is due, in seconds since the Unix epoch.
        until_secs: u64,
    },
    /// Make a new one now.
    Renew(RenewalReason),
    /// Warn an operator: it is due, and another CA signed it.
    Warn {
        /// Last second of validity.
        not_after_secs: u64,
    },
}

/// Why a certificate is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalReason {
    /// Two thirds of its validity are over.
    Due,
    Expired,
    /// Its validity begins later than now: it was made while the clock was ahead.
    NotYetValid,
    /// It lacks this name.
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

/// When two thirds of the validity are over: early enough for a gateway that is switched off for weeks, late enough that clients see
/// few new certificates.
fn due_secs(served: &Served) -> u64 {
    let life = served.not_after_secs.saturating_sub(served.not_before_secs);
    served.not_after_secs - life / 3
}

/// Decides whether a certificate that must have all of `names` (compared without case) is renewed.
pub fn renewal(served: &Served, names: &[String], now_secs: u64) -> Renewal {
    let due_secs = due_secs(served);
    if !served.is_own {
        return if now_secs >= due_secs {
            Renewal::Warn { not_after_secs: served.not_after_secs }
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

/// An operator is warned this long before the site's own CA expires: a year, so that a yearly maintenance sees the warning.
const CA_NOTICE_SECS: u64 = 365 * 24 * 3_600;

/// State of the site's own CA. It is not renewed automatically, because every device trusts it by a file that an operator must replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaRenewal {
    /// It is valid for more than a year.
    Keep,
    /// It expires within a year.
    Expires {
        /// Whole days until then.
        days_left: u64,
    },
    /// It has expired: clients reject every certificate that it signed.
    Expired,
}

/// Checks the site's own CA by the last second of its validity.
pub fn ca_renewal(not_after_secs: u64, now_secs: u64) -> CaRenewal {
    match not_after_secs.checked_sub(now_secs) {
        None => CaRenewal::Expired,
        Some(left) if left <= CA_NOTICE_SECS => CaRenewal::Expires { days_left: left / 86_400 },
        Some(_) => CaRenewal::Keep,
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
        assert_eq!(renewal(&served(false), &names, 9_000), Renewal::Warn { not_after_secs: 4_000 });
    }

    #[test]
    fn an_authority_is_told_of_a_year_before_it_ends() {
        let year = 365 * 86_400;
        assert_eq!(ca_renewal(10 * year, 9 * year - 1), CaRenewal::Keep);
        assert_eq!(ca_renewal(10 * year, 9 * year), CaRenewal::Expires { days_left: 365 });
        assert_eq!(ca_renewal(10 * year, 10 * year - 1), CaRenewal::Expires { days_left: 0 });
        assert_eq!(ca_renewal(10 * year, 10 * year + 1), CaRenewal::Expired);
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
