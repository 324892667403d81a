//! Parts of the data directory that somebody removes or replaces: it is told in the log and by `check`, and what was acknowledged is
//! there or counted as lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod gateway;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use gateway::{Gateway, STEP, exchange, until};

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    name: &'static str,
    /// It holds acknowledged things of this gateway: `check` says that they, or some of them, are gone.
    is_found_by_check: bool,
}

const PARTS: [Part; 6] = [
    Part { name: "state", is_found_by_check: true },
    Part { name: "mqtt", is_found_by_check: true },
    Part { name: "buffer", is_found_by_check: true },
    Part { name: "clock.json", is_found_by_check: true },
    // This gateway has no upstream that rejects messages: it is empty.
    Part { name: "quarantine", is_found_by_check: false },
    // Copies, which are made again.
    Part { name: "ledgers", is_found_by_check: false },
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Removal {
    Removed,
    /// An empty one is in its place.
    Emptied,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Running,
    Stopped,
}

fn remove(path: &Path, removal: Removal) {
    if path.is_dir() {
        // As one step, as far as the daemon sees.
        let aside = path.with_file_name(format!("aside-{}", path.file_name().unwrap().display()));
        match removal {
            Removal::Removed => fs::rename(path, &aside).unwrap(),
            Removal::Emptied => {
                fs::create_dir(&aside).unwrap();
                exchange(path, &aside);
            }
        }
        fs::remove_dir_all(aside).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// A leaf device whose session outlives its connection.
struct Leaf {
    stream: TcpStream,
    was_present: bool,
    id: u16,
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        packet.push((left & 0x7f) as u8 | if left > 0x7f { 0x80 } else { 0 });
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

impl Leaf {
    fn connect(gateway: &Gateway) -> Self {
        let login = gateway.json(&["device", "token", "press"]);
        let part = |name: &str| text(login[name].as_str().unwrap());
        let body = [&b"\0\x04MQTT\x04\xc0\0\0"[..], &part("clientId"), &part("userName"), &part("password")];
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        stream.set_read_timeout(Some(STEP)).unwrap();
        stream.write_all(&packet(0x10, &body.concat())).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!([connack[0], connack[1], connack[3]], [0x20, 2, 0]);
        Self { stream, was_present: connack[2] == 1, id: 0 }
    }

    fn next_id(&mut self) -> [u8; 2] {
        self.id += 1;
        self.id.to_be_bytes()
    }

    fn subscribe(&mut self) {
        let id = self.next_id();
        let filter = text("devices/press/messages/devicebound/#");
        self.stream.write_all(&packet(0x82, &[&id[..], &filter, &[1]].concat())).unwrap();
        let mut suback = [0; 5];
        self.stream.read_exact(&mut suback).unwrap();
        assert_eq!(suback, [0x90, 3, id[0], id[1], 1]);
    }

    /// Publishes telemetry and waits until each is acknowledged.
    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            let id = self.next_id();
            let body = [&text("devices/press/messages/events/")[..], &id, b"21.5"].concat();
            self.stream.write_all(&packet(0x32, &body)).unwrap();
            let mut puback = [0; 4];
            self.stream.read_exact(&mut puback).unwrap();
            assert_eq!(puback, [0x40, 2, id[0], id[1]]);
        }
    }
}

fn check(gateway: &Gateway) -> serde_json::Value {
    let findings = gateway.json(&["check"]);
    findings.as_array().unwrap().iter().find(|finding| finding["id"] == "store-damage").unwrap().clone()
}

fn devices(gateway: &Gateway) -> String {
    gateway.json(&["device", "list"]).to_string()
}

/// Messages that wait, and those that are counted as lost by damage.
fn messages(gateway: &Gateway) -> u64 {
    let status = gateway.json(&["status"]);
    let queue = &status["queues"][0];
    queue["messages"].as_u64().unwrap() + queue["lost"]["damaged"].as_u64().unwrap()
}

fn run(part: Part, removal: Removal, when: When) {
    let case = format!("{} {removal:?} {when:?}", part.name);
    let mut gateway = Gateway::start();
    let add = |gateway: &Gateway, id: &str| {
        let added = gateway.command(&["device", "add", id]).output().unwrap();
        assert!(added.status.success(), "{case}: {added:?}");
    };
    add(&gateway, "press");
    let mut leaf = Leaf::connect(&gateway);
    leaf.subscribe();
    leaf.publish(20);
    let path = gateway.data().join(part.name);
    match when {
        When::Running => {
            gateway.clear_log();
            remove(&path, removal);
        }
        When::Stopped => {
            drop(leaf);
            gateway.stop();
            remove(&path, removal);
            gateway.clear_log();
            gateway.start_again();
            if part.name == "state" {
                assert!(!devices(&gateway).contains("press"), "{case}");
                add(&gateway, "press");
            }
            leaf = Leaf::connect(&gateway);
            // What was kept for a device that is not known any more is not given to the next one of its name.
            assert_eq!(leaf.was_present, !["state", "mqtt"].contains(&part.name), "{case}");
            leaf.subscribe();
        }
    }
    // It goes on.
    leaf.publish(20);
    let last = if part.name == "clock.json" { "clock.json".to_owned() } else { path.display().to_string() };
    let is_logged = |log: &str| {
        log.lines().any(|line| (line.contains("ERROR") || line.contains("WARN")) && line.contains(&last))
    };
    until(&format!("{case}: told in the log, and made again"), || is_logged(&gateway.log()) && path.exists());
    if part.is_found_by_check {
        until(&format!("{case}: told by check"), || check(&gateway)["level"] == "error");
    }
    add(&gateway, "press-2");
    leaf.publish(20);
    if when == When::Running && part.name == "state" {
        // It is whole again on disk when this is said.
        until(&case, || check(&gateway)["evidence"].as_str().unwrap().contains("made again from memory"));
    }
    if when == When::Running && part.name == "mqtt" {
        until(&case, || gateway.log().contains("MQTT journal is whole again"));
    }
    drop(leaf);
    gateway.kill();
    gateway.start_again();
    let devices = devices(&gateway);
    assert!(devices.contains("\"press\"") && devices.contains("press-2"), "{case}: {devices}");
    assert!(Leaf::connect(&gateway).was_present, "{case}");
    assert_eq!(messages(&gateway), 60, "{case}");
}

#[test]
fn whatever_is_removed_of_the_data_directory_is_reported_and_nothing_acknowledged_is_lost_in_silence() {
    for when in [When::Running, When::Stopped] {
        for removal in [Removal::Removed, Removal::Emptied] {
            std::thread::scope(|scope| {
                for part in PARTS {
                    if removal == Removal::Emptied && part.name == "clock.json" {
                        continue;
                    }
                    scope.spawn(move || run(part, removal, when));
                }
            });
        }
    }
}

/// A directory and what could count what was in it.
const WITH_LEDGERS: [[&str; 2]; 5] = [
    ["state", "ledgers/state.ledger"],
    ["mqtt", "ledgers/mqtt.ledger"],
    ["buffer", "ledgers/buffer"],
    ["state", "ledgers"],
    ["mqtt", "ledgers"],
];

fn run_with_ledgers(removed: [&str; 2]) {
    let mut gateway = Gateway::start();
    let add = |gateway: &Gateway| {
        let added = gateway.command(&["device", "add", "press"]).output().unwrap();
        assert!(added.status.success(), "{removed:?}: {added:?}");
    };
    add(&gateway);
    let mut leaf = Leaf::connect(&gateway);
    leaf.subscribe();
    leaf.publish(20);
    drop(leaf);
    gateway.stop();
    for path in removed {
        remove(&gateway.data().join(path), Removal::Removed);
    }
    gateway.clear_log();
    gateway.start_again();
    let path = gateway.data().join(removed[0]).display().to_string();
    // The log is written beside what the daemon does.
    until(&format!("{removed:?}: an ERROR in the log"), || {
        gateway.log().lines().any(|line| line.contains("ERROR") && line.contains(&path))
    });
    let status = gateway.json(&["status"]);
    let found = status["removedFiles"].as_array().unwrap();
    assert!(found.iter().any(|found| found.as_str().unwrap().contains(removed[0])), "{removed:?}: {status}");
    until(&format!("{removed:?}: reported by check"), || check(&gateway)["level"] == "error");
    // It goes on, and reports it once.
    if removed[0] == "state" {
        add(&gateway);
    }
    Leaf::connect(&gateway).publish(20);
    gateway.stop();
    gateway.start_again();
    assert_eq!(gateway.json(&["status"])["removedFiles"], serde_json::json!([]), "{removed:?}");
    Leaf::connect(&gateway).publish(1);
}

#[test]
fn whatever_is_removed_with_the_copy_of_its_ledger_is_reported_by_what_is_left() {
    std::thread::scope(|scope| {
        for removed in WITH_LEDGERS {
            scope.spawn(move || run_with_ledgers(removed));
        }
    });
}
