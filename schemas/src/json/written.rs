//! A document that is changed in places and written again, with every other number as it was.
//!
//! serde_json holds a number as a 64-bit integer or a double: it would write `12345678901234567890123` as
//! `1.2345678901234568e22`, and refuses `1e999`. Here such a number is kept in the document as a text that nobody else writes, and is put
//! back when the document is written.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Error, Value};

use super::number;

/// A document, and the numbers that were taken out of it.
#[derive(Debug)]
pub struct Written {
    /// The document, with a text in place of each number that serde_json would write in another way.
    pub document: Value,
    /// How these texts begin; their number follows.
    marker: String,
    numbers: Vec<String>,
}

impl Written {
    /// Reads a JSON text. `marker` must not stand in it.
    ///
    /// # Errors
    /// serde_json's, for text that is not JSON.
    pub fn read(text: &str, marker: &str) -> Result<Self, Error> {
        let mut numbers = Vec::new();
        let document = serde_json::from_str(&without_numbers(text, marker, &mut numbers))?;
        Ok(Self { document, marker: marker.to_owned(), numbers })
    }

    /// Writes the document with its numbers.
    pub fn write(&self) -> String {
        let text = self.document.to_string();
        let before = format!("\"{}", self.marker);
        let mut parts = text.split(&before);
        let mut written = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (index, rest) = part.split_once('"').unwrap_or((part, ""));
            let number = index.parse::<usize>().ok().and_then(|index| self.numbers.get(index));
            written.push_str(number.map_or("null", String::as_str));
            written.push_str(rest);
        }
        written
    }
}

/// Whether a text is JSON, however large its numbers are.
pub fn is_json(text: &str) -> bool {
    // The first for what serde_json cannot hold but reads over, the second for everything else.
    serde_json::from_str::<IgnoredAny>(text).is_ok()
        && serde_json::from_str::<Value>(&without_numbers(text, "", &mut Vec::new())).is_ok()
}

/// A text with `"{mark}{index}"` in place of each number that serde_json would write in another way.
fn without_numbers<'t>(text: &'t str, marker: &str, numbers: &mut Vec<String>) -> Cow<'t, str> {
    let mut replaced = String::new();
    let mut from = 0;
    for at in number::literals(text.as_bytes()) {
        let literal = &text[at.clone()];
        if !is_written_otherwise(literal) {
            continue;
        }
        replaced.push_str(&text[from..at.start]);
        replaced.push_str(&format!("\"{marker}{}\"", numbers.len()));
        numbers.push(literal.to_owned());
        from = at.end;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    replaced.push_str(&text[from..]);
    Cow::Owned(replaced)
}

/// Whether this is a number, and serde_json would not write it unchanged.
fn is_written_otherwise(literal: &str) -> bool {
    match serde_json::from_str::<Value>(literal) {
        Ok(value) => {
            let written = value.to_string();
            written != literal
        }
        // `1e999` is a number, `1-2` and `01` are not and stay where they are, so that the text is refused.
        Err(_) => is_number(literal.as_bytes()),
    }
}

/// RFC 8259, section 6.
fn is_number(literal: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = literal.strip_prefix(b"-").unwrap_or(literal);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    let [b'e' | b'E', exponent @ ..] = rest else { return rest.is_empty() };
    let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
    !exponent.is_empty() && digits(exponent) == exponent.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_changed_document_has_every_other_number_as_it_was_written() {
        let text = r#"{"a":12345678901234567890123,"b":[1.50,-0,1e999,-1E+2,7],"c":{"pw":1},"d":"1.50"}"#;
        let mut written = Written::read(text, "~mark~").unwrap();
        assert_eq!(written.write(), text);
        written.document["c"]["pw"] = "hidden".into();
        assert_eq!(written.write(), text.replace(r#""pw":1"#, r#""pw":"hidden""#));
        written.document["b"] = Value::Null;
        assert!(written.write().starts_with(r#"{"a":12345678901234567890123,"b":null,"#));
    }

    #[test]
    fn what_is_no_number_is_no_json() {
        for wrong in [
            "01",
            "1-2",
            "-",
            "1.",
            "1e",
            "1e+",
            "--1",
            "1.2.3",
            "[1 2]",
            "{1:2}",
            "1e5e5",
            ".5",
            "{1e999:2}",
        ] {
            assert!(!is_json(wrong), "{wrong}");
        }
        for wrong in ["01", "1-2", "1.", "[1 2]", "{1:2}"] {
            assert!(Written::read(wrong, "~mark~").is_err(), "{wrong}");
        }
        for right in
            ["1e999", "-0", "0.0", "1E-999", "[123456789012345678901234567890]", "{\"1e999\": 1e999}"]
        {
            assert!(is_json(right), "{right}");
        }
        assert_eq!(Written::read(" 1e999 ", "~").unwrap().document, json!("~0"));
    }

    proptest! {
        #[test]
        fn a_document_that_is_read_and_written_is_the_same_text(value in crate::json::tests::text()) {
            prop_assert_eq!(Written::read(&value, "~mark~").unwrap().write(), value);
        }
    }
}
