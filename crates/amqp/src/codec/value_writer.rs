//! Writes a value of any type.

use bytes::{BufMut as _, BytesMut};

use super::format_code as code;
use super::symbol::Symbol;
use super::value::{Array, Map, Timestamp, Value};
use super::writer;

/// Calls itself once for each level of the value. What was read has as many as the limits of reading allow.
pub(super) fn value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => writer::null(out),
        Value::Boolean(value) => writer::boolean(out, *value),
        Value::Uint(value) => writer::uint(out, *value),
        Value::Ulong(value) => writer::ulong(out, *value),
        Value::Int(value) => writer::int(out, *value),
        Value::Long(value) => writer::long(out, *value),
        Value::Binary(bytes) => writer::binary(out, bytes),
        Value::String(text) => writer::string(out, text),
        Value::Symbol(symbol) => writer::symbol(out, symbol.as_str()),
        Value::List(values) => list(out, values),
        Value::Map(pairs) => map(out, pairs),
        Value::Array(elements) => array(out, elements),
        Value::Described(described) => {
            out.put_u8(code::DESCRIBED);
            self::value(out, &described.descriptor);
            self::value(out, &described.value);
        }
        Value::Ubyte(_) | Value::Ushort(_) | Value::Byte(_) | Value::Short(_) | Value::Float(_) => {
            fixed(out, value);
        }
        Value::Double(_) | Value::Decimal32(_) | Value::Decimal64(_) | Value::Decimal128(_) => {
            fixed(out, value);
        }
        Value::Char(_) | Value::Timestamp(_) | Value::Uuid(_) => fixed(out, value),
    }
}

/// A value of a type that has one encoding.
fn fixed(out: &mut BytesMut, value: &Value) {
    out.put_u8(value.wide_format_code());
    wide(out, value);
}

pub(super) fn list(out: &mut BytesMut, values: &[Value]) {
    if values.is_empty() {
        out.put_u8(code::LIST_0);
    } else {
        writer::compound(out, code::LIST_8, code::LIST_32, |out| list_elements(out, values));
    }
}

fn list_elements(out: &mut BytesMut, values: &[Value]) -> usize {
    values.iter().for_each(|element| value(out, element));
    values.len()
}

pub(super) fn map(out: &mut BytesMut, map: &Map) {
    writer::compound(out, code::MAP_8, code::MAP_32, |out| map_elements(out, map));
}

fn map_elements(out: &mut BytesMut, map: &Map) -> usize {
    for (key, element) in &map.0 {
        value(out, key);
        value(out, element);
    }
    2 * map.0.len()
}

fn array(out: &mut BytesMut, array: &Array) {
    writer::compound(out, code::ARRAY_8, code::ARRAY_32, |out| array_elements(out, array));
}

fn array_elements(out: &mut BytesMut, array: &Array) -> usize {
    if let Some(descriptor) = array.descriptor() {
        out.put_u8(code::DESCRIBED);
        value(out, descriptor);
    }
    out.put_u8(array.element_code());
    array.elements().iter().for_each(|element| wide(out, element));
    array.elements().len()
}

/// A value without its format code, in the widest encoding of its type, which the elements of an array share.
fn wide(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => {}
        Value::Boolean(value) => out.put_u8((*value).into()),
        Value::Ubyte(value) => out.put_u8(*value),
        Value::Ushort(value) => out.put_u16(*value),
        Value::Uint(value) => out.put_u32(*value),
        Value::Ulong(value) => out.put_u64(*value),
        Value::Byte(value) => out.put_i8(*value),
        Value::Short(value) => out.put_i16(*value),
        Value::Int(value) => out.put_i32(*value),
        Value::Long(value) | Value::Timestamp(Timestamp(value)) => out.put_i64(*value),
        Value::Float(value) => out.put_f32(*value),
        Value::Double(value) => out.put_f64(*value),
        Value::Decimal32(bytes) => out.extend_from_slice(bytes),
        Value::Decimal64(bytes) => out.extend_from_slice(bytes),
        Value::Decimal128(bytes) | Value::Uuid(bytes) => out.extend_from_slice(bytes),
        Value::Char(value) => out.put_u32((*value).into()),
        Value::Binary(bytes) => sized(out, |out| out.extend_from_slice(bytes)),
        Value::String(text) => sized(out, |out| out.extend_from_slice(text.as_bytes())),
        Value::Symbol(symbol) => sized(out, |out| out.extend_from_slice(symbol.as_str().as_bytes())),
        Value::List(values) => counted(out, |out| list_elements(out, values)),
        Value::Map(pairs) => counted(out, |out| map_elements(out, pairs)),
        Value::Array(array) => counted(out, |out| array_elements(out, array)),
        Value::Described(_) => unreachable!("an array keeps the descriptor of its elements apart from them"),
    }
}

/// Writes what `content` writes behind its size of four bytes.
fn sized(out: &mut BytesMut, content: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    content(out);
    let size = writer::length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes what `elements` writes behind its size and its count of four bytes each.
fn counted(out: &mut BytesMut, elements: impl FnOnce(&mut BytesMut) -> usize) {
    sized(out, |out| {
        let at = out.len();
        out.put_u32(0);
        let count = writer::length(elements(out));
        out[at..at + 4].copy_from_slice(&count.to_be_bytes());
    });
}

/// An array of symbols.
pub(super) fn symbols(out: &mut BytesMut, symbols: &[Symbol]) {
    let elements = |out: &mut BytesMut| {
        out.put_u8(code::SYMBOL_32);
        for symbol in symbols {
            sized(out, |out| out.extend_from_slice(symbol.as_str().as_bytes()));
        }
        symbols.len()
    };
    writer::compound(out, code::ARRAY_8, code::ARRAY_32, elements);
}
