//! The benchmarks: what Lineside costs and does, each beside its peer in the same run.

pub mod deployment;
pub mod drain;
pub mod durable;
pub mod fleet;
pub mod free;
pub mod idle;
pub mod latency;
pub mod load;
pub mod modules;
pub mod peer;
pub mod table;
