//! Reads a value of any type.

use bytes::Bytes;

use super::error::DecodeError;
use super::format_code as code;
use super::reader::Reader;
use super::symbol::Symbol;
use super::value::{Array, Described, Map, Timestamp, Value};

pub(super) fn value(reader: &mut Reader) -> Result<Value, DecodeError> {
    let code = reader.format_code()?;
    value_of(reader, code)
}

/// What follows a format code. Calls itself at most once for each level that the reader's limits allow.
pub(super) fn value_of(reader: &mut Reader, code: u8) -> Result<Value, DecodeError> {
    match code {
        code::DESCRIBED => reader.nested(|reader| {
            let descriptor = value(reader)?;
            let value = value(reader)?;
            Ok(Value::Described(Box::new(Described { descriptor, value })))
        }),
        code::LIST_0 => Ok(Value::List(Vec::new())),
        code::LIST_8 | code::LIST_32 => {
            let (size, count) = size_and_count(reader, code == code::LIST_32)?;
            reader.nested(|reader| reader.sized(size, |reader| list(reader, count))).map(Value::List)
        }
        code::MAP_8 | code::MAP_32 => map_of(reader, code).map(Value::Map),
        code::ARRAY_8 | code::ARRAY_32 => array_of(reader, code).map(Value::Array),
        _ => scalar(reader, code),
    }
}

/// The size of what follows the count, and the count.
pub(super) fn size_and_count(reader: &mut Reader, is_wide: bool) -> Result<(usize, u32), DecodeError> {
    let (size, count, count_bytes) = if is_wide {
        (reader.u32()?, reader.u32()?, 4)
    } else {
        (u32::from(reader.u8()?), u32::from(reader.u8()?), 1)
    };
    let size = (size as usize).checked_sub(count_bytes);
    Ok((size.ok_or(DecodeError::Malformed("a size that does not cover its count"))?, count))
}

// Nothing is reserved for `count`, here and below: the vectors grow with what is really there, and a value costs a byte at least or
// counts against the limit.
fn list(reader: &mut Reader, count: u32) -> Result<Vec<Value>, DecodeError> {
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(value(reader)?);
    }
    Ok(values)
}

pub(super) fn map_of(reader: &mut Reader, code: u8) -> Result<Map, DecodeError> {
    if !matches!(code, code::MAP_8 | code::MAP_32) {
        return Err(DecodeError::Type { expected: "map", code });
    }
    let (size, count) = size_and_count(reader, code == code::MAP_32)?;
    if count % 2 != 0 {
        return Err(DecodeError::Malformed("a map with a key that has no value"));
    }
    let pairs = |reader: &mut Reader| {
        let mut pairs = Vec::new();
        for _ in 0..count / 2 {
            pairs.push((value(reader)?, value(reader)?));
        }
        Ok(Map(pairs))
    };
    reader.nested(|reader| reader.sized(size, pairs))
}

pub(super) fn array_of(reader: &mut Reader, code: u8) -> Result<Array, DecodeError> {
    if !matches!(code, code::ARRAY_8 | code::ARRAY_32) {
        return Err(DecodeError::Type { expected: "array", code });
    }
    let (size, count) = size_and_count(reader, code == code::ARRAY_32)?;
    reader.nested(|reader| reader.sized(size, |reader| array(reader, count)))
}

fn array(reader: &mut Reader, count: u32) -> Result<Array, DecodeError> {
    let (descriptor, element) = match reader.u8()? {
        code::DESCRIBED => (Some(Box::new(value(reader)?)), reader.u8()?),
        element => (None, element),
    };
    let Some(wide) = wide_format_code(element) else { return Err(DecodeError::FormatCode(element)) };
    let mut elements = Vec::new();
    for _ in 0..count {
        // An element may have no bytes at all, so that the count alone bounds nothing.
        reader.count_value()?;
        elements.push(value_of(reader, element)?);
    }
    Ok(Array::new(descriptor, wide, elements))
}

/// The format code that [`Array`] keeps for its elements. `None` for codes that are not defined, and for a second descriptor inside
/// the first: the grammar allows it, and nothing uses it.
fn wide_format_code(element: u8) -> Option<u8> {
    Some(match element {
        code::BOOLEAN_TRUE | code::BOOLEAN_FALSE => code::BOOLEAN,
        code::UINT_0 | code::UINT_SMALL => code::UINT,
        code::ULONG_0 | code::ULONG_SMALL => code::ULONG,
        code::INT_SMALL => code::INT,
        code::LONG_SMALL => code::LONG,
        code::BINARY_8 => code::BINARY_32,
        code::STRING_8 => code::STRING_32,
        code::SYMBOL_8 => code::SYMBOL_32,
        code::LIST_0 | code::LIST_8 => code::LIST_32,
        code::MAP_8 => code::MAP_32,
        code::ARRAY_8 => code::ARRAY_32,
        code::NULL | code::UBYTE | code::BYTE | code::BOOLEAN | code::USHORT | code::SHORT => element,
        code::UINT | code::INT | code::FLOAT | code::CHAR | code::DECIMAL_32 => element,
        code::ULONG | code::LONG | code::DOUBLE | code::TIMESTAMP | code::DECIMAL_64 => element,
        code::DECIMAL_128 | code::UUID | code::BINARY_32 | code::STRING_32 | code::SYMBOL_32 => element,
        code::LIST_32 | code::MAP_32 | code::ARRAY_32 => element,
        _ => return None,
    })
}

