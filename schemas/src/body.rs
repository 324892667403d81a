//! Bodies of messages that are text: from the encoding that their sender used to UTF-8.

use std::borrow::Cow;

/// Decodes a body. A byte order mark says how it is written and is left out; without one, `encoding` (the message's content
/// encoding, without regard to case) does; without both it is UTF-8. UTF-16 and UTF-32 without a mark are little endian
/// unless the encoding ends in `be`, as .NET has it.
///
/// `None`: it is not text of that encoding.
pub fn decode<'b>(encoding: Option<&str>, body: &'b [u8]) -> Option<Cow<'b, str>> {
    let (form, rest) = match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => (Form::Utf8, rest),
        // Before UTF-16, whose little endian mark is the first half of this one; no JSON text begins with U+0000.
        [0xff, 0xfe, 0, 0, rest @ ..] => (Form::Utf32 { is_big: false }, rest),
        [0, 0, 0xfe, 0xff, rest @ ..] => (Form::Utf32 { is_big: true }, rest),
        [0xff, 0xfe, rest @ ..] => (Form::Utf16 { is_big: false }, rest),
        [0xfe, 0xff, rest @ ..] => (Form::Utf16 { is_big: true }, rest),
        all => (Form::named(encoding), all),
    };
    match form {
        Form::Utf8 => std::str::from_utf8(rest).ok().map(Cow::Borrowed),
        Form::Utf16 { is_big } => utf16(rest, is_big).map(Cow::Owned),
        Form::Utf32 { is_big } => utf32(rest, is_big).map(Cow::Owned),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Utf8,
    Utf16 { is_big: bool },
    Utf32 { is_big: bool },
}

impl Form {
    fn named(encoding: Option<&str>) -> Self {
        const NAMES: [(&str, Form); 6] = [
            ("utf-16", Form::Utf16 { is_big: false }),
            ("utf-16le", Form::Utf16 { is_big: false }),
            ("utf-16be", Form::Utf16 { is_big: true }),
            ("utf-32", Form::Utf32 { is_big: false }),
            ("utf-32le", Form::Utf32 { is_big: false }),
            ("utf-32be", Form::Utf32 { is_big: true }),
        ];
        let encoding = encoding.unwrap_or_default().trim();
        let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(encoding));
        known.map_or(Self::Utf8, |(_, form)| *form)
    }
}

fn utf16(body: &[u8], is_big: bool) -> Option<String> {
    let (pairs, []) = body.as_chunks::<2>() else { return None };
    let unit = |pair: &[u8; 2]| if is_big { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
    char::decode_utf16(pairs.iter().map(unit)).collect::<Result<String, _>>().ok()
}

fn utf32(body: &[u8], is_big: bool) -> Option<String> {
    let (units, []) = body.as_chunks::<4>() else { return None };
    let unit = |unit: &[u8; 4]| if is_big { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) };
    units.iter().map(|bytes| char::from_u32(unit(bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text in each form, with the content encoding that goes with it.
    pub(crate) fn forms(text: &str) -> Vec<(Option<&'static str>, Vec<u8>)> {
        let utf16 = |is_big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        let utf32 = |is_big: bool| -> Vec<u8> {
            let bytes = |c: char| if is_big { (c as u32).to_be_bytes() } else { (c as u32).to_le_bytes() };
            text.chars().flat_map(bytes).collect()
        };
        let with_bom = |bom: &[u8], rest: &[u8]| [bom, rest].concat();
        vec![
            (None, text.as_bytes().to_vec()),
            (Some("UTF-8"), text.as_bytes().to_vec()),
            (None, with_bom(b"\xef\xbb\xbf", text.as_bytes())),
            (Some("utf-16"), utf16(false)),
            (Some("UTF-16LE"), utf16(false)),
            (Some("utf-16be"), utf16(true)),
            (Some("utf-8"), with_bom(b"\xff\xfe", &utf16(false))),
            (None, with_bom(b"\xfe\xff", &utf16(true))),
            (Some("utf-32"), utf32(false)),
            (Some("utf-32BE"), utf32(true)),
            (None, with_bom(b"\xff\xfe\0\0", &utf32(false))),
            (None, with_bom(b"\0\0\xfe\xff", &utf32(true))),
        ]
    }

    proptest! {
        #[test]
        fn a_text_is_read_from_every_encoding_and_byte_order_mark(text in "[{\\[\"a-zäß€😀:,0-9 ]{1,40}") {
            for (encoding, body) in forms(&text) {
                let decoded = decode(encoding, &body);
                prop_assert_eq!(decoded.as_deref(), Some(text.as_str()), "{:?}", encoding);
            }
        }

        #[test]
        fn any_bytes_are_text_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for encoding in [None, Some("utf-16"), Some("utf-32be"), Some("latin-1")] {
                let _ = decode(encoding, &bytes);
            }
        }
    }
}
