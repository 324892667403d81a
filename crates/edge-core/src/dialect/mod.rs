//! Topics and links to operations and back: IoT Hub's device dialect over MQTT and AMQP, and the link between a gateway and central.

pub mod amqp;
pub mod client;
pub mod link;
pub mod provisioning;
mod query;
pub mod template;
