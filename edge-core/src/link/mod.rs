//! The link between a gateway and central: how much telemetry is in flight, what of it was acknowledged, whose turn it is,
//! and whether anybody is still there.

pub mod liveness;
pub mod pace;
pub mod turns;
pub mod window;
