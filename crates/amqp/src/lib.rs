//! AMQP 1.0 (OASIS, 29 October 2012) without I/O: bytes to values, frames, performatives and messages, and back; and the state of
//! a server's end of a connection. It opens no socket, reads no clock and knows no address by name.
//!
//! ```text
//! engine: connection ──► session ──► link
//! codec:  message, performative, sasl ──► definitions ──► composite ──► value ──► reader, writer
//!         frame
//! ```
//!
//! # Guarantees
//! Bytes of a peer that has not logged in cost a bounded amount: nothing is allocated by a length or a count that a field states,
//! values nest no deeper and are no more than [`codec::limits::ReadLimits`] allows, and whatever bytes come, reading them ends
//! with a value or a [`codec::error::DecodeError`].
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod codec;
pub mod engine;
