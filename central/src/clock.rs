//! The wall clock, read in one place.

pub use edge_hub::clock::now_ms;
