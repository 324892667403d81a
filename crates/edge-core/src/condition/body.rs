//! From the bytes of a message to the JSON that `$body` reads.

use std::borrow::Cow;

use serde_json::Value as Json;

/// Why `$body` finds no JSON in a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// What the condition is evaluated for has no body.
    #[error("there is no body")]
    Absent,
    #[error("the content type is `{found}`; $body needs application/json ($.ct)")]
    ContentType { found: String },
    #[error("the message has no content type; $body needs application/json ($.ct)")]
    NoContentType,
    #[error("the content encoding is `{found}`; $body needs utf-8, utf-16 or utf-32 ($.ce)")]
    ContentEncoding { found: String },
    #[error("the message has no content encoding; $body needs utf-8, utf-16 or utf-32 ($.ce)")]
    NoContentEncoding,
    /// The bytes are not text in the encoding that the message names.
    #[error("the body is not {encoding}")]
    Undecodable { encoding: String },
    #[error("the body is not JSON ({found})")]
    NotJson {
        /// What the parser found, with line and column.
        found: String,
    },
}

/// Reads a body that its properties call JSON: content type `application/json`, content encoding `utf-8`, `utf-16` or
/// `utf-32`, without regard to case (IoT Hub's rule; a body that does not say so is not looked into).
///
/// # Errors
/// [`BodyError`].
pub fn read(content_type: Option<&str>, encoding: Option<&str>, body: &[u8]) -> Result<Json, BodyError> {
    match content_type {
        Some(found) if found.eq_ignore_ascii_case("application/json") => {}
        Some(found) => {
            return Err(BodyError::ContentType { found: found.to_owned() });
        }
        None => return Err(BodyError::NoContentType),
    }
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        Some("utf-8") => return parse(body),
        Some("utf-16" | "utf-32") => {}
        Some(found) => return Err(BodyError::ContentEncoding { found: found.to_owned() }),
        None => return Err(BodyError::NoContentEncoding),
    }
    let text = schemas::body::decode(encoding, body);
    let text =
        text.ok_or_else(|| BodyError::Undecodable { encoding: encoding.unwrap_or_default().to_owned() })?;
    parse(text.as_bytes())
}

/// Reads a body whose sender cannot say what it is, as one on a free topic: UTF-8.
///
/// # Errors
/// [`BodyError`].
pub fn parse(body: &[u8]) -> Result<Json, BodyError> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    serde_json::from_slice(body).map_err(|error| BodyError::NotJson { found: error.to_string() })
}

/// A text that is short enough to be shown.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
