//! New passwords: set by an administrator, or changed by who knows the current one.

use std::net::IpAddr;
use std::sync::Arc;

use super::accounts::{check_within, get, set_hash};
use super::authority::RequestAuthority;
use super::error::PeopleError;
use super::names::UserName;
use super::password::{self, HashQueue, NewPassword};
use super::service::People;
use crate::store::users;

impl People {
    /// Sets the password of a user, with which the maker of the request can sign in as that user.
    ///
    /// # Errors
    /// [`PeopleError::Authority`], [`PeopleError::Unknown`], [`PeopleError::MayDoMore`], [`PeopleError::Rule`], [`PeopleError::Hashing`].
    pub async fn set_password(
        &self,
        authority: RequestAuthority,
        id: &str,
        password: &str,
    ) -> Result<(), PeopleError> {
        let id = id.to_owned();
        let user_id = id.clone();
        let user = self.store.read(move |c| get(c, &user_id)).await?;
        let hash = self.hasher.hash(NewPassword::new(password, &user.name)?, HashQueue::Known).await?;
        let id = user.id;
        let set = self.store.submit(move |c| {
            check_within(c, &get(c, id.as_str())?, authority.held(c)?)?;
            set_hash(c, id.as_str(), &hash)
        });
        set.await?;
        tracing::info!(user = %user.name, "password of a user was set");
        Ok(())
    }

    /// Changes the password of the user who signs in with `name`, who has `current`.
    ///
    /// # Errors
    /// [`PeopleError::WrongCurrent`], [`PeopleError::TooManyFailures`], [`PeopleError::Rule`], [`PeopleError::Hashing`].
    pub async fn change_password(
        self: &Arc<Self>,
        from: IpAddr,
        name: &UserName,
        current: &str,
        password: &str,
    ) -> Result<(), PeopleError> {
        let new = NewPassword::new(password, name)?;
        let claimed = name.as_str().to_ascii_lowercase();
        let current = password::presented(current);
        let verified = self.verify(from, &claimed, current).await.map_err(|error| match error {
            PeopleError::WrongPassword => PeopleError::WrongCurrent,
            other => other,
        })?;
        let hash = self.hasher.hash(new, HashQueue::Known).await?;
        let changed = self.store.submit(move |c| {
            // An administrator may have set another one meanwhile, against whoever has this one.
            let user = users::with_password(c, &claimed, &verified)?.ok_or(PeopleError::WrongCurrent)?;
            set_hash(c, user.id.as_str(), &hash)
        });
        changed.await?;
        tracing::info!(user = %name, address = %from, "user changed its password");
        Ok(())
    }
}
