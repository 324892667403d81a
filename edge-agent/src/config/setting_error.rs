//! A setting of `edge.toml` that cannot be used.

use std::error::Error;

use edge_core::deploy::policy::PolicyError;

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// It is missing, or has a value that is not allowed.
    #[error("{key}: {problem}")]
    NotAllowed {
        /// With its section, for example `[listen] mqtt`.
        key: String,
        /// What was found and what is allowed.
        problem: String,
    },
    /// Its text cannot be read.
    #[error("{key}")]
    Unreadable {
        /// With its section.
        key: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A section that is refused by its own rules, whose message names the key.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl SettingError {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::NotAllowed { key: key.into(), problem: problem.into() }
    }

    pub(super) fn unreadable(key: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreadable { key: key.to_owned(), source: source.into() }
    }
}
