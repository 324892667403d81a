//! Keeps the order of one producer when the disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the appends of one producer, for example of one connection. When the disk fails one of them, every log refuses those
/// that are handed in later: the producer appends the failed record again, and would else find a later one stored before it.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    /// Returns true when an append of the producer has failed.
    pub fn is_set(&self) -> bool {
        // With the store below: another log that is handed a record after this one failed sees it.
        self.0.load(Ordering::Acquire)
    }

    /// Notes that something of the producer failed: nothing further of it may be stored.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}
