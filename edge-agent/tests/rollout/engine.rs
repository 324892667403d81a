//! An engine that is stopped, held or started again under a running daemon: one of the test's own, beside the machine's.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use test_needs::Need;

use super::IMAGE;
use super::gateway::{Gateway, IDLE, SOCKET, docker, idle, side_by_side, until};
use super::kills::{manifests, settled};

/// What these tests need of the machine.
const NEEDS: [Need; 4] =
    [Need::Docker, Need::Root, Need::File("/bin/busybox"), Need::File("/usr/sbin/dockerd")];
/// Promised of what an operator reads, whatever the engine does: beyond what the program takes to say its version.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// What is done to the engine, and undone: ended in order, killed, held.
const HAPPENINGS: [&str; 3] = ["-TERM", "-KILL", "-STOP"];

struct PrivateEngine {
    dir: tempfile::TempDir,
    dockerd: Option<Child>,
}

impl PrivateEngine {
    fn new() -> Self {
        let mut engine =
            Self { dir: tempfile::tempdir().expect("there is space for a directory"), dockerd: None };
        engine.start();
        let archive = engine.dir.path().join("image.tar").display().to_string();
        docker(&["save", "-o", &archive, IMAGE]).expect("the machine's engine has the image");
        engine.docker(&["load", "-i", &archive]).expect("the image is loaded");
        engine
    }

    fn socket(&self) -> String {
        self.dir.path().join("docker.sock").display().to_string()
    }

    fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        docker(&[&["-H", &format!("unix://{}", self.socket())], arguments].concat())
    }

    /// In a network namespace of its own: without a bridge it would remove that of the machine's engine, and with one share its address.
    fn start(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let log = std::fs::File::options().create(true).append(true).open(at("log")).expect("a log is made");
        // One that was killed leaves its pid file, and another process may have the number by now.
        end_containerd(self.dir.path());
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _never_made = std::fs::remove_file(at(left));
        }
        let dockerd = Command::new("unshare")
            .args(["--net", "/usr/sbin/dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--host", &format!("unix://{}", self.socket()), "--bridge", "none"])
            .args(["--iptables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"])
            .args(["--host-gateway-ip", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file is shared"))
            .stderr(log)
            .spawn();
        self.dockerd = Some(dockerd.expect("dockerd starts"));
        until("the private engine answers", || self.docker(&["version"]).ok());
    }

    fn signal(&self, signal: &str) {
        let pid = self.dockerd.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill is installed");
        assert!(sent.success());
    }

    /// Lets one of [`HAPPENINGS`] happen. In order, the engine stops its containers first.
    fn happen(&mut self, happening: &str) {
        self.signal(happening);
        if happening != "-STOP" {
            self.dockerd.take().expect("it runs").wait().expect("it is a child");
        }
    }

    fn come_back(&mut self, from: &str) {
        if from == "-STOP" {
            self.signal("-CONT");
        } else {
            self.start();
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            for signal in ["-CONT", "-TERM"] {
                let _ended = Command::new("kill").args([signal, &dockerd.id().to_string()]).status();
            }
            let _ended = dockerd.wait();
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        if std::thread::panicking() {
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the private engine's log, last line first:\n{}", last.join("\n"));
        }
        end_containerd(self.dir.path());
    }
}

/// Ends the containerd that a dockerd started which was killed.
fn end_containerd(dir: &Path) {
    if let Ok(pid) = std::fs::read_to_string(dir.join("exec/containerd/containerd.pid")) {
        let _ended_with_dockerd = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
    }
}

/// Asserts that operators are answered, whatever the engine does. A busy machine may delay a process; what waits for the engine is
/// late every time.
pub(crate) fn assert_answers_in_time(gateway: &Gateway, at: &str) {
    let took = |command: &str| {
        let start = Instant::now();
        gateway.agent(&[command]).expect("the daemon answers");
        start.elapsed()
    };
    for command in ["status", "list"] {
        until(&format!("{at}: an answer to {command} within {ANSWER_WITHIN:?}"), || {
            (took(command) < took("--version") + ANSWER_WITHIN).then_some(())
        });
    }
}

#[test]
fn modules_run_again_whatever_happens_to_the_engine_and_operators_are_answered_meanwhile() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-engine", 1);
    let mut engine = PrivateEngine::new();
    gateway.start(&engine.socket());
    gateway.apply(&[("a", idle(1)), ("b", idle(1))]).unwrap();
    let names = [gateway.name("a"), gateway.name("b")];
    let states = |gateway: &Gateway| {
        let list = gateway.json(&["list"]);
        names.each_ref().map(|name| list[name]["status"].clone())
    };
    let ids = |engine: &PrivateEngine| {
        names.each_ref().map(|name| engine.docker(&["inspect", "-f", "{{.Id}} {{.State.Running}}", name]))
    };
    let before = ids(&engine);
    for happening in HAPPENINGS {
        engine.happen(happening);
        if happening != "-STOP" {
            until("the daemon reports that the engine is away", || {
                (states(&gateway) == [json!("unknown"), json!("unknown")]).then_some(())
            });
        }
        assert_answers_in_time(&gateway, happening);
        engine.come_back(happening);
        until("both modules run, in the same containers", || {
            (ids(&engine) == before && states(&gateway) == [json!("running"), json!("running")]).then_some(())
        });
    }
    let history = gateway.json(&["history"]);
    assert_eq!(history.as_array().map(Vec::len), Some(1), "no deployment was made of it: {history}");
    let all: Vec<String> = names.iter().map(String::clone).collect();
    let listed = engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, all);
    gateway.kill();
    engine.docker(&["rm", "-f", &names[0], &names[1]]).unwrap();
}

