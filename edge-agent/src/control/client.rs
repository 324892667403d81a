//! The command line's end of the daemon's socket.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::socket::socket;

/// Why the daemon did not answer, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("edge-agent does not answer on {socket}: is it running, and is this its user?")]
    Away {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("edge-agent ended the connection")]
    Broken(#[source] hyper::Error),
    /// The answer is no HTTP or JSON of ours.
    #[error("edge-agent's answer could not be read: {0}")]
    Unreadable(String),
    /// The daemon says no.
    #[error("{message}")]
    Refused {
        /// As HTTP has it.
        status: u16,
        message: String,
    },
}

/// A request that is sent, and the task that drives its connection.
async fn send(
    data_dir: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(Response<Incoming>, AbortOnDrop), CallError> {
    let socket = socket(data_dir);
    let stream = tokio::net::UnixStream::connect(&socket)
        .await
        .map_err(|source| CallError::Away { socket: socket.clone(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
    let driver = AbortOnDrop(edge_hub::tasks::spawn("connection to the daemon", connection));
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CallError::Unreadable(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(CallError::Broken)?;
    if response.status().is_success() {
        return Ok((response, driver));
    }
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(CallError::Broken)?.to_bytes();
    let answer = serde_json::from_slice::<Value>(&bytes);
    let message = answer.ok().and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()));
    let text = || String::from_utf8_lossy(&bytes).into_owned();
    Err(CallError::Refused { status, message: message.unwrap_or_else(text) })
}

/// One request; gives the JSON of the answer.
///
/// # Errors
/// [`CallError`].
pub async fn request(
    data_dir: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CallError> {
    let (response, _driver) = send(data_dir, method, path, body).await?;
    let bytes = response.into_body().collect().await.map_err(CallError::Broken)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| CallError::Unreadable(error.to_string()))
}

/// A GET whose answer is handed on part by part as it comes, until `part` says that it wants no more.
///
/// # Errors
/// [`CallError`].
pub async fn stream(
    data_dir: &Path,
    path: &str,
    mut part: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), CallError> {
    let (response, _driver) = send(data_dir, "GET", path, None).await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(CallError::Broken)?;
        if frame.data_ref().is_some_and(|data| part(data).is_break()) {
            break;
        }
    }
    Ok(())
}

/// Ends a task when nobody needs it any more.
struct AbortOnDrop(JoinHandle<Result<(), hyper::Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
