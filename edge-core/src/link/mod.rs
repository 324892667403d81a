//! The link between a gateway and central: the window of telemetry in flight.

pub mod turns;
pub mod window;
