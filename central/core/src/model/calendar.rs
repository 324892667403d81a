//! Dates, times and durations as DTDL has them: RFC 3339, and ISO 8601 for durations.

/// `1980-01-31`, in the years 1 to 9999.
pub fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (digits(parts.next(), 4), digits(parts.next(), 2), digits(parts.next(), 2), parts.next())
    else {
        return false;
    };
    year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days(year, month)
}

/// `06:00:00.5Z`, `06:00:00+11:45`.
pub fn is_time(text: &str) -> bool {
    // The text may be anything: a plain slice would panic within a character of several bytes.
    let Some((clock, rest)) = text.split_at_checked(8) else { return false };
    let mut parts = clock.split(':');
    let (Some(hour), Some(minute), Some(second)) =
        (digits(parts.next(), 2), digits(parts.next(), 2), digits(parts.next(), 2))
    else {
        return false;
    };
    if hour > 23 || minute > 59 || second > 59 {
        return false;
    }
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
    };
    if zone == "Z" {
        return true;
    }
    let Some((hour, minute)) = zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':')) else {
        return false;
    };
    // No place has a time that is farther from UTC than 14 hours.
    digits(Some(hour), 2).is_some_and(|hour| hour <= 14)
        && digits(Some(minute), 2).is_some_and(|minute| minute <= 59)
}

/// A date, `T` and a time.
pub fn is_date_time(text: &str) -> bool {
    text.split_once('T').is_some_and(|(date, time)| is_date(date) && is_time(time))
}

/// `P3Y6M4DT8H9M5S`, or weeks instead of years and months; the last number alone may have a fraction.
pub fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('P') else { return false };
    let (date, time) = rest.split_once('T').map_or((rest, None), |(date, time)| (date, Some(time)));
    let Some((date_count, date_fraction, has_weeks)) = parts(date, "YMWD") else { return false };
    let has_both = has_weeks && date.contains(['Y', 'M']);
    match time {
        None => date_count > 0 && !has_both,
        Some(time) => {
            let Some((count, ..)) = parts(time, "HMS") else { return false };
            count > 0 && !date_fraction && !has_both
        }
    }
}

/// How many numbers there are, whether the last has a fraction, and whether there are weeks. `None` when they are not in
/// the order of `units`.
fn parts(text: &str, units: &str) -> Option<(usize, bool, bool)> {
    let (mut left, mut next, mut count, mut fraction, mut weeks) = (text, 0, 0, false, false);
    while !left.is_empty() {
        if fraction {
            return None;
        }
        let end = left.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = left.split_at(end);
        let mut halves = number.split('.');
        let is_digits = |half: &str| !half.is_empty() && half.bytes().all(|byte| byte.is_ascii_digit());
        if !halves.next().is_some_and(is_digits) {
            return None;
        }
        fraction = match halves.next() {
            None => false,
            Some(half) if is_digits(half) => true,
            Some(_) => return None,
        };
        if halves.next().is_some() {
            return None;
        }
        let unit = rest.chars().next()?;
        let at = units.find(unit)?;
        if at < next {
            return None;
        }
        (next, weeks) = (at + 1, weeks || unit == 'W');
        (count, left) = (count + 1, &rest[unit.len_utf8()..]);
    }
    Some((count, fraction, weeks))
}

fn digits(text: Option<&str>, length: usize) -> Option<u32> {
    let text = text.filter(|text| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn days(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}
