//! Conditions of AMQP errors, as IoT Hub gives them to clients.

use amqp::codec::definitions::AmqpError;
use amqp::codec::symbol::Symbol;

/// Why something of a client is refused, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCondition {
    /// The client has not proven to be who it says, or may not do this. SDKs give up for good.
    Unauthorized,
    /// There is no such node.
    NotFound,
    /// The node exists at IoT Hub, and is not served here.
    NotImplemented,
    /// A field of the client's frame or message is wrong.
    InvalidField,
    /// A message cannot be read.
    Decode,
    /// The message is wrong in itself.
    Argument,
    /// The message is too large.
    MessageSize,
    /// A limit, a quota or a full queue.
    ResourceLimit,
    /// Something failed here; the client may try again.
    Internal,
    /// The connection ends, and the client may come again.
    ConnectionForced,
    /// A newer connection of the same client has taken over.
    Stolen,
}

impl ErrorCondition {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "amqp:unauthorized-access",
            Self::NotFound => "amqp:not-found",
            Self::NotImplemented => "amqp:not-implemented",
            Self::InvalidField => "amqp:invalid-field",
            Self::Decode => "amqp:decode-error",
            Self::Argument => "com.microsoft:argument-error",
            Self::MessageSize => "amqp:link:message-size-exceeded",
            Self::ResourceLimit => "amqp:resource-limit-exceeded",
            Self::Internal => "amqp:internal-error",
            Self::ConnectionForced => "amqp:connection:forced",
            Self::Stolen => "amqp:link:stolen",
        }
    }

    /// Of a message that was refused with an HTTP-like status.
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Unauthorized,
            404 => Self::NotFound,
            413 => Self::MessageSize,
            429 => Self::ResourceLimit,
            400..=499 => Self::Argument,
            _ => Self::Internal,
        }
    }

    /// An error with a description for the people who read the client's log.
    pub fn error(self, description: impl Into<String>) -> AmqpError {
        AmqpError::new(Symbol::from_static(self.name()), description)
    }
}
