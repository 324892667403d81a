//! MQTT 3.1.1 and 5, whoever speaks it: what topic filters match, packets to and from bytes, the client's end of a connection, and
//! the WebSocket that carries MQTT where only HTTPS passes. It opens no listener and knows no topic by name.
//!
//! ```text
//! client ──► codec ──► filter
//! websocket
//! ```
//!
//! Features: without any there is [`filter`] alone; `codec` adds [`codec`]; `net`, which is on by default, adds [`client`] and
//! [`websocket`].
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "codec")]
pub mod codec;
pub mod filter;
#[cfg(feature = "net")]
pub mod websocket;
