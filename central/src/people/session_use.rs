//! When sessions were used last: noted in the store behind the requests.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use edge_core::error_chain::chain;
use edge_hub::tasks;

use super::session::Session;
use crate::store::{Store, StoreError, sessions};

/// How exactly the last use is known; each note is a write to the store.
const NOTED_EVERY_MS: u64 = 60_000;
/// Sessions whose last note is remembered; beyond, some are noted more often.
const NOTED_MAX: usize = 10_000;

/// When the use of sessions was last noted.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<HashMap<String, u64>>);

impl Noted {
    /// Notes in the store, behind the request, that a session was used.
    pub(super) fn note(&self, store: &Store, session: &Session, now_ms: u64) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last_ms = noted.get(&session.hash).copied().unwrap_or(0).max(session.used_ms);
        // A clock that went back is noted too.
        if now_ms.abs_diff(last_ms) < NOTED_EVERY_MS {
            return;
        }
        if noted.len() >= NOTED_MAX {
            noted.clear();
        }
        noted.insert(session.hash.clone(), now_ms);
        drop(noted);
        let hash = session.hash.clone();
        let written = store.submit(move |c| Ok::<_, StoreError>(sessions::used(c, &hash, now_ms)?));
        tasks::spawn("use of a session", async move {
            if let Err(error) = written.await {
                tracing::debug!(error = %chain(&error), "the use of a session was not noted");
            }
        });
    }
}
