//! Why something about a user was not done.

use super::assigned::AssignmentError;
use super::authority::AuthorityError;
use super::names::UserName;
use super::password::{HashingError, PasswordRule};
use super::setup_code::SetupFileError;
use crate::store::StoreError;

/// Why something about a user was not done.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The name, the password or the code is wrong: one text, so that nobody learns which. 401.
    #[error("the user or the password is wrong")]
    WrongPassword,
    /// 401.
    #[error(
        "the set-up code is wrong; central wrote it to its log when it started, and to the file setup-code in its data directory"
    )]
    WrongCode,
    /// 429.
    #[error("too many failed attempts; try again in a few seconds")]
    TooManyFailures,
    /// 409.
    #[error("central is set up already: sign in, or have an administrator add you")]
    SetUpAlready,
    /// 403: not 401, which says that the session has ended.
    #[error("the current password is wrong")]
    WrongCurrent,
    /// 404.
    #[error("there is no user `{0}`")]
    Unknown(String),
    /// 409.
    #[error("another user has the id or the name `{0}`; choose another one, or remove that user first")]
    NameTaken(UserName),
    /// 409.
    #[error("user `{0}` is the last administrator who can sign in; add another one first")]
    LastAdministrator(UserName),
    /// 409.
    #[error("{0} users are there already; remove one first")]
    TooMany(u32),
    /// 403.
    #[error(
        "user `{0}` may do more than you; only who may do all of it changes the roles, the password or the name to sign in with, or removes the user"
    )]
    MayDoMore(UserName),
    /// 409.
    #[error("roles: those of user `{0}` cannot be read; write them in this request too")]
    UnreadableRoles(UserName),
    /// 401, 403 or 503.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// 403, 422 or 503.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// 422.
    #[error(transparent)]
    Rule(#[from] PasswordRule),
    /// 429 or 500.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// 500.
    #[error(transparent)]
    SetupFile(#[from] SetupFileError),
    /// 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for PeopleError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
