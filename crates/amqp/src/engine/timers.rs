//! When a connection has been silent for too long, in either direction.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Timers {
    /// The handshake ends, or a close is answered, until then.
    limit: Option<Instant>,
    received: Instant,
    sent: Instant,
    /// Silence after which the client is given up.
    idle: Duration,
    /// Silence after which the client needs an empty frame.
    keep_alive: Option<Duration>,
}

/// What the time demands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    KeepAlive,
    Idle,
    Limit,
}

impl Timers {
    pub(super) fn new(now: Instant, idle: Duration, handshake: Duration) -> Self {
        Self { limit: Some(now + handshake), received: now, sent: now, idle, keep_alive: None }
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(super) fn set_limit(&mut self, limit: Option<Instant>) {
        self.limit = limit;
    }

    /// The client gives up after `idle`: half of it leaves time for a slow line.
    pub(super) fn set_peer_idle(&mut self, idle: Option<Duration>) {
        self.keep_alive = idle.map(|idle| idle / 2);
    }

    pub(super) fn next(&self) -> Instant {
        let silence = self.received + self.idle;
        let keep_alive = self.keep_alive.map(|after| self.sent + after);
        [self.limit, keep_alive].into_iter().flatten().fold(silence, Instant::min)
    }

    pub(super) fn due(&self, now: Instant) -> Due {
        if self.limit.is_some_and(|limit| limit <= now) {
            Due::Limit
        } else if self.received + self.idle <= now {
            Due::Idle
        } else if self.keep_alive.is_some_and(|after| self.sent + after <= now) {
            Due::KeepAlive
        } else {
            Due::Nothing
        }
    }
}
