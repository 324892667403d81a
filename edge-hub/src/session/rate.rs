//! A client over its rate is not read from for a while: its messages wait in its own socket and none is lost.

use edge_core::access::rate::Bucket;
use tokio::time::{Duration, Instant};

use crate::door::DoorSettings;

/// What a client has left of its rates.
pub(super) struct Rates {
    since: Instant,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    paused_until: Option<Instant>,
}

impl Rates {
    pub(super) fn new(settings: &DoorSettings) -> Self {
        Self {
            since: Instant::now(),
            messages: Bucket::new(settings.messages_per_second, 0),
            bytes: Bucket::new(settings.bytes_per_second, 0),
            paused_until: None,
        }
    }

    /// Takes one message of so many bytes; true when the client is then over its rate and must wait.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.messages.is_none() && self.bytes.is_none() {
            return false;
        }
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut wait_ms = 0;
        for (bucket, count) in [(&mut self.messages, 1), (&mut self.bytes, bytes as u64)] {
            if let Some(bucket) = bucket {
                bucket.take(count, now_ms);
                wait_ms = wait_ms.max(bucket.wait_ms(now_ms));
            }
        }
        if wait_ms > 0 {
            self.paused_until = Some(Instant::now() + Duration::from_millis(wait_ms));
        }
        wait_ms > 0
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
