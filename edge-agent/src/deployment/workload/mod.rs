//! The workload API: what a module asks its gateway for, over a socket of its own. Source: IoT Edge workload API.
//!
//! A module's socket lies in a directory of its own, and it is the directory that its container mounts: a daemon that
//! was restarted makes a new socket there, which the container that runs on sees. Whoever reaches the socket is that
//! module: it signs for nobody else.
//!
//! Containers mount it read-only; those of earlier versions may write to it. So nothing in it is trusted: the socket is made
//! elsewhere and renamed into it, and what is in its place is moved out before it is removed.

mod about;
mod api;
pub mod certificates;
mod encryption;
mod removal;
mod server_name;

use edge_core::error_chain::chain;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use edge_hub::http_server::{HttpLimits, HttpServer};
use edge_hub::tasks;
use schemas::names::ModuleId;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::about::About;

/// The socket's name in a module's directory.
pub const SOCKET: &str = "workload.sock";
/// The modules' directories in the data directory. Each is open to any user of the container that mounts it.
pub(crate) const DIR: &str = "workload";

/// Connections of one module at once. The SDKs open one for each request.
const MODULE_CONNECTIONS_MAX: usize = 16;
/// Connections of all modules at once, which the daemon's file budget reserves.
pub(crate) const CONNECTIONS_MAX: usize = 96;

/// The sockets of all modules.
pub struct Workload {
    dir: PathBuf,
    about: Arc<About>,
    open: Mutex<BTreeMap<ModuleId, CancellationToken>>,
    connections: Arc<Semaphore>,
}

impl Workload {
    /// Sockets under `data_dir`; none is open yet.
    pub fn new(data_dir: &FilePath, about: About) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { dir: data_dir.join(DIR), about: Arc::new(about), open: Mutex::default(), connections }
    }

    /// The directory that a module's container mounts. Manifests allow module names of letters, digits, `_` and `-` only.
    pub fn dir_of(&self, module: &ModuleId) -> PathBuf {
        self.dir.join(module.as_str())
    }

    /// A module's generation id, as its environment names it.
    pub fn generation_id(&self, module: &ModuleId) -> String {
        self.about.keys.generation_id(module)
    }

    /// Serves a module, if it is not served already.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(&self, module: &ModuleId) -> std::io::Result<()> {
        let mut open = self.open.lock().expect("nothing panics while it holds the list");
        if open.contains_key(module) {
            return Ok(());
        }
        let dir = self.dir_of(module);
        std::fs::create_dir_all(&dir)?;
        // Only the module's container sees this directory; any user in it may connect. Others on this machine may not
        // look into the directory above it.
        std::fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        std::fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        // Where no module can put a link in its place before its mode is set. No module's name begins with a dot.
        let made = self.dir.join(format!(".new-{module}"));
        removal::remove(&self.dir, &made)?;
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, Permissions::from_mode(0o666))?;
        removal::remove(&self.dir, &dir.join(SOCKET))?;
        std::fs::rename(&made, dir.join(SOCKET))?;
        let router = api::router(module.clone(), self.about.clone());
        let stop = CancellationToken::new();
        let server =
            HttpServer::new(format!("workload/{module}"), limits()).sharing(self.connections.clone());
        // Ends with `close`, or with the daemon: it holds nothing that must be finished.
        tasks::spawn_essential("workload socket", server.serve_unix(listener, router, stop.clone()));
        open.insert(module.clone(), stop);
        Ok(())
    }

    /// Ends a module's service and removes its directory.
    pub fn close(&self, module: &ModuleId) {
        let stop = self.open.lock().expect("nothing panics while it holds the list").remove(module);
        if let Some(stop) = stop {
            stop.cancel();
        }
        if let Err(error) = removal::remove(&self.dir, &self.dir_of(module)) {
            tracing::warn!(%module, error = %chain(&error), "the module's workload directory was not removed");
        }
    }

    /// The modules that are served.
    pub fn modules(&self) -> Vec<ModuleId> {
        self.open.lock().expect("nothing panics while it holds the list").keys().cloned().collect()
    }
}

/// A request is something to sign or to encrypt, a certificate at most: milliseconds.
fn limits() -> HttpLimits {
    HttpLimits {
        connections_max: MODULE_CONNECTIONS_MAX,
        body_bytes_max: api::BODY_BYTES_MAX,
        bodies_bytes_max: 2 * api::BODY_BYTES_MAX,
        ..HttpLimits::default()
    }
}

#[cfg(test)]
mod tests;
