//! What a client did wrong, by what ends for it.

use crate::codec::definitions::AmqpError;
use crate::codec::error::DecodeError;
use crate::codec::symbol::Symbol;

#[derive(Debug)]
pub(super) enum Fault {
    Connection(AmqpError),
    Session(AmqpError),
    Link(u32, AmqpError),
}

impl Fault {
    pub(super) fn connection(condition: &'static str, description: &str) -> Self {
        Self::Connection(AmqpError::new(Symbol::from_static(condition), description))
    }

    pub(super) fn session(condition: &'static str, description: &str) -> Self {
        Self::Session(AmqpError::new(Symbol::from_static(condition), description))
    }

    pub(super) fn link(handle: u32, condition: &'static str, description: &str) -> Self {
        Self::Link(handle, AmqpError::new(Symbol::from_static(condition), description))
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        // The client reads one text: the error and its causes.
        let mut description = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            description.push_str(": ");
            description.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Connection(AmqpError::new(error.condition(), description))
    }
}
