//! What describes a composite value: its number, or its name (section 1.5).

use super::error::DecodeError;
use super::format_code as code;
use super::reader::Reader;
use super::value_reader;

/// Names of the numbers. Clients send numbers; the specification allows either.
const NAMES: [(u64, &str); 32] = [
    (0x10, "amqp:open:list"),
    (0x11, "amqp:begin:list"),
    (0x12, "amqp:attach:list"),
    (0x13, "amqp:flow:list"),
    (0x14, "amqp:transfer:list"),
    (0x15, "amqp:disposition:list"),
    (0x16, "amqp:detach:list"),
    (0x17, "amqp:end:list"),
    (0x18, "amqp:close:list"),
    (0x1d, "amqp:error:list"),
    (0x23, "amqp:received:list"),
    (0x24, "amqp:accepted:list"),
    (0x25, "amqp:rejected:list"),
    (0x26, "amqp:released:list"),
    (0x27, "amqp:modified:list"),
    (0x28, "amqp:source:list"),
    (0x29, "amqp:target:list"),
    (0x30, "amqp:coordinator:list"),
    (0x40, "amqp:sasl-mechanisms:list"),
    (0x41, "amqp:sasl-init:list"),
    (0x42, "amqp:sasl-challenge:list"),
    (0x43, "amqp:sasl-response:list"),
    (0x44, "amqp:sasl-outcome:list"),
    (0x70, "amqp:header:list"),
    (0x71, "amqp:delivery-annotations:map"),
    (0x72, "amqp:message-annotations:map"),
    (0x73, "amqp:properties:list"),
    (0x74, "amqp:application-properties:map"),
    (0x75, "amqp:data:binary"),
    (0x76, "amqp:amqp-sequence:list"),
    (0x77, "amqp:amqp-value:*"),
    (0x78, "amqp:footer:map"),
];

/// Reads the constructor of a described value whose type is one of several, `expected` by name.
pub(super) fn read(reader: &mut Reader, expected: &'static str) -> Result<u64, DecodeError> {
    let code = reader.format_code()?;
    read_of(reader, code, expected)
}

/// As [`read`], behind the format code.
pub(super) fn read_of(reader: &mut Reader, code: u8, expected: &'static str) -> Result<u64, DecodeError> {
    if code != code::DESCRIBED {
        return Err(DecodeError::Type { expected, code });
    }
    match reader.format_code()? {
        code @ (code::SYMBOL_8 | code::SYMBOL_32) => {
            let name = value_reader::symbol(reader, code)?;
            let known = NAMES.iter().find(|(_, known)| name == *known);
            let unknown = || DecodeError::Descriptor { expected, found: shortened(name.as_str()) };
            known.map(|(number, _)| *number).ok_or_else(unknown)
        }
        code => value_reader::ulong(reader, code),
    }
}

/// Reads the constructor of a described value of one type, behind the format code.
pub(super) fn expect(
    reader: &mut Reader,
    code: u8,
    descriptor: u64,
    expected: &'static str,
) -> Result<(), DecodeError> {
    let found = read_of(reader, code, expected)?;
    if found == descriptor { Ok(()) } else { Err(unexpected(found, expected)) }
}

pub(super) fn unexpected(found: u64, expected: &'static str) -> DecodeError {
    DecodeError::Descriptor { expected, found: format!("{found:#x}") }
}

/// A peer's text goes into logs, and can be as long as a frame.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}
