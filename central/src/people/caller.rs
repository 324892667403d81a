//! Who makes a request.

use central_core::access::further::{Further, LacksFurther};
use central_core::access::permission::{Permission, Permissions};

use super::session::Session;

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A program or a person.
    pub who: Who,
    /// What it may do.
    pub permissions: Permissions,
}

/// The bearer of a token, or a user who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An API token, by its name.
    Token(String),
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

    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// Checks that it may make a request that has a part which another permission is for.
    ///
    /// # Errors
    /// [`LacksFurther`].
    pub fn also_needs(&self, further: &'static Further) -> Result<(), LacksFurther> {
        further.check(self.permissions)
    }

    /// The session, when it is a user's.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::Token(_) => None,
            Who::Session(session) => Some(session),
        }
    }
}
