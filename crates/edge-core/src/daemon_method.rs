//! Payloads of `$edgeAgent`'s direct methods. Source: IoT Edge: `schemaVersion` must have the major version 1; another minor
//! version than 0 is read as 1.0.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error_chain::chain;
use crate::redact;

/// The field that holds where an upload goes, and its signature.
pub const SAS_URL: &str = "sasUrl";

/// Why a payload is wrong.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("the payload cannot be read; it has this form: {form}")]
    Unreadable {
        form: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("schemaVersion: found {found:?}; this gateway knows 1.0")]
    Version { found: String },
    #[error("{field}: found {found}; {allowed}")]
    Field { field: String, found: String, allowed: &'static str },
    #[error("{field}: found {found:?}, which is no regular expression")]
    Pattern {
        field: String,
        found: String,
        #[source]
        source: regex::Error,
    },
}

impl PayloadError {
    /// The error with its causes, for whoever called. What it quotes of the payload may hold a secret, which is hidden.
    pub fn shown(&self) -> String {
        match self {
            // Its own text has the form alone, with the names of secret fields.
            Self::Unreadable { source, .. } => format!("{self}: {}", redact::text(&source.to_string())),
            // It quotes nothing (`upload::sas_url`), and the name of the field is a secret's.
            Self::Field { field, .. } if field == SAS_URL => self.to_string(),
            _ => redact::text(&chain(self).to_string()).into_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    schema_version: String,
}

/// Reads a payload of schema version 1. `form` is shown to whoever wrote another one.
///
/// # Errors
/// [`PayloadError::Unreadable`], [`PayloadError::Version`].
pub fn read<T: DeserializeOwned>(payload: &Value, form: &'static str) -> Result<T, PayloadError> {
    let unreadable = |source| PayloadError::Unreadable { form, source };
    let found = Versioned::deserialize(payload).map_err(unreadable)?.schema_version;
    if found.split('.').next() != Some("1") {
        return Err(PayloadError::Version { found });
    }
    T::deserialize(payload).map_err(unreadable)
}
