//! MQTT topic names and filters: which are well formed, and which filter matches which topic.
//! Source: MQTT 3.1.1 section 4.7.

/// Checks a topic name of a PUBLISH.
///
/// # Errors
/// As text: empty, too long, with a wildcard, or with NUL.
pub fn check_topic(topic: &str) -> Result<(), &'static str> {
    check_text(topic)?;
    // By bytes: a search for one of several characters decodes the text, and every message comes through here.
    if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        // MQTT-3.3.2-2.
        Err("a topic name must not hold the wildcards + or #")
    } else {
        Ok(())
    }
}

/// Checks a filter of a SUBSCRIBE.
///
/// # Errors
/// As text: empty, too long, with NUL, or with a wildcard that is not a whole level (or `#` not last).
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

/// Whether every topic that `filter` matches is matched by `rule`, both well formed. It is "no" wherever a subscription
/// to `filter` could bring a topic outside `rule`.
pub fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    // A topic has at least one level, so these two are the same.
    let rule = if rule == "+/#" { "#" } else { rule };
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(r), Some(f)) if r == f && f != "#" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether there is a topic that both filters match.
pub fn overlaps(one: &str, other: &str) -> bool {
    let is_apart = |one: &str, other: &str| one.starts_with('$') && other.starts_with(['+', '#']);
    if is_apart(one, other) || is_apart(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// The first level of a topic or filter, and what follows it; `None` behind the last level.
#[inline]
pub fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few names and few levels, so that filters and topics often meet.
    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof!["[ab]", "[ab]", Just("+".to_owned()), Just(String::new())];
        let first = prop_oneof!["[ab]", "[ab]", Just("+".to_owned())];
        let end = prop_oneof![Just(""), Just("/#")];
        let filter = (first, prop::collection::vec(level, 0..3), end)
            .prop_map(|(first, levels, end)| format!("{}{end}", [vec![first], levels].concat().join("/")));
        prop_oneof![1 => Just("#".to_owned()), 9 => filter]
    }

    /// Every topic of up to four levels over the names of [`filter`] and one that it does not use.
    fn topics() -> Vec<String> {
        let names = ["a", "b", "c", ""];
        let mut all: Vec<String> = names.map(str::to_owned).to_vec();
        let mut last = all.clone();
        for _ in 1..5 {
            last = last.iter().flat_map(|t| names.map(|name| format!("{t}/{name}"))).collect();
            all.extend(last.iter().cloned());
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_filter_is_covered_when_the_rule_matches_whatever_it_matches(rule in filter(), inner in filter()) {
            let topics = topics();
            let inside = topics.iter().filter(|t| matches(&inner, t)).all(|topic| matches(&rule, topic));
            prop_assert_eq!(covers(&rule, &inner), inside, "{} {}", rule, inner);
        }

        #[test]
        fn filters_overlap_when_some_topic_is_matched_by_both(one in filter(), other in filter()) {
            let meet = topics().iter().any(|topic| matches(&one, topic) && matches(&other, topic));
            prop_assert_eq!(overlaps(&one, &other), meet, "{} {}", one, other);
        }
    }

    #[test]
    fn reserved_topics_are_not_covered_by_a_wildcard() {
        assert!(!covers("#", "$SYS/#") && covers("$SYS/#", "$SYS/+") && covers("#", "+/a"));
        assert!(!overlaps("#", "$SYS/x") && overlaps("$SYS/#", "$SYS/x"));
    }

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
