//! Text of a client for the log: on one line whatever it holds.

use std::fmt;

use crate::logging::is_unsafe;

/// Shows a text with its unsafe characters escaped.
pub(crate) struct Sanitized<'a>(pub &'a str);

impl fmt::Display for Sanitized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_unsafe(c) { write!(f, "{}", c.escape_unicode()) } else { write!(f, "{c}") }
        })
    }
}
