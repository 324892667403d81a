//! The wall clock, as certificates use it.

use time::OffsetDateTime;

/// Seconds since the Unix epoch. A clock before 1970 reads as 0.
pub(crate) fn now_secs() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}
