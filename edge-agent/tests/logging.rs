//! The program itself with readers of its output that are gone or do not read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_secs(60);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_edge-agent"))
}

/// A gateway without an upstream and without an engine, on a free port.
fn initialised(dir: &Path) -> PathBuf {
    let config = dir.join("edge.toml");
    let made = program()
        .args(["init", "--device-id", "gw", "--hostname", "localhost", "--data-dir"])
        .arg(dir.join("data"))
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    config
}

fn run(config: &Path, stderr: Stdio) -> Child {
    program()
        .args(["run", "--config"])
        .arg(config)
        .env("RUST_LOG", "debug")
        .env("EDGE_AGENT__LISTEN__MQTTS", "127.0.0.1:0")
        .env("EDGE_AGENT__LISTEN__MQTT", "")
        .env("EDGE_AGENT__LISTEN__HTTPS", "")
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Asks the daemon for its status until it answers.
fn answers(config: &Path, child: &mut Child) {
    let deadline = Instant::now() + STEP;
    loop {
        let status = program().args(["status", "--config"]).arg(config).output().unwrap();
        if status.status.success() {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the daemon ended");
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop(mut child: Child) -> Option<i32> {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn a_daemon_whose_log_reader_is_gone_serves_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = initialised(dir.path());
    let mut child = run(&config, Stdio::piped());
    drop(child.stderr.take());
    answers(&config, &mut child);
    assert_eq!(stop(child), Some(0));
}

#[test]
fn a_daemon_whose_log_reader_does_not_read_serves_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = initialised(dir.path());
    let (unread, mut full) = std::io::pipe().unwrap();
    // As much as a pipe holds on Linux: the daemon's first line would wait for ever.
    full.write_all(&vec![b'x'; 64 * 1024]).unwrap();
    let mut child = run(&config, full.into());
    answers(&config, &mut child);
    assert_eq!(stop(child), Some(0));
    drop(unread);
}

#[test]
fn a_command_whose_output_nobody_reads_keeps_its_exit_code() {
    for (arguments, code) in [
        (vec!["--help"], 0),
        (vec!["status", "--config", "/nonexistent/edge.toml"], 1),
        (vec!["plan", "/nonexistent.json", "--config", "/nonexistent/edge.toml"], 1),
    ] {
        let mut child =
            program().args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
    }
}
