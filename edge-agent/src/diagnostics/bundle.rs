//! What somebody needs who helps with a gateway: its findings, state, history and logs, in one compressed archive without secrets.
//!
//! Guarantees:
//! - Whatever does not answer, the daemon, the engine or the system's log, is left out and named in `contents.txt`; the rest is there.
//! - Secrets are hidden by their forms and names ([`edge_core::redact`]); bodies of messages are not in it.
//! - No log is longer than [`LOG_BYTES_MAX`].

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use edge_core::deploy::observed::Observed;
use edge_core::error_chain::chain;
use edge_core::module_logs::request::{LogFilter, LogsRequest};
use edge_core::redact::quotes::Quotes;
use edge_core::redact::{self, Named};
use edge_core::upload::request::BundleUpload;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::LocalBoxFuture;
use schemas::timestamp::rfc3339;
use serde_json::{Value, json};
use tokio::process::Command;

use super::log_reader::LogReader;
use super::spool::Spool;
use crate::access::module_keys::{KeysError, ModuleKeys};
use crate::check::check;
use crate::clock::now_ms;
use crate::config::{Config, ConfigError};
use crate::control::client::{CallError, request};
use crate::deployment::docker::observe::observe;
use crate::deployment::docker::{DockerError, Engine, ModuleContext};
use crate::deployment::status::ReconcilerStatus;

/// The most that the archive has of one log; of a longer one its last part.
pub const LOG_BYTES_MAX: usize = 8 << 20;
/// Lines of each module's log: the last ones.
pub const TAIL_DEFAULT: u32 = 20_000;
/// How long one source may take: the daemon's answer, the list of the containers, or the system's log.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(15);
/// What the daemon is requested, and the file that gets its answer.
const ANSWERS: [(&str, &str); 4] = [
    ("/status", "status.json"),
    ("/history", "history.json"),
    ("/refusals", "refusals.json"),
    // Numbers, senders, sizes and reasons; the messages themselves stay on the gateway.
    ("/quarantine?after=0&limit=1000", "quarantine.json"),
];

/// What to gather.
#[derive(Debug, Clone)]
pub struct BundleOptions {
    pub config: PathBuf,
    /// The time and the lines of the modules' logs, as `GetModuleLogs` takes them.
    pub logs: LogsRequest,
    /// The beginning of the daemon's own log, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Its end, in milliseconds since the Unix epoch; `None` for now.
    pub until_ms: Option<u64>,
}

impl BundleOptions {
    /// Of a time, with the logs of all modules: the last `tail` lines of each, with their times.
    pub fn new(config: PathBuf, since_ms: u64, until_ms: Option<u64>, tail: u32) -> Self {
        let filter = LogFilter {
            tail: Some(tail),
            since_ms: Some(since_ms),
            until_ms,
            timestamps: true,
            ..LogFilter::default()
        };
        Self { config, logs: LogsRequest::of_all(filter), since_ms, until_ms }
    }

    /// Without the logs of modules.
    #[must_use]
    pub fn without_modules(self) -> Self {
        Self { logs: LogsRequest::of_none(), ..self }
    }
}

