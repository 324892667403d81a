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
