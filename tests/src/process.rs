//! A program of ours as a child process: started with its output in a log file, awaited by a line of that log, stopped
//! or killed, and never left behind.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the rest of a process's output may take once it has ended. Another process that has its outputs may hold them open.
const OUTPUT_WITHIN: Duration = Duration::from_secs(10);

/// Where the binaries under test are: `LINESIDE_BIN_DIR`, or cargo's target directory beside this very program.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("LINESIDE_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => return beside_this(name),
    };
    there(dir.join(name), "make build")
}

/// A binary in cargo's target directory beside this very program, whatever `LINESIDE_BIN_DIR` says: not a static one.
pub fn beside_this(name: &str) -> Result<PathBuf> {
    let mut dir = std::env::current_exe().context("finding this program")?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    there(dir.join(name), "cargo build --workspace")
}

fn there(path: PathBuf, build: &str) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} is not there; build it first: {build}", path.display());
    Ok(path)
}

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: watch::Receiver<Vec<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`; both its outputs are appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let (sender, lines) = watch::channel(Vec::new());
        let streams: [Box<dyn tokio::io::AsyncRead + Send + Unpin>; 2] = [
            Box::new(child.stdout.take().expect("stdout is piped")),
            Box::new(child.stderr.take().expect("stderr is piped")),
        ];
        let open = || std::fs::File::options().create(true).append(true).open(log);
        let mut readers = Vec::new();
        for stream in streams {
            let sender = sender.clone();
            let mut file = open().with_context(|| format!("opening {}", log.display()))?;
            readers.push(tokio::spawn(async move {
                let mut reader = BufReader::new(stream).lines();
                while let Ok(Some(line)) = reader.next_line().await {
                    // In one write, since both outputs go to one file; and in the file before anybody is told of it.
                    let _ = file.write_all(format!("{line}\n").as_bytes());
                    sender.send_modify(|lines| lines.push(line));
                }
            }));
        }
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), lines, readers })
    }

    /// Waits until all that the ended process wrote is in its log.
    async fn output_read(&mut self) {
        let readers = std::mem::take(&mut self.readers);
        let read = async {
            for reader in readers {
                let _ = reader.await;
            }
        };
        let _ = tokio::time::timeout(OUTPUT_WITHIN, read).await;
    }

    /// Waits for a line of this process that holds `text`, and gives the line.
    pub async fn line(&self, text: &str, within: Duration) -> Result<String> {
        let mut lines = self.lines.clone();
        let wait = lines.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        match tokio::time::timeout(within, wait).await {
            Ok(Ok(lines)) => {
                Ok(lines.iter().find(|line| line.contains(text)).cloned().expect("it was just seen"))
            }
            Ok(Err(_)) => bail!("{} ended without saying \"{text}\"; its log:\n{}", self.name, self.tail()),
            Err(_) => {
                bail!("{} did not say \"{text}\" within {within:?}; its log:\n{}", self.name, self.tail())
            }
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    pub fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended; its log:\n{}", self.name, self.tail()))
    }

    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))?;
        self.output_read().await;
        Ok(())
    }

    /// Waits until it ends by itself; gives its exit code.
    pub async fn ended(mut self, within: Duration) -> Result<i32> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => {
                self.output_read().await;
                status?.code().with_context(|| format!("{} ended by a signal", self.name))
            }
            Err(_) => bail!("{} did not end within {within:?}; its log:\n{}", self.name, self.tail()),
        }
    }

    /// Waits until it ends by itself, which a caller may stop waiting for; gives its exit code.
    pub async fn wait(&mut self) -> Result<i32> {
        let status = self.child.wait().await?;
        self.output_read().await;
        status.code().with_context(|| format!("{} ended by a signal", self.name))
    }

    /// SIGTERM, and the wait for its orderly end.
    pub async fn stop(mut self, within: Duration) -> Result<()> {
        let id = self.id()?;
        // The shell's own `kill`: the program of that name is not on every machine.
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
        ensure!(status.success(), "could not signal {}", self.name);
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                self.output_read().await;
                ensure!(status.success(), "{} ended with {status}; its log:\n{}", self.name, self.tail());
                Ok(())
            }
            Err(_) => bail!("{} did not stop within {within:?}; its log:\n{}", self.name, self.tail()),
        }
    }
}

/// Runs a command to its end and gives its exit code and both its outputs.
pub async fn run(command: &mut Command) -> Result<(i32, String, String)> {
    let output = command.stdin(Stdio::null()).output().await?;
    Ok((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// What a process has used of the CPU so far, of all its threads.
pub fn cpu(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may hold anything: utime and stime are the 14th and the 15th field, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
    Ok(Duration::from_millis((user + system) * 10))
}
