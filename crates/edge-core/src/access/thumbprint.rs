//! The hash by which a registry names a certificate.

use std::fmt;
use std::str::FromStr;

use super::proof::Fingerprint;

/// The hash of a certificate, by which a registry names it: SHA-1 or SHA-256, as IoT Hub takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbprint {
    /// 40 hexadecimal digits.
    Sha1([u8; 20]),
    /// 64 hexadecimal digits.
    Sha256([u8; 32]),
}

/// A text that is no thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found {digits} hexadecimal digits; a thumbprint is SHA-1 (40) or SHA-256 (64), with or without colons"
)]
pub struct ThumbprintError {
    digits: usize,
}

impl Thumbprint {
    /// The SHA-256 thumbprint of a certificate.
    pub fn sha256(der: &[u8]) -> Self {
        Self::Sha256(Fingerprint::of(der).sha256)
    }

    /// Whether this names the certificate.
    pub fn names(&self, certificate: &Fingerprint) -> bool {
        match self {
            Self::Sha1(hash) => certificate.sha1 == *hash,
            Self::Sha256(hash) => certificate.sha256 == *hash,
        }
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        // openssl prints thumbprints with colons, Windows with blanks.
        let plain: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b' ')).collect();
        let wrong =
            || ThumbprintError { digits: plain.iter().filter(|byte| byte.is_ascii_hexdigit()).count() };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> =
            plain.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
        let bytes = bytes.ok_or_else(wrong)?;
        if let Ok(hash) = <[u8; 32]>::try_from(bytes.as_slice()) {
            return Ok(Self::Sha256(hash));
        }
        <[u8; 20]>::try_from(bytes.as_slice()).map(Self::Sha1).map_err(|_| wrong())
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha1(hash) => hash,
            Self::Sha256(hash) => hash,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}
