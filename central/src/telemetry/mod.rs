//! Telemetry on its way into the store.

pub mod fences;
pub mod ingest;
pub(crate) mod message_values;
pub(crate) mod position;
