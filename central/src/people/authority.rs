//! What admitted a request, read again in the turn of the writer that makes the change: the body may come long after the head, and
//! whoever was revoked meanwhile changes nobody's rights any more.

use central_core::access::permission::{Permission, Permissions};
use rusqlite::Connection;

use crate::clock::now_ms;
use crate::store::{StoreError, sessions, tokens};

/// The credential that admitted a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API token, by its hash.
    Token(String),
    /// A session, by its hash.
    Session(String),
}

impl Credential {
    /// What it allows now; `None` when it has ended.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn permissions(&self, c: &Connection, now_ms: u64) -> rusqlite::Result<Option<Permissions>> {
        Ok(match self {
            Self::Token(hash) => {
                let grant = tokens::find(c, hash)?;
                grant.filter(|grant| grant.expires_ms > now_ms).map(|grant| grant.roles.permissions())
            }
            Self::Session(hash) => {
                sessions::find(c, hash, now_ms)?.map(|session| session.user.roles.permissions())
            }
        })
    }
}

/// What admitted a request, and the permission that its operation needs.
#[derive(Debug, Clone)]
pub struct RequestAuthority {
    pub credential: Credential,
    pub needed: Option<Permission>,
}

/// Why a change is not made that was admitted.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// 401.
    #[error("the token or session has ended since the request began")]
    Ended,
    /// 403.
    #[error("the permission {} was taken away since the request began", .0.id())]
    Lost(Permission),
    /// 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AuthorityError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl RequestAuthority {
    /// What it allows now.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn held(&self, c: &Connection) -> Result<Permissions, AuthorityError> {
        let held = self.credential.permissions(c, now_ms())?.ok_or(AuthorityError::Ended)?;
        match self.needed {
            Some(needed) if !held.has(needed) => Err(AuthorityError::Lost(needed)),
            _ => Ok(held),
        }
    }
}
