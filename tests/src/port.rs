//! Ports for programs that are started beside the tests.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The names of the ports that this process has given out. A socket in Linux's abstract namespace is a lock that ends with its
/// process, and holds in the network namespace in which the port is one.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port that nobody listens on, and that no other test process is given while this one runs: the program that it is for is started
/// later, and may be down for a while. It is below those that the kernel gives to outgoing connections (32768 and up on Linux).
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    // Test programs that run at the same time begin at different ones.
    let begin = std::process::id().wrapping_mul(97);
    for at in 0..u32::from(PORTS.end - PORTS.start) {
        let port = PORTS.start + (begin.wrapping_add(at) % u32::from(PORTS.end - PORTS.start)) as u16;
        let name = SocketAddr::from_abstract_name(format!("lineside-test-port-{port}"))?;
        let Ok(reserved) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().expect("nothing panics while it holds the list").push(reserved);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port is free in {PORTS:?}")))
}
