//! Parts of texts that several commands print.

use edge_hub::terminal::{Output, Tone};
use serde_json::Value;

pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A line with its first word in the colour of a tone.
pub(super) fn first_word(output: Output, tone: Tone, line: &str) -> String {
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    format!("{}{}", output.toned(tone, &line[..end]), &line[end..])
}
