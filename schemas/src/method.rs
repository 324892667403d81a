//! A direct method (operators say command): one request, exactly one answer.
//! Source: IoT Hub direct methods; the HTTP body is the one of `POST /twins/{id}/methods`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What to call, with what, and how long to wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodRequest {
    /// At most 100 characters.
    pub method_name: String,
    /// Any JSON; `null` when left out.
    #[serde(default)]
    pub payload: Value,
    /// Seconds to wait for the answer, 5 to 300.
    #[serde(default = "response_timeout_default")]
    pub response_timeout_in_seconds: u64,
    /// Seconds to wait for the target to be connected and listening, 0 to 300.
    #[serde(default)]
    pub connect_timeout_in_seconds: u64,
}

fn response_timeout_default() -> u64 {
    30
}

/// What the target answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodResponse {
    /// The target's own status, HTTP-like.
    pub status: i64,
    /// Any JSON.
    #[serde(default)]
    pub payload: Value,
}

/// Why there is no answer from the target. Every call ends in a response or in one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum MethodFailure {
    /// Nobody is connected under that identity, or it has not subscribed to methods. HTTP 404.
    #[error("not connected: {target} is not connected or does not listen for methods")]
    NotConnected {
        /// Whom the call was for.
        target: String,
    },
    /// The target was called and did not answer by the deadline. HTTP 504.
    #[error("no answer by the deadline: {target} was called and did not answer within {seconds} s")]
    NoAnswer {
        /// Whom the call was for.
        target: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The target did not come while the command was valid, and was never called. HTTP 504.
    #[error(
        "expired: {target} did not listen for methods within {seconds} s, for which the command was valid"
    )]
    Expired {
        /// Whom the call was for.
        target: String,
        /// How long it was valid.
        seconds: u64,
    },
    /// The gateway took the command and has not reported how it ended; the target may have been called. HTTP 504.
    #[error(
        "no answer by the deadline: the gateway of {target} has not reported within {seconds} s; whether {target} was called is not known"
    )]
    NotReported {
        /// Whom the call was for.
        target: String,
        /// How long its answer was waited for.
        seconds: u64,
    },
    /// The gateway took the command and does not have it any more; the target may have been called. HTTP 504.
    #[error(
        "lost: the gateway of {target} took the command and has lost it; whether {target} was called is not known"
    )]
    Lost {
        /// Whom the call was for.
        target: String,
    },
    /// The gateway keeps as many waiting commands as it may; the target was never called. HTTP 403.
    #[error("not kept: {most} commands wait at the gateway already; {target} was not called")]
    QueueFull {
        /// Whom the call was for.
        target: String,
        /// How many may wait.
        most: usize,
    },
}
