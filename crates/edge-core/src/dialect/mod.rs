//! Topics to operations and back: IoT Hub's device dialect, and the link between a gateway and central.

pub mod client;
pub mod link;
pub mod provisioning;
mod query;
pub mod template;
