//! When a server certificate is renewed.
//!
//! A certificate of another authority (CA) is never replaced; an operator is warned. One that is not valid yet was made by a clock
//! that was ahead, or is checked by one that is behind: [`crate::clock`] says why it is replaced in either case.

use std::fmt;

use crate::clock::{BUILT_SECS, is_before_build};

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

/// The last second that a certificate can name, of the year 9999.
const LAST_SECS: u64 = 253_402_300_799;
/// A server certificate is valid for at most so long in all: Apple's platforms reject ones of more than 825 days.
pub const SERVER_VALIDITY_MAX_SECS: u64 = 824 * 24 * 3_600;

/// First and last second of a certificate's validity, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before_secs: u64,
    pub not_after_secs: u64,
}

impl Validity {
    /// Of a certificate that is made now, for `lifetime_secs` from now on. `ca` is that of the CA which signs it; a CA has none.
    ///
    /// It begins when the program was built, not now: made while the clock is ahead, it would not be valid yet once the clock is
    /// right. A clock that is before the build is wrong for certain, and makes nothing end earlier.
    pub fn of_new(now_secs: u64, lifetime_secs: u64, ca: Option<Self>) -> Self {
        let ends = now_secs.max(BUILT_SECS).saturating_add(lifetime_secs).min(LAST_SECS);
        let ca = ca.unwrap_or(Self { not_before_secs: 0, not_after_secs: LAST_SECS });
        Self {
            not_before_secs: BUILT_SECS.max(ca.not_before_secs),
            // Verifiers reject a certificate as soon as one of its chain has expired.
            not_after_secs: ends.min(ca.not_after_secs),
        }
    }

    /// The same end, and a beginning at most so long before.
    #[must_use]
    pub fn at_most(self, secs: u64) -> Self {
        let not_before_secs = self.not_before_secs.max(self.not_after_secs.saturating_sub(secs));
        Self { not_before_secs, ..self }
    }
}

/// How the site's own server certificates are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issuing {
    /// For how long from now on.
    pub lifetime_secs: u64,
    /// Validity of the CA that signs them.
    pub ca: Option<Validity>,
}

impl Issuing {
    /// Validity of one that is made now.
    pub fn validity(&self, now_secs: u64) -> Validity {
        Validity::of_new(now_secs, self.lifetime_secs, self.ca).at_most(SERVER_VALIDITY_MAX_SECS)
    }
}

/// When a third of the lifetime is left: early enough for a gateway that is switched off for weeks, late enough that clients see
/// few new certificates. One of our own begins when the program was built, so its lifetime is what it was made for.
fn due_secs(served: &Served, issuing: &Issuing) -> u64 {
    let whole = served.not_after_secs.saturating_sub(served.not_before_secs);
    let life = if served.is_own { whole.min(issuing.lifetime_secs) } else { whole };
    served.not_after_secs - life / 3
}

