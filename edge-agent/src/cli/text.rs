//! Parts of texts that several commands print.

use edge_hub::terminal::{Output, Tone};

pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) fn or_dash(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("-")
}

/// A line with its first word in the colour of a tone.
pub(super) fn first_word(output: Output, tone: Tone, line: &str) -> String {
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    format!("{}{}", output.toned(tone, &line[..end]), &line[end..])
}
