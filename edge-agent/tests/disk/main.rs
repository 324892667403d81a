//! What the gateway keeps, on real file systems that lose power or fill up.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod full_disk;
mod loop_disk;
mod power_cut;
