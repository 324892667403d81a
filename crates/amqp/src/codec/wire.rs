//! Types that a field can have: how each is read behind its format code, and written.

use bytes::{Bytes, BytesMut};

use super::error::DecodeError;
use super::format_code as code;
use super::reader::Reader;
use super::symbol::Symbol;
use super::value::{Map, Timestamp, Value};
use super::{value_reader, value_writer, writer};

/// A type of a field. It is never read from a null: the field is absent then.
pub(super) trait Wire: Sized {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError>;
    fn write(&self, out: &mut BytesMut);
}

impl Wire for bool {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::boolean(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::boolean(out, *self);
    }
}

impl Wire for u8 {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match code {
            code::UBYTE => reader.u8(),
            _ => Err(DecodeError::Type { expected: "ubyte", code }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&[code::UBYTE, *self]);
    }
}

impl Wire for u16 {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match code {
            code::USHORT => reader.array().map(Self::from_be_bytes),
            _ => Err(DecodeError::Type { expected: "ushort", code }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        value_writer::value(out, &Value::Ushort(*self));
    }
}

impl Wire for u32 {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::uint(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::uint(out, *self);
    }
}

impl Wire for u64 {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::ulong(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::ulong(out, *self);
    }
}

impl Wire for Timestamp {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match code {
            code::TIMESTAMP => reader.array().map(i64::from_be_bytes).map(Self),
            _ => Err(DecodeError::Type { expected: "timestamp", code }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        value_writer::value(out, &Value::Timestamp(*self));
    }
}

impl Wire for String {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::string(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::string(out, self);
    }
}

impl Wire for Symbol {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::symbol(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::symbol(out, self.as_str());
    }
}

impl Wire for Bytes {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::binary(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        writer::binary(out, self);
    }
}

impl Wire for Map {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::map_of(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        value_writer::map(out, self);
    }
}

impl Wire for Value {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        value_reader::value_of(reader, code)
    }

    fn write(&self, out: &mut BytesMut) {
        value_writer::value(out, self);
    }
}

/// Several symbols in one field: one alone, or an array of them (section 1.4, `multiple`).
impl Wire for Vec<Symbol> {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        if !matches!(code, code::ARRAY_8 | code::ARRAY_32) {
            return Ok(vec![Symbol::read(reader, code)?]);
        }
        let array = value_reader::array_of(reader, code)?;
        let symbol = |element: &Value| match element {
            Value::Symbol(symbol) => Ok(symbol.clone()),
            other => Err(DecodeError::Type { expected: "symbol", code: other.wide_format_code() }),
        };
        array.elements().iter().map(symbol).collect()
    }

    fn write(&self, out: &mut BytesMut) {
        value_writer::symbols(out, self);
    }
}
