//! MQTT topic names and filters: which are well formed, and which filter matches which topic.
//! Source: MQTT 3.1.1 section 4.7.

/// Checks a topic name of a PUBLISH.
///
/// # Errors
/// In words: empty, too long, with a wildcard, or with NUL.
pub fn check_topic(topic: &str) -> Result<(), &'static str> {
    check_text(topic)?;
    match topic.contains(['+', '#']) {
        // MQTT-3.3.2-2.
        true => Err("a topic name must not hold the wildcards + or #"),
        false => Ok(()),
    }
}

/// Checks a filter of a SUBSCRIBE.
///
/// # Errors
/// In words: empty, too long, with NUL, or with a wildcard that is not a whole level (or `#` not last).
pub fn check_filter(filter: &str) -> Result<(), &'static str> {
    check_text(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => return Err("# must be the last level"),
            "#" | "+" => {}
            _ if level.contains(['+', '#']) => return Err("+ and # must be a whole level"),
            _ => {}
        }
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it must not be empty"),
        _ if text.len() > 65_535 => Err("it must not be longer than 65,535 bytes"),
        _ if text.contains('\0') => Err("it must not hold NUL"),
        _ => Ok(()),
    }
}

/// Whether a well-formed filter matches a well-formed topic. Wildcards in the first level do not match topics that
/// begin with `$` (MQTT-4.7.2-1).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("a/b", "a/B", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for filter in ["", "a#", "a/#/b", "a/b+", "+a", "a\0"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
        for filter in ["#", "+", "a/+/b/#", "/", "//", "a b"] {
            assert!(check_filter(filter).is_ok(), "{filter}");
        }
    }
}
