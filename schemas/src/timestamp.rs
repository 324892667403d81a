//! Points in time as the wire knows them: milliseconds since the Unix epoch inside, RFC 3339 UTC outside.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes milliseconds since the Unix epoch as RFC 3339 in UTC with milliseconds, for example
/// `2026-11-23T16:11:52.250Z`. A time beyond year 9999 is written as the last one that can be.
pub fn rfc3339(unix_ms: u64) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    const LAST_MS: u64 = 253_402_300_799_999;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms.min(LAST_MS)) * 1_000_000)
        .ok()
        .and_then(|at| at.format(FORMAT).ok())
        .expect("every millisecond from 1970 to 9999 has an RFC 3339 form")
}

/// Writes milliseconds since the Unix epoch as RFC 1123 in UTC, for example `Mon, 23 Nov 2026 16:11:52 GMT`. A time beyond
/// year 9999 is written as the last one that can be.
pub fn rfc1123(unix_ms: u64) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    const LAST_SECS: i64 = 253_402_300_799;
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_ms / 1000).unwrap_or(LAST_SECS).min(LAST_SECS))
        .ok()
        .and_then(|at| at.format(FORMAT).ok())
        .expect("every second from 1970 to 9999 has an RFC 1123 form")
}

/// Reads RFC 3339; `None` when it is not, or lies before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_prints() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(parse_rfc3339(&rfc3339(1_795_450_312_250)), Some(1_795_450_312_250));
        assert_eq!(parse_rfc3339("2026-11-23T17:11:52+01:00"), parse_rfc3339("2026-11-23T16:11:52Z"));
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_time_prints_as_rfc_1123_has_it() {
        assert_eq!(rfc1123(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(rfc1123(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(rfc1123(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
