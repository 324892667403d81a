//! The link between a gateway and its upstream: how much telemetry is in flight, what of it was acknowledged, whose turn it
//! is, whose fault it is when a message is not taken, what a metered link may cost, and whether anybody is still there.

pub mod budget;
pub mod fault_attribution;
pub mod liveness;
pub mod pace;
pub mod progress;
pub mod retransmit_queue;
pub mod snapshot;
pub mod turns;
pub mod window;
