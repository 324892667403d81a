//! A client over a rate of its identity is not read from for a while: its packets wait in its own socket and none is lost.

use tokio::time::Instant;

use crate::quota::{Rate, Usage};

/// What a client did that its identity's usage does not know yet, and until when it waits.
#[derive(Default)]
pub(super) struct Rates {
    /// By [`Rate`]. Counted together: a lock and a look at the clock for each packet cost more than reading it.
    uncounted: [u32; Rate::COUNT],
    paused_until: Option<Instant>,
}

impl Rates {
    /// Adds what the client did; true when it is then over a rate and must wait.
    pub(super) fn add(&mut self, usage: &Usage, done: &[(Rate, u64)]) -> bool {
        let mut is_due = false;
        for (rate, count) in done {
            let uncounted = &mut self.uncounted[*rate as usize];
            // A packet has at most 256 MB, and nothing is left uncounted when no more is there to take.
            *uncounted = uncounted.saturating_add(u32::try_from(*count).unwrap_or(u32::MAX));
            is_due |= u64::from(*uncounted) >= usage.uncounted_max(*rate);
        }
        is_due && self.count(usage)
    }

    /// Counts what was added; true when the client is then over a rate and must wait.
    pub(super) fn count(&mut self, usage: &Usage) -> bool {
        if self.uncounted == [0; Rate::COUNT] {
            return false;
        }
        let Some(until) = usage.count(std::mem::take(&mut self.uncounted).map(u64::from)) else {
            return false;
        };
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
