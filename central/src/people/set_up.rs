//! The first user of a new site: whoever can read central's log or its data directory has the code that makes one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_core::error_chain::chain;

use super::error::PeopleError;
use super::names::UserName;
use super::password::{HashQueue, NewPassword};
use super::service::People;
use super::session::{Session, SignedIn, new_secret};
use super::user::User;
use crate::audit::entry::EntryKind;
use crate::clock::now_ms;
use crate::store::{sessions, users};
use crate::token::Role;

/// How long the answer to a wrong code takes. Nobody guesses 100 bits; this bounds what the log has to take.
const WRONG_TAKES: Duration = Duration::from_millis(500);

/// Of the request, in the audit log.
const PATH: &str = "/api/ext/setup";

impl People {
    /// Makes the first user, an administrator, and signs it in. One of several attempts at once succeeds.
    ///
    /// # Errors
    /// [`PeopleError::SetUpAlready`], [`PeopleError::WrongCode`], [`PeopleError::TooManyFailures`], [`PeopleError::Rule`].
    pub async fn set_up(
        self: &Arc<Self>,
        from: IpAddr,
        code: &str,
        name: UserName,
        password: &str,
    ) -> Result<SignedIn, PeopleError> {
        if !self.needs_setup().await? {
            return Err(PeopleError::SetUpAlready);
        }
        // A right code waits for no wrong ones, or who sends those would keep the owner out.
        if !self.setup.is_right(code)? {
            // The code goes with the first user, who may have come since the question above.
            if !self.needs_setup().await? {
                return Err(PeopleError::SetUpAlready);
            }
            let _place = self.wrong_codes.try_acquire().map_err(|_| PeopleError::TooManyFailures)?;
            tokio::time::sleep(WRONG_TAKES).await;
            tracing::warn!(address = %from, "a wrong set-up code was refused");
            self.note(EntryKind::Refused, PATH, "", from, 401);
            return Err(PeopleError::WrongCode);
        }
        let hash = self.hasher.hash(NewPassword::new(password, &name)?, HashQueue::Unknown).await?;
        let now_ms = now_ms();
        let user = User {
            id: UserName::random(),
            name,
            roles: Role::Administrator.into(),
            has_password: true,
            created_ms: now_ms,
            signed_in_ms: Some(now_ms),
        };
        let (secret, session_hash) = new_secret();
        let session = Session { hash: session_hash, user, created_ms: now_ms, used_ms: now_ms };
        let new = session.clone();
        let made = self.store.submit(move |c| {
            // In the writer's turn: another attempt, or `central user add`, may have been first.
            if users::count(c)? > 0 {
                return Err(PeopleError::SetUpAlready);
            }
            users::insert(c, &new.user, Some(&hash))?;
            sessions::insert(c, &new)?;
            Ok(())
        });
        made.await?;
        if let Err(error) = self.setup.remove() {
            tracing::warn!(error = %chain(&error), "removing the used set-up code failed; it opens nothing any more");
        }
        tracing::info!(user = %session.user.name, address = %from, "first user was made");
        self.note(EntryKind::Setup, PATH, session.user.name.as_str(), from, 201);
        Ok(SignedIn { secret, session })
    }
}
