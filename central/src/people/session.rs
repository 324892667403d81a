//! Sessions of signed-in users: a random secret in a cookie, its hash in the store.
//!
//! A session ends 12 h after it was last used and 7 days after the sign-in, when the user signs out, is removed, or gets another
//! password or role; central's restart does not end it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::user::User;
use crate::token;

/// A session that is not used for so long ends.
pub const IDLE_MS: u64 = 12 * 3600 * 1000;
/// A session ends so long after the sign-in.
pub const LIFE_MS: u64 = 7 * 24 * 3600 * 1000;

/// A valid session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What the store finds it by.
    pub hash: String,
    pub user: User,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub used_ms: u64,
}

impl Session {
    /// Until when it is valid if it is not used again.
    pub fn expires_ms(&self) -> u64 {
        self.used_ms.saturating_add(IDLE_MS).min(self.created_ms.saturating_add(LIFE_MS))
    }
}

/// A new session, with the secret that the browser keeps.
#[derive(Debug)]
pub struct SignedIn {
    pub secret: String,
    pub session: Session,
}

/// A new session's secret and its hash.
pub(super) fn new_secret() -> (String, String) {
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let hash = token::hash(&secret);
    (secret, hash)
}
