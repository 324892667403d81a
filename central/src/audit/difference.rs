//! What a change changed: of two states of a document, the parts that differ.

use serde_json::{Map, Value};

/// Bytes of one text or list in a row.
const PART_BYTES_MAX: usize = 512;
/// Bytes of a whole document in a row.
const DOCUMENT_BYTES_MAX: usize = 8 * 1024;
/// Members that change with every change and say nothing.
const LEFT_OUT: [&str; 2] = ["etag", "$metadata"];

/// The parts of `before` and `after` that differ, as bounded JSON texts; `None` where there is nothing.
pub fn difference(before: Option<&Value>, after: Option<&Value>) -> (Option<String>, Option<String>) {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => differing(before, after),
        (before, after) => (before.cloned(), after.cloned()),
    };
    (before.and_then(bounded), after.and_then(bounded))
}

fn differing(before: &Value, after: &Value) -> (Option<Value>, Option<Value>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        let is_same = before == after;
        return (Some(before.clone()).filter(|_| !is_same), Some(after.clone()).filter(|_| !is_same));
    };
    let (mut gone, mut come) = (Map::new(), Map::new());
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names.filter(|name| !LEFT_OUT.contains(&name.as_str())) {
        let (was, is) = match (old.get(name), new.get(name)) {
            (Some(was), Some(is)) => differing(was, is),
            (was, is) => (was.cloned(), is.cloned()),
        };
        gone.extend(was.map(|was| (name.clone(), was)));
        come.extend(is.map(|is| (name.clone(), is)));
    }
    let object = |members: Map<String, Value>| (!members.is_empty()).then_some(Value::Object(members));
    (object(gone), object(come))
}

fn bounded(mut document: Value) -> Option<String> {
    if let Value::Object(members) = &mut document {
        members.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    }
    if document.is_null() || document.as_object().is_some_and(Map::is_empty) {
        return None;
    }
    let text = document.to_string();
    if text.len() <= PART_BYTES_MAX {
        return Some(text);
    }
    shorten(&mut document);
    let shortened = document.to_string();
    let is_short = shortened.len() <= DOCUMENT_BYTES_MAX;
    Some(if is_short { shortened } else { Value::String(in_place_of(text.len())).to_string() })
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(shorten),
        Value::String(text) if text.len() > PART_BYTES_MAX => *text = in_place_of(text.len()),
        Value::Array(_) => {
            let bytes = value.to_string().len();
            if bytes > PART_BYTES_MAX {
                *value = Value::String(in_place_of(bytes));
            }
        }
        _ => {}
    }
}

fn in_place_of(bytes: usize) -> String {
    format!("… {bytes} bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(before: Value, after: Value) -> (Value, Value) {
        let read =
            |text: Option<String>| text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        let (before, after) =
            difference(Some(&before).filter(|v| !v.is_null()), Some(&after).filter(|v| !v.is_null()));
        (read(before), read(after))
    }

    #[test]
    fn only_what_differs_is_kept_of_both_states() {
        assert_eq!(
            of(
                json!({"id": "d", "etag": "1", "enabled": true, "deep": {"a": 1, "b": [1]}, "gone": 1}),
                json!({"id": "d", "etag": "2", "enabled": false, "deep": {"a": 1, "b": [2]}, "new": null})
            ),
            (
                json!({"enabled": true, "deep": {"b": [1]}, "gone": 1}),
                json!({"enabled": false, "deep": {"b": [2]}, "new": null})
            )
        );
        assert_eq!(
            of(json!({"a": 1, "etag": "1"}), json!({"a": 1, "etag": "2"})),
            (Value::Null, Value::Null)
        );
        assert_eq!(of(Value::Null, json!({"a": 1, "etag": "1"})), (Value::Null, json!({"a": 1})));
        assert_eq!(of(json!({"a": 1, "etag": "1"}), Value::Null), (json!({"a": 1}), Value::Null));
    }

    #[test]
    fn what_is_long_is_named_by_its_length() {
        let long = json!({"a": "x".repeat(5000), "b": vec![1; 1000], "c": 1});
        assert_eq!(of(Value::Null, long).1, json!({"a": "… 5000 bytes", "b": "… 2001 bytes", "c": 1}));
        let wide: Map<String, Value> = (0..2000).map(|n| (format!("name-{n}"), n.into())).collect();
        assert!(of(Value::Null, Value::Object(wide)).1.as_str().unwrap().ends_with("bytes"));
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn rows_are_bounded_and_nothing_differs_between_a_document_and_itself(
            before in documents(), after in documents(),
        ) {
            prop_assert_eq!(difference(Some(&before), Some(&before)), (None, None));
            for text in <[_; 2]>::from(difference(Some(&before), Some(&after))).into_iter().flatten() {
                prop_assert!(text.len() <= DOCUMENT_BYTES_MAX);
            }
        }
    }
}
