//! What proved a client, so that its connection can be ended when exactly that is taken back.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Tells one secret from another without holding it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint([u8; 32]);

impl KeyFingerprint {
    /// The mark of a key or of a password's hash.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFingerprint(not shown)")
    }
}

/// Both hashes of one certificate: a registry names it by either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// SHA-1.
    pub sha1: [u8; 20],
}

impl Fingerprint {
    /// Of a certificate, DER.
    pub fn of(der: &[u8]) -> Self {
        Self { sha256: Sha256::digest(der).into(), sha1: Sha1::digest(der).into() }
    }
}

/// What proved a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nothing that could be taken back without the identity itself.
    #[default]
    IdentityAlone,
    /// A SAS token made with this key.
    Key(KeyFingerprint),
    /// A certificate that the registry names by its thumbprint.
    Certificate(Fingerprint),
    /// A certificate whose chain held up to this authority.
    Authority(KeyFingerprint),
    /// A user's password, by the mark of its stored hash.
    Password(KeyFingerprint),
}

impl Proof {
    /// What is said to a client whose proof has ended.
    pub fn expired(&self) -> &'static str {
        match self {
            Self::Key(_) => "its SAS token expired",
            Self::Certificate(_) | Self::Authority(_) => "its certificate expired",
            Self::IdentityAlone | Self::Password(_) => "its login expired",
        }
    }
}
