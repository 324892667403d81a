//! Everything in the data directory, replaced by something that does not belong there: the daemon goes on, or refuses to start with the
//! path. What was acknowledged is there or counted as lost once the thing is put back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod gateway;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{Gateway, exchange};

/// Cases at a time.
const AT_ONCE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Replacement {
    Removed,
    ByFile,
    ByDirectory,
    ByDanglingLink,
}

const REPLACEMENTS: [Replacement; 4] =
    [Replacement::Removed, Replacement::ByFile, Replacement::ByDirectory, Replacement::ByDanglingLink];

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Running,
    Stopped,
}

fn replace(path: &Path, replacement: Replacement, aside: &Path) {
    match replacement {
        Replacement::Removed => return fs::rename(path, aside).unwrap(),
        Replacement::ByFile => fs::write(aside, "in the way").unwrap(),
        Replacement::ByDirectory => {
            fs::create_dir(aside).unwrap();
            fs::write(aside.join("in-the-way"), "").unwrap();
        }
        Replacement::ByDanglingLink => std::os::unix::fs::symlink("/nonexistent/target", aside).unwrap(),
    }
    exchange(path, aside);
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    [&[first, (body.len() & 0x7f) as u8 | 0x80, (body.len() >> 7) as u8][..], body].concat()
}

/// Messages that were sent.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    acknowledged: u64,
    /// One that the daemon may have, for its acknowledgement may only be late.
    in_doubt: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.acknowledged += more.acknowledged;
        self.in_doubt += more.in_doubt;
    }
}

/// Publishes telemetry on a connection of its own until one is not acknowledged.
fn publish(gateway: &Gateway, login: &serde_json::Value, count: u16) -> std::io::Result<Sent> {
    let part = |name: &str| text(login[name].as_str().unwrap());
    let body = [&b"\0\x04MQTT\x04\xc2\0\0"[..], &part("clientId"), &part("userName"), &part("password")];
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&packet(0x10, &body.concat()))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if [answer[0], answer[1], answer[3]] != [0x20, 2, 0] {
        return Ok(Sent::default());
    }
    for id in 1..=count {
        let body = [&text("devices/press/messages/events/")[..], &id.to_be_bytes(), b"21.5"].concat();
        let sent = stream.write_all(&packet(0x32, &body));
        if sent.and_then(|()| stream.read_exact(&mut answer)).is_err() {
            return Ok(Sent { acknowledged: u64::from(id - 1), in_doubt: 1 });
        }
        assert_eq!(answer[..2], [0x40, 2]);
    }
    Ok(Sent { acknowledged: u64::from(count), in_doubt: 0 })
}

/// Messages that wait, and those that are counted as lost by damage.
fn accounted(gateway: &Gateway) -> u64 {
    let status = gateway.json(&["status"]);
    let queue = &status["queues"][0];
    queue["messages"].as_u64().unwrap() + queue["lost"]["damaged"].as_u64().unwrap()
}

fn run(name: &Path, replacement: Replacement, when: When) {
    let case = format!("{} {replacement:?} {when:?}", name.display());
    let mut gateway = Gateway::start();
    let added = gateway.command(&["device", "add", "press"]).output().unwrap();
    assert!(added.status.success(), "{case}: {added:?}");
    let login = gateway.json(&["device", "token", "press"]);
    let mut sent = publish(&gateway, &login, 20).unwrap();
    assert_eq!(sent.acknowledged, 20, "{case}");
    let (path, aside) = (gateway.data().join(name), gateway.dir.path().join("aside"));
    if !path.exists() {
        return;
    }
    match when {
        When::Running => {
            replace(&path, replacement, &aside);
            sent += publish(&gateway, &login, 20).unwrap_or_default();
            // Longer than the checks of files take.
            std::thread::sleep(Duration::from_secs(6));
            assert!(gateway.is_running(), "{case}: it ended: {}", gateway.log());
            sent += publish(&gateway, &login, 5).unwrap_or_default();
            gateway.kill();
        }
        When::Stopped => {
            gateway.stop();
            replace(&path, replacement, &aside);
        }
    }
    // It starts, or says with the path why not.
    if let Err(refusal) = gateway.try_start() {
        assert!(!refusal.contains("panicked"), "{case}: {refusal}");
        assert!(names(&refusal, &path), "{case}: no path in: {refusal}");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        fs::rename(&aside, &path).unwrap();
        gateway.start_again();
    }
    if !gateway.json(&["device", "list"]).to_string().contains("\"press\"") {
        assert!(name.starts_with("state"), "{case}: the device is gone");
        return;
    }
    sent += publish(&gateway, &login, 5).unwrap_or_default();
    let accounted = accounted(&gateway);
    let may_be = sent.acknowledged..=sent.acknowledged + sent.in_doubt;
    assert!(may_be.contains(&accounted), "{case}: {accounted} of {sent:?}");
}

/// Whether a text names a path, or a directory and the file in it.
fn names(text: &str, path: &Path) -> bool {
    let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let last = text.lines().last().unwrap_or_default();
    last.contains(&path.display().to_string())
        || (last.contains(&dir.display().to_string())
            && last.contains(name.to_str().unwrap().trim_start_matches('0')))
}

/// What a gateway that has run has in its data directory, two levels deep.
fn entries() -> Vec<PathBuf> {
    let gateway = Gateway::start();
    let added = gateway.command(&["device", "add", "press"]).output().unwrap();
    assert!(added.status.success());
    let login = gateway.json(&["device", "token", "press"]);
    publish(&gateway, &login, 1).unwrap();
    let names = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(gateway.data().join(dir))
            .map(|entries| entries.map(|entry| dir.join(entry.unwrap().file_name())).collect())
            .unwrap_or_default()
    };
    let top = names(Path::new(""));
    let below: Vec<PathBuf> = top.iter().flat_map(|dir| names(dir)).collect();
    top.into_iter().chain(below).collect()
}

#[test]
fn whatever_is_in_the_place_of_a_file_the_daemon_goes_on_or_names_it_and_loses_nothing_in_silence() {
    let mut cases = Vec::new();
    for name in entries() {
        for replacement in REPLACEMENTS {
            cases.push((name.clone(), replacement, When::Stopped));
            // Files below are those of queues and of the store, of which their own tests replace each while it is open.
            if name.components().count() == 1 {
                cases.push((name.clone(), replacement, When::Running));
            }
        }
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, replacement, when)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| run(name, *replacement, *when));
                    if std::panic::catch_unwind(run).is_err() {
                        failures.lock().unwrap().push(format!("{} {replacement:?} {when:?}", name.display()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), cases.len());
}
