//! Modules that start after others, on a real engine: created at once, started one after the other, removed in the reverse order.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::NEEDS;
use super::gateway::{Gateway, PATIENCE, SOCKET, docker, idle, module, until};

/// Runs on until a file is there, and ends with code 0 then.
const UNTIL_DONE: &str =
    "trap 'exit 143' TERM; while ! /bin/busybox test -e /flag/done; do /bin/busybox sleep 0.1; done";

fn binds(gateway: &Gateway) -> Value {
    json!({"Binds": [format!("{}:/flag", flags(gateway).display())]})
}

fn flags(gateway: &Gateway) -> std::path::PathBuf {
    gateway.data().with_file_name("flags")
}

fn raise(gateway: &Gateway, flag: &str) {
    std::fs::write(flags(gateway).join(flag), "").expect("the flag can be written");
}

/// A store whose health check waits for a file, a job that waits for another one, and a module that starts after both.
fn chain(gateway: &Gateway) -> Vec<(&'static str, Value)> {
    let after = |others: &[(&str, &str)]| -> Value {
        others.iter().map(|(other, condition)| (gateway.name(other), Value::from(*condition))).collect()
    };
    // The engine counts no failure before the end of its start period.
    let health = json!({"Test": ["CMD", "/bin/busybox", "test", "-e", "/flag/healthy"], "Interval": 500_000_000,
        "Timeout": 60_000_000_000_u64, "StartPeriod": 3_600_000_000_000_u64});
    let store =
        module(json!({"Healthcheck": health, "HostConfig": binds(gateway)}), json!({"startupOrder": 9}));
    let job = module(
        json!({"Cmd": [UNTIL_DONE], "HostConfig": binds(gateway)}),
        json!({"restartPolicy": "never", "startAfter": after(&[("store", "healthy")])}),
    );
    let app = module(
        json!({}),
        json!({"startupOrder": 0, "startAfter": after(&[("job", "exited"), ("store", "started")])}),
    );
    vec![("app", app), ("job", job), ("store", store)]
}

/// When something was, in an order that text has too: the engine leaves out zeros at the end.
fn time(gateway: &Gateway, module: &str, field: &str) -> String {
    inspected(gateway, module, field).trim_end_matches('Z').to_owned()
}

/// Of a container, as the engine has it.
fn inspected(gateway: &Gateway, module: &str, field: &str) -> String {
    docker(&["inspect", "-f", &format!("{{{{{field}}}}}"), &gateway.name(module)]).unwrap_or_default()
}

fn reason(gateway: &Gateway, module: &str) -> String {
    gateway.json(&["list"])[gateway.name(module)]["reason"].as_str().unwrap_or_default().to_owned()
}

fn waits(gateway: &Gateway, module: &str, for_what: &str) {
    let expected = format!("{for_what}; waits since 20");
    until(&format!("{module} waits: {for_what}"), || {
        let reason = reason(gateway, module);
        (reason.contains(&expected) && inspected(gateway, module, ".State.Status") == "created").then_some(())
    });
}

/// Lets the chain start link by link.
fn start(gateway: &Gateway) {
    let (store, job) = (gateway.name("store"), gateway.name("job"));
    until("the store runs", || gateway.is_running("store").then_some(()));
    waits(gateway, "job", &format!("starts when module `{store}` is healthy"));
    waits(gateway, "app", &format!("starts when module `{job}` has ended with code 0"));
    raise(gateway, "healthy");
    until("the job runs", || gateway.is_running("job").then_some(()));
    waits(gateway, "app", &format!("starts when module `{job}` has ended with code 0"));
    raise(gateway, "done");
    until("the app runs", || gateway.is_running("app").then_some(()));
    let times = ["store", "job", "app"].map(|module| time(gateway, module, ".State.StartedAt"));
    assert!(times.is_sorted(), "{times:?}");
    assert!(time(gateway, "job", ".State.FinishedAt") <= times[2]);
}

/// The modules of a gateway whose containers the engine removes, in order, as it reports them: who asks it later is given its last 256
/// events, and other tests make many.
struct Removals {
    events: Child,
    names: Receiver<String>,
}

impl Removals {
    /// From now on.
    fn follow(gateway: &Gateway) -> Self {
        let prefix = gateway.name("");
        let label = format!("label=lineside.gateway={}", prefix.trim_end_matches('-'));
        let mut events = Command::new("docker")
            .args(["events", "--since", &now(), "--format", "{{.Actor.Attributes.name}}"])
            .args(["--filter", "type=container", "--filter", "event=destroy", "--filter", &label])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the docker command is installed");
        let (reported, names) = channel();
        let lines = BufReader::new(events.stdout.take().expect("it is piped")).lines();
        std::thread::spawn(move || {
            for name in lines.map_while(Result::ok) {
                let _test_ended = reported.send(name.strip_prefix(&prefix).unwrap_or(&name).to_owned());
            }
        });
        Self { events, names }
    }

    fn next(&self) -> String {
        self.names.recv_timeout(PATIENCE).expect("the engine reports it")
    }
}

impl Drop for Removals {
    fn drop(&mut self) {
        let _ended_already = self.events.kill();
        let _ = self.events.wait();
    }
}

/// As `docker events` takes it.
fn now() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    format!("{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos())
}

#[test]
fn modules_start_after_those_that_they_name_and_are_removed_before_them() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-order", 1);
    std::fs::create_dir(flags(&gateway)).unwrap();
    gateway.start(SOCKET);
    // Rolled back, the deployment would end when a link takes a minute, as it may on a busy machine.
    let manifest = gateway.manifest(json!({"failurePolicy": "hold"}), &chain(&gateway));
    gateway.agent(&["apply", &manifest]).unwrap();
    start(&gateway);
    until("it is verified", || (gateway.json(&["history"])[0]["state"] == "verified").then_some(()));

    // A daemon that finds nothing but its journal, as on a machine with a new disk for Docker.
    gateway.kill();
    for module in ["app", "job", "store"] {
        docker(&["rm", "-f", &gateway.name(module)]).unwrap();
    }
    for flag in ["healthy", "done"] {
        std::fs::remove_file(flags(&gateway).join(flag)).unwrap();
    }
    gateway.start(SOCKET);
    start(&gateway);

    let removals = Removals::follow(&gateway);
    gateway.apply(&[("other", idle(1))]).unwrap();
    assert_eq!(gateway.containers(), ["other"]);
    assert_eq!([(); 3].map(|()| removals.next()), ["app", "job", "store"]);
}

#[test]
fn a_cycle_is_refused_with_its_path_before_anything_is_touched() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-cycle", 1);
    gateway.start(SOCKET);
    let (a, b) = (gateway.name("a"), gateway.name("b"));
    let after = |other: &str| module(json!({}), json!({"startAfter": {other: "started"}}));
    let manifest = gateway.manifest(json!({}), &[("a", after(&b)), ("b", after(&a))]);
    let expected = format!("modules.{a}.startAfter.{b}: found the cycle {a} → {b} → {a}");
    for command in [["plan", &manifest], ["apply", &manifest]] {
        let (code, message) = gateway.agent(&command).unwrap_err();
        assert!(code == 2 && message.contains(&expected), "{command:?}: {code} {message}");
    }
    assert!(gateway.containers().is_empty());
}
