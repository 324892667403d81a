//! What proved a client, so that its connection can be ended when exactly that is taken back.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Tells one secret from another without holding it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark([u8; 32]);

impl Mark {
    /// The mark of a key or of a password's hash.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(not shown)")
    }
}

/// What proved a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nothing that could be taken back without the identity itself.
    #[default]
    Standing,
    /// A SAS token made with this key.
    Key(Mark),
    /// A certificate with this SHA-256 thumbprint, which the registry names.
    Thumbprint([u8; 32]),
    /// A certificate that one of the device authorities signed.
    Authority,
    /// A user's password, by the mark of its stored hash.
    Password(Mark),
}
