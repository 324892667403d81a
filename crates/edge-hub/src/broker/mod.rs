//! The sessions of a server and what passes between them: who has which, who receives what, what is kept for whom.
//!
//! ```text
//! PUBLISH ─> route (table) ─┬─> durable sessions, retained: one record of the journal
//!                           └─> session_queue of each receiver ─> its connection, when it has one
//! ```
//!
//! Lock order: what is retained, sessions, then the journal or a session_queue; neither of the last two is held while another is
//! taken.

pub(crate) mod presence;
pub(crate) mod publish;
mod restore;
mod sessions;
mod subscriptions;
#[cfg(test)]
mod tests;
pub(crate) mod will;
pub(crate) mod wills;

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use edge_core::dialect::client::BRIDGES;
use schemas::names::Identity;
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use self::sessions::Sessions;
use self::will::DueWill;
use crate::bridge_state;
use crate::counts::{Counts, add};
use crate::journal::event::{Event, Kept};
use crate::journal::{Journal, Stored};
use crate::quota::Quotas;
use crate::retained::Retained;
use crate::sanitized::Sanitized;
use crate::settings::MqttServerSettings;
use crate::table::Table;

/// The part of a server that does not know the program behind it.
pub(crate) struct Broker {
    pub table: Table,
    pub retained: Retained,
    pub journal: Journal,
    pub counts: Counts,
    /// What each identity uses.
    pub quotas: Quotas,
    settings: MqttServerSettings,
    sessions: Mutex<Sessions>,
    next_session: AtomicU64,
    next_key: AtomicU64,
    /// Held while a message is retained and written: what is retained on a topic is the same in memory and on disk.
    retaining: Mutex<()>,
    /// Something is due earlier than before.
    pub sooner: Notify,
    /// To the task that publishes wills. Bounded by the clients that have one.
    due_wills: mpsc::UnboundedSender<DueWill>,
}

impl Broker {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients have a session, connected or not.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions().count()
    }

    fn retaining(&self) -> MutexGuard<'_, ()> {
        self.retaining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the retained states of bridges go whose account is gone; ends when that is on disk.
    pub(crate) fn forget_bridge_states(&self, is_gone: impl Fn(&Identity) -> bool) -> Option<Stored> {
        let mut last: Option<Stored> = None;
        for message in self.retained.matching(&format!("{BRIDGES}#"), 0) {
            if !bridge_state::owner(message.topic()).is_some_and(|owner| is_gone(&owner)) {
                continue;
            }
            let _retaining = self.retaining();
            if self.retained.clear(message.topic()) {
                let stored = self.write(message, Vec::new(), Kept::Cleared, None).1;
                if let Some(before) = last.replace(stored) {
                    before.unawaited();
                }
            }
        }
        last
    }

    /// Lets messages go that have expired while they waited for their clients.
    pub(crate) fn drop_expired_queued(&self, now_ms: u64) {
        let session_queues = self.sessions().all();
        for session_queue in session_queues {
            let (expired, keys) = session_queue.take_expired(now_ms);
            if expired > 0 {
                add(&self.counts.copies_expired, expired as u64);
                debug!(client = %Sanitized(&session_queue.client_id), expired, "messages expired before their client came");
            }
            if !keys.is_empty() {
                self.journal.note(&Event::Dropped { session: session_queue.number, keys });
            }
        }
    }

    /// Lets retained messages go that are expired.
    pub(crate) fn drop_expired_retained(&self, now_ms: u64) {
        for message in self.retained.expired(now_ms) {
            let _retaining = self.retaining();
            // A newer one may have come meanwhile.
            if self.retained.clear_if(message.topic(), |current| current.is_expired(now_ms)) {
                self.write(message, Vec::new(), Kept::Cleared, None).1.unawaited();
            }
        }
    }
}
