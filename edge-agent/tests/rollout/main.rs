//! Deployments from `apply` to their end on a real Docker Engine: verified, rolled back or held, also when the daemon is killed at
//! any step.
//!
//! Needs the engine on /var/run/docker.sock and /bin/busybox as one static file. Every test has its own gateway id, network and
//! module names, and removes its containers and network.

mod edits;
mod engine;
#[path = "../engine_socket/mod.rs"]
mod engine_socket;
mod failing_engine;
mod faults;
mod gateway;
#[path = "../idle_image/mod.rs"]
mod idle_image;
mod kills;
mod proxy;
mod start_order;
mod supervision;
mod support_bundle;

use gateway::{Gateway, PROBATION_LONG_SECS, SOCKET, docker, idle, module, until};
use idle_image::IMAGE;
use serde_json::{Value, json};
use test_needs::Need;

/// What these tests need of the machine.
const NEEDS: [Need; 2] = [Need::Docker, Need::File("/bin/busybox")];

/// A change of one module that fails, by what is said of it.
fn failures(port: &str) -> Vec<(&'static str, Value)> {
    let with = |options: Value| module(options, json!({}));
    let ports = json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": port}]}}});
    let device = json!([{"PathOnHost": "/dev/not-plugged-in", "PathInContainer": "/dev/x", "CgroupPermissions": "rw"}]);
    let health = json!({"Test": ["CMD", "/bin/busybox", "false"], "Interval": 1_000_000_000, "Retries": 1});
    let missing = json!({"image": "lineside/never-built:1"});
    vec![
        ("it ended with code 3", with(json!({"Cmd": ["/bin/busybox sleep 1; exit 3"]}))),
        ("its health check fails", with(json!({"Healthcheck": health}))),
        ("never-built", module(json!({}), json!({"settings": missing}))),
        ("emory limit", with(json!({"HostConfig": {"Memory": 1000}}))),
        ("/dev/not-plugged-in", with(json!({"HostConfig": {"Devices": device}}))),
        ("already allocated", with(ports)),
        ("no-such-program", with(json!({"Entrypoint": ["/no-such-program"]}))),
    ]
}

#[test]
fn a_deployment_that_fails_is_rolled_back_with_its_reason_and_touches_nothing_else() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-rolled-back", 1);
    gateway.start(SOCKET);
    let verified = gateway.apply(&[("a", idle(1)), ("b", idle(1))]).unwrap();
    assert_eq!(verified, "deployment 1 verified");
    gateway.start_with_probation(PROBATION_LONG_SECS, SOCKET);
    let unchanged = gateway.container("b").unwrap();
    // Removed with the others: its name begins as theirs do.
    docker(&["run", "-d", "--name", &gateway.name("holder"), "-p", "80", IMAGE, gateway::IDLE]).unwrap();
    let port = "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}";
    let port = docker(&["inspect", "-f", port, &gateway.name("holder")]).unwrap();
    // Nothing is stopped for what can be known before.
    let known_before = ["never-built", "emory limit", "/dev/not-plugged-in", "already allocated"];
    for (index, (reason, changed)) in failures(&port).into_iter().enumerate() {
        let before = gateway.container("a").unwrap();
        let (code, message) = gateway.apply(&[("a", changed), ("b", idle(1)), ("c", idle(1))]).unwrap_err();
        assert!(code == 3 && message.contains(reason), "{reason}: {code} {message}");
        assert!(message.contains("the last verified one is in force again"), "{message}");
        until("a runs as it was", || {
            let a = gateway.container("a").unwrap_or_default();
            (gateway.is_running("a") && a.contains("LEVEL=1") && gateway.containers() == ["a", "b"])
                .then_some(())
        });
        if known_before.contains(&reason) {
            assert_eq!(gateway.container("a").unwrap(), before, "{reason}: a was touched");
        }
        assert_eq!(gateway.container("b").unwrap(), unchanged, "{reason}: b was touched");
        let history = gateway.json(&["history"]);
        let latest = &history[0];
        assert_eq!(latest["number"], index + 2);
        assert_eq!(
            (&latest["state"], &latest["rolledBackTo"]),
            (&json!("rolledBack"), &json!(1)),
            "{latest}"
        );
        assert!(latest["reason"].as_str().unwrap().contains(reason), "{latest}");
        let status = gateway.json(&["status"]);
        assert!(
            status["deployment"]["problem"].as_str().unwrap().contains("rolled back to version 1"),
            "{status}"
        );
    }
    // What failed is tried again when somebody asks for it, and a good one is verified.
    gateway.start_with_probation(1, SOCKET);
    assert_eq!(gateway.apply(&[("a", idle(2)), ("b", idle(1))]).unwrap(), "deployment 9 verified");
    assert!(gateway.container("a").unwrap().contains("LEVEL=2"));
    assert_eq!(gateway.container("b").unwrap(), unchanged);
}

