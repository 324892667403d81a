//! JSON of a model: bounded in size and nesting, and no member twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problem::{Problems, Rule};

/// The largest document, in bytes. The largest public models have some hundred kilobytes.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How deep arrays and objects may stand in each other. A model of ten inherited interfaces, one in the other, and schemas
/// of five levels needs less than 50.
pub const NESTING_MAX: usize = 100;

/// Reads a document.
pub fn read(text: &[u8], problems: &mut Problems) -> Option<Value> {
    if text.len() > BYTES_MAX {
        let message = format!("the document has {} bytes; at most {BYTES_MAX} are allowed", text.len());
        problems.add(None, "", Rule::TooLarge, message);
        return None;
    }
    // A byte order mark, as editors on Windows write it.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut repeated = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Document { depth: 0, repeated: &mut repeated }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Err(error) => {
            let message = error.to_string();
            // serde's errors carry text only, so the rule is recognized by the beginning of our own message.
            let rule = if message.starts_with(TOO_DEEP) { Rule::NestedTooDeep } else { Rule::NotJson };
            problems.add(None, "", rule, message);
            None
        }
        Ok(value) => {
            for member in repeated {
                let message = format!("the member {member:?} occurs twice in one object");
                problems.add(None, "", Rule::RepeatedMember, message);
            }
            problems.is_empty().then_some(value)
        }
    }
}

/// Returns false when a document that was read elsewhere is nested deeper than [`NESTING_MAX`].
pub fn is_nested_within_bounds(value: &Value) -> bool {
    // A stack of our own: the nesting that is refused here would overflow the stack of a recursive function.
    let mut left = vec![(value, 0)];
    while let Some((value, depth)) = left.pop() {
        let inner: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(members) => members.values().collect(),
            _ => continue,
        };
        if depth >= NESTING_MAX {
            return false;
        }
        left.extend(inner.into_iter().map(|value| (value, depth + 1)));
    }
    true
}

const TOO_DEEP: &str = "arrays and objects stand more than 100 deep in each other";

struct Document<'r> {
    depth: usize,
    repeated: &'r mut Vec<String>,
}

impl Document<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Document<'_>, E> {
        if self.depth >= NESTING_MAX {
            // Checked while the text is read: a deeper tree is never built, because even dropping it would recurse as deep.
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Document { depth: self.depth + 1, repeated: self.repeated })
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.inner::<A::Error>()?)?;
            if members.contains_key(&name) {
                // JSON libraries take the last of two equal members silently, and the author would not see which one applies.
                self.repeated.push(name);
            } else {
                members.insert(name, value);
            }
        }
        Ok(Value::Object(members))
    }
}
