//! JSON from outside, read with a limit on its nesting, so that whatever is accepted can be read again.
//!
//! serde_json reads at most 127 levels but writes any number, and each of our own wrappers (a journal entry, a twin, a link
//! message) adds levels. A value at the reader's limit can therefore be written and never be read back. Three limits keep
//! them apart:
//!
//! | Limit | For |
//! |---|---|
//! | [`DEPTH_MAX`] | what clients, operators, modules and files give |
//! | [`LINK_DEPTH_MAX`] | the same, wrapped by a gateway or by central for the other |
//! | 127, serde_json's own | what a program reads back from its own disk |
//!
//! The scan comes before serde: it uses no stack, and an input that is refused allocates nothing.
//!
//! What is read is also given back as it was written: a number that neither a 64-bit integer nor a double holds is refused instead
//! of being rounded ([`number`]), and so are keys by which serde_json would take an object for something else. Whitespace, escapes,
//! the form of a number (`1.50`, `1e2`) and the order of keys are not kept.

mod error;
mod keys;
pub mod number;
pub mod written;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use error::JsonError;
pub use keys::Twice;

/// Levels of objects and arrays that are accepted from outside. IoT Hub allows 10 in a twin and says nothing of method
/// payloads; manifests with `createOptions` written as an object need 13.
pub const DEPTH_MAX: usize = 32;
/// Levels that are accepted on the link between a gateway and central.
pub const LINK_DEPTH_MAX: usize = 48;

/// Reads JSON that a client, an operator, a module or a file gave. Of a key that occurs twice the last value counts, as at Azure.
///
/// # Errors
/// As [`check_outside`]; [`JsonError::Wrong`] for JSON that has another shape.
pub fn from_outside<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    check_outside(text, Twice::LastCounts)?;
    Ok(serde_json::from_slice(text)?)
}

/// As [`from_outside`], for what an operator writes: a key that occurs twice is rejected, since one of its values would be lost.
///
/// # Errors
/// As [`from_outside`].
pub fn from_operator<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    check_outside(text, Twice::Refused)?;
    Ok(serde_json::from_slice(text)?)
}

/// Checks that a text from outside is JSON, and that it can be kept.
///
/// # Errors
/// [`JsonError::TooDeep`] beyond [`DEPTH_MAX`], [`JsonError::Number`], [`JsonError::Key`], and [`JsonError::Wrong`] for text that
/// is not JSON.
pub fn check_outside(text: &[u8], twice: Twice) -> Result<(), JsonError> {
    // The nesting comes first, because the check of keys recurses once for each level.
    check_text(text, DEPTH_MAX)?;
    number::check(text)?;
    keys::check(text, twice)
}

/// Reads JSON that came on the link between a gateway and central.
///
/// # Errors
/// [`JsonError::TooDeep`] beyond [`LINK_DEPTH_MAX`]; [`JsonError::Wrong`] for text that is not JSON or has another shape.
pub fn from_link<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    check_text(text, LINK_DEPTH_MAX)?;
    keys::check(text, Twice::LastCounts)?;
    Ok(serde_json::from_slice(text)?)
}

/// Writes JSON for the disk, if it can be read from there again.
///
/// # Errors
/// [`JsonError::TooDeep`] when `value` has levels that serde_json would not read; [`JsonError::Wrong`] when it cannot be
/// written at all.
pub fn to_stored<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JsonError> {
    /// serde_json's reader counts down from 128 and refuses at 0.
    const READABLE_MAX: usize = 127;
    let text = serde_json::to_vec(value)?;
    check_text(&text, READABLE_MAX)?;
    Ok(text)
}

