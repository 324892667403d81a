//! Asks the central that serves a data directory: for commands whose answer only it knows.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the answer may take.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("central does not answer at {address}; is `central serve` running with this configuration?")]
    Unreachable { address: SocketAddr, source: std::io::Error },
    /// The answer is not HTTP with JSON.
    #[error("the answer of {address} is not what central answers")]
    Unreadable { address: SocketAddr },
    #[error("{0}")]
    Refused(String),
}

/// Gets the JSON that a path of the API answers to a token's line. `listen` is `[http] listen`, which must be plain HTTP.
///
/// # Errors
/// [`AskError`].
pub fn get(listen: SocketAddr, path: &str, line: &str) -> Result<Value, AskError> {
    ask(listen, &format!("GET {path}"), line, "")
}

/// As [`get`], by a POST with a body.
///
/// # Errors
/// [`AskError`].
pub fn post(listen: SocketAddr, path: &str, line: &str, body: &Value) -> Result<Value, AskError> {
    ask(listen, &format!("POST {path}"), line, &body.to_string())
}

fn ask(listen: SocketAddr, request: &str, line: &str, body: &str) -> Result<Value, AskError> {
    let mut address = listen;
    // The command runs on the machine of this central, which then answers on loopback as well.
    if listen.ip().is_unspecified() {
        address.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let answer =
        exchange(address, request, line, body).map_err(|source| AskError::Unreachable { address, source })?;
    let unreadable = || AskError::Unreadable { address };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    let status = head.split(' ').nth(1).ok_or_else(unreadable)?;
    let body: Value = serde_json::from_str(body).map_err(|_| unreadable())?;
    if ["200", "202"].contains(&status) {
        return Ok(body);
    }
    let message = body["error"]["message"].as_str().unwrap_or("it gave no reason");
    Err(AskError::Refused(format!("central refused with status {status}: {message}")))
}

/// HTTP/1.0, so that the body ends with the connection and has no chunks.
fn exchange(address: SocketAddr, request: &str, line: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    write!(
        stream,
        "{request} HTTP/1.0\r\nHost: {address}\r\nAuthorization: {line}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(std::io::Error::other)
}
