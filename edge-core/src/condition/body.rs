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
    let text = match encoding.map(str::to_ascii_lowercase).as_deref() {
        Some("utf-8") => return parse(body),
        Some("utf-16") => utf16(body),
        Some("utf-32") => utf32(body),
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
    };
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

/// Little endian unless a byte order mark says otherwise, as .NET has it.
fn utf16(body: &[u8]) -> Option<String> {
    let (body, is_big) = match body {
        [0xfe, 0xff, rest @ ..] => (rest, true),
        [0xff, 0xfe, rest @ ..] => (rest, false),
        all => (all, false),
    };
    let (pairs, []) = body.as_chunks::<2>() else { return None };
    let unit = |pair: &[u8; 2]| if is_big { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
    char::decode_utf16(pairs.iter().map(unit)).collect::<Result<String, _>>().ok()
}

fn utf32(body: &[u8]) -> Option<String> {
    let (body, is_big) = match body {
        [0, 0, 0xfe, 0xff, rest @ ..] => (rest, true),
        [0xff, 0xfe, 0, 0, rest @ ..] => (rest, false),
        all => (all, false),
    };
    let (units, []) = body.as_chunks::<4>() else { return None };
    let unit = |unit: &[u8; 4]| if is_big { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) };
    units.iter().map(|bytes| char::from_u32(unit(bytes))).collect()
}

/// A text that is short enough to be shown.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