/// Checks the nesting of a text without reading it.
///
/// # Errors
/// [`JsonError::TooDeep`].
pub fn check_text(text: &[u8], max: usize) -> Result<(), JsonError> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return Err(JsonError::TooDeep { max });
                }
            }
            // A bracket too many is left to serde, which says where it is.
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                // To the quote that ends the string; a string that does not end is left to serde.
                while let Some(inside) = text.get(at).filter(|inside| **inside != b'"') {
                    at += if *inside == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Levels of objects and arrays in a value; 0 for a plain one. Uses no stack.
pub fn depth(value: &Value) -> usize {
    let (mut deepest, mut rest) = (0, vec![(value, 1)]);
    while let Some((value, level)) = rest.pop() {
        match value {
            Value::Object(members) => rest.extend(members.values().map(|inner| (inner, level + 1))),
            Value::Array(items) => rest.extend(items.iter().map(|inner| (inner, level + 1))),
            _ => continue,
        }
        deepest = deepest.max(level);
    }
    deepest
}

/// Levels of an object's members, counted with the object itself.
pub fn depth_of_members(members: &Map<String, Value>) -> usize {
    1 + members.values().map(depth).max().unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `levels` arrays and objects in turn, innermost a number.
    pub(crate) fn nested(levels: usize) -> String {
        let open: String =
            (0..levels).map(|level| if level % 2 == 0 { "[" } else { "{\"]}\\\"\":" }).collect();
        let close: String = (0..levels).rev().map(|level| if level % 2 == 0 { "]" } else { "}" }).collect();
        format!("{open}1{close}")
    }

    #[test]
    fn nesting_is_accepted_up_to_each_limit_and_refused_beyond_it_on_a_small_stack() {
        let run = || {
            for levels in (0..300).chain([1_000, 200_000]) {
                let text = nested(levels);
                let is_read = from_outside::<Value>(text.as_bytes()).is_ok();
                assert_eq!(is_read, levels <= DEPTH_MAX, "{levels}");
                assert_eq!(from_link::<Value>(text.as_bytes()).is_ok(), levels <= LINK_DEPTH_MAX, "{levels}");
                if let Ok(value) = serde_json::from_str::<Value>(&text) {
                    assert_eq!(depth(&value), levels);
                }
            }
        };
        std::thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn what_is_written_for_the_disk_is_read_from_it_at_every_depth_around_the_readers_limit() {
        let mut value = Value::from(1);
        for levels in 1..140 {
            value = Value::Array(vec![value]);
            let is_readable = |text: &Vec<u8>| serde_json::from_slice::<Value>(text).is_ok();
            assert_eq!(to_stored(&value).is_ok_and(|text| is_readable(&text)), levels <= 127, "{levels}");
        }
    }

    #[test]
    fn the_limits_leave_space_for_what_wrappers_add() {
        // The widest: a journal entry, an answer, its payload; a manifest's section in a deployment.
        const { assert!(DEPTH_MAX + 8 <= LINK_DEPTH_MAX && LINK_DEPTH_MAX + 16 <= 127) }
    }

    pub(super) fn text() -> impl Strategy<Value = String> {
        let plain = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        plain
            .prop_recursive(12, 64, 3, |inner| {
                prop_oneof![
                    proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                    proptest::collection::btree_map(".*", inner, 0..3)
                        .prop_map(|members| Value::Object(members.into_iter().collect())),
                ]
            })
            .prop_map(|value| value.to_string())
    }

    proptest! {
        #[test]
        fn the_scan_of_a_text_and_of_its_value_agree(text in text(), max in 0..14_usize) {
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(check_text(text.as_bytes(), max).is_ok(), depth(&value) <= max);
        }

        #[test]
        fn what_is_read_is_written_again_as_the_same_document(text in text()) {
            let read: Result<Value, JsonError> = from_outside(text.as_bytes());
            match read {
                Ok(read) => {
                    let again: Value = serde_json::from_slice(&to_stored(&read).unwrap()).unwrap();
                    prop_assert_eq!(&again, &read);
                    prop_assert_eq!(read.to_string(), text);
                }
                Err(JsonError::TooDeep { .. }) => prop_assert!(depth(&serde_json::from_str(&text).unwrap()) > DEPTH_MAX),
                Err(other) => prop_assert!(false, "{}: {}", text, other),
            }
        }

        #[test]
        fn any_bytes_are_scanned_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_text(&bytes, 3);
            let _ = check_outside(&bytes, Twice::Refused);
        }
    }
}
