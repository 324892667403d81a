//! What a change to a twin does: merge patches, differences between two versions, and the limits of a section.
//! Sources: RFC 7396 (JSON merge patch); IoT Hub device twin limits.

use schemas::json::{self, JsonError};
use schemas::twin::Section;
use serde_json::{Map, Value};

/// The largest section, in bytes of JSON (IoT Hub: 32 KB). Desired sections of `$edgeAgent` and `$edgeHub` are not
/// held to it: a manifest may be larger here.
pub const SECTION_BYTES_MAX: usize = 32 * 1024;
/// The deepest nesting (IoT Hub: 10).
pub const DEPTH_MAX: usize = 10;
/// The longest key, in bytes of UTF-8 (IoT Hub: 1 KB).
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest text value, in bytes of UTF-8 (IoT Hub: 4 KB).
pub const TEXT_BYTES_MAX: usize = 4096;
/// Whole numbers lie between minus this and one less than this (IoT Hub: -2^52 to 2^52-1).
pub const INTEGER_MAX: i64 = 1 << 52;

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a JSON object.
    #[error("a twin patch must be a JSON object, found {0}")]
    NotAnObject(&'static str),
    /// A key that twins forbid.
    #[error(
        "twin key `{0}`: found a dot, a dollar sign, a number sign, a space or a control character, or nothing"
    )]
    Key(String),
    /// A key that is too long.
    #[error("twin key `{0}…`: found {1} bytes; {KEY_BYTES_MAX} are allowed")]
    KeyTooLong(String, usize),
    /// A text that is too long.
    #[error("twin value `{0}`: found a text of {1} bytes; {TEXT_BYTES_MAX} are allowed")]
    TextTooLong(String, usize),
    /// A whole number that not every program can hold.
    #[error("twin value `{0}`: found {1}; whole numbers go from -2^52 to 2^52-1")]
    Integer(String, String),
    /// `null` in a list: it deletes, and there is nothing to delete.
    #[error("twin value `{0}`: found null in an array")]
    NullInArray(String),
    /// A number or a key that would not be given back as it is written.
    #[error("a twin patch: {0}")]
    NotKept(String),
    /// `null` where the whole section is written.
    #[error("twin value `{0}`: found null; leave the key out, because the new section replaces the old one")]
    Null(String),
    #[error("twin value `{0}` is nested deeper than {DEPTH_MAX} levels")]
    TooDeep(String),
    /// Too large after the patch.
    #[error("the section would be {bytes} bytes; {SECTION_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
}

impl PatchError {
    /// The HTTP-like status of the refusal.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}

/// Reads a patch as a client sends it.
///
/// # Errors
/// [`PatchError`] naming the key. `$version` and `$metadata` at the top are left out: they are the twin's own, and come from those who
/// give back what they read.
pub fn parse_patch(payload: &[u8]) -> Result<Map<String, Value>, PatchError> {
    let patch = match json::from_outside(payload) {
        Ok(Value::Object(patch)) => patch,
        Ok(Value::Null) => return Err(PatchError::NotAnObject("null")),
        Ok(Value::Array(_)) => return Err(PatchError::NotAnObject("an array")),
        Ok(_) => return Err(PatchError::NotAnObject("a plain value")),
        Err(JsonError::TooDeep { .. }) => return Err(PatchError::NotAnObject("JSON nested too deep")),
        Err(error @ (JsonError::Number { .. } | JsonError::Key { .. })) => {
            return Err(PatchError::NotKept(error.to_string()));
        }
        Err(JsonError::Wrong(_)) => return Err(PatchError::NotAnObject("text that is not JSON")),
    };
    let own = ["$version", "$metadata"];
    let patch: Map<String, Value> =
        patch.into_iter().filter(|(key, _)| !own.contains(&key.as_str())).collect();
    check_keys(&patch, 1, false)?;
    Ok(patch)
}

/// Checks that a document without `null` is meant: where a whole section is written, `null` deletes nothing.
///
/// # Errors
/// [`PatchError::Null`] with the nearest key.
pub fn check_whole(section: &Map<String, Value>) -> Result<(), PatchError> {
    section.iter().try_for_each(|(key, value)| match value {
        Value::Null => Err(PatchError::Null(key.clone())),
        Value::Object(inner) => check_whole(inner),
        _ => Ok(()),
    })
}

fn check_keys(object: &Map<String, Value>, depth: usize, is_in_array: bool) -> Result<(), PatchError> {
    for (key, value) in object {
        if key.is_empty() || key.contains(['.', '$', ' ', '#']) || key.chars().any(char::is_control) {
            return Err(PatchError::Key(key.clone()));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(PatchError::KeyTooLong(key.chars().take(32).collect(), key.len()));
        }
        check_value(key, value, depth, is_in_array)?;
    }
    Ok(())
}

/// Checks a value at `depth` levels of nesting; `key` is the nearest, for the error.
fn check_value(key: &str, value: &Value, depth: usize, is_in_array: bool) -> Result<(), PatchError> {
    match value {
        // An array is replaced as a whole: nothing in it is merged, so that nothing in it can be deleted.
        Value::Null if is_in_array => Err(PatchError::NullInArray(key.to_owned())),
        Value::Object(_) | Value::Array(_) if depth == DEPTH_MAX => Err(PatchError::TooDeep(key.to_owned())),
        Value::Object(inner) => check_keys(inner, depth + 1, is_in_array),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(key, item, depth + 1, true)),
        Value::String(text) if text.len() > TEXT_BYTES_MAX => {
            Err(PatchError::TextTooLong(key.to_owned(), text.len()))
        }
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            if number.as_i64().is_some_and(|n| (-INTEGER_MAX..INTEGER_MAX).contains(&n)) {
                Ok(())
            } else {
                Err(PatchError::Integer(key.to_owned(), number.to_string()))
            }
        }
        _ => Ok(()),
    }
}

