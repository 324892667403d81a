//! Between a daemon and its engine: kills the daemon before or after one of its calls that change something.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::gateway::SOCKET;

/// When the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The engine has not got the call.
    Before,
    /// The engine has carried it out, and the daemon has no answer.
    After,
}

pub(crate) struct Proxy {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The process to kill; 0 for none.
    pid: AtomicU32,
    /// Calls until then.
    left: AtomicI64,
    is_after: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// Counts a call; whether it is the one.
    fn is_due(&self) -> bool {
        self.pid.load(Ordering::SeqCst) != 0 && self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }

    fn kill(&self) {
        let pid = self.pid.swap(0, Ordering::SeqCst);
        let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
}

/// Serves each connection to a socket in a thread of its own, until the process ends.
pub(crate) fn serve_each(socket: &Path, serve: impl Fn(UnixStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(socket).expect("the socket is made");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(client));
        }
    });
}

impl Proxy {
    /// Serves in a directory until the process ends.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("proxy.sock");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        serve_each(&socket, move |client| serve(client, &serving));
        Self { socket, shared }
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Kills a process at its call of this number, from 1.
    pub(crate) fn arm(&self, pid: u32, call: i64, when: When) {
        self.shared.left.store(call, Ordering::SeqCst);
        self.shared.is_after.store(when == When::After, Ordering::SeqCst);
        self.shared.pid.store(pid, Ordering::SeqCst);
    }

    /// Kills nobody any more; whether it has killed, or has begun to.
    pub(crate) fn disarm(&self) -> bool {
        self.shared.pid.swap(0, Ordering::SeqCst) == 0
    }
}

/// One connection. Requests of bollard begin with a write of their own.
fn serve(mut client: UnixStream, shared: &Arc<Shared>) {
    let Ok(mut engine) = UnixStream::connect(SOCKET) else { return };
    let (Ok(mut from_engine), Ok(mut to_client)) = (engine.try_clone(), client.try_clone()) else { return };
    let is_due_after = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (due, back) = (is_due_after.clone(), shared.clone());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count) = from_engine.read(&mut buffer)
            && count > 0
        {
            if due.swap(false, Ordering::SeqCst) {
                back.kill();
                break;
            }
            if to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_engine.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = client.read(&mut buffer)
        && count > 0
    {
        let part = &buffer[..count];
        let changes = [&b"POST /"[..], b"DELETE /", b"PUT /"].iter().any(|verb| part.starts_with(verb));
        if changes && shared.is_due() {
            if shared.is_after.load(Ordering::SeqCst) {
                is_due_after.store(true, Ordering::SeqCst);
            } else {
                shared.kill();
                break;
            }
        }
        if engine.write_all(part).is_err() {
            break;
        }
    }
    let _ = engine.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