#[test]
fn a_rollout_in_which_the_engine_is_ended_killed_or_held_ends_whole_and_status_says_why() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    side_by_side(&HAPPENINGS, HAPPENINGS.len(), |happening| in_a_rollout(happening));
}

/// Lets a rollout begin, and one of [`HAPPENINGS`] happen in the middle of it.
fn in_a_rollout(happening: &str) {
    let id = format!("lineside-test-rollout{}", happening.to_lowercase());
    let mut gateway = Gateway::new(&id, 1);
    let mut engine = PrivateEngine::new();
    gateway.behind(&engine.socket());
    gateway.apply(&manifests()[0]).expect("it is verified");
    let foreign = gateway.name("foreign");
    engine.docker(&["run", "-d", "--restart", "always", "--name", &foreign, IMAGE, IDLE]).expect("it runs");
    let id = |name: &str| gateway.container(name).expect("it is there").split(' ').next().map(str::to_owned);
    let untouched = ["same", "foreign"].map(id);
    let file = gateway.manifest(json!({}), &manifests()[1]);
    gateway.agent(&["apply", &file]).expect("it is accepted");
    // In the middle: the first new container is there. On a busy machine it may be over by now.
    until("a step", || {
        let is_over = gateway.json(&["history"])[0]["state"] == "verified";
        (is_over || gateway.containers().iter().any(|name| name.ends_with(".next"))).then_some(())
    });
    engine.happen(happening);
    until(&format!("{happening}: the reason in the status"), || {
        let said = gateway.json(&["status"])["deployment"]["description"].to_string();
        said.contains("answer").then_some(())
    });
    assert_answers_in_time(&gateway, happening);
    engine.come_back(happening);
    settled(&gateway, happening);
    assert_eq!(["same", "foreign"].map(id), untouched, "{happening}: it was touched");
    until("the foreign container runs", || gateway.is_running("foreign").then_some(()));
    gateway.kill();
    let all = ["a", "b", "c", "same", "foreign"].map(|name| gateway.name(name));
    let arguments: Vec<&str> = ["rm", "-f"].into_iter().chain(all.iter().map(String::as_str)).collect();
    engine.docker(&arguments).expect("they are removed");
}

#[test]
fn containers_that_somebody_stops_renames_or_removes_are_repaired_and_foreign_ones_left_alone() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-by-hand", 1);
    gateway.start(SOCKET);
    gateway.apply(&[("a", idle(1)), ("b", idle(1))]).unwrap();
    let unchanged = gateway.container("b").unwrap();
    docker(&["stop", &gateway.name("a")]).unwrap();
    until("a runs again", || gateway.is_running("a").then_some(()));
    // Under another name, beside one that was made of an image of it and has all its labels.
    let (name, image) = (gateway.name("a"), format!("{}-committed", gateway.name("a")));
    let former = gateway.container("a").unwrap();
    docker(&["commit", &name, &image]).unwrap();
    docker(&["rename", &name, "lineside-test-by-hand-renamed"]).unwrap();
    until("a has its name again", || (gateway.container("a").ok()? == former).then_some(()));
    let copy = docker(&["run", "-d", "--name", "lineside-test-by-hand-copy", &image]).unwrap();
    docker(&["rm", "-f", &name]).unwrap();
    until("a runs again in a container of its own", || gateway.is_running("a").then_some(()));
    assert_ne!(gateway.container("a").unwrap(), former);
    let found =
        docker(&["inspect", "-f", "{{.Id}} {{.State.Running}}", "lineside-test-by-hand-copy"]).unwrap();
    assert_eq!(found.trim(), format!("{} true", copy.trim()), "the copy was touched");
    docker(&["rm", "-f", "lineside-test-by-hand-copy"]).unwrap();
    docker(&["rmi", &image]).unwrap();
    let foreign = gateway.name("c");
    docker(&["run", "-d", "--name", &foreign, IMAGE, IDLE]).unwrap();
    let before = gateway.container("c").unwrap();
    let (code, message) = gateway.apply(&[("a", idle(1)), ("b", idle(1)), ("c", idle(1))]).unwrap_err();
    assert!(code == 3 && message.contains("is not this gateway's"), "{code} {message}");
    assert_eq!(gateway.container("c").unwrap(), before, "the foreign container was touched");
    assert_eq!(gateway.container("b").unwrap(), unchanged, "b was touched");
}
