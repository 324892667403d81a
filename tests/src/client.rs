//! A foreign client as a child process: it is told what to do by lines of JSON on its standard input, and tells what it
//! saw by lines of JSON on its standard output (tests/clients/).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// Lines that a client may be ahead of its test: beyond them its output waits.
const LINES_MAX: usize = 10_000;

/// What a client is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Python with the unmodified Azure device SDK.
    AzurePython,
    /// Python with the plain MQTT clients of today.
    PlainPython,
    /// Node: Azure's device SDK and MQTT.js.
    Node,
    /// Rust: an example of this crate, which cargo builds beside its tests.
    Rust,
}

/// The directory of the test clients' scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where `scripts/ensure-clients.sh` puts the clients.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/clients")
}

impl Kind {
    /// A command that runs one of the scripts in `tests/clients/`.
    ///
    /// # Errors
    /// When the clients are not installed.
    pub fn command(self, script: &str) -> Result<Command> {
        if self == Self::Rust {
            let mut dir = std::env::current_exe().context("finding this program")?;
            dir.pop();
            dir.pop();
            return Ok(Command::new(dir.join("examples").join(script)));
        }
        let (program, file) = match self {
            Self::AzurePython => (cache().join("azure/bin/python3"), scripts().join("python").join(script)),
            Self::PlainPython => (cache().join("plain/bin/python3"), scripts().join("python").join(script)),
            Self::Node | Self::Rust => (PathBuf::from("node"), scripts().join("node").join(script)),
        };
        let modules = cache().join("node/node_modules");
        if !(if self == Self::Node { &modules } else { &program }).exists() {
            bail!("the test clients are not installed; install them first: scripts/ensure-clients.sh");
        }
        let mut command = Command::new(program);
        command.arg(file).env("NODE_PATH", modules).env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}

/// A running client. Dropping it kills it.
pub struct Client {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    seen: VecDeque<Value>,
    log: PathBuf,
}

impl Client {
    /// Starts a client; what is no JSON, and what it says on its standard error, goes to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(std::fs::File::options().create(true).append(true).open(log)?);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let mut out = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let (sender, lines) = mpsc::channel(LINES_MAX);
        tokio::spawn(async move {
            while let Ok(Some(line)) = out.next_line().await {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, input, lines, seen: VecDeque::new(), log: log.to_owned() })
    }

    /// Gives it one line.
    pub async fn command(&mut self, command: &Value) -> Result<()> {
        let input = self.input.as_mut().with_context(|| format!("{} was told to end already", self.name))?;
        input
            .write_all(format!("{command}\n").as_bytes())
            .await
            .with_context(|| format!("{} does not listen any more; {}", self.name, said(&self.log)))
    }

    /// The first event not asked for yet that has this name and of which `is_it` holds.
    pub async fn event_where(
        &mut self,
        name: &str,
        within: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let is_it = |event: &Value| event["event"] == name && is_it(event);
        if let Some(index) = self.seen.iter().position(&is_it) {
            return Ok(self.seen.remove(index).expect("it was just found"));
        }
        let wait = async {
            while let Some(line) = self.lines.recv().await {
                // A module's log also holds what the SDK's own logging says.
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                if is_it(&event) {
                    return Some(event);
                }
                self.seen.push_back(event);
            }
            None
        };
        match tokio::time::timeout(within, wait).await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => bail!("{} ended without a fitting {name}; {}", self.name, self.story()),
            Err(_) => bail!("{} told no fitting {name} within {within:?}; {}", self.name, self.story()),
        }
    }

    /// The first event of this name not asked for yet.
    pub async fn event(&mut self, name: &str, within: Duration) -> Result<Value> {
        self.event_where(name, within, |_| true).await
    }

    /// The events not asked for yet of this name.
    pub fn unasked(&self, name: &str) -> Vec<&Value> {
        self.seen.iter().filter(|event| event["event"] == name).collect()
    }

    fn story(&self) -> String {
        let seen: Vec<String> = self.seen.iter().map(Value::to_string).collect();
        format!("not asked for yet:\n{}\n{}", seen.join("\n"), said(&self.log))
    }

    pub fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended; {}", self.name, said(&self.log)))
    }

    /// Closes its input and waits for its end.
    pub async fn end(mut self, within: Duration) -> Result<()> {
        drop(self.input.take());
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => bail!("{} ended with {status:?}; {}", self.name, self.story()),
            Err(_) => bail!("{} did not end within {within:?}; {}", self.name, self.story()),
        }
    }
}

/// The last words of a log.
fn said(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("its last words:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"))
}
