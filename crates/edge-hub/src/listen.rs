//! Binding a TCP listener. When another program has the port, the error names that program.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

/// State of a listening socket in `/proc/net/tcp` (Linux, `include/net/tcp_states.h`).
const TCP_LISTEN: &str = "0A";

/// Binds a listener.
///
/// # Errors
/// Those of bind(2). [`io::ErrorKind::AddrInUse`] names the process that listens on the port, where this process may see it:
/// root sees all, others their own.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use(address.port(), error),
        _ => error,
    })
}

fn in_use(port: u16, error: io::Error) -> io::Error {
    match holder(port) {
        Some(holder) => io::Error::new(error.kind(), format!("{error}; {holder} listens on port {port}")),
        None => error,
    }
}

/// The process that listens on a TCP port of this machine, for example `mosquitto (process 812)`; `None` when nobody listens
/// there or `/proc` does not show who.
pub fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let mut processes = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((id, entry.path()))
    });
    let (id, process) = processes.find(|(_, process)| has_socket(process, &inodes))?;
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{} (process {id})", name.trim()))
}

/// The inode of a line of `/proc/net/tcp` that tells of a listener on this port: fields `sl local_address rem_address st …`,
/// the inode is the tenth (proc(5)).
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (local_port == port && state == TCP_LISTEN).then(|| fields.nth(5).map(str::to_owned))?
}

fn has_socket(process: &Path, inodes: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_the_process() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            // Below those that the kernel gives to others: none of them has the port before or after.
            let mut listener = None;
            for port in 21_800..21_900 {
                if holder(port).is_none() {
                    listener = bind((host, port).into()).await.ok();
                }
                if listener.is_some() {
                    break;
                }
            }
            let Some(listener) = listener else { continue };
            let taken = listener.local_addr().unwrap();
            let error = bind(taken).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            let process = format!("(process {}) listens on port {}", std::process::id(), taken.port());
            assert!(error.to_string().contains(&process), "{error}");
            drop(listener);
            assert_eq!(holder(taken.port()), None);
        }
    }

    #[test]
    fn only_a_listener_of_the_port_counts() {
        let line = |port: &str, state: &str| {
            format!(
                "   0: 00000000:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
            )
        };
        assert_eq!(listening_inode(&line("22B3", "0A"), 8883), Some("4711".into()));
        assert_eq!(listening_inode(&line("22B3", "01"), 8883), None, "a connection");
        assert_eq!(listening_inode(&line("22B4", "0A"), 8883), None, "another port");
        for cut in ["", "sl", "0: x", "0: 0:22B3 0:0 0A"] {
            assert_eq!(listening_inode(cut, 8883), None, "{cut}");
        }
    }
}
