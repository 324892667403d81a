//! Upstreams that are not central: telemetry goes to an MQTT broker or to IoT Hub's own endpoint, and nothing comes back.
//!
//! ```text
//! queues ─► forwarder ─► connection of each identity ─► upstream     one connection for a broker, one for each device for IoT Hub
//!    ▲         ▲             │
//!    └ cursor ─┴── taken ────┘── at fault ─► quarantine
//! ```

mod forwarder;
mod message;
#[cfg(test)]
pub(super) mod tests;
mod traffic;

pub use forwarder::Forwarder;
pub use message::UpstreamProfile;
