//! The mark that central writes in place of a secret for those who may only read, and the search for it in what is written back.
//!
//! A document that holds the mark was read by a viewer. Whoever applies it destroys the secrets that the mark stands for, so
//! every API that takes documents refuses it: central's API, and manifests and desired sections on a gateway.

use serde_json::{Map, Value};

/// Stands for a secret. It has no characters that JSON encoders must escape.
pub const REDACTED: &str = "***redacted***";

/// JSON in a text in JSON in a text is searched this deep, as deep as central redacts it.
const TEXTS_MAX: u8 = 4;

/// Path of the first text or name that holds [`REDACTED`], its parts joined with dots and empty for the value itself; `None` when
/// there is none. JSON inside of texts is searched, and `createOptions` in parts as the text that the parts make.
///
/// The document must have a bounded depth: [`crate::json`].
pub fn find_redacted(value: &Value) -> Option<String> {
    find(value, 0)
}

/// As [`find_redacted`], in the members of an object.
pub fn find_redacted_in(members: &Map<String, Value>) -> Option<String> {
    find_in(members, 0)
}

fn find(value: &Value, texts: u8) -> Option<String> {
    match value {
        Value::String(text) => has_redacted(text, texts).then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(at, item)| below(&at.to_string(), item, texts))
        }
        Value::Object(members) => find_in(members, texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn find_in(members: &Map<String, Value>, texts: u8) -> Option<String> {
    let found = members.iter().find_map(|(name, value)| {
        if name.contains(REDACTED) { Some(name.clone()) } else { below(name, value, texts) }
    });
    found.or_else(|| find_in_parts(members, texts))
}

fn below(name: &str, value: &Value, texts: u8) -> Option<String> {
    let below = find(value, texts)?;
    Some(if below.is_empty() { name.to_owned() } else { format!("{name}.{below}") })
}

fn has_redacted(text: &str, texts: u8) -> bool {
    if text.contains(REDACTED) {
        return true;
    }
    // Encoders may escape any character, and each text in a text escapes once more.
    let may_hide_it = text.contains("\\u") && texts < TEXTS_MAX;
    let inner = may_hide_it.then(|| crate::json::from_outside::<Value>(text.as_bytes()).ok()).flatten();
    inner.is_some_and(|inner| find(&inner, texts + 1).is_some())
}

/// Tools cut long create options at 512 bytes, wherever that is.
fn find_in_parts(members: &Map<String, Value>, texts: u8) -> Option<String> {
    let mut parts: Vec<(&str, String, &String)> = Vec::new();
    for (name, value) in members {
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        let last = last.to_ascii_lowercase();
        let is_part =
            last.strip_prefix("createoptions").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if let (true, Value::String(text)) = (is_part, value) {
            parts.push((path, last, text));
        }
    }
    // The members of an object have no order, and the parts are numbered.
    parts.sort();
    parts.chunk_by(|a, b| a.0 == b.0).find_map(|parts| {
        let whole: String = parts.iter().map(|(_, _, text)| text.as_str()).collect();
        let (path, ..) = parts[0];
        let field =
            if path.is_empty() { "createOptions".to_owned() } else { format!("{path}.createOptions") };
        has_redacted(&whole, texts).then_some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_path_of_the_redaction_is_reported_wherever_it_is() {
        let redacted = json!({"a": [{"b": {"c": format!("x {REDACTED}")}}]});
        assert_eq!(find_redacted(&redacted).as_deref(), Some("a.0.b.c"));
        assert_eq!(find_redacted(&json!({ REDACTED: 1 })).as_deref(), Some(REDACTED));
        assert_eq!(find_redacted(&json!(REDACTED)).as_deref(), Some(""));
        assert_eq!(find_redacted(&json!({"a": ["redacted", "*** redacted ***"]})), None);
    }

    proptest! {
        /// Text in text in text, escaped in any way, and cut into parts anywhere.
        #[test]
        fn create_options_hide_no_redaction_however_they_are_written(
            texts in 0u8..3, escaped in any::<bool>(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
            prefix in "[a-z]{0,40}",
        ) {
            let mut text = json!({"Env": [format!("{prefix}={REDACTED}")]}).to_string();
            if escaped {
                text = text.replace('*', "\\u002a");
            }
            for _ in 0..texts {
                text = json!({"Labels": {"x": text}}).to_string();
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut settings = Map::new();
            for (n, cut) in cuts.windows(2).enumerate() {
                let name = if n == 0 { "createOptions".to_owned() } else { format!("createOptions{n:02}") };
                settings.insert(name, text[cut[0]..cut[1]].into());
            }
            let found = find_redacted(&json!({"settings": settings}));
            prop_assert!(found.as_deref().is_some_and(|path| path.starts_with("settings.createOptions")), "{found:?}");
        }
    }
}
