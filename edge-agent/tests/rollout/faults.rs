//! Between a daemon and its engine: an engine that fails one kind of call, or hangs at it, and is well otherwise.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use crate::gateway::SOCKET;
use crate::proxy::serve_each;

/// The answer of an engine that failed.
pub(crate) const ANSWER: &str = "the layer store is not itself today";
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A kind of call, by what is special in its request line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    verb: &'static str,
    /// The path begins so behind the API's version.
    path: &'static str,
    /// The path ends so.
    end: &'static str,
}

const fn call(name: &'static str, verb: &'static str, path: &'static str, end: &'static str) -> Call {
    Call { name, verb, path, end }
}

/// Every call of a rollout.
pub(crate) const CALLS: [Call; 12] = [
    call("list", "GET", "/containers/json", ""),
    call("inspect", "GET", "/containers/", "/json"),
    call("events", "GET", "/events", ""),
    call("network", "GET", "/networks/", ""),
    call("image", "GET", "/images/", "/json"),
    call("pull", "POST", "/images/create", ""),
    call("create", "POST", "/containers/create", ""),
    call("start", "POST", "/containers/", "/start"),
    call("stop", "POST", "/containers/", "/stop"),
    call("rename", "POST", "/containers/", "/rename"),
    call("remove", "DELETE", "/containers/", ""),
    call("version", "GET", "/version", ""),
];

impl Call {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Self {
        *CALLS.iter().find(|call| call.name == name).expect("the tests name calls that there are")
    }

    /// Whether a request line, `GET /v1.47/events?filters=… HTTP/1.1`, is of this kind.
    fn is(self, line: &str) -> bool {
        let mut parts = line.split(' ');
        let (Some(verb), Some(target)) = (parts.next(), parts.next()) else { return false };
        let path = target.split('?').next().unwrap_or_default();
        // The version is left out where the client does not know it yet.
        let path = match path.strip_prefix("/v") {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                rest.find('/').map_or("", |slash| &rest[slash..])
            }
            _ => path,
        };
        // The list is no description of a container whose id is missing.
        let is_list = path == "/containers/json";
        verb == self.verb
            && path.starts_with(self.path)
            && path.ends_with(self.end)
            && (is_list == (self.name == "list"))
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The engine answers 500 and has done nothing.
    Fails,
    /// The engine does it and answers 500.
    FailsAfterwards,
    /// The engine does not answer until the fault is over; the connection ends then.
    Hangs,
    /// The engine does not get it until the fault is over.
    Late,
}

/// A fault, and how many calls still meet it.
#[derive(Debug, Default)]
struct Armed {
    fault: Option<(Call, Fault)>,
    left: u32,
    met: u32,
    /// The last request line that met it.
    line: String,
}

#[derive(Default)]
struct Shared {
    armed: Mutex<Armed>,
    changed: Condvar,
}

/// An engine with a fault, in a directory until the process ends.
pub(crate) struct FaultyEngine {
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl FaultyEngine {
    /// One without a fault.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("faulty.sock");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        serve_each(&socket, move |client| serve(client, &serving));
        Self { socket, shared }
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// So many calls of a kind meet a fault from now on.
    pub(crate) fn arm(&self, call: Call, fault: Fault, times: u32) {
        *self.lock() = Armed { fault: Some((call, fault)), left: times, ..Armed::default() };
    }

    /// Ends the fault, also for calls that hang.
    pub(crate) fn lift(&self) {
        self.lock().fault = None;
        self.shared.changed.notify_all();
    }

    /// How many calls have met the fault.
    pub(crate) fn met(&self) -> u32 {
        self.lock().met
    }

    /// The last request line that met the fault.
    pub(crate) fn line(&self) -> String {
        self.lock().line.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Armed> {
        self.shared.armed.lock().expect("nothing panics while it holds it")
    }
}

/// The fault that a request meets.
fn fault_of(shared: &Shared, line: &str) -> Option<Fault> {
    let mut armed = shared.armed.lock().expect("nothing panics while it holds it");
    let (call, fault) = armed.fault?;
    if !call.is(line) || armed.left == 0 {
        return None;
    }
    armed.left -= 1;
    armed.met += 1;
    line.clone_into(&mut armed.line);
    Some(fault)
}

fn wait_until_lifted(shared: &Shared) {
    let armed = shared.armed.lock().expect("nothing panics while it holds it");
    let _lifted = shared.changed.wait_while(armed, |armed| armed.fault.is_some());
}

/// Carries one request and its answer: both sides close the connection after it.
fn serve(mut client: UnixStream, shared: &Shared) {
    let Some((head, rest)) = read_head(&mut client) else { return };
    let fault = fault_of(shared, head.lines().next().unwrap_or_default());
    match fault {
        Some(Fault::Fails) => answer_500(&mut client),
        Some(Fault::Hangs) => wait_until_lifted(shared),
        Some(Fault::FailsAfterwards) => {
            let _cut_off = carry(&mut client, &head, &rest, true);
        }
        Some(Fault::Late) | None => {
            if fault.is_some() {
                wait_until_lifted(shared);
            }
            let _cut_off = carry(&mut client, &head, &rest, false);
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// The head of a request, up to the empty line, and what came with it of the body.
fn read_head(client: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while bytes.len() < HEAD_BYTES_MAX {
        let count = client.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, rest));
        }
    }
    None
}

fn answer_500(client: &mut UnixStream) {
    let body = format!("{{\"message\":\"{ANSWER}\"}}");
    let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close";
    let _gone =
        client.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

fn carry(client: &mut UnixStream, head: &str, rest: &[u8], is_lost: bool) -> std::io::Result<()> {
    let mut engine = UnixStream::connect(SOCKET)?;
    // The engine closes the connection after its answer, so that the next request comes on one of its own.
    let (line, fields) = head.split_once("\r\n").unwrap_or((head, "\r\n"));
    let kept = fields.lines().filter(|field| !field.to_ascii_lowercase().starts_with("connection:"));
    let kept: String = kept.filter(|field| !field.is_empty()).map(|field| format!("{field}\r\n")).collect();
    engine.write_all(format!("{line}\r\nConnection: close\r\n{kept}\r\n").as_bytes())?;
    engine.write_all(rest)?;
    let (mut from_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut from_client, &mut to_engine);
        // A client that goes away ends a request that the engine still answers: its events for example.
        let _ = to_engine.shutdown(Shutdown::Both);
    });
    if is_lost {
        std::io::copy(&mut engine, &mut std::io::sink())?;
        answer_500(client);
    } else {
        std::io::copy(&mut engine, client)?;
    }
    Ok(())
}
