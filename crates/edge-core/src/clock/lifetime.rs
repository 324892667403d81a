//! How long something waits, and what is known of its end when the machine was off meanwhile.
//!
//! ```text
//! valid ──────────────────────────────► over      by the clock of ages alone: it is proven
//!   │                                    ▲
//!   └─ the machine was off so long, ─► unproven ── the wall clock was set, and says otherwise ──► valid
//!      says the wall clock
//! ```
//!
//! What is unproven is held: it is not given out, since it may be too late, and it is not ended, since the wall clock may be
//! wrong. It ends with its time by the clock of ages, which the time without power does not shorten.

use serde::{Deserialize, Serialize};

/// From when to when something waits, in milliseconds by the clock of ages (see [`super::ages`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifetime {
    pub from_ms: u64,
    pub until_ms: u64,
}

/// What is known of the end of something that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeState {
    /// It may be given out.
    Valid,
    /// Over, if the wall clock is right about how long the machine was off.
    Unproven,
    /// Over, whatever the wall clock says.
    Over,
}

impl Lifetime {
    /// Of something that comes now and waits for `length_ms` at most.
    pub fn new(now_ms: u64, length_ms: u64) -> Self {
        Self { from_ms: now_ms, until_ms: now_ms.saturating_add(length_ms) }
    }

    /// `off_ms`: how long the machine was off since it came, as the wall clock says.
    pub fn state(&self, now_ms: u64, off_ms: u64) -> LifetimeState {
        if self.until_ms <= now_ms {
            LifetimeState::Over
        } else if self.until_ms <= now_ms.saturating_add(off_ms) {
            LifetimeState::Unproven
        } else {
            LifetimeState::Valid
        }
    }
}
