//! Why bytes are not what they should be, and the error condition that the peer gets for it.

use super::symbol::Symbol;

/// Why bytes are no value, frame, performative or message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes were announced than there are.
    #[error("the bytes end inside a value")]
    Truncated,
    /// No type has this format code (section 1.6).
    #[error("format code {0:#04x} is not defined")]
    FormatCode(u8),
    /// The value is of another type than the one that belongs here.
    #[error("format code {code:#04x}, expected {expected}")]
    Type {
        /// Name of the type or types that are allowed.
        expected: &'static str,
        /// What was found.
        code: u8,
    },
    /// The descriptor of another type, or of none that is known.
    #[error("descriptor {found}, expected {expected}")]
    Descriptor {
        /// Name of the type that belongs here.
        expected: &'static str,
        /// Number or name of what was found.
        found: String,
    },
    /// A mandatory field is null or left out.
    #[error("the mandatory field {field} of {composite} is missing")]
    Missing {
        /// Name of the composite type.
        composite: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A field that cannot be read.
    #[error("the field {field} of {composite} is not valid")]
    Field {
        /// Name of the composite type.
        composite: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        source: Box<DecodeError>,
    },
    /// The bytes are of known types and break a rule of the specification.
    #[error("{0}")]
    Malformed(&'static str),
    /// Lists, maps, arrays and described values inside each other.
    #[error("values are nested deeper than {0} levels")]
    TooDeep(u8),
    /// Counted through all levels.
    #[error("more than {0} values")]
    TooManyValues(u32),
    /// A frame's size in bytes, and the limit.
    #[error("a frame of {size} bytes, at most {limit} are allowed")]
    FrameTooLarge {
        /// As its header states.
        size: u32,
        /// What is allowed.
        limit: u32,
    },
}

impl DecodeError {
    /// The error condition for the peer (section 2.8.15, 2.8.16).
    pub fn condition(&self) -> Symbol {
        Symbol::from_static(match self {
            Self::Truncated | Self::FormatCode(_) | Self::Type { .. } | Self::Descriptor { .. } => {
                "amqp:decode-error"
            }
            Self::Missing { .. } | Self::Field { .. } => "amqp:invalid-field",
            Self::Malformed(_) => "amqp:decode-error",
            Self::TooDeep(_) | Self::TooManyValues(_) => "amqp:resource-limit-exceeded",
            Self::FrameTooLarge { .. } => "amqp:connection:framing-error",
        })
    }
}
