//! From a manifest to what must be done: desired, observed, plan, schedule, restart, rollout, report.

pub mod check;
pub mod desired;
pub mod diff;
pub mod garbage;
pub mod limits;
pub mod observed;
pub mod plan;
mod plan_texts;
pub mod policy;
pub mod preview;
pub mod report;
pub mod restart;
pub mod rollout;
pub mod schedule;
pub mod start_condition;
pub mod transport;

pub use check::{check, take};
