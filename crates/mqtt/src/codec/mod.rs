//! MQTT 3.1.1 and 5 to and from bytes: [`read::read`] takes a packet off a buffer, [`write`] and
//! [`message`] add one to a buffer, [`packet`] says what a packet is. Both versions are one set of types; a connection keeps the version of its CONNECT.

mod connect;
pub mod error;
mod fields;
mod header;
pub mod message;
pub mod packet;
mod primitives;
mod properties;
pub mod read;
pub mod reason;
pub mod text;
mod v4;
mod v5;
pub mod write;

#[cfg(test)]
mod tests;
