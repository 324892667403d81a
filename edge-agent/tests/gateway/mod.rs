//! A gateway as a process, without an upstream and without an engine.

#[allow(unreachable_pub, reason = "it is a part of the library of the tests of a site")]
#[path = "../../../tests/src/port.rs"]
mod port;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a step may take on a machine with other load.
pub(crate) const STEP: Duration = Duration::from_secs(120);

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    command.stdin(Stdio::null());
    command
}

/// `edge-agent init` of a gateway in `dir`.
pub(crate) fn init(dir: &Path) -> Command {
    let mut command = program();
    command.args(["init", "--device-id", "gw", "--hostname", "localhost", "--data-dir"]);
    command.arg(dir.join("data")).arg("--config").arg(dir.join("edge.toml"));
    command
}

/// Waits until `is_so`.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + STEP;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two paths get each other's names, in one step: a daemon that makes again what is missing finds nothing missing between.
pub(crate) fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

pub(crate) struct Gateway {
    pub(crate) dir: tempfile::TempDir,
    /// Where plain MQTT is.
    pub(crate) port: u16,
    daemon: Option<Child>,
}

impl Gateway {
    /// One that runs.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = port::free_port().unwrap();
        let mut gateway = Self { dir, port, daemon: None };
        gateway.start_again();
        gateway
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.try_start().unwrap_or_else(|log| panic!("the daemon ended: {log}"));
    }

    /// As [`Gateway::start_again`]; the log when it ends instead.
    pub(crate) fn try_start(&mut self) -> Result<(), String> {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let daemon = program()
            .args(["run", "--config"])
            .arg(self.config())
            .env("EDGE_AGENT__LISTEN__MQTTS", "127.0.0.1:0")
            .env("EDGE_AGENT__LISTEN__MQTT", format!("127.0.0.1:{}", self.port))
            .env("EDGE_AGENT__LISTEN__HTTPS", "")
            .env("EDGE_AGENT__LISTEN__METRICS", "")
            .env("EDGE_AGENT__DOCKER__SOCKET", "/nonexistent/docker.sock")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let mut is_over = false;
        until("the daemon answers or ends", || {
            is_over = !self.is_running();
            is_over || self.command(&["status"]).output().unwrap().status.success()
        });
        if is_over { Err(self.log()) } else { Ok(()) }
    }

    /// Whether the daemon has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.daemon.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("edge.toml")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Forgets what the log holds.
    pub(crate) fn clear_log(&self) {
        File::options().write(true).open(self.dir.path().join("log")).unwrap().set_len(0).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// What a command prints with `--json`; it may fail.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}