/// Applies a client's patch to a section: merged, version one higher.
///
/// # Errors
/// [`PatchError::TooLarge`]; the section is then as before.
pub fn patch(section: &mut Section, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let mut merged = section.properties.clone();
    merge(&mut merged, patch);
    let bytes = serde_json::to_vec(&merged).map_or(usize::MAX, |json| json.len());
    if bytes > SECTION_BYTES_MAX {
        return Err(PatchError::TooLarge { bytes });
    }
    section.properties = merged;
    section.version += 1;
    Ok(())
}

/// RFC 7396: objects merge, null deletes, everything else replaces.
pub fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                // Merged into an empty object and not copied: `null` in a new member deletes nothing and is left out (RFC 7396).
                let slot = target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The merge patch that turns `old` into `new`; empty when they are equal.
pub fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match (old.get(key), value) {
            (Some(before), _) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(key.clone(), Value::Object(difference(before, after)));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_merges_deletes_and_counts_the_version() {
        let mut section = Section { version: 4, properties: object(json!({"a": 1, "b": {"c": 1, "d": 2}})) };
        patch(&mut section, &object(json!({"a": null, "b": {"c": {"x": 1}}, "e": [1]}))).unwrap();
        assert_eq!(Value::Object(section.properties), json!({"b": {"c": {"x": 1}, "d": 2}, "e": [1]}));
        assert_eq!(section.version, 5);
    }

    #[test]
    fn a_patch_that_twins_do_not_allow_is_refused_by_its_key() {
        assert_eq!(parse_patch(b"[]"), Err(PatchError::NotAnObject("an array")));
        assert_eq!(parse_patch(b" "), Err(PatchError::NotAnObject("text that is not JSON")));
        assert_eq!(parse_patch(br#"{"a":{"b.c":1}}"#), Err(PatchError::Key("b.c".into())));
        assert_eq!(parse_patch(br#"{"$version":3,"a":1}"#), Ok(object(json!({"a": 1}))));
        let refused = |patch: Value| parse_patch(patch.to_string().as_bytes()).unwrap_err();
        let fits = |patch: Value| assert!(parse_patch(patch.to_string().as_bytes()).is_ok(), "{patch}");
        assert!(matches!(refused(json!({"k".repeat(1025): 1})), PatchError::KeyTooLong(_, 1025)));
        assert!(
            matches!(refused(json!({"a": {"b": "é".repeat(2049)}})), PatchError::TextTooLong(key, 4098) if key == "b")
        );
        assert_eq!(
            refused(json!({"a": 1_u64 << 52})),
            PatchError::Integer("a".into(), "4503599627370496".into())
        );
        assert_eq!(refused(json!({"a": u64::MAX})), PatchError::Integer("a".into(), u64::MAX.to_string()));
        assert_eq!(parse_patch(br#"{"$x":1}"#), Err(PatchError::Key("$x".into())));
        for (list, key) in [
            (json!([1, null]), "a"),
            (json!([{"b": null}]), "b"),
            (json!([[{"b": {"c": [null]}}]]), "c"),
            (json!([{"b": {"c": null}}]), "c"),
        ] {
            assert_eq!(refused(json!({"a": list})), PatchError::NullInArray(key.into()));
        }
        for number in ["12345678901234567890123", "1e-400", "3.14159265358979323846"] {
            let refused = parse_patch(format!("{{\"a\": [{{\"b\": {number}}}]}}").as_bytes());
            assert!(matches!(&refused, Err(PatchError::NotKept(why)) if why.contains(number)), "{refused:?}");
        }
        let whole = |section: Value| check_whole(&object(section));
        assert_eq!(whole(json!({"a": {"b": null}})), Err(PatchError::Null("b".into())));
        assert_eq!(whole(json!({"a": {"b": 1}})), Ok(()));
        fits(
            json!({"k".repeat(1024): ["é".repeat(2048), -(1_i64 << 52), (1_i64 << 52) - 1, 1e300], "gone": null}),
        );
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"n": inner}));
        fits(nested(10));
        assert_eq!(refused(nested(11)), PatchError::TooDeep("n".into()));
        let mut section = Section::default();
        let large = object(json!({"a": vec!["x".repeat(TEXT_BYTES_MAX); 8]}));
        assert!(matches!(patch(&mut section, &large), Err(PatchError::TooLarge { .. })));
        assert_eq!(section, Section::default());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..5i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
        })
    }

    fn section() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("[a-d]", value(), 0..4).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_difference_of_two_sections_turns_one_into_the_other(old in section(), new in section()) {
            let mut turned = old.clone();
            merge(&mut turned, &difference(&old, &new));
            prop_assert_eq!(&turned, &new);
            prop_assert!(difference(&new, &turned).is_empty());
        }
    }
}
