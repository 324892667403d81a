//! A client of HTTP/1.1 over Unix sockets: the command line uses it for the daemon's control socket, modules for the workload API.
//!
//! Each request has a connection of its own, because the servers of these sockets answer one request per connection. Bodies are JSON in
//! both directions, and the caller parses them.
//!
//! # Guarantees
//! - A server that accepts the connection and never answers costs [`Limits::timeout`] and no more; so does one that sends its answer
//!   byte by byte.
//! - No more than [`Limits::body_bytes_max`] bytes of an answer are kept in memory.
//! - No task is started: dropping a future or a [`Response`] closes the connection.
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From connecting to the last byte of the answer; with [`Response::next_part`] to the last byte of its head.
    pub timeout: Duration,
    /// Bytes of the answer's body that [`Response::body`] accepts.
    pub body_bytes_max: usize,
}

/// A request; without a body that is an empty one.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Body in JSON.
    pub json: Option<&'a str>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens on the socket, or this user may not open it.
    #[error("connecting to {socket}")]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// Why it could not be opened.
        #[source]
        source: std::io::Error,
    },
    /// Method or path are not valid in HTTP.
    #[error("making the request")]
    Invalid(#[source] hyper::http::Error),
    /// The server closed the connection, or what it sent is not HTTP.
    #[error("exchanging HTTP")]
    Http(#[source] hyper::Error),
    /// [`Limits::timeout`] has passed.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The body exceeds [`Limits::body_bytes_max`], which this holds.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
}

/// The connection's I/O as a future: hyper reads and writes only while it is polled.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An answer whose head was received.
pub struct Response {
    status: u16,
    body: Incoming,
    /// `None` once the server has closed it.
    connection: Option<Connection>,
    limits: Limits,
    deadline: Instant,
}

/// Sends a request and receives the head of its answer.
///
/// # Errors
/// [`RequestError`], but [`RequestError::TooLong`].
pub async fn send(socket: &Path, request: Request<'_>, limits: Limits) -> Result<Response, RequestError> {
    let deadline = Instant::now() + limits.timeout;
    let exchange = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| RequestError::Connect { socket: socket.to_owned(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(RequestError::Http)?;
        let mut connection: Option<Connection> = Some(Box::pin(connection));
        let request = hyper::Request::builder()
            .method(request.method)
            .uri(request.path)
            // HTTP/1.1 requires it; a socket has no host name.
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(request.json.unwrap_or_default().to_owned())))
            .map_err(RequestError::Invalid)?;
        let response = beside(&mut connection, sender.send_request(request)).await;
        let (head, body) = response.map_err(RequestError::Http)?.into_parts();
        Ok(Response { status: head.status.as_u16(), body, connection, limits, deadline })
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(RequestError::Timeout(limits.timeout)))
}

impl Response {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True for the status codes 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Receives the body to its end.
    ///
    /// # Errors
    /// [`RequestError::Http`], [`RequestError::Timeout`] or [`RequestError::TooLong`].
    pub async fn body(mut self) -> Result<Bytes, RequestError> {
        let Limits { timeout, body_bytes_max } = self.limits;
        let deadline = self.deadline;
        let whole = async {
            let mut body = BytesMut::new();
            while let Some(part) = self.next_part().await? {
                if part.len() > body_bytes_max - body.len() {
                    return Err(RequestError::TooLong(body_bytes_max));
                }
                body.extend_from_slice(&part);
            }
            Ok(body.freeze())
        };
        timeout_at(deadline, whole).await.unwrap_or(Err(RequestError::Timeout(timeout)))
    }

    /// Receives the next part of the body, for as long as it takes; `None` at the end. For a body that goes on as long as something
    /// happens, such as a log.
    ///
    /// # Errors
    /// [`RequestError::Http`].
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, RequestError> {
        while let Some(frame) = beside(&mut self.connection, self.body.frame()).await {
            // A frame without data holds trailers.
            if let Ok(data) = frame.map_err(RequestError::Http)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Awaits `exchange` while the connection does its I/O. If the connection ends first, hyper has given `exchange` its last result, or the
/// error that ended it.
async fn beside<T>(connection: &mut Option<Connection>, exchange: impl Future<Output = T>) -> T {
    let mut exchange = pin!(exchange);
    if let Some(running) = connection {
        tokio::select! {
            // What was received before the connection ended comes first.
            biased;
            output = &mut exchange => return output,
            _ = running => {}
        }
        // A future that has ended must not be polled again.
        *connection = None;
    }
    exchange.await
}

#[cfg(test)]
mod tests;
