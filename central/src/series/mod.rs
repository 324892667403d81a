//! Numbers over time: points of a series, the chunks that hold them, and the buckets of a chart.
//!
//! Pure: no clock, no I/O. `store/series.rs` keeps the chunks.

pub mod bucket;
pub mod chunk;
mod columns;
pub mod point;
pub mod rollup;
