//! The wall clock, and the clock of ages. A wall clock before 1970 reads as 0.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the Unix epoch.
pub fn now_secs() -> u64 {
    since_epoch().as_secs()
}

static AGES: OnceLock<fn() -> u64> = OnceLock::new();

/// Measures the ages of sessions, messages and wills with this clock instead of the wall clock: one that goes on over restarts and
/// is never set. Once, before sessions are opened.
pub fn measure_ages_with(clock: fn() -> u64) {
    if AGES.set(clock).is_err() {
        tracing::error!("the clock of ages was chosen twice; the first one stays");
    }
}

/// Milliseconds by the clock of ages: what expires is compared with it, and stamped by it.
pub(crate) fn age_ms() -> u64 {
    AGES.get().map_or_else(now_ms, |clock| clock())
}
