//! The command line's end of the daemon's socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;

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
    let socket = socket(data_dir);
    let stream = tokio::net::UnixStream::connect(&socket)
        .await
        .map_err(|source| CallError::Away { socket: socket.clone(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
    let driver = edge_hub::tasks::spawn("connection to the daemon", connection);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CallError::Unreadable(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(CallError::Broken)?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(CallError::Broken)?.to_bytes();
    driver.abort();
    let answer = serde_json::from_slice::<Value>(&bytes);
    match (status, answer) {
        (200..=299, Ok(answer)) => Ok(answer),
        (200..=299, Err(error)) => Err(CallError::Unreadable(error.to_string())),
        (_, answer) => {
            let message = answer.ok().and_then(|a| Some(a.get("message")?.as_str()?.to_owned()));
            let text = || String::from_utf8_lossy(&bytes).into_owned();
            Err(CallError::Refused { status, message: message.unwrap_or_else(text) })
        }
    }
}
