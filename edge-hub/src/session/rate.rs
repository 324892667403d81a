//! A client over a rate of its identity is not read from for a while: its packets wait in its own socket and none is lost.

use std::sync::Arc;

use tokio::time::Instant;

use crate::quota::{Rate, Usage};

/// What a client did that its identity's usage does not know yet, and until when it waits.
pub(super) struct Rates {
    usage: Arc<Usage>,
    /// By [`Rate`]. Counted together: a lock and a look at the clock for each packet cost more than reading it.
    uncounted: [u64; Rate::COUNT],
    paused_until: Option<Instant>,
}

impl Rates {
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, uncounted: [0; Rate::COUNT], paused_until: None }
    }

    /// Adds what the client did; true when it is then over a rate and must wait.
    pub(super) fn add(&mut self, done: &[(Rate, u64)]) -> bool {
        let mut is_due = false;
        for (rate, count) in done {
            let uncounted = &mut self.uncounted[*rate as usize];
            *uncounted += count;
            is_due |= *uncounted >= self.usage.uncounted_max(*rate);
        }
        is_due && self.count()
    }

    /// Counts what was added; true when the client is then over a rate and must wait.
    pub(super) fn count(&mut self) -> bool {
        if self.uncounted == [0; Rate::COUNT] {
            return false;
        }
        let Some(until) = self.usage.count(std::mem::take(&mut self.uncounted)) else { return false };
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
