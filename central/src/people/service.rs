//! The users of this site and their sessions.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::PeopleError;
use super::guesses::Guesses;
use super::password::Hasher;
use super::session::Session;
use super::session_use::Noted;
use super::setup_code::SetupCode;
use crate::audit::entry::{ActorKind, Entry, EntryKind};
use crate::audit::log::Audit;
use crate::clock::now_ms;
use crate::store::{Store, StoreError, sessions, users};
use crate::token;

/// Wrong set-up codes that wait for their answer at once. Further ones are answered at once, without a row in the audit log.
const WRONG_CODES_MAX: usize = 8;

/// The users of this site. One for the whole program.
pub struct People {
    pub(super) store: Store,
    pub(super) hasher: Hasher,
    audit: Audit,
    pub(super) guesses: Guesses,
    pub(super) setup: SetupCode,
    pub(super) wrong_codes: Semaphore,
    noted: Noted,
}

impl People {
    /// For the users in `store`; while there are none, the set-up code is in `data_dir` and in the log.
    ///
    /// # Errors
    /// [`PeopleError::Store`] or [`PeopleError::SetupFile`].
    pub async fn open(audit: Audit, store: Store, data_dir: &Path) -> Result<Arc<Self>, PeopleError> {
        let people = Self {
            setup: SetupCode::new(data_dir),
            store,
            audit,
            hasher: Hasher::default(),
            guesses: Guesses::default(),
            wrong_codes: Semaphore::new(WRONG_CODES_MAX),
            noted: Noted::default(),
        };
        if people.needs_setup().await? {
            let code = people.setup.make()?;
            tracing::info!(
                code,
                "central has no user; open its address in a browser and enter this set-up code"
            );
        } else {
            people.setup.remove()?
        }
        Ok(Arc::new(people))
    }

    /// Where what they do is written down.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Writes down a sign-in or a set-up, and who was refused. A name that is no user's is not kept: people type their password
    /// there.
    pub(super) fn note(&self, kind: EntryKind, path: &str, who: &str, from: IpAddr, status: u16) {
        let entry = Entry {
            at_ms: now_ms(),
            who: who.to_owned(),
            who_kind: if who.is_empty() { ActorKind::Nobody } else { ActorKind::User },
            kind,
            method: "POST".to_owned(),
            path: path.to_owned(),
            address: from.to_string(),
        };
        self.audit.note(entry, status);
    }

    /// Whether there is no user yet.
    ///
    /// # Errors
    /// [`PeopleError::Store`].
    pub async fn needs_setup(&self) -> Result<bool, PeopleError> {
        let count = self.store.read(|c| Ok::<_, StoreError>(users::count(c)?)).await?;
        Ok(count == 0)
    }

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
