//! What an MQTT server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who came and went, and what a server has let go or refused, since it opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Clients that were admitted.
    pub connects: AtomicU64,
    /// Those of them whose connection ended.
    pub disconnects: AtomicU64,
    /// Connections beyond the bound.
    pub connections_refused: AtomicU64,
    /// Unproven connections that were closed for others.
    pub connections_evicted: AtomicU64,
    /// Connections beyond the bound of their address.
    pub address_connections_refused: AtomicU64,
    /// Connections that came faster than their address may connect.
    pub connects_refused: AtomicU64,
    /// Times that an identity was refused more of something than it may have.
    pub quotas_exceeded: AtomicU64,
    /// Times that a client was over its rate and was not read from for a while.
    pub clients_paused: AtomicU64,
    /// Subscriptions beyond a client's bound.
    pub subscriptions_refused: AtomicU64,
    /// Logins that were checked and were wrong.
    pub logins_failed: AtomicU64,
    /// Logins that had to wait because of earlier ones that failed.
    pub logins_delayed: AtomicU64,
    /// Logins refused unchecked because too many waited already.
    pub logins_refused: AtomicU64,
    /// Messages dropped because they were wrong in themselves.
    pub messages_wrong: AtomicU64,
    /// Messages that there was no space for.
    pub messages_without_space: AtomicU64,
    /// Messages refused because their client may not publish them.
    pub publishes_refused: AtomicU64,
    /// QoS 0 copies dropped because a subscriber's queue was full.
    pub copies_dropped: AtomicU64,
    /// Copies passed over because they are larger than their client takes.
    pub copies_too_large: AtomicU64,
    /// Copies that expired in a queue.
    pub copies_expired: AtomicU64,
    /// Copies dropped because their client may not read their topics any more.
    pub copies_forbidden: AtomicU64,
    /// Connections that were closed because they took too slowly what was published for them.
    pub subscribers_closed: AtomicU64,
    /// Kept messages of clients that are away that gave way to newer ones.
    pub messages_dropped_away: AtomicU64,
    /// Messages that were not retained because there was no space.
    pub not_retained: AtomicU64,
    /// Sessions that end with their connection because there are too many that do not.
    pub sessions_refused: AtomicU64,
    pub sessions_expired: AtomicU64,
    /// Records of the journal that could not be read when it was opened.
    pub records_skipped: AtomicU64,
}

impl Counts {
    pub fn logins_failed(&self) -> u64 {
        self.logins_failed.load(Ordering::Relaxed)
    }

    /// Clients that connected, and those of them whose connection ended.
    pub fn connects_and_disconnects(&self) -> (u64, u64) {
        (self.connects.load(Ordering::Relaxed), self.disconnects.load(Ordering::Relaxed))
    }

    /// Every count of what was let go or refused, with its name, for people and programs.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("connectionsRefused", read(&self.connections_refused)),
            ("connectionsEvicted", read(&self.connections_evicted)),
            ("addressConnectionsRefused", read(&self.address_connections_refused)),
            ("connectsRefused", read(&self.connects_refused)),
            ("quotasExceeded", read(&self.quotas_exceeded)),
            ("clientsPaused", read(&self.clients_paused)),
            ("subscriptionsRefused", read(&self.subscriptions_refused)),
            ("loginsFailed", read(&self.logins_failed)),
            ("loginsDelayed", read(&self.logins_delayed)),
            ("loginsRefused", read(&self.logins_refused)),
            ("messagesWrong", read(&self.messages_wrong)),
            ("messagesWithoutRoom", read(&self.messages_without_space)),
            ("publishesRefused", read(&self.publishes_refused)),
            ("copiesDropped", read(&self.copies_dropped)),
            ("copiesTooLarge", read(&self.copies_too_large)),
            ("copiesExpired", read(&self.copies_expired)),
            ("copiesForbidden", read(&self.copies_forbidden)),
            ("subscribersClosed", read(&self.subscribers_closed)),
            ("messagesDroppedAway", read(&self.messages_dropped_away)),
            ("notRetained", read(&self.not_retained)),
            ("sessionsRefused", read(&self.sessions_refused)),
            ("sessionsExpired", read(&self.sessions_expired)),
            ("recordsSkipped", read(&self.records_skipped)),
        ]
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
