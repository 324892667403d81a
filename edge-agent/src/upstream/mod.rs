//! Connections upstream: the link to [`central`], or telemetry forwarded ([`forward`]) to an MQTT broker or to IoT Hub.

pub mod central;
pub mod forward;
pub mod meter;
pub mod presence;
pub mod reach;
pub mod status;
