//! A disk that loses pages of central.db and says so once, to a sync (Linux: the pages count as written from then on): what was
//! committed is still in the log, and the next start takes it from there.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

/// A busy machine, and a move of the log every five seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts central; gives the process and the URL that its ready line names.
fn serve(dir: &Path, shim: Option<(&Path, &Path)>) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_central"));
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(dir)
        .env("CENTRAL__HTTP__LISTEN", "127.0.0.1:0")
        .env("CENTRAL__MQTT__MQTTS", "127.0.0.1:0")
        .env("CENTRAL__HOSTNAME", "central.test")
        .stdout(Stdio::piped());
    if let Some((library, trigger)) = shim {
        command.env("LD_PRELOAD", library).env("FAILING_SYNC_WHILE", trigger);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.ok().filter(|line| line.contains("central ready"))).unwrap();
    // What it still writes must have a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    (child, url)
}

/// The exit code of a process that ends by itself.
fn ended(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < until, "central did not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn compiled(dir: &Path) -> std::path::PathBuf {
    let library = dir.join("failing_sync.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failing_sync.c"))
        .status()
        .unwrap();
    assert!(made.success());
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_the_disk_loses_are_taken_from_the_log_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (data, trigger) = (dir.path().join("data"), dir.path().join("the disk fails"));
    fs::create_dir(&data).unwrap();
    let library = compiled(dir.path());
    let (mut child, url) = serve(&data, Some((&library, &trigger)));
    let made = Command::new(env!("CARGO_BIN_EXE_central"))
        .args(["token", "create", "--role", "administrator", "--name", "test", "--data-dir"])
        .arg(&data)
        .env("CENTRAL__HOSTNAME", "central.test")
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let client = reqwest::Client::new();
    let device = |url: &str, n: u32| format!("{url}/api/devices/press-{n}?api-version=2022-07-31");
    let put = async |n: u32| {
        let request = client.put(device(&url, n)).header("Authorization", &token).json(&json!({}));
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    };
    assert!(put(0).await);
    // What the disk has, before it loses pages.
    let on_disk = fs::read(data.join("central.db")).unwrap();
    fs::write(&trigger, "").unwrap();
    let mut confirmed = vec![0];
    for n in 1..=30 {
        if put(n).await {
            confirmed.push(n);
        }
    }
    assert!(confirmed.len() > 10, "the disk failed before anything was stored");
    assert_eq!(ended(&mut child), Some(70));
    fs::remove_file(&trigger).unwrap();

    // After a power cut the disk has what it had.
    fs::write(data.join("central.db"), on_disk).unwrap();
    let (mut child, url) = serve(&data, None);
    for n in confirmed {
        let found = client.get(device(&url, n)).header("Authorization", &token).send().await.unwrap();
        assert_eq!(found.status(), 200, "press-{n} was confirmed");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(ended(&mut child), Some(0));
    assert_eq!(fs::metadata(data.join("central.db-wal")).map_or(0, |log| log.len()), 0, "moved at the stop");
}
