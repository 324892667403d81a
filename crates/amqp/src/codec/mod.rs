//! AMQP 1.0 as bytes. A connection begins with a [`frame::Protocol`], then has frames ([`frame::read`]); a frame's body is a
//! [`performative::Performative`] or a [`sasl::SaslFrame`]; the payloads of a delivery's transfers are one
//! [`message::Message`].
//!
//! Section numbers in comments are those of the specification: 1 Types, 2 Transport, 3 Messaging, 5 Security.

pub(crate) mod composite;
pub mod definitions;
pub mod delivery_state;
pub(crate) mod descriptor;
pub mod error;
pub mod frame;
pub mod limits;
pub mod message;
pub mod performative;
pub(crate) mod reader;
pub mod sasl;
pub mod symbol;
pub mod terminus;
pub mod value;
pub(crate) mod value_reader;
pub(crate) mod value_writer;
pub(crate) mod wire;
pub(crate) mod writer;

mod format_code;

#[cfg(test)]
mod tests;
