//! The link between a gateway and central: the window of telemetry in flight.

pub mod window;
