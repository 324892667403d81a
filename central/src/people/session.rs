//! Sessions of signed-in users: a random secret in a cookie, its hash in the store.
//!
//! A session ends 12 h after it was last used and 7 days after the sign-in, when the user signs out, is removed, or gets another
//! password or role; central's restart does not end it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_core::error_chain::chain;
use edge_hub::tasks;

use super::{People, PeopleError, User};
use crate::clock::now_ms;
use crate::store::{Store, StoreError, sessions};
use crate::token;

/// A session that is not used for so long ends.
pub const IDLE_MS: u64 = 12 * 3600 * 1000;
/// A session ends so long after the sign-in.
pub const LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How exactly the last use is known; each note is a write to the store.
const NOTED_EVERY_MS: u64 = 60_000;
/// Sessions whose last note is remembered; beyond, some are noted more often.
const NOTED_MAX: usize = 10_000;

/// A session that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What the store finds it by.
    pub hash: String,
    /// Who signed in.
    pub user: User,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// To the minute.
    pub used_ms: u64,
}

impl Session {
    /// Until when it stands if it is not used again.
    pub fn expires_ms(&self) -> u64 {
        self.used_ms.saturating_add(IDLE_MS).min(self.created_ms.saturating_add(LIFE_MS))
    }
}

/// A new session, with the secret that the browser keeps.
#[derive(Debug)]
pub struct SignedIn {
    /// The cookie's value.
    pub secret: String,
    /// What it opens.
    pub session: Session,
}

/// A new session's secret and its hash.
pub(super) fn new_secret() -> (String, String) {
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let hash = token::hash(&secret);
    (secret, hash)
}

/// When the use of sessions was last noted.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<HashMap<String, u64>>);

impl Noted {
    /// Notes in the store, behind the request, that a session was used.
    fn note(&self, store: &Store, session: &Session, now_ms: u64) {
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

impl People {
    /// The session that a cookie opens.
    ///
    /// # Errors
    /// [`PeopleError::Store`].
    pub async fn session(&self, secret: &str) -> Result<Option<Session>, PeopleError> {
        let (hash, now_ms) = (token::hash(secret), now_ms());
        let found = self.store.read(move |c| Ok::<_, StoreError>(sessions::find(c, &hash, now_ms)?)).await?;
        if let Some(session) = &found {
            self.noted.note(&self.store, session, now_ms);
        }
        Ok(found)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`PeopleError::Store`].
    pub async fn sign_out(&self, session: &Session, from: IpAddr) -> Result<(), PeopleError> {
        let hash = session.hash.clone();
        self.store.submit(move |c| Ok::<_, StoreError>(sessions::delete(c, &hash)?)).await?;
        tracing::info!(user = %session.user.name, address = %from, "user signed out");
        Ok(())
    }
}
