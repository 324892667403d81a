//! The clocks, read in one place.

pub use edge_hub::age_clock::{corrected_ms, is_valid, settled_wall_ms, stamp_ms, stamp_of, steady_ms};
pub use edge_hub::clock::now_ms;
