//! Connections upstream: the link to [`central`], or telemetry forwarded ([`forward`]) to an MQTT broker or to IoT Hub.
//!
//! ```text
//! central ─┐
//!          ├─► driver ─► connection ─► MQTT client
//! forward ─┘
//! ```
//!
//! [`driver`] keeps one identity connected and [`connection`] runs one connection. What is sent, what an answer means and what
//! follows a failure differ between central and other upstreams: each implements [`driver::Upstream`] and [`connection::Traffic`].

pub mod address;
pub mod central;
mod connection;
mod driver;
pub mod endpoint;
pub mod forward;
pub mod meter;
pub mod presence;
pub mod sent_updates;
pub mod status;
#[cfg(test)]
mod tests;
