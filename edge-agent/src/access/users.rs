//! The local users of this gateway: plain MQTT clients that know a name and a password and nothing of the dialect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use futures_util::future::BoxFuture;
use schemas::names::{DeviceId, Identity, UserName};
use serde::{Deserialize, Serialize};

use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::state::{Namespace, State, StateError};

/// Users of one gateway.
const USERS_MAX: usize = 1000;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Argon2id, in PHC form.
    pub hash: String,
    /// The device whose telemetry it may publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// Why a user was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// It is the anonymous user of the configuration.
    #[error(
        "user {0} is the anonymous user of [listen] anonymous_user, which has no password; change the setting"
    )]
    Anonymous(UserName),
    /// The configuration makes a user anonymous that has a password.
    #[error("[listen] anonymous_user: user {0} has a password; write another name, or remove the user first")]
    HasPassword(UserName),
    /// The name is taken.
    #[error("user {0} is there already; remove it first, or choose another name")]
    Exists(UserName),
    /// Nobody of that name.
    #[error("user {0} is not known here; `edge-agent user list` shows who is")]
    Unknown(UserName),
    /// The list is full.
    #[error("{USERS_MAX} users are there already; remove one first")]
    Full,
    #[error(transparent)]
    State(#[from] StateError),
}

/// All local users. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    known: Arc<RwLock<BTreeMap<UserName, User>>>,
    /// Who clients of the plain listener are that give no name (`[listen] anonymous_user`). It has no password.
    anonymous: Option<UserName>,
    state: State,
}

impl Users {
    /// The users as last saved, and the anonymous one of the configuration.
    ///
    /// # Errors
    /// [`UserError`] when the state cannot be used, or a user with a password has the name of the anonymous one.
    pub fn load(state: State, anonymous: Option<UserName>) -> Result<Self, UserError> {
        let saved = state.load::<User>(Namespace::Users);
        let known: BTreeMap<UserName, User> =
            saved.into_iter().filter_map(|(name, user)| Some((name.parse().ok()?, user))).collect();
        match anonymous {
            // Its clients would have the sessions and rights of whoever knows the password.
            Some(name) if known.contains_key(&name) => Err(UserError::HasPassword(name)),
            anonymous => Ok(Self { known: Arc::new(RwLock::new(known)), anonymous, state }),
        }
    }

    /// Who clients are that give no name; `None` when there is no such user.
    pub fn anonymous(&self) -> Option<&UserName> {
        self.anonymous.as_ref()
    }

    pub fn get(&self, name: &UserName) -> Option<User> {
        if self.anonymous.as_ref() == Some(name) {
            // No password has an empty hash.
            return Some(User { hash: String::new(), device: None });
        }
        self.known.read().expect("nothing panics while it holds the users").get(name).cloned()
    }

    /// Every user by name.
    pub fn list(&self) -> Vec<(UserName, User)> {
        let known = self.known.read().expect("nothing panics while it holds the users");
        known.iter().map(|(name, user)| (name.clone(), user.clone())).collect()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`UserError`]: the name is taken, the list is full, or it was not saved.
    pub async fn add(&self, name: UserName, user: User) -> Result<(), UserError> {
        if self.anonymous.as_ref() == Some(&name) {
            return Err(UserError::Anonymous(name));
        }
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the users");
            if known.contains_key(&name) {
                return Err(UserError::Exists(name));
            }
            if known.len() >= USERS_MAX {
                return Err(UserError::Full);
            }
            known.insert(name.clone(), user.clone());
            self.state.put(Namespace::Users, name.as_str(), &user)
        };
        Ok(saved.durable().await?)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// [`UserError`]: nobody of that name, or the removal was not saved.
    pub async fn remove(&self, name: &UserName) -> Result<(), UserError> {
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the users");
            known.remove(name).ok_or_else(|| UserError::Unknown(name.clone()))?;
            self.state.remove(Namespace::Users, name.as_str())
        };
        Ok(saved.durable().await?)
    }

    /// The users that speak for a device.
    pub fn of(&self, device: &DeviceId) -> Vec<UserName> {
        let of_device = self.list().into_iter().filter(|(_, user)| user.device.as_ref() == Some(device));
        of_device.map(|(name, _)| name).collect()
    }
}

impl IdentityState for Users {
    fn identities(&self) -> BTreeSet<Identity> {
        // A user is what an account is: none is left behind by one.
        BTreeSet::new()
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        Box::pin(async move {
            for name in removed.iter().filter_map(Identity::user_name) {
                match self.remove(&name).await {
                    Ok(()) => {}
                    // A removal that failed may have ended in memory: the disk may still have it.
                    Err(_) => self.state.remove(Namespace::Users, name.as_str()).durable().await?,
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_are_kept_as_hashes_over_a_restart_and_leave_with_their_device() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let users = Users::load(state.clone(), None).unwrap();
        let user = |device: Option<&str>| User {
            hash: "$argon2id$".into(),
            device: device.map(|device| device.parse().unwrap()),
        };
        let name = |text: &str| text.parse::<UserName>().unwrap();
        users.add(name("plc1"), user(None)).await.unwrap();
        users.add(name("esp32"), user(Some("press-1"))).await.unwrap();
        assert!(matches!(users.add(name("plc1"), user(None)).await, Err(UserError::Exists(_))));
        drop(users);
        state.close().await;

        let state = State::open(dir.path()).unwrap();
        let users = Users::load(state.clone(), None).unwrap();
        assert_eq!(users.list().len(), 2);
        let names = users.of(&"press-1".parse().unwrap());
        assert_eq!(names, [name("esp32")]);
        users.forget(&names.iter().map(Identity::account).collect()).await.unwrap();
        assert!(users.get(&name("esp32")).is_none() && users.get(&name("plc1")) == Some(user(None)));
        users.remove(&name("plc1")).await.unwrap();
        assert!(matches!(users.remove(&name("plc1")).await, Err(UserError::Unknown(_))));
    }
}
