//! From the bytes of a message to the JSON that `$body` looks into.

use std::borrow::Cow;

use serde_json::Value as Json;

/// Reads a body that its properties call JSON: content type `application/json`, content encoding `utf-8`, `utf-16` or
/// `utf-32`, without regard to case (IoT Hub's rule; a body that does not say so is not looked into).
///
/// # Errors
/// Why it is not JSON, in words.
pub fn read(content_type: Option<&str>, encoding: Option<&str>, body: &[u8]) -> Result<Json, String> {
    match content_type {
        Some(found) if found.eq_ignore_ascii_case("application/json") => {}
        Some(found) => {
            return Err(format!("the content type is `{found}`; $body needs application/json ($.ct)"));
        }
        None => return Err("the message has no content type; $body needs application/json ($.ct)".to_owned()),
    }
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        Some("utf-8") => return parse(body),
        Some("utf-16" | "utf-32") => {}
        Some(found) => {
            return Err(format!(
                "the content encoding is `{found}`; $body needs utf-8, utf-16 or utf-32 ($.ce)"
            ));
        }
        None => {
            return Err(
                "the message has no content encoding; $body needs utf-8, utf-16 or utf-32 ($.ce)".to_owned()
            );
        }
    }
    let text = schemas::body::decode(encoding, body);
    let text = text.ok_or_else(|| format!("the body is not {}", encoding.unwrap_or_default()))?;
    parse(text.as_bytes())
}

/// Reads a body whose sender cannot say what it is, as one on a free topic: UTF-8.
///
/// # Errors
/// Why it is not JSON, in words.
pub fn parse(body: &[u8]) -> Result<Json, String> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON ({error})"))
}

/// A text that is short enough to be shown.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
