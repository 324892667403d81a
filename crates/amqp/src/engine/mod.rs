//! A server's end of a connection, without I/O: the caller brings bytes and the time, and gets events and bytes.
//!
//! ```text
//! header ──► [SASL ──► header] ──► open ──► sessions ──► links ──► deliveries
//!
//! driver ── bytes, time ──► connection::Connection ──► event::Event ──► application
//!           bytes      ◄──                          ◄── accept, refuse, grant, send, settle, detach, close
//! ```
//!
//! The engine answers what has one right answer: open, begin, flow with echo, detach, end, close, empty frames. Who may attach what,
//! how much credit a link gets, and what becomes of a delivery is the application's.

pub mod connection;
pub mod event;
pub mod settings;

mod fault;
mod link;
mod negotiation;
mod outbox;
mod serial;
mod session;
mod shared;
mod timers;
mod unsettled;

#[cfg(test)]
mod tests;
