//! `central serve` as a process of its own, for tests that kill it or have it end by itself.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A busy machine, and a move of the log every five seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with central's data directory and its log.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.data()).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All that the processes here have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("central.log")).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_central"));
        command.env("CENTRAL__HOSTNAME", "central.test");
        command
    }

    /// Starts central; `None` when it refuses to start, and its log says why.
    pub(crate) fn serve(&self, change: impl FnOnce(&mut Command)) -> Option<Served> {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.path().join("central.log"));
        let mut command = self.command();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data())
            .env("CENTRAL__HTTP__LISTEN", "127.0.0.1:0")
            .env("CENTRAL__MQTT__MQTTS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(log.unwrap());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(ready) = lines.find_map(|line| line.ok().filter(|line| line.contains("central ready")))
        else {
            child.wait().unwrap();
            return None;
        };
        // What it still writes must have a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Some(Served { child, url })
    }

    /// A new administrator's token of a central that serves.
    pub(crate) fn token(&self) -> String {
        let mut command = self.command();
        command.args(["token", "create", "--role", "administrator", "--name", "test", "--data-dir"]);
        let made = command.arg(self.data()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }
}

/// A central that serves.
pub(crate) struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn device(&self, number: u32) -> String {
        format!("{}/api/devices/press-{number}?api-version=2022-07-31", self.url)
    }

    /// Registers a device; true when central has confirmed it.
    pub(crate) async fn put(&self, client: &reqwest::Client, token: &str, number: u32) -> bool {
        let request = client.put(self.device(number)).header("Authorization", token).json(&json!({}));
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) async fn has(&self, client: &reqwest::Client, token: &str, number: u32) -> bool {
        let found = client.get(self.device(number)).header("Authorization", token).send().await.unwrap();
        found.status() == 200
    }

    pub(crate) async fn health(&self, client: &reqwest::Client) -> Value {
        let answer = client.get(format!("{}/api/ext/health", self.url)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// The exit code of a process that ends by itself.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "central did not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn terminate(self) -> Option<i32> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.ended()
    }

    /// Ends it as a power cut does, unless it has ended already.
    pub(crate) fn kill(mut self) {
        let _ended_before = self.child.kill();
        self.child.wait().unwrap();
    }
}
