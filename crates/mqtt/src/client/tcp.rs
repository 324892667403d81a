//! TCP to a name: its addresses are asked for anew each time, and tried in turn, so that one that drops everything does not
//! stand in the way of the next.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to one of the addresses of a name. `within` is for all of them together; each gets its share of what is left.
///
/// # Errors
/// That of the last address, or of the name.
pub(crate) async fn connect(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let until = tokio::time::Instant::now() + within;
    let addresses: Vec<_> = lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_and_an_address_that_refuses_are_reported() {
        let within = Duration::from_secs(60);
        let unknown = connect("no-such-name.invalid", 1, within).await.unwrap_err();
        assert!(!unknown.to_string().is_empty());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connect("localhost", port, within).await.is_ok(), "also when localhost is ::1 first");
        // Bound and not listening: nobody else is given the port meanwhile.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = held.local_addr().unwrap().port();
        let refused = connect("127.0.0.1", port, within).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains("127.0.0.1"), "{refused}");
    }
}
