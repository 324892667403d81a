//! Small types that several performatives share (section 2.8).

use bytes::BytesMut;

use super::composite::composite;
use super::error::DecodeError;
use super::reader::Reader;
use super::symbol::Symbol;
use super::value::{Map, Value};
use super::wire::Wire;

/// Which end of a link its sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// `false` on the wire.
    #[default]
    Sender,
    /// `true` on the wire.
    Receiver,
}

impl Role {
    /// The role of the other end.
    pub fn opposite(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

impl Wire for Role {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        Ok(if bool::read(reader, code)? { Self::Receiver } else { Self::Sender })
    }

    fn write(&self, out: &mut BytesMut) {
        (*self == Self::Receiver).write(out);
    }
}

/// Whether the sender of a link settles its deliveries as it sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SenderSettleMode {
    /// It awaits the receiver's outcome.
    Unsettled,
    /// All deliveries are sent settled: at most once.
    Settled,
    /// Each delivery says it.
    #[default]
    Mixed,
}

impl Wire for SenderSettleMode {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match u8::read(reader, code)? {
            0 => Ok(Self::Unsettled),
            1 => Ok(Self::Settled),
            2 => Ok(Self::Mixed),
            _ => Err(DecodeError::Malformed("a sender settle mode that is not 0, 1 or 2")),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        let number: u8 = match self {
            Self::Unsettled => 0,
            Self::Settled => 1,
            Self::Mixed => 2,
        };
        number.write(out);
    }
}

/// Which end of a link settles a delivery first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiverSettleMode {
    /// The receiver settles with its outcome.
    #[default]
    First,
    /// The receiver sends its outcome, and settles when the sender has settled.
    Second,
}

impl Wire for ReceiverSettleMode {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match u8::read(reader, code)? {
            0 => Ok(Self::First),
            1 => Ok(Self::Second),
            _ => Err(DecodeError::Malformed("a receiver settle mode that is neither 0 nor 1")),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        u8::from(*self == Self::Second).write(out);
    }
}

composite! {
    /// Why a link, a session or a connection ended, or a message was rejected (section 2.8.14).
    AmqpError = 0x1d "error" {
        /// Such as `amqp:not-found`.
        required condition "condition": Symbol,
        /// For the people who read the peer's log.
        optional description "description": String,
        /// More about the condition.
        optional info "info": Map,
    }
}

impl AmqpError {
    /// Without further information.
    pub fn new(condition: Symbol, description: impl Into<String>) -> Self {
        Self { condition, description: Some(description.into()), info: None }
    }
}

/// What a message is identified by, or refers to: one of four types, each kept as it came, because peers compare them with their type
/// (section 3.2.11 and following).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the types")]
pub enum MessageId {
    Ulong(u64),
    Uuid([u8; 16]),
    Binary(bytes::Bytes),
    String(String),
}

impl Wire for MessageId {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match Value::read(reader, code)? {
            Value::Ulong(number) => Ok(Self::Ulong(number)),
            Value::Uuid(bytes) => Ok(Self::Uuid(bytes)),
            Value::Binary(bytes) => Ok(Self::Binary(bytes)),
            Value::String(text) => Ok(Self::String(text)),
            _ => Err(DecodeError::Type { expected: "ulong, uuid, binary or string", code }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Ulong(number) => number.write(out),
            Self::Uuid(bytes) => Value::Uuid(*bytes).write(out),
            Self::Binary(bytes) => bytes.write(out),
            Self::String(text) => text.write(out),
        }
    }
}
