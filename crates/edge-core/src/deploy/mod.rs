//! From a manifest to what must be done: desired, observed, plan, schedule, restart, report.

pub mod check;
pub mod desired;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod preview;
pub mod report;
pub mod restart;
pub mod schedule;
pub mod transport;

pub use check::{check, take};
