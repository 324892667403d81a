//! The file of the control socket.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Where the socket is.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("edge-agent.sock")
}

/// Makes the socket: who calls from now on is answered when [`super::serve`] runs.
///
/// # Errors
/// When it cannot be made.
pub fn listen(data_dir: &Path) -> std::io::Result<UnixListener> {
    let path = socket(data_dir);
    // A socket file of a daemon that was killed. Two daemons on one directory are kept apart by the lock of the state.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
