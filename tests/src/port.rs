//! Ports for programs that are started beside the tests.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody listens on, below those that the kernel gives to outgoing connections (32768 and up on Linux): one of
/// them could take it before the program does, or while the program is down.
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        // Test programs that follow each other begin at different ones.
        let at = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (at % count) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port is free in {PORTS:?}")))
}
