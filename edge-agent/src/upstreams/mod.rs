//! Upstreams that are not central: telemetry goes to an MQTT broker or to IoT Hub's own endpoint, and nothing comes back.
//!
//! ```text
//! queues ─► carrier ─► lane of each identity ─► upstream     one lane for a broker, one for each device for IoT Hub
//!    ▲         ▲             │
//!    └ cursor ─┴── taken ────┘── to blame ─► quarantine
//! ```

mod carrier;
mod lane;
mod message;
pub mod reach;

pub use carrier::Carrier;
pub use message::Manner;
