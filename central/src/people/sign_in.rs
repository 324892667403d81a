//! Signing in with a password.

use std::net::IpAddr;
use std::sync::Arc;

use edge_core::access::secret::Secret;

use super::error::PeopleError;
use super::guesses::Claim;
use super::password::{self, HashingError};
use super::service::People;
use super::session::{Session, SignedIn, new_secret};
use crate::audit::entry::EntryKind;
use crate::clock::now_ms;
use crate::store::{StoreError, sessions, users};

/// Of the request, in the audit log.
const PATH: &str = "/api/ext/session";

impl People {
    /// Starts a session for the user whose name and password these are, and ends the one of cookie `before`.
    ///
    /// # Errors
    /// [`PeopleError::WrongPassword`], whichever of the two is wrong; [`PeopleError::TooManyFailures`].
    pub async fn sign_in(
        self: &Arc<Self>,
        from: IpAddr,
        name: &str,
        password: &str,
        before: Option<Session>,
    ) -> Result<SignedIn, PeopleError> {
        // Only so much of what a stranger wrote is looked at.
        let claimed: String = name.chars().take(256).map(|c| c.to_ascii_lowercase()).collect();
        let password = password::presented(password);
        let hash = self.verify(from, &claimed, password).await?;
        let now_ms = now_ms();
        let (secret, session_hash) = new_secret();
        let session = self.store.submit(move |c| {
            // The password may have been changed, or the user removed, while this one was verified.
            let user = users::with_password(c, &claimed, &hash)?.ok_or(PeopleError::WrongPassword)?;
            users::signed_in(c, &user.id, now_ms)?;
            if let Some(before) = before {
                sessions::delete(c, &before.hash)?;
            }
            let session = Session { hash: session_hash, user, created_ms: now_ms, used_ms: now_ms };
            sessions::insert(c, &session)?;
            Ok::<_, PeopleError>(session)
        });
        let session = session.await?;
        tracing::info!(user = %session.user.name, address = %from, "user signed in");
        self.note(EntryKind::SignIn, PATH, session.user.name.as_str(), from, 200);
        Ok(SignedIn { secret, session })
    }

    /// The hash of the password that `name` has, when `password` is the right one. Failures slow the next attempts down.
    ///
    /// # Errors
    /// [`PeopleError::WrongPassword`], [`PeopleError::TooManyFailures`], [`PeopleError::Hashing`].
    pub(crate) async fn verify(
        self: &Arc<Self>,
        from: IpAddr,
        name: &str,
        password: Secret,
    ) -> Result<String, PeopleError> {
        let name_sought = name.to_owned();
        let hash =
            self.store.read(move |c| Ok::<_, StoreError>(users::password_of(c, &name_sought)?)).await?;
        let is_user = hash.is_some();
        let claim = Claim { name: name.to_owned(), is_user, from };
        let queue = self.guesses.turn(&claim).await?;
        let turn = self.hasher.turn(queue).await?;
        let (people, verified) = (self.clone(), hash.clone());
        // On its own from here on: who closes the connection before the answer has guessed all the same.
        let verifying = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let is_right = password::verify(&password, verified.as_deref());
            if is_right {
                people.guesses.succeeded(&claim);
            } else {
                people.guesses.failed(&claim);
            }
            is_right
        });
        let is_right = verifying.await.map_err(|_| HashingError::Stopping)?;
        hash.filter(|_| is_right).ok_or_else(|| {
            let user = Some(name).filter(|_| is_user).unwrap_or_default();
            tracing::warn!(user, address = %from, "a wrong password was refused");
            self.note(EntryKind::Refused, PATH, user, from, 401);
            PeopleError::WrongPassword
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::people::guesses::with_long_waits;
    use crate::store::Keep;

    #[tokio::test]
    async fn who_hangs_up_while_the_password_is_verified_has_guessed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::open(dir.path(), Keep { messages: 10, commands: 10 }).unwrap();
        let limits = crate::config::KeepConfig::default().audit_limits();
        let audit = crate::audit::log::Audit::new(store.clone(), limits);
        let mut people = People::open(audit, store, dir.path()).await.unwrap();
        Arc::get_mut(&mut people).unwrap().guesses = with_long_waits();
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let claim = Claim { name: "victim".into(), is_user: false, from };
        assert!(!people.guesses.must_wait(&claim));
        let mut guess = Box::pin(people.verify(from, "victim", Secret::new(*b"a guess")));
        // On a busy machine it may have been verified between two looks.
        while futures_util::poll!(guess.as_mut()).is_pending() && people.hasher.is_free() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(guess);
        while !people.hasher.is_free() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(people.guesses.must_wait(&claim));
    }
}
