//! Symbols: names of a known domain, such as error conditions (section 1.6.21).

use std::borrow::Cow;
use std::fmt;

/// ASCII text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Symbol(Cow<'static, str>);

impl Symbol {
    /// A symbol of the program.
    ///
    /// # Panics
    /// If the text is not ASCII.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(text.is_ascii(), "a symbol is ASCII");
        Self(Cow::Borrowed(text))
    }

    /// `None` if the text is not ASCII.
    pub fn new(text: String) -> Option<Self> {
        text.is_ascii().then_some(Self(Cow::Owned(text)))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.0)
    }
}

impl PartialEq<&str> for Symbol {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}
