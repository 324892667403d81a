//! When a certificate that the gateway or central made for itself is made anew.
//!
//! A certificate of somebody else is never replaced, only told of. One that is not valid yet is kept: it is far more
//! likely that a clock without battery woke up in the past than that the certificate is wrong.

use std::fmt;

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
pub enum Judgement {
    /// Nothing before this time (seconds since the Unix epoch).
    Keep {
        /// When it is due.
        until_secs: u64,
    },
    /// Make a new one now.
    Renew(Reason),
    /// Tell an operator: it is somebody else's and ends.
    Tell {
        /// Its last second.
        not_after_secs: u64,
    },
}

/// Why a certificate is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Two thirds of its time are over.
    Due,
    /// All of it is.
    Expired,
    /// It is not for this name.
    Name(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Due => f.write_str("two thirds of its time are over"),
            Self::Expired => f.write_str("it has expired"),
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

/// Judges a certificate that must be for all of `names` (compared without case).
pub fn judge(served: &Served, names: &[String], now_secs: u64) -> Judgement {
    let due_secs = due_secs(served);
    if !served.is_own {
        return match now_secs >= due_secs {
            true => Judgement::Tell { not_after_secs: served.not_after_secs },
            false => Judgement::Keep { until_secs: due_secs },
        };
    }
    let missing = names.iter().find(|name| !served.names.iter().any(|has| has.eq_ignore_ascii_case(name)));
    match missing {
        Some(name) => Judgement::Renew(Reason::Name(name.clone())),
        None if now_secs > served.not_after_secs => Judgement::Renew(Reason::Expired),
        None if now_secs >= due_secs => Judgement::Renew(Reason::Due),
        None => Judgement::Keep { until_secs: due_secs },
    }
}

/// From when on an operator is told that the site's own authority ends: whoever plans once a year hears of it in time.
const AUTHORITY_NOTICE_SECS: u64 = 365 * 24 * 3_600;

/// What is to be said of the site's own authority, which nothing makes anew: every device and module trusts it by a file
/// that somebody has to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityJudgement {
    /// Nothing yet.
    Good,
    /// It ends within a year.
    Ends {
        /// Whole days until then.
        days_left: u64,
    },
    /// It has ended: clients refuse what it signed.
    Over,
}

/// Judges the site's own authority by its last second.
pub fn judge_authority(not_after_secs: u64, now_secs: u64) -> AuthorityJudgement {
    match not_after_secs.checked_sub(now_secs) {
        None => AuthorityJudgement::Over,
        Some(left) if left <= AUTHORITY_NOTICE_SECS => AuthorityJudgement::Ends { days_left: left / 86_400 },
        Some(_) => AuthorityJudgement::Good,
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
        let judge = |names: &[String], now| judge(&served(true), names, now);
        assert_eq!(judge(&names, 2_999), Judgement::Keep { until_secs: 3_000 });
        assert_eq!(judge(&names, 3_000), Judgement::Renew(Reason::Due));
        assert_eq!(judge(&names, 4_000), Judgement::Renew(Reason::Due));
        assert_eq!(judge(&names, 4_001), Judgement::Renew(Reason::Expired));
        let two = ["127.0.0.1".to_owned(), "edge2".to_owned()];
        assert_eq!(judge(&two, 1_500), Judgement::Renew(Reason::Name("edge2".to_owned())));
    }

    #[test]
    fn a_clock_that_woke_up_in_the_past_changes_nothing() {
        assert_eq!(judge(&served(true), &[], 0), Judgement::Keep { until_secs: 3_000 });
    }

    #[test]
    fn the_certificate_of_another_authority_is_told_of_and_never_replaced() {
        let names = ["edge2".to_owned()];
        assert_eq!(judge(&served(false), &names, 2_999), Judgement::Keep { until_secs: 3_000 });
        assert_eq!(judge(&served(false), &names, 9_000), Judgement::Tell { not_after_secs: 4_000 });
    }

    #[test]
    fn an_authority_is_told_of_a_year_before_it_ends() {
        let year = 365 * 86_400;
        assert_eq!(judge_authority(10 * year, 9 * year - 1), AuthorityJudgement::Good);
        assert_eq!(judge_authority(10 * year, 9 * year), AuthorityJudgement::Ends { days_left: 365 });
        assert_eq!(judge_authority(10 * year, 10 * year - 1), AuthorityJudgement::Ends { days_left: 0 });
        assert_eq!(judge_authority(10 * year, 10 * year + 1), AuthorityJudgement::Over);
    }
}
