//! Rows of the audit log.

use serde_json::Value;

use crate::clock::now_ms;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLimits {
    pub rows: u64,
    /// What was refused, and as many of what people do about themselves: whoever may change nothing can make such rows, and must
    /// not push out the others.
    pub refused_rows: u64,
    pub age_ms: u64,
}

/// Declares an enum that is stored and shown as a word.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// As it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownValue;

            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(UnknownValue(other.to_owned())),
                }
            }
        }
    };
}

/// A word of the audit log is of no known kind.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no word of the audit log")]
pub struct UnknownValue(String);

text_enum! {
    ActorKind {
        User = "user",
        Token = "token",
        /// A command on central's machine.
        CommandLine = "commandLine",
        Nobody = "nobody",
    }
}

text_enum! {
    /// What was asked for.
    EntryKind {
        Created = "created",
        /// Something that was there.
        Updated = "updated",
        Deleted = "deleted",
        /// A command of a device or module.
        Command = "command",
        Action = "action",
        /// What is read for operators alone: the log of a module.
        Read = "read",
        SignIn = "signIn",
        SignOut = "signOut",
        /// The first user.
        Setup = "setup",
        /// By the role, the password, the token or the origin.
        Refused = "refused",
    }
}

text_enum! {
    /// Rows of one kind; the oldest of a kind are deleted for newer ones.
    Class {
        Change = "change",
        /// What people of any role do about themselves (sign in and out, and set their own password), and what is read.
        Own = "own",
        Refused = "refused",
    }
}

impl EntryKind {
    /// Which rows this one may push out.
    pub fn class(self) -> Class {
        match self {
            Self::Refused => Class::Refused,
            Self::Read | Self::SignIn | Self::SignOut => Class::Own,
            Self::Created | Self::Updated | Self::Deleted | Self::Command | Self::Action | Self::Setup => {
                Class::Change
            }
        }
    }
}

/// What is known before the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The user's or token's name, or the command; empty when nobody is known.
    pub who: String,
    /// What [`Entry::who`] names.
    pub who_kind: ActorKind,
    /// What was asked for.
    pub kind: EntryKind,
    /// The HTTP method; empty for commands.
    pub method: String,
    pub path: String,
    /// Of the client; empty for commands.
    pub address: String,
}

impl Entry {
    /// A row of a command on central's machine about `path`.
    pub fn of_command(command: &str, kind: EntryKind, path: String) -> Self {
        Self {
            at_ms: now_ms(),
            who: command.to_owned(),
            who_kind: ActorKind::CommandLine,
            kind,
            method: String::new(),
            path,
            address: String::new(),
        }
    }
}

/// What is known with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeOutcome {
    pub status: u16,
    pub kind: EntryKind,
    /// Its maker may change nothing but what is its own.
    pub is_own: bool,
    /// What stood before and does not any more: JSON.
    pub before: Option<String>,
    /// The value since then, or what was sent: JSON.
    pub after: Option<String>,
}

impl ChangeOutcome {
    /// Which rows this one may push out. What a caller did wrong changed nothing, whatever was asked for.
    pub fn class(&self) -> Class {
        if (400..500).contains(&self.status) {
            Class::Refused
        } else if self.is_own {
            Class::Own
        } else {
            self.kind.class()
        }
    }

    /// Returns true if the request was not looked at, and is to come later.
    pub fn is_postponed(&self) -> bool {
        self.status == 429
    }
}

/// A row as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEntry {
    /// Grows with each row.
    pub id: i64,
    /// What was asked for.
    pub entry: Entry,
    /// `None`: no answer was given, or none as yet.
    pub status: Option<u16>,
    /// Of [`ChangeOutcome`].
    pub before: Option<Value>,
    /// Of [`ChangeOutcome`].
    pub after: Option<Value>,
    /// What the row belongs to.
    pub organization: String,
}
