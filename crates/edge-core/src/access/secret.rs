//! Bytes that nobody may read in a log: a password, or a token in its place.

use std::fmt;

/// Prints as nothing but its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, when it is one (a SAS token is).
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes, not shown)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_what_it_holds() {
        assert_eq!(format!("{:?}", Secret::new(*b"hunter2")), "Secret(7 bytes, not shown)");
        assert_eq!(Secret::new(*b"\xff").text(), None);
        assert_eq!(Secret::new(*b"a").text(), Some("a"));
    }
}