/// Decides whether a certificate that must have all of `names` (compared without case) is renewed.
///
/// One of our own is only renewed where a new one is better: it may end with its CA.
pub fn renewal(served: &Served, names: &[String], issuing: &Issuing, now_secs: u64) -> Renewal {
    let due_secs = due_secs(served, issuing);
    if !served.is_own {
        return if now_secs >= due_secs {
            Renewal::Warn { not_after_secs: served.not_after_secs }
        } else {
            Renewal::Keep { until_secs: due_secs }
        };
    }
    let new = issuing.validity(now_secs);
    let missing = names.iter().find(|name| !served.names.iter().any(|has| has.eq_ignore_ascii_case(name)));
    match missing {
        Some(name) => Renewal::Renew(RenewalReason::Name(name.clone())),
        None if now_secs > served.not_after_secs => Renewal::Renew(RenewalReason::Expired),
        None if now_secs >= due_secs && new.not_after_secs > served.not_after_secs => {
            Renewal::Renew(RenewalReason::Due)
        }
        // A clock before the build date is wrong for certain, so the certificate is kept (decision 0027).
        None if now_secs < served.not_before_secs
            && !is_before_build(now_secs)
            && new.not_before_secs < served.not_before_secs =>
        {
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
    /// It is not valid yet: it was made while the clock was ahead, or the clock is behind.
    NotYetValid {
        /// Days until then, rounded up.
        days: u64,
    },
    /// It expires within a year.
    Expires {
        /// Whole days until then.
        days_left: u64,
    },
    /// It has expired: clients reject every certificate that it signed.
    Expired,
}

/// Checks the site's own CA by its validity.
pub fn ca_renewal(ca: Validity, now_secs: u64) -> CaRenewal {
    let Validity { not_before_secs, not_after_secs } = ca;
    if now_secs < not_before_secs && !is_before_build(now_secs) {
        return CaRenewal::NotYetValid { days: (not_before_secs - now_secs).div_ceil(86_400) };
    }
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

    const ISSUING: Issuing = Issuing { lifetime_secs: 90 * DAY, ca: None };

    #[test]
    fn our_own_certificate_is_made_anew_at_two_thirds_of_its_time_or_when_it_lacks_a_name() {
        let names = ["edge1".to_owned()];
        let renewal = |names: &[String], now| renewal(&served(true), names, &ISSUING, now);
        assert_eq!(renewal(&names, 2_999), Renewal::Keep { until_secs: 3_000 });
        assert_eq!(renewal(&names, 3_000), Renewal::Renew(RenewalReason::Due));
        assert_eq!(renewal(&names, 4_000), Renewal::Renew(RenewalReason::Due));
        assert_eq!(renewal(&names, 4_001), Renewal::Renew(RenewalReason::Expired));
        let two = ["127.0.0.1".to_owned(), "edge2".to_owned()];
        assert_eq!(renewal(&two, 1_500), Renewal::Renew(RenewalReason::Name("edge2".to_owned())));
    }

    #[test]
    fn a_clock_that_woke_up_in_the_past_changes_nothing() {
        assert_eq!(renewal(&served(true), &[], &ISSUING, 0), Renewal::Keep { until_secs: 3_000 });
    }

    #[test]
    fn the_certificate_of_another_authority_is_warned_of_and_never_replaced() {
        let names = ["edge2".to_owned()];
        assert_eq!(renewal(&served(false), &names, &ISSUING, 2_999), Renewal::Keep { until_secs: 3_000 });
        assert_eq!(renewal(&served(false), &names, &ISSUING, 9_000), Renewal::Warn { not_after_secs: 4_000 });
    }

    #[test]
    fn an_authority_is_warned_of_a_year_before_it_ends() {
        let year = 365 * 86_400;
        let ca = Validity { not_before_secs: 0, not_after_secs: 10 * year };
        assert_eq!(ca_renewal(ca, 9 * year - 1), CaRenewal::Keep);
        assert_eq!(ca_renewal(ca, 9 * year), CaRenewal::Expires { days_left: 365 });
        assert_eq!(ca_renewal(ca, 10 * year - 1), CaRenewal::Expires { days_left: 0 });
        assert_eq!(ca_renewal(ca, 10 * year + 1), CaRenewal::Expired);
    }

    const DAY: u64 = 86_400;

    fn made(now_secs: u64) -> Served {
        let Validity { not_before_secs, not_after_secs } = ISSUING.validity(now_secs);
        Served { not_before_secs, not_after_secs, names: Vec::new(), is_own: true }
    }

    #[test]
    fn a_certificate_made_while_the_clock_was_ahead_is_made_anew_when_it_is_right() {
        let now = crate::clock::BUILT_SECS + DAY;
        let was_ahead = now + 300 * DAY;
        // As an earlier version made it.
        let ahead = Served {
            not_before_secs: was_ahead - DAY,
            not_after_secs: was_ahead + 90 * DAY,
            ..made(was_ahead)
        };
        assert_eq!(renewal(&ahead, &[], &ISSUING, now), Renewal::Renew(RenewalReason::NotYetValid));
        let unset = renewal(&made(now), &[], &ISSUING, 0);
        assert!(matches!(unset, Renewal::Keep { .. }), "a clock in 1970 replaces nothing: {unset:?}");
    }

    #[test]
    fn a_certificate_that_ends_with_its_ca_is_not_made_anew_at_every_check() {
        let now = crate::clock::BUILT_SECS + 3_000 * DAY;
        let ca = Validity { not_before_secs: BUILT_SECS, not_after_secs: now + 10 * DAY };
        let issuing = Issuing { ca: Some(ca), ..ISSUING };
        let Validity { not_before_secs, not_after_secs } = issuing.validity(now);
        assert_eq!(not_after_secs, ca.not_after_secs);
        let served = Served { not_before_secs, not_after_secs, names: Vec::new(), is_own: true };
        assert!(matches!(renewal(&served, &[], &issuing, now + DAY), Renewal::Keep { .. }));
    }

    #[test]
    fn a_ca_that_is_not_valid_yet_is_reported_unless_the_clock_is_wrong_for_certain() {
        let now = BUILT_SECS + DAY;
        let ca = Validity { not_before_secs: now + 300 * DAY - 1, not_after_secs: now + 4_000 * DAY };
        assert_eq!(ca_renewal(ca, now), CaRenewal::NotYetValid { days: 300 });
        assert_eq!(ca_renewal(ca, 0), CaRenewal::Keep);
        assert_eq!(ca_renewal(ca, ca.not_before_secs), CaRenewal::Keep);
    }

    proptest::proptest! {
        /// Whatever the clock says when CA and certificate are made: both are valid by any right clock of their lifetime.
        #[test]
        fn what_is_made_by_any_clock_is_valid_by_a_right_one(
            ca_clock in 0_u64..LAST_SECS, clock in 0_u64..LAST_SECS, right_days in 0_u64..300, lifetime_days in 1_u64..400,
        ) {
            let right = BUILT_SECS + right_days * DAY;
            let ca = Validity::of_new(ca_clock, 3_650 * DAY, None);
            let made = Validity::of_new(clock, lifetime_days * DAY, Some(ca));
            proptest::prop_assert!(ca.not_before_secs <= right && right <= ca.not_after_secs);
            proptest::prop_assert!(made.not_before_secs <= right);
            // Made by a right clock or by one that is ahead, it lasts; made by one that is behind, it lasts from the build on.
            let lasts_until = clock.max(BUILT_SECS) + lifetime_days * DAY;
            proptest::prop_assert!(made.not_after_secs == lasts_until.min(LAST_SECS).min(ca.not_after_secs));
            proptest::prop_assert!(made.at_most(SERVER_VALIDITY_MAX_SECS).not_after_secs == made.not_after_secs);
        }

        /// Any schedule: the clock is wrong by days for minutes, again and again, with restarts or without, and right at the end. One
        /// look by the right clock is enough, and while the clock can be right what it made is valid by it.
        #[test]
        fn after_any_schedule_of_wrong_clocks_one_pass_by_a_right_clock_leads_to_a_valid_certificate(
            wrong in proptest::collection::vec((-20_000_i64..4_000, 1_u64..2_000), 0..12),
        ) {
            let mut real = crate::clock::BUILT_SECS + 365 * DAY;
            let mut served = made(real);
            let right = (0, 1);
            for (days, minutes) in wrong.into_iter().chain([right]) {
                for _ in 0..minutes {
                    let now = real.saturating_add_signed(days * DAY.cast_signed());
                    if let Renewal::Renew(_) = renewal(&served, &[], &ISSUING, now) {
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