/// A value without others inside.
fn scalar(reader: &mut Reader, code: u8) -> Result<Value, DecodeError> {
    Ok(match code {
        code::NULL => Value::Null,
        code::BOOLEAN_TRUE | code::BOOLEAN_FALSE | code::BOOLEAN => Value::Boolean(boolean(reader, code)?),
        code::UBYTE => Value::Ubyte(reader.u8()?),
        code::USHORT => Value::Ushort(u16::from_be_bytes(reader.array()?)),
        code::UINT_0 | code::UINT_SMALL | code::UINT => Value::Uint(uint(reader, code)?),
        code::ULONG_0 | code::ULONG_SMALL | code::ULONG => Value::Ulong(ulong(reader, code)?),
        code::BYTE => Value::Byte(i8::from_be_bytes(reader.array()?)),
        code::SHORT => Value::Short(i16::from_be_bytes(reader.array()?)),
        code::INT_SMALL => Value::Int(i8::from_be_bytes(reader.array()?).into()),
        code::INT => Value::Int(i32::from_be_bytes(reader.array()?)),
        code::LONG_SMALL => Value::Long(i8::from_be_bytes(reader.array()?).into()),
        code::LONG => Value::Long(i64::from_be_bytes(reader.array()?)),
        code::FLOAT => Value::Float(f32::from_be_bytes(reader.array()?)),
        code::DOUBLE => Value::Double(f64::from_be_bytes(reader.array()?)),
        code::DECIMAL_32 => Value::Decimal32(reader.array()?),
        code::DECIMAL_64 => Value::Decimal64(reader.array()?),
        code::DECIMAL_128 => Value::Decimal128(reader.array()?),
        code::CHAR => {
            let scalar = char::from_u32(reader.u32()?);
            Value::Char(scalar.ok_or(DecodeError::Malformed("a char that is not of Unicode"))?)
        }
        code::TIMESTAMP => Value::Timestamp(Timestamp(i64::from_be_bytes(reader.array()?))),
        code::UUID => Value::Uuid(reader.array()?),
        code::BINARY_8 | code::BINARY_32 => Value::Binary(binary(reader, code)?),
        code::STRING_8 | code::STRING_32 => Value::String(string(reader, code)?),
        code::SYMBOL_8 | code::SYMBOL_32 => Value::Symbol(symbol(reader, code)?),
        _ => return Err(DecodeError::FormatCode(code)),
    })
}

pub(super) fn boolean(reader: &mut Reader, code: u8) -> Result<bool, DecodeError> {
    match code {
        code::BOOLEAN_TRUE => Ok(true),
        code::BOOLEAN_FALSE => Ok(false),
        code::BOOLEAN => match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed("a boolean that is neither 0 nor 1")),
        },
        _ => Err(DecodeError::Type { expected: "boolean", code }),
    }
}

pub(super) fn uint(reader: &mut Reader, code: u8) -> Result<u32, DecodeError> {
    match code {
        code::UINT_0 => Ok(0),
        code::UINT_SMALL => reader.u8().map(u32::from),
        code::UINT => reader.u32(),
        _ => Err(DecodeError::Type { expected: "uint", code }),
    }
}

pub(super) fn ulong(reader: &mut Reader, code: u8) -> Result<u64, DecodeError> {
    match code {
        code::ULONG_0 => Ok(0),
        code::ULONG_SMALL => reader.u8().map(u64::from),
        code::ULONG => reader.array().map(u64::from_be_bytes),
        _ => Err(DecodeError::Type { expected: "ulong", code }),
    }
}

pub(super) fn binary(reader: &mut Reader, code: u8) -> Result<Bytes, DecodeError> {
    match code {
        code::BINARY_8 | code::BINARY_32 => variable(reader, code == code::BINARY_32),
        _ => Err(DecodeError::Type { expected: "binary", code }),
    }
}

pub(super) fn string(reader: &mut Reader, code: u8) -> Result<String, DecodeError> {
    match code {
        code::STRING_8 | code::STRING_32 => text(reader, code == code::STRING_32),
        _ => Err(DecodeError::Type { expected: "string", code }),
    }
}

/// A symbol, or a string in its place: several clients write strings where the specification has symbols.
pub(super) fn symbol(reader: &mut Reader, code: u8) -> Result<Symbol, DecodeError> {
    let text = match code {
        code::SYMBOL_8 | code::STRING_8 => text(reader, false)?,
        code::SYMBOL_32 | code::STRING_32 => text(reader, true)?,
        _ => return Err(DecodeError::Type { expected: "symbol", code }),
    };
    Symbol::new(text).ok_or(DecodeError::Malformed("a symbol that is not ASCII"))
}

fn text(reader: &mut Reader, is_wide: bool) -> Result<String, DecodeError> {
    let bytes = variable(reader, is_wide)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::Malformed("a text that is not UTF-8"))?;
    Ok(text.to_owned())
}

fn variable(reader: &mut Reader, is_wide: bool) -> Result<Bytes, DecodeError> {
    let size = if is_wide { reader.u32()? as usize } else { reader.u8()?.into() };
    reader.take(size)
}
