//! The levels of topics and filters.

/// The first level of a topic or filter, and what follows it.
pub(crate) fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (text, None),
    }
}
