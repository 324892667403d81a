//! Who uses central in a browser: users with passwords, their sessions, and the first user of a new site.
//!
//! Another way to sign in (OpenID Connect) ends, as a password does, in [`session::start`] for a user of the store.

pub mod guesses;
pub mod names;
pub mod password;
pub mod roles;
pub mod session;
pub mod setup;
mod sign_in;

use std::sync::Arc;

use crate::store::{Store, StoreError};
use crate::token::Role;
use guesses::Guesses;
use names::UserName;
use password::{Hasher, HashingError, PasswordRule};
use session::Session;
use setup::{SetupCode, SetupFileError};

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

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A program or a person.
    pub who: Who,
    /// What it may do.
    pub role: Role,
}

/// The bearer of a token, or a user who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An API token, by its name.
    Token(String),
    /// A user's session.
    Session(Session),
}

impl Caller {
    /// The token's or the user's name.
    pub fn name(&self) -> &str {
        match &self.who {
            Who::Token(name) => name,
            Who::Session(session) => session.user.name.as_str(),
        }
    }

    /// `token` or `user`.
    pub fn kind(&self) -> &'static str {
        match self.who {
            Who::Token(_) => "token",
            Who::Session(_) => "user",
        }
    }

    /// The session, when it is a user's.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::Token(_) => None,
            Who::Session(session) => Some(session),
        }
    }
}

/// The users of this site. One for the whole program.
pub struct People {
    pub(crate) store: Store,
    pub(crate) hasher: Hasher,
    guesses: Guesses,
    setup: SetupCode,
    noted: session::Noted,
}

impl People {
    /// For the users in `store`; while there are none, the set-up code is in `data_dir` and in the log.
    ///
    /// # Errors
    /// [`PeopleError::Store`] or [`PeopleError::SetupFile`].
    pub async fn open(store: Store, data_dir: &std::path::Path) -> Result<Arc<Self>, PeopleError> {
        let people = Self {
            setup: SetupCode::new(data_dir),
            store,
            hasher: Hasher::default(),
            guesses: Guesses::default(),
            noted: session::Noted::default(),
        };
        match people.needs_setup().await? {
            true => {
                let code = people.setup.make()?;
                tracing::info!(
                    code,
                    "central has no user; open its address in a browser and enter this set-up code"
                );
            }
            false => people.setup.remove()?,
        }
        Ok(Arc::new(people))
    }
}

/// A user as the API shows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// In the API's paths.
    pub id: UserName,
    /// What the user types to sign in: an e-mail address, for example.
    pub name: UserName,
    /// What the user may do.
    pub role: Role,
    /// Whether there is a password to sign in with.
    pub has_password: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When the user signed in last.
    pub signed_in_ms: Option<u64>,
}
