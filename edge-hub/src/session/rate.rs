//! A client over a rate of its identity is not read from for a while: its packets wait in its own socket and none is lost.

use std::sync::Arc;

use tokio::time::Instant;

use crate::quota::{Rate, Usage};

/// Until when a client waits.
pub(super) struct Rates {
    usage: Arc<Usage>,
    paused_until: Option<Instant>,
}

impl Rates {
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, paused_until: None }
    }

    /// Counts what the client did; true when it is then over a rate and must wait.
    pub(super) fn count(&mut self, done: &[(Rate, u64)]) -> bool {
        let Some(until) = self.usage.count(done) else { return false };
        self.paused_until = Some(until);
        true
    }

    /// Until when nothing is read, if that is still to come.
    pub(super) fn paused_until(&mut self) -> Option<Instant> {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        self.paused_until
    }

    /// Whether the client must wait, as it was when [`Rates::paused_until`] last looked.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }
}
