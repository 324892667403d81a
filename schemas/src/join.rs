//! What `central gateway add` prints and `edge-agent init --join` reads: one word that holds a gateway's connection string and the
//! certificate authority of central.
//!
//! `lineside1.` and then base64url without padding (RFC 4648 section 5) of `{"upstream": CONNECTION_STRING, "ca": PEM}`. It holds
//! the gateway's key, so it is a secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::connection_string::{ConnectionString, ConnectionStringError};

const PREFIX: &str = "lineside1.";
/// Characters of the longest word: some fifty certificates of usual size.
const LEN_MAX: usize = 128 * 1024;

/// What a new gateway needs to know of central.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The gateway's connection string at central.
    pub upstream: ConnectionString,
    /// Certificate authorities that sign central's certificate, PEM.
    pub ca_pem: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    upstream: String,
    ca: String,
}

/// Why a text is not a join word. The text itself is never part of the message: it holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// It begins otherwise.
    #[error(
        "found something else than `lineside1.…`, which `central gateway add` prints; copy all of it, without blanks"
    )]
    Prefix,
    /// It was cut or changed on the way.
    #[error("the text after `lineside1.` was cut or changed; copy all of what `central gateway add` printed")]
    Damaged,
    /// Its connection string is wrong.
    #[error("its connection string is wrong")]
    Upstream(#[from] ConnectionStringError),
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError::Prefix)?;
        if encoded.len() > LEN_MAX {
            return Err(JoinTokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JoinTokenError::Damaged)?;
        let content: Content = serde_json::from_slice(&json).map_err(|_| JoinTokenError::Damaged)?;
        Ok(Self { upstream: content.upstream.parse()?, ca_pem: content.ca })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = Content { upstream: self.upstream.to_string(), ca: self.ca_pem.clone() };
        let json = serde_json::to_vec(&content).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection string holds a key.
        write!(f, "JoinWord of {}", self.upstream.device_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> JoinToken {
        JoinToken {
            upstream: "HostName=central.example:8884;DeviceId=gw-1;SharedAccessKey=YWJj".parse().unwrap(),
            ca_pem: "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n".into(),
        }
    }

    #[test]
    fn what_is_printed_is_read_again_and_is_one_word_for_a_shell() {
        let text = sample().to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), sample());
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{text}");
        assert!(!format!("{:?}", sample()).contains("YWJj"));
    }

    #[test]
    fn a_join_token_that_is_cut_anywhere_is_refused_and_not_shown() {
        let text = sample().to_string();
        for end in 0..text.len() {
            let error = text[..end].parse::<JoinToken>().unwrap_err();
            let expected = if end < PREFIX.len() { JoinTokenError::Prefix } else { JoinTokenError::Damaged };
            assert_eq!(error, expected, "cut at {end}");
        }
        let other = URL_SAFE_NO_PAD.encode(r#"{"upstream": "HostName=c;DeviceId=gw", "ca": ""}"#);
        let error = format!("{PREFIX}{other}").parse::<JoinToken>().unwrap_err();
        assert!(matches!(error, JoinTokenError::Upstream(_)), "{error}");
    }
}
