//! What a change to a twin does: merge patches, differences between two versions, and the limits of a section.
//! Sources: RFC 7396 (JSON merge patch); IoT Hub device twin limits.

use schemas::twin::Section;
use serde_json::{Map, Value};

/// The largest section, in bytes of JSON (IoT Hub: 32 KB). Desired sections of `$edgeAgent` and `$edgeHub` are not
/// held to it: a manifest may be larger here.
pub const SECTION_BYTES_MAX: usize = 32 * 1024;
/// The deepest nesting (IoT Hub: 10).
pub const DEPTH_MAX: usize = 10;

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a JSON object.
    #[error("a twin patch must be a JSON object, found {0}")]
    NotAnObject(&'static str),
    /// A key that twins forbid.
    #[error("twin key `{0}`: found a dot, a dollar sign, a space or a control character")]
    Key(String),
    /// Nested too deep.
    #[error("twin value `{0}` is nested deeper than {DEPTH_MAX} levels")]
    TooDeep(String),
    /// Too large after the patch.
    #[error("the section would be {bytes} bytes; {SECTION_BYTES_MAX} are allowed")]
    TooLarge {
        /// After the patch.
        bytes: usize,
    },
}

/// Reads a patch as a client sends it.
///
/// # Errors
/// [`PatchError`] naming the key; `$version` and other system keys at the top are dropped as IoT Hub does.
pub fn parse_patch(payload: &[u8]) -> Result<Map<String, Value>, PatchError> {
    let patch = match serde_json::from_slice(payload) {
        Ok(Value::Object(patch)) => patch,
        Ok(Value::Null) => return Err(PatchError::NotAnObject("null")),
        Ok(Value::Array(_)) => return Err(PatchError::NotAnObject("an array")),
        Ok(_) => return Err(PatchError::NotAnObject("a plain value")),
        Err(_) => return Err(PatchError::NotAnObject("text that is not JSON")),
    };
    let patch: Map<String, Value> = patch.into_iter().filter(|(key, _)| !key.starts_with('$')).collect();
    check_keys(&patch, 1)?;
    Ok(patch)
}

fn check_keys(object: &Map<String, Value>, depth: usize) -> Result<(), PatchError> {
    for (key, value) in object {
        if key.is_empty() || key.contains(['.', '$', ' ']) || key.chars().any(char::is_control) {
            return Err(PatchError::Key(key.clone()));
        }
        if let Value::Object(inner) = value {
            if depth == DEPTH_MAX {
                return Err(PatchError::TooDeep(key.clone()));
            }
            check_keys(inner, depth + 1)?;
        }
    }
    Ok(())
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
        let mut section = Section::default();
        let large = object(json!({"a": "x".repeat(SECTION_BYTES_MAX)}));
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
