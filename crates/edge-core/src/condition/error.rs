//! Why a condition was refused, and where.

/// A condition, or a text that holds one, is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: found {found}; {allowed}")]
pub struct SyntaxError {
    pub at: Position,
    pub found: String,
    /// What may stand there.
    pub allowed: String,
}

/// A place in a text, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// In bytes from the beginning.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Position {
    /// The place of a byte in a text; of its end when it is beyond.
    pub fn of(text: &str, offset: usize) -> Self {
        let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            offset,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// An error as the parser finds it, before its place is known as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) found: String,
    pub(crate) allowed: String,
}

impl Wrong {
    pub(crate) fn new(offset: usize, found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { offset, found: found.into(), allowed: allowed.into() }
    }

    pub(crate) fn in_text(self, text: &str) -> SyntaxError {
        SyntaxError { at: Position::of(text, self.offset), found: self.found, allowed: self.allowed }
    }
}