/// Why something could not be put into the archive.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The parser's own text would show the line, which may hold a secret.
    #[error("it is not TOML: {0}")]
    NotToml(String),
    #[error(transparent)]
    Daemon(#[from] CallError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Engine(#[from] DockerError),
    #[error("{0} does not answer")]
    Silent(&'static str),
    #[error("journalctl could not be run; add the daemon's log by hand")]
    NoJournal(#[source] io::Error),
    /// What journalctl wrote.
    #[error("journalctl: {0}")]
    Journal(String),
}

/// Writes the archive, and gives what could not be put into it.
///
/// # Errors
/// What `out` fails with; a source that fails is no error.
pub async fn write(options: &BundleOptions, out: impl Write) -> io::Result<Vec<String>> {
    let mut bundle = Bundle::new(out);
    bundle.add("about.txt", about().await.as_bytes())?;
    let findings = check(&options.config).await;
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    bundle.add("check.txt", redact::text(&lines).as_bytes())?;
    bundle.add_found("configuration.json", configuration(&options.config))?;
    match Config::load(&options.config) {
        Ok(config) => {
            for (path, file) in ANSWERS {
                let answer = request(&config.data_dir, "GET", path, None, SOURCE_TIMEOUT).await;
                bundle.add_found(file, answer.map(|answer| redacted(&answer)).map_err(SourceError::from))?;
            }
            bundle.add_found("disk.txt", disk(&config.data_dir))?;
            modules(&mut bundle, &config, &options.logs).await?;
        }
        Err(error) => bundle.leave_out("the daemon's answers and the modules' logs", &error.into()),
    }
    bundle.add_found("edge-agent.log", journal(options).await)?;
    bundle.finish()
}

/// Writes the archive for an upload. What could not be put into it is in its `contents.txt`.
pub fn write_upload(
    config: PathBuf,
    upload: BundleUpload,
    mut spool: Spool,
) -> LocalBoxFuture<'static, io::Result<Spool>> {
    let options = BundleOptions::new(config, upload.since_ms, upload.until_ms, TAIL_DEFAULT);
    let options = if upload.is_runtime_only { options.without_modules() } else { options };
    Box::pin(async move {
        let _left_out = write(&options, &mut spool).await?;
        Ok(spool)
    })
}

/// An archive that is being written.
struct Bundle<W: Write> {
    archive: tar::Builder<GzEncoder<W>>,
    contents: String,
    left_out: Vec<String>,
}

impl<W: Write> Bundle<W> {
    fn new(out: W) -> Self {
        let archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        Self { archive, contents: String::new(), left_out: Vec::new() }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now_ms() / 1000);
        self.archive.append_data(&mut header, format!("support-bundle/{name}"), bytes)?;
        let _ = writeln!(self.contents, "{name}: {} bytes", bytes.len());
        Ok(())
    }

    fn leave_out(&mut self, name: &str, why: &SourceError) {
        let line = format!("{name}: not in it: {}", redact::text(&chain(why).to_string()));
        let _ = writeln!(self.contents, "{line}");
        self.left_out.push(line);
    }

    fn add_found(&mut self, name: &str, found: Result<String, SourceError>) -> io::Result<()> {
        match found {
            Ok(text) => self.add(name, text.as_bytes()),
            Err(why) => {
                self.leave_out(name, &why);
                Ok(())
            }
        }
    }

    fn finish(mut self) -> io::Result<Vec<String>> {
        let contents = std::mem::take(&mut self.contents);
        self.add("contents.txt", contents.as_bytes())?;
        self.archive.into_inner()?.finish()?.flush()?;
        Ok(self.left_out)
    }
}

/// A JSON value as a page of text, without its secrets.
fn redacted(value: &Value) -> String {
    let text = format!("{value:#}");
    let shown = redact::json(&text, &Named::default(), &Quotes::default());
    shown.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// The programs and the machine.
async fn about() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let os = read("/etc/os-release");
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    let engine = Command::new("docker").args(["version"]).stdin(Stdio::null()).kill_on_drop(true).output();
    let engine = match tokio::time::timeout(SOURCE_TIMEOUT, engine).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(_)) => "there is no docker command".to_owned(),
        Err(_) => "docker version does not answer".to_owned(),
    };
    format!(
        "edge-agent {}\ntime {}\nsystem {os}, Linux {}\nup for {} s\nload {}\n{}\n{engine}",
        env!("CARGO_PKG_VERSION"),
        rfc3339(now_ms()),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/uptime").split('.').next().unwrap_or_default(),
        read("/proc/loadavg").trim(),
        read("/proc/meminfo").lines().take(3).collect::<Vec<_>>().join("\n"),
    )
}

/// The configuration, as JSON: secrets are found by the names of settings.
fn configuration(path: &Path) -> Result<String, SourceError> {
    let failed = |source| SourceError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| SourceError::NotToml(error.message().to_owned()))?;
    Ok(redacted(&json!(table)))
}

/// What the data directory has, and how full its disk is.
fn disk(data_dir: &Path) -> Result<String, SourceError> {
    let failed = |source| SourceError::File { path: data_dir.to_owned(), source };
    let of_disk = rustix::fs::statvfs(data_dir).map_err(|error| failed(error.into()))?;
    let megabytes = |blocks: u64| blocks.saturating_mul(of_disk.f_frsize) / 1_000_000;
    let mut text = format!(
        "{}: {} MB free of {} MB, {} of {} inodes free\n",
        data_dir.display(),
        megabytes(of_disk.f_bavail),
        megabytes(of_disk.f_blocks),
        of_disk.f_favail,
        of_disk.f_files
    );
    for entry in std::fs::read_dir(data_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = bytes_of(&entry.path());
        let _ = writeln!(text, "{bytes:>15}  {}", entry.file_name().to_string_lossy());
    }
    Ok(text)
}

/// Bytes of a file, or of all files below a directory. What goes meanwhile counts for nothing.
fn bytes_of(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_of(&entry.path())).sum()
}

