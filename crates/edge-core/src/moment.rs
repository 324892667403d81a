//! A moment as an operator writes it: when logs begin or end.

/// The moment that `text` names, in milliseconds since the Unix epoch: a time of RFC 3339, seconds since the Unix epoch, or how long
/// before `now_ms` (`90s`, `15 min`, `2 hours`, `1d`, and several of them in one: `1 day 2h`). `None` when it is none of these.
/// Source: IoT Edge, `since` and `until` of module logs.
pub fn parse(text: &str, now_ms: u64) -> Option<u64> {
    let text = text.trim();
    if let Some(at_ms) = schemas::timestamp::parse_rfc3339(text) {
        return Some(at_ms);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let mut rest = text;
    let mut ago_ms: u64 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..number].parse().ok()?;
        rest = rest[number..].trim_start();
        let word = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        ago_ms = ago_ms.checked_add(count.checked_mul(unit_ms(&rest[..word])?)?)?;
        rest = rest[word..].trim_start();
    }
    (ago_ms > 0).then(|| now_ms.saturating_sub(ago_ms))
}

fn unit_ms(word: &str) -> Option<u64> {
    let seconds = match word.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 24 * 3600,
        "w" | "week" | "weeks" => 7 * 24 * 3600,
        _ => return None,
    };
    Some(seconds * 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_450_312_000;

    #[test]
    fn a_moment_is_a_time_seconds_or_how_long_ago() {
        let hour = 3_600_000;
        for (text, expected) in [
            ("2026-11-23T12:00:00Z", Some(1_795_435_200_000)),
            ("1795435200", Some(1_795_435_200_000)),
            ("1h", Some(NOW - hour)),
            (" 15 min ", Some(NOW - hour / 4)),
            ("1 day 2 hours", Some(NOW - 26 * hour)),
            ("1d2h", Some(NOW - 26 * hour)),
            ("90S", Some(NOW - 90_000)),
            ("99999999w", Some(0)),
            ("", None),
            ("h", None),
            ("1", Some(1000)),
            ("1 fortnight", None),
            ("-1h", None),
            ("1.5h", None),
            ("18446744073709551615w", None),
            ("0s", None),
        ] {
            assert_eq!(parse(text, NOW), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program(text in "\\PC{0,40}") {
            let _ = parse(&text, NOW);
        }

        #[test]
        fn parts_add_up(hours in 1..1000_u64, minutes in 1..1000_u64) {
            let expected = NOW - hours * 3_600_000 - minutes * 60_000;
            prop_assert_eq!(parse(&format!("{hours} hours {minutes}m"), NOW), Some(expected));
        }
    }
}
