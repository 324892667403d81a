//! Keys of objects: those that serde_json would take for a sign, and those that stand twice.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::JsonError;

/// How serde_json marks numbers and unread parts among its own types: an object with such a key would be read as one.
const RESERVED: &str = "$serde_json::private::";
/// Characters of a key in an error.
const SHOWN: usize = 40;

/// What to do with an object in which a key occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// The last value counts, as Azure's services have it.
    LastCounts,
    /// The object is refused: one of the values would be lost.
    Refused,
}

/// Checks all keys of a text that nests no deeper than serde_json reads.
pub(super) fn check(text: &[u8], twice: Twice) -> Result<(), JsonError> {
    // serde's errors carry text only, so the typed error is kept beside it.
    let wrong = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Keys { twice, wrong: &wrong }.deserialize(&mut reader).and_then(|()| reader.end());
    match (wrong.into_inner(), read) {
        (Some(wrong), _) => Err(wrong),
        (None, read) => Ok(read?),
    }
}

/// Reads a value for nothing but its keys.
#[derive(Clone, Copy)]
struct Keys<'w> {
    twice: Twice,
    wrong: &'w RefCell<Option<JsonError>>,
}

impl Keys<'_> {
    fn refuse<E: Error>(self, key: &str, why: &'static str) -> E {
        let mut shown: String = key.chars().take(SHOWN).collect();
        if shown.len() < key.len() {
            shown.push('…');
        }
        self.wrong.replace(Some(JsonError::Key { key: shown, why }));
        E::custom(why)
    }
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if key.starts_with(RESERVED) {
                return Err(self.refuse(&key, "it is reserved"));
            }
            if self.twice == Twice::Refused {
                if seen.contains(&key) {
                    return Err(self.refuse(&key, "it appears twice in one object"));
                }
                seen.insert(key);
            }
            members.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check_outside, from_outside};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn keys_that_mean_something_to_the_reader_are_refused_however_they_are_written() {
        for key in [r"$serde_json::private::RawValue", r"\u0024serde_json::private::Number"] {
            let text = format!("[{{\"a\": {{\"{key}\": \"[1]\"}}}}]");
            let refused = from_outside::<Value>(text.as_bytes());
            assert!(matches!(refused, Err(JsonError::Key { .. })), "{key}: {refused:?}");
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_or_counts_by_its_last_value() {
        let text = br#"{"a": {"b": 1, "c": {"b": 1}, "\u0062": 2}, "d": {"b": 1}}"#;
        let refused = check_outside(text, Twice::Refused).unwrap_err().to_string();
        assert_eq!(refused, "key `b`: it appears twice in one object");
        let read: Value = from_outside(text).unwrap();
        assert_eq!(read, json!({"a": {"b": 2, "c": {"b": 1}}, "d": {"b": 1}}));
        check_outside(br#"{"a": {"b": 1}, "b": [{"b": 1}, {"b": 2}]}"#, Twice::Refused).unwrap();
    }
}
