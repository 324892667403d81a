//! The audit log: who asked for which change, from where, and what it did; and who signed in or was refused.
//!
//! # Guarantees
//! - The row of a change is handed to the store before the change, so it is committed with it or before it. A change whose row the
//!   store does not take is refused.
//! - Secrets are hidden as they are from viewers ([`crate::redact`]).

pub mod difference;
pub mod entry;
pub mod log;
