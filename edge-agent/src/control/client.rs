//! The command line's end of the control socket.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use unix_http::{Limits, Request, RequestError, Response, send};

use super::socket::socket;

/// Longest wait for an answer, unless the request itself says how long the daemon may take. The slowest other answer is that of a
/// restart, which waits for Docker to stop a container.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);
/// Largest answer: a manifest, or a page of devices; a manifest has at most 8 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why the daemon did not answer, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("edge-agent does not answer on {socket}: is it running, and is this its user?")]
    Away {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no answer from edge-agent")]
    Broken(#[source] RequestError),
    /// The answer is not JSON.
    #[error("edge-agent's answer could not be read")]
    Unreadable(#[source] serde_json::Error),
    /// The daemon refused the request.
    #[error("{message}")]
    Refused {
        /// Status code of HTTP.
        status: u16,
        message: String,
    },
}

impl From<RequestError> for CallError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Connect { socket, source } => Self::Away { socket, source },
            error => Self::Broken(error),
        }
    }
}

/// Sends a request; an answer other than success is an error with the daemon's message.
async fn open(data_dir: &Path, request: Request<'_>, timeout: Duration) -> Result<Response, CallError> {
    let limits = Limits { timeout, body_bytes_max: ANSWER_BYTES_MAX };
    let response = send(&socket(data_dir), request, limits).await?;
    if response.is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.body().await?;
    let answer = serde_json::from_slice::<Value>(&body);
    let message = answer.ok().and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()));
    let text = || String::from_utf8_lossy(&body).into_owned();
    Err(CallError::Refused { status, message: message.unwrap_or_else(text) })
}

/// Sends a request and returns the JSON of its answer.
///
/// # Errors
/// [`CallError`].
pub async fn request(
    data_dir: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Value, CallError> {
    let json = body.map(Value::to_string);
    let response = open(data_dir, Request { method, path, json: json.as_deref() }, timeout).await?;
    serde_json::from_slice(&response.body().await?).map_err(CallError::Unreadable)
}

/// Sends a GET and passes each part of the answer to `part` as it arrives, until the end or until `part` breaks. Only the head of the
/// answer has a time limit: a log that is followed has none.
///
/// # Errors
/// [`CallError`].
pub async fn stream(
    data_dir: &Path,
    path: &str,
    mut part: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), CallError> {
    let mut response = open(data_dir, Request { method: "GET", path, json: None }, ANSWER_TIMEOUT).await?;
    while let Some(data) = response.next_part().await? {
        if part(&data).is_break() {
            break;
        }
    }
    Ok(())
}
