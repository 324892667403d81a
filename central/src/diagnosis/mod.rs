//! The state of devices, and why one is silent.

pub mod causes;
pub mod device_state;
pub mod device_states;
pub mod gateway_report;
pub mod health;
pub mod refusal;
pub mod why;
