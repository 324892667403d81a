//! SIGKILL of the daemon at every call to the engine and at writes of its journal: what is there afterwards is one of the two
//! manifests, whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::NEEDS;
use super::gateway::{Gateway, PROBATION_LONG_SECS, docker, idle, module, side_by_side, until};
use super::proxy::{Proxy, When};

/// Calls of one deployment to be killed at; there are fewer.
const CALLS_MAX: i64 = 40;
/// How long the kill of a call may take to come.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) type Modules = Vec<(&'static str, Value)>;

/// Two manifests that change a module, add one, remove one, and leave one.
pub(crate) fn manifests() -> [Modules; 2] {
    [
        vec![("a", idle(1)), ("b", idle(1)), ("same", idle(1))],
        vec![("a", idle(2)), ("c", idle(2)), ("same", idle(1))],
    ]
}

/// Waits for the end of the latest deployment and until the containers are those of one manifest, all running; gives which.
pub(crate) fn settled(gateway: &Gateway, at: &str) -> usize {
    until(&format!("{at}: the end"), || {
        let history = gateway.json(&["history"]);
        ["verified", "rolledBack"].contains(&history[0]["state"].as_str().unwrap_or_default()).then_some(())
    });
    until(&format!("{at}: one manifest, whole"), || {
        let level = |module: &str, level: u32| {
            gateway.container(module).is_ok_and(|container| container.contains(&format!("LEVEL={level} ")))
                && gateway.is_running(module)
        };
        let found = gateway.containers();
        match found.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["a", "b", "same"] if level("a", 1) && level("b", 1) => Some(0),
            ["a", "c", "same"] if level("a", 2) && level("c", 2) => Some(1),
            _ => None,
        }
    })
}

/// Disarms the proxy, and starts the daemon again if the proxy has killed it; whether it has. The kill of a late call may still be
/// on its way.
fn started_again_if_killed(gateway: &mut Gateway, proxy: &Proxy, at: &str) -> bool {
    let is_killed = proxy.disarm();
    if is_killed {
        assert!(gateway.has_ended(KILLED_WITHIN), "{at}: the kill comes");
        gateway.kill();
        gateway.start(&proxy.socket());
    }
    is_killed
}

#[test]
fn a_daemon_that_is_killed_at_any_call_of_a_rollout_ends_it_verified_or_rolled_back() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-kill-call", 1);
    let proxy = Proxy::start(&gateway.data());
    gateway.start(&proxy.socket());
    gateway.apply(&manifests()[0]).unwrap();
    let same = gateway.container("same").unwrap();
    let mut now = 0;
    let mut kills = 0;
    // A kill after a call leaves what a kill before the next one would.
    for call in 0..=CALLS_MAX {
        let (when, number) = if call == 0 { (When::Before, 1) } else { (When::After, call) };
        let at = format!("{when:?} call {number}");
        proxy.arm(gateway.pid(), number, when);
        let file = gateway.manifest(json!({}), &manifests()[1 - now]);
        // The daemon may be killed before it answers.
        let _ = gateway.agent(&["apply", &file, "--wait"]);
        gateway.has_ended(Duration::from_millis(100));
        let is_killed = started_again_if_killed(&mut gateway, &proxy, &at);
        kills += u32::from(is_killed);
        now = settled(&gateway, &at);
        assert_eq!(gateway.container("same").unwrap(), same, "{at}: it did not change and was touched");
        if !is_killed {
            break;
        }
    }
    assert!(kills >= 9, "{kills} kills: a rollout of three modules has more calls");
}

#[test]
fn a_daemon_that_is_killed_while_it_rolls_back_has_rolled_back_in_the_end() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    // Every second call on a gateway of its own.
    let kills = AtomicU32::new(0);
    side_by_side(&[1, 2], 2, |&first| kills_while_it_rolls_back(first, &kills));
    let kills = kills.into_inner();
    assert!(kills >= 12, "{kills} kills: a rollout and its end have more calls");
}

/// Kills a daemon at the first and then every second call, until there is no such call.
fn kills_while_it_rolls_back(first: i64, kills: &AtomicU32) {
    let mut gateway = Gateway::new(&format!("lineside-test-kill-back-{first}"), 1);
    let proxy = Proxy::start(&gateway.data());
    gateway.start(&proxy.socket());
    gateway.apply(&manifests()[0]).expect("it is verified");
    gateway.start_with_probation(PROBATION_LONG_SECS, &proxy.socket());
    let same = gateway.container("same").expect("it is there");
    let crash =
        module(json!({"Cmd": ["/bin/busybox sleep 1; exit 3"]}), json!({"env": {"LEVEL": {"value": 2}}}));
    for call in (first..=CALLS_MAX).step_by(2) {
        let at = format!("call {call}");
        let when = if call % 2 == 0 { When::Before } else { When::After };
        proxy.arm(gateway.pid(), call, when);
        let modules = [("a", crash.clone()), ("c", idle(2)), ("same", idle(1))];
        let file = gateway.manifest(json!({}), &modules);
        let _ = gateway.agent(&["apply", &file, "--wait"]);
        // The wait ends with the decision; the containers follow.
        let begun = Instant::now();
        while !gateway.has_ended(Duration::from_millis(100)) && begun.elapsed() < KILLED_WITHIN {
            if gateway.containers() == ["a", "b", "same"] && gateway.is_running("a") {
                gateway.has_ended(Duration::from_millis(300));
                break;
            }
        }
        let is_killed = started_again_if_killed(&mut gateway, &proxy, &at);
        kills.fetch_add(u32::from(is_killed), Ordering::Relaxed);
        assert_eq!(settled(&gateway, &at), 0, "{at}");
        assert_eq!(gateway.container("same").as_ref(), Ok(&same), "{at}: it did not change and was touched");
        if !is_killed {
            break;
        }
    }
}

#[test]
fn a_daemon_that_is_killed_at_a_write_of_its_state_ends_the_rollout_verified_or_rolled_back() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-kill-write", 1);
    gateway.start(super::SOCKET);
    gateway.apply(&manifests()[0]).unwrap();
    let same = gateway.container("same").unwrap();
    let mut now = 0;
    for write in 1..=8 {
        let (journal, pid) = (gateway.data().join("state/journal"), gateway.pid());
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = is_over.clone();
        let killer = std::thread::spawn(move || {
            let (mut writes, mut size) = (0, size_of(&journal));
            while !ended.load(Ordering::SeqCst) {
                let found = size_of(&journal);
                if found != size {
                    (writes, size) = (writes + 1, found);
                }
                if writes == write {
                    let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let file = gateway.manifest(json!({}), &manifests()[1 - now]);
        let _ = gateway.agent(&["apply", &file, "--wait"]);
        is_over.store(true, Ordering::SeqCst);
        killer.join().unwrap();
        gateway.kill();
        gateway.start(super::SOCKET);
        now = settled(&gateway, &format!("write {write}"));
        assert_eq!(gateway.container("same").unwrap(), same, "write {write}: it was touched");
    }
    let left = docker(&["ps", "-aq", "--filter", "name=lineside-test-kill-write-.*next"]).unwrap();
    assert_eq!(left, "");
}

/// Bytes of all files in a directory.
fn size_of(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
