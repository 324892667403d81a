//! A whole Lineside site on real parts: central, a gateway with its containers, and leaf devices, as processes of this
//! machine. The demo, the end-to-end tests and the benchmarks are all written on it.

pub mod bench;
pub mod client;
pub mod crowd;
pub mod device;
pub mod device_certificate;
pub mod docker;
pub mod fake_clock;
pub mod five;
pub mod job;
pub mod leaf;
pub mod ledger;
pub mod line;
pub mod name_server;
pub mod null_sink;
pub mod patient;
pub mod port;
pub mod probe;
pub mod process;
pub mod raw;
pub mod rest;
pub mod site;
pub mod thin_disk;

/// What one step of a test may take before it counts as failed. An event ends each wait, so it is as long as a busy machine of two slow
/// cores may need at its worst: nobody waits for it but a test that fails.
pub const STEP: std::time::Duration = std::time::Duration::from_secs(180);