/// The modules' containers and their logs, from the engine itself: the daemon may not run.
async fn modules<W: Write>(bundle: &mut Bundle<W>, config: &Config, request: &LogsRequest) -> io::Result<()> {
    let engine = Engine::new(config.docker.socket.clone());
    let observed = match observed(config, &engine).await {
        Ok(observed) => observed,
        Err(why) => {
            bundle.leave_out("containers.json and the modules' logs", &why);
            return Ok(());
        }
    };
    let containers: Vec<Value> = observed
        .modules
        .iter()
        .map(|(module, seen)| {
            let time = |at_ms: Option<u64>| at_ms.map(rfc3339);
            json!({"module": module, "container": seen.container_id, "image": seen.image, "imageId": seen.image_id,
                "state": format!("{:?}", seen.state), "unhealthy": seen.is_unhealthy, "outOfMemory": seen.is_out_of_memory,
                "started": time(seen.started_at_ms), "finished": time(seen.finished_at_ms)})
        })
        .collect();
    bundle.add("containers.json", format!("{:#}", Value::from(containers)).as_bytes())?;
    let (_kept_open, reconciler) =
        tokio::sync::watch::channel(ReconcilerStatus { observed, ..ReconcilerStatus::default() });
    // Records of logs name the hub only in their JSON form.
    let reader = LogReader { engine, reconciler, hub_name: "".into(), gateway: config.device_id.clone() };
    for log in reader.desired(request) {
        let name = format!("modules/{}.log", log.module);
        match log_of(&reader, log, request).await {
            Ok(log) => bundle.add(&name, &log)?,
            Err(why) => bundle.leave_out(&name, &why),
        }
    }
    Ok(())
}

async fn observed(config: &Config, engine: &Engine) -> Result<Observed, SourceError> {
    let keys = ModuleKeys::load(&config.data_dir)?;
    let observed = tokio::time::timeout(SOURCE_TIMEOUT, async {
        observe(&engine.client().await?, &ModuleContext::new(config, &keys)).await
    });
    Ok(observed.await.map_err(|_| SourceError::Silent("the Docker Engine"))??)
}

/// A log, or the last [`LOG_BYTES_MAX`] of it.
async fn log_of(
    reader: &LogReader,
    log: super::log_reader::RequestedLog,
    request: &LogsRequest,
) -> Result<Vec<u8>, SourceError> {
    let mut parts = reader.open(log, request.content, request.encoding).await?;
    let mut text = Vec::new();
    while let Some(part) = parts.next().await? {
        text.extend_from_slice(&part);
        // Twice the limit at most is in memory, and each byte is moved at most once on average.
        if text.len() > 2 * LOG_BYTES_MAX {
            text.drain(..text.len() - LOG_BYTES_MAX);
        }
    }
    Ok(last_lines(text))
}

/// The last [`LOG_BYTES_MAX`], from the beginning of a line.
fn last_lines(mut text: Vec<u8>) -> Vec<u8> {
    if text.len() > LOG_BYTES_MAX {
        text.drain(..text.len() - LOG_BYTES_MAX);
        let line = text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.drain(..line);
    }
    text
}

/// The daemon's log, where systemd keeps it.
async fn journal(options: &BundleOptions) -> Result<String, SourceError> {
    let seconds = |at_ms: u64| format!("@{}", at_ms / 1000);
    let output = Command::new("journalctl")
        .args(["--unit", "edge-agent", "--no-pager", "--output", "cat", "--lines=100000"])
        .args(["--since", &seconds(options.since_ms)])
        .args(options.until_ms.map(|until_ms| format!("--until={}", seconds(until_ms))))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(SOURCE_TIMEOUT, output).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = last_lines(output.stdout);
            Ok(String::from_utf8_lossy(&text)
                .lines()
                .map(|line| format!("{}\n", redact::text(line)))
                .collect())
        }
        Ok(Ok(output)) => {
            Err(SourceError::Journal(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
        Ok(Err(error)) => Err(SourceError::NoJournal(error)),
        Err(_) => Err(SourceError::Silent("journalctl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_at_a_line() {
        let line = b"0123456789abcde\n";
        let mut text = line.repeat(LOG_BYTES_MAX / line.len());
        assert_eq!(last_lines(text.clone()).len(), text.len());
        text.extend_from_slice(b"the last line\n");
        let cut = last_lines(text);
        assert!(cut.len() <= LOG_BYTES_MAX && cut.starts_with(line) && cut.ends_with(b"\nthe last line\n"));
    }
}
