//! Values to bytes, each in its shortest encoding.

use bytes::{BufMut as _, BytesMut};

use super::format_code as code;

pub(super) fn null(out: &mut BytesMut) {
    out.put_u8(code::NULL);
}

pub(super) fn boolean(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { code::BOOLEAN_TRUE } else { code::BOOLEAN_FALSE });
}

pub(super) fn uint(out: &mut BytesMut, value: u32) {
    match (value, u8::try_from(value)) {
        (0, _) => out.put_u8(code::UINT_0),
        (_, Ok(small)) => out.extend_from_slice(&[code::UINT_SMALL, small]),
        _ => {
            out.put_u8(code::UINT);
            out.put_u32(value);
        }
    }
}

pub(super) fn ulong(out: &mut BytesMut, value: u64) {
    match (value, u8::try_from(value)) {
        (0, _) => out.put_u8(code::ULONG_0),
        (_, Ok(small)) => out.extend_from_slice(&[code::ULONG_SMALL, small]),
        _ => {
            out.put_u8(code::ULONG);
            out.put_u64(value);
        }
    }
}

pub(super) fn int(out: &mut BytesMut, value: i32) {
    if let Ok(small) = i8::try_from(value) {
        out.put_u8(code::INT_SMALL);
        out.put_i8(small);
    } else {
        out.put_u8(code::INT);
        out.put_i32(value);
    }
}

pub(super) fn long(out: &mut BytesMut, value: i64) {
    if let Ok(small) = i8::try_from(value) {
        out.put_u8(code::LONG_SMALL);
        out.put_i8(small);
    } else {
        out.put_u8(code::LONG);
        out.put_i64(value);
    }
}

pub(super) fn binary(out: &mut BytesMut, bytes: &[u8]) {
    variable(out, code::BINARY_8, code::BINARY_32, bytes);
}

pub(super) fn string(out: &mut BytesMut, text: &str) {
    variable(out, code::STRING_8, code::STRING_32, text.as_bytes());
}

pub(super) fn symbol(out: &mut BytesMut, text: &str) {
    variable(out, code::SYMBOL_8, code::SYMBOL_32, text.as_bytes());
}

fn variable(out: &mut BytesMut, narrow: u8, wide: u8, bytes: &[u8]) {
    out.reserve(5 + bytes.len());
    if let Ok(length) = u8::try_from(bytes.len()) {
        out.extend_from_slice(&[narrow, length]);
    } else {
        out.put_u8(wide);
        out.put_u32(length(bytes.len()));
    }
    out.extend_from_slice(bytes);
}

/// A length as it is written in the wide encodings.
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the caller bounds messages well below 4 GiB")
}

/// Writes a list, map or array, whose size is known only when its elements are written. `elements` returns their count.
pub(super) fn compound(
    out: &mut BytesMut,
    narrow: u8,
    wide: u8,
    elements: impl FnOnce(&mut BytesMut) -> usize,
) {
    let start = out.len();
    // Most fit into the narrow encoding; what does not is moved by the difference.
    out.extend_from_slice(&[narrow, 0, 0]);
    let count = elements(out);
    let bytes = out.len() - start - 3;
    if let (Ok(size), Ok(count)) = (u8::try_from(bytes + 1), u8::try_from(count)) {
        out[start + 1] = size;
        out[start + 2] = count;
        return;
    }
    out.put_bytes(0, 6);
    out.copy_within(start + 3..start + 3 + bytes, start + 9);
    out[start] = wide;
    out[start + 1..start + 5].copy_from_slice(&length(bytes + 4).to_be_bytes());
    out[start + 5..start + 9].copy_from_slice(&length(count).to_be_bytes());
}
