//! Composite types: a described list whose places are fields (section 1.4). The macro makes a type, its reader and its writer of one
//! table, so that a field cannot be read in one place and written in another.

use bytes::{BufMut as _, BytesMut};

use super::error::DecodeError;
use super::format_code as code;
use super::reader::Reader;
use super::value_reader;
use super::wire::Wire;
use super::writer;

/// The fields of a composite value, from the first to the last. Those behind the end of the list are absent, as null is.
pub(super) struct FieldsIn<'r> {
    reader: &'r mut Reader,
    composite: &'static str,
    left: u32,
}

impl FieldsIn<'_> {
    pub(super) fn optional<T: Wire>(&mut self, field: &'static str) -> Result<Option<T>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let read = match self.reader.format_code() {
            Ok(code::NULL) => return Ok(None),
            Ok(code) => T::read(self.reader, code),
            Err(error) => Err(error),
        };
        match read {
            Ok(value) => Ok(Some(value)),
            // Whoever sent too much is not helped by the name of a field.
            Err(error @ (DecodeError::TooDeep(_) | DecodeError::TooManyValues(_))) => Err(error),
            Err(source) => {
                Err(DecodeError::Field { composite: self.composite, field, source: Box::new(source) })
            }
        }
    }

    pub(super) fn required<T: Wire>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        self.optional(field)?.ok_or(DecodeError::Missing { composite: self.composite, field })
    }
}

/// Reads the list of a composite value whose descriptor is read.
pub(super) fn read<T>(
    reader: &mut Reader,
    composite: &'static str,
    fields: impl FnOnce(&mut FieldsIn<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let (size, count) = match reader.format_code()? {
        code::LIST_0 => (0, 0),
        code @ (code::LIST_8 | code::LIST_32) => value_reader::size_and_count(reader, code == code::LIST_32)?,
        code => return Err(DecodeError::Type { expected: "list", code }),
    };
    let all = |reader: &mut Reader| {
        let mut fields_in = FieldsIn { reader, composite, left: count };
        let value = fields(&mut fields_in)?;
        if fields_in.left > 0 {
            return Err(DecodeError::Malformed("a list with more fields than its type has"));
        }
        Ok(value)
    };
    reader.nested(|reader| reader.sized(size, all))
}

/// The fields of a composite value on their way out. Absent ones at the end are left out.
pub(super) struct FieldsOut<'o> {
    out: &'o mut BytesMut,
    count: usize,
    absent: usize,
}

impl FieldsOut<'_> {
    pub(super) fn optional<T: Wire>(&mut self, value: Option<&T>) {
        let Some(value) = value else {
            self.absent += 1;
            return;
        };
        self.out.put_bytes(code::NULL, self.absent);
        self.count += self.absent + 1;
        self.absent = 0;
        value.write(self.out);
    }
}

/// Writes the descriptor and the list of a composite value.
pub(super) fn write(out: &mut BytesMut, descriptor: u64, fields: impl FnOnce(&mut FieldsOut<'_>)) {
    out.put_u8(code::DESCRIBED);
    writer::ulong(out, descriptor);
    let start = out.len();
    let mut count = 0;
    writer::compound(out, code::LIST_8, code::LIST_32, |out| {
        let mut fields_out = FieldsOut { out, count: 0, absent: 0 };
        fields(&mut fields_out);
        count = fields_out.count;
        count
    });
    if count == 0 {
        out.truncate(start);
        out.put_u8(code::LIST_0);
    }
}

/// Declares a composite type: `required` fields are there always, `optional` ones may be absent, `default` ones have a value when they
/// are absent, `many` are any number of symbols.
macro_rules! composite {
    (
        $(#[$doc:meta])*
        $name:ident = $code:literal $text:literal {
            $( $(#[$field_doc:meta])* $kind:ident $field:ident $wire:literal: $type:ty $(= $default:expr)?, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: composite!(@type $kind $type), )*
        }

        impl $name {
            /// Number of the type.
            pub const DESCRIPTOR: u64 = $code;

            /// Reads what follows the descriptor.
            pub(crate) fn read_list(
                reader: &mut crate::codec::reader::Reader,
            ) -> Result<Self, crate::codec::error::DecodeError> {
                crate::codec::composite::read(reader, $text, |fields| Ok(Self {
                    $( $field: composite!(@read $kind fields $wire $(, $default)?), )*
                }))
            }
        }

        impl crate::codec::wire::Wire for $name {
            fn read(
                reader: &mut crate::codec::reader::Reader,
                code: u8,
            ) -> Result<Self, crate::codec::error::DecodeError> {
                crate::codec::descriptor::expect(reader, code, $code, $text)?;
                Self::read_list(reader)
            }

            fn write(&self, out: &mut bytes::BytesMut) {
                crate::codec::composite::write(out, $code, |fields| {
                    $( composite!(@write $kind fields self.$field $(, $default)?); )*
                });
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: composite!(@default $kind $(, $default)?), )* }
            }
        }
    };
    (@type required $type:ty) => { $type };
    (@type optional $type:ty) => { Option<$type> };
    (@type default $type:ty) => { $type };
    (@type many $type:ty) => { Vec<$type> };
    (@read required $fields:ident $wire:literal) => { $fields.required($wire)? };
    (@read optional $fields:ident $wire:literal) => { $fields.optional($wire)? };
    (@read default $fields:ident $wire:literal, $default:expr) => {
        $fields.optional($wire)?.unwrap_or($default)
    };
    (@read many $fields:ident $wire:literal) => { $fields.optional($wire)?.unwrap_or_default() };
    (@write required $fields:ident $value:expr) => { $fields.optional(Some(&$value)) };
    (@write optional $fields:ident $value:expr) => { $fields.optional($value.as_ref()) };
    (@write default $fields:ident $value:expr, $default:expr) => {
        $fields.optional(Some(&$value).filter(|value| **value != $default))
    };
    (@write many $fields:ident $value:expr) => {
        $fields.optional(Some(&$value).filter(|values| !values.is_empty()))
    };
    (@default default, $default:expr) => { $default };
    (@default $kind:ident) => { Default::default() };
}
pub(crate) use composite;
