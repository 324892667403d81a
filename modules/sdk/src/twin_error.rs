//! Why a twin request has no answer.

use std::time::Duration;

use serde_json::Value;

/// How long a connected gateway may take to answer a twin request.
pub(crate) const TWIN_ANSWER: Duration = Duration::from_secs(30);

/// Why the twin did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// The module stops.
    #[error("the module stops; the twin has not answered")]
    Stopped,
    /// The gateway refused.
    #[error("the gateway answered the twin request with {status}: {message}")]
    Refused {
        /// HTTP-like.
        status: u16,
        /// Its own text.
        message: String,
    },
    /// The gateway is connected and silent.
    #[error("the gateway did not answer the twin request within {} s", TWIN_ANSWER.as_secs())]
    NoAnswer,
}

impl TwinError {
    pub(crate) fn refused(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        Self::Refused { status, message: body["message"].as_str().unwrap_or("no message").to_owned() }
    }
}
