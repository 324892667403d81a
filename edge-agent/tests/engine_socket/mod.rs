//! Requests to a Docker Engine on its socket, without a process for each.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

/// One request, and the body of its answer; or the engine's refusal, or why it was not reached.
pub(crate) fn request(socket: &str, method: &str, path: &str, body: &str) -> Result<Value, String> {
    let answer = exchange(socket, method, path, body).map_err(|error| format!("{socket}: {error}"))?;
    let cut = || format!("{socket}: an answer that is cut: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(cut)?;
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    match status {
        200..300 => Ok(value),
        _ => Err(value["message"].as_str().unwrap_or(body).to_owned()),
    }
}

fn exchange(socket: &str, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
