//! What each part of the daemon offers that keeps something by identity: of whom, and how it forgets a removed one.

use std::collections::BTreeSet;

use edge_buffer::AppendError;
use edge_hub::clients::{Clients, ForgetError};
use futures_util::future::BoxFuture;
use schemas::names::Identity;

use crate::state::StateError;

/// Identities that were removed. One of a device or of an account covers its modules or clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed(BTreeSet<Identity>);

impl Removed {
    /// Returns true when nothing was kept of the identity is to stay.
    pub fn covers(&self, identity: &Identity) -> bool {
        self.0.contains(identity) || self.0.contains(&Identity::device(identity.device.clone()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter()
    }
}

impl FromIterator<Identity> for Removed {
    fn from_iter<T: IntoIterator<Item = Identity>>(identities: T) -> Self {
        Self(identities.into_iter().collect())
    }
}

/// A part of the program that keeps something by identity. `agent.rs` has the list of all of them.
pub trait IdentityState: Send + Sync {
    /// Of whom anything is kept.
    fn identities(&self) -> BTreeSet<Identity>;

    /// Forgets all that is kept of them: at once in memory, and on disk when the future ends. May be called again.
    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>>;
}

/// Why a removal has not ended.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// What the state keeps.
    #[error(transparent)]
    State(#[from] StateError),
    /// What the listeners keep.
    #[error(transparent)]
    Session(#[from] ForgetError),
    /// What waits for modules.
    #[error("what waited for a removed module is not given up on disk")]
    Queue(#[from] AppendError),
}

impl IdentityState for Clients {
    fn identities(&self) -> BTreeSet<Identity> {
        self.known()
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        let ended = Clients::forget(self, |who| removed.covers(who), "it was removed");
        Box::pin(async move { Ok(ended.await?) })
    }
}
