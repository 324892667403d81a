//! Texts that are shown on one line: names for people, and ids that scripts choose.

use std::ops::Deref;

use serde::Deserialize;

/// A text of 1 to `MAX` characters, each of which is shown as what it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SingleLine<const MAX: usize>(String);

/// A name for people; the bound is IoT Central's.
pub type DisplayName = SingleLine<148>;
/// The id of a device template; the bound is that of a DTMI.
pub type TemplateId = SingleLine<2048>;

/// A text that is no [`SingleLine`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Empty, or too long.
    #[error("found {found} characters; write 1 to {max}")]
    Length {
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A character that hides something, or shows it as something else.
    #[error(
        "found U+{0:04X}; control characters, line breaks, and characters that change how a text is read are not allowed"
    )]
    Character(u32),
}

impl<const MAX: usize> TryFrom<String> for SingleLine<MAX> {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let found = text.chars().count();
        if !(1..=MAX).contains(&found) {
            return Err(InvalidText::Length { found, max: MAX });
        }
        check_characters(&text)?;
        Ok(Self(text))
    }
}

impl<const MAX: usize> From<SingleLine<MAX>> for String {
    fn from(line: SingleLine<MAX>) -> Self {
        line.0
    }
}

impl<const MAX: usize> Deref for SingleLine<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Checks that no character of a text hides something, breaks the line, or changes the order in which the others are shown.
///
/// # Errors
/// [`InvalidText::Character`].
pub fn check_characters(text: &str) -> Result<(), InvalidText> {
    match text.chars().find(|c| is_deceptive(*c)) {
        Some(c) => Err(InvalidText::Character(c.into())),
        None => Ok(()),
    }
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Of right-to-left text: marks, embeddings, overrides and isolates.
            '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Ends of lines and paragraphs.
            | '\u{2028}'..='\u{2029}'
            // Of no width. Joiners are not among them: Persian and emoji need them.
            | '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
            // Annotations, and what is no character.
            | '\u{fff9}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_all_languages_are_taken() {
        for name in ["Press 1", "Münchén <7>", "圧縮機 2", "مكبس", "می‌خواهم", "👩‍🔧 café", " ", "a\u{a0}b"]
        {
            assert_eq!(DisplayName::try_from(name.to_owned()).map(String::from), Ok(name.to_owned()));
        }
        assert_eq!(
            DisplayName::try_from("é".repeat(149)).unwrap_err().to_string(),
            "found 149 characters; write 1 to 148"
        );
        DisplayName::try_from("é".repeat(148)).unwrap();
        DisplayName::try_from(String::new()).unwrap_err();
    }

    proptest! {
        #[test]
        fn what_hides_or_turns_text_is_refused_anywhere(
            before in "[a-zé]{0,5}", after in "[a-zé]{0,5}",
            wrong in prop::sample::select(vec!['\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{61c}',
                '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
                '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}', '\u{200b}']),
        ) {
            let refused = DisplayName::try_from(format!("{before}{wrong}{after}"));
            prop_assert_eq!(refused, Err(InvalidText::Character(wrong.into())));
        }
    }
}