#[test]
fn a_deployment_with_the_policy_hold_stays_in_force_and_is_tried_on() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-held", 1);
    gateway.start(SOCKET);
    gateway.apply(&[("a", idle(1))]).unwrap();
    gateway.start_with_probation(PROBATION_LONG_SECS, SOCKET);
    let flag = gateway.data().with_file_name("flag");
    std::fs::create_dir(&flag).unwrap();
    // It crashes until a file is there.
    let crash = json!({"Cmd": ["/bin/busybox test -e /flag/go || exit 3; trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait"],
        "HostConfig": {"Binds": [format!("{}:/flag", flag.display())]}});
    let held = gateway.manifest(json!({"failurePolicy": "hold"}), &[("a", module(crash, json!({})))]);
    let (code, message) = gateway.agent(&["apply", &held, "--wait"]).unwrap_err();
    assert!(
        code == 3 && message.contains("it stays in force") && message.contains("code 3"),
        "{code} {message}"
    );
    let history = gateway.json(&["history"]);
    assert_eq!((&history[0]["state"], &history[0]["inForce"]), (&json!("held"), &json!(true)));
    // While no daemon runs: one that tried once more first would wait for longer.
    gateway.stop();
    std::fs::write(flag.join("go"), "").unwrap();
    gateway.set_probation(1);
    gateway.start(SOCKET);
    until("it is verified after all", || {
        (gateway.json(&["history"])[0]["state"] == "verified").then_some(())
    });
    assert!(gateway.is_running("a"));
}

#[test]
fn the_history_shows_what_each_deployment_changed_and_goes_back_to_any_of_them() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-history", 1);
    gateway.start(SOCKET);
    for level in 1..=3 {
        gateway.apply(&[("a", idle(level))]).unwrap();
    }
    let a = gateway.name("a");
    let history = gateway.json(&["history"]);
    assert_eq!(history[0]["changes"], json!([format!("module {a}: env LEVEL changed")]));
    assert_eq!(history[2]["changes"], json!([format!("module {a} added, image {IMAGE}")]));
    assert!(history.as_array().unwrap().iter().all(|deployment| deployment["source"] == "command line"));
    assert_eq!(gateway.agent(&["rollback", "1", "--wait"]).unwrap(), "deployment 4 verified");
    assert!(gateway.container("a").unwrap().contains("LEVEL=1"));
    assert_eq!(gateway.agent(&["rollback", "--wait"]).unwrap(), "deployment 5 verified");
    assert!(gateway.container("a").unwrap().contains("LEVEL=3"));
    let (code, message) = gateway.agent(&["rollback", "77"]).unwrap_err();
    assert!(code == 1 && message.contains("no deployment 77"), "{code} {message}");
    // All of it is there after a restart of the daemon.
    let before = gateway.json(&["history"]);
    gateway.stop();
    gateway.start(SOCKET);
    assert_eq!(gateway.json(&["history"]), before);
}
