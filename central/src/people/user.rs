//! A user as the store keeps one.

use super::names::UserName;
use crate::token::SiteRoles;

/// A user, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// In the API's paths.
    pub id: UserName,
    /// What the user types to sign in: an e-mail address, for example.
    pub name: UserName,
    /// What the user may do.
    pub roles: SiteRoles,
    /// Whether there is a password to sign in with.
    pub has_password: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When the user signed in last.
    pub signed_in_ms: Option<u64>,
}
