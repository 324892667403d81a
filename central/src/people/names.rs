//! What users are called.

use std::fmt;

/// Characters of a name.
const LENGTH_MAX: usize = 128;

/// The id or the sign-in name of a user: an e-mail address or a plain name. Two that differ in case only are the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

/// A name was not one.
#[derive(Debug, thiserror::Error)]
#[error("found `{}`; write 1 to {LENGTH_MAX} letters, digits and . _ - + @", .0.escape_debug())]
pub struct InvalidUserName(String);

impl UserName {
    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is this name.
    pub fn is(&self, text: &str) -> bool {
        self.0.eq_ignore_ascii_case(text)
    }

    /// An id that nobody has chosen.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }
}

impl std::str::FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, InvalidUserName> {
        let is_name = (1..=LENGTH_MAX).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@".contains(c))
            // A path segment of dots alone is taken for a folder by proxies in between.
            && text.contains(|c: char| c != '.');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUserName(text.chars().take(LENGTH_MAX).collect()))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_address_or_a_plain_word() {
        for name in ["admin", "alice@contoso.com", "a.b+c_d-e@x", "1", &"a".repeat(128)] {
            assert_eq!(name.parse::<UserName>().unwrap().as_str(), name);
        }
        for wrong in ["", ".", "..", "a b", "a/b", "a\n", "ä", "<b>", &"a".repeat(129)] {
            assert!(wrong.parse::<UserName>().is_err(), "{wrong}");
        }
    }
}
