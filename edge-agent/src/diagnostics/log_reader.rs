//! Logs of modules, read from the engine in parts and filtered on the way.
//!
//! Guarantees: of a log no more than [`PART_BYTES`] and one line are in memory, however long it is. An engine that says nothing
//! for [`SILENCE_MAX`] ends the reading.

use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use edge_core::module_logs::lines::{Lines, Stream as LogStream};
use edge_core::module_logs::record::{Origin, Records};
use edge_core::module_logs::request::{ContentType, Encoding, LogFilter, LogsRequest};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt as _};
use schemas::names::{DeviceId, ModuleId};
use tokio::sync::watch;

use crate::deployment::docker::logs::{LogRange, outputs};
use crate::deployment::docker::{DockerError, Engine};
use crate::deployment::status::ReconcilerStatus;

/// A part is handed on when it has so many bytes; on a line of 64 kbit/s one takes two seconds.
pub const PART_BYTES: usize = 16 * 1024;
/// How long the engine may take for the next part of a log.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Reads from the engine, between which others run: filtering costs processor time.
const READS_PER_TURN: u32 = 64;

/// Reads logs of this gateway's modules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub engine: Engine,
    /// What the containers are.
    pub reconciler: watch::Receiver<ReconcilerStatus>,
    /// The hub's name in records.
    pub hub_name: Arc<str>,
    pub gateway: DeviceId,
}

/// A module that has a container, and what of its log is wanted.
#[derive(Debug, Clone)]
pub struct RequestedLog {
    pub module: ModuleId,
    pub container: String,
    pub filter: LogFilter,
}

/// One log that is being read.
pub struct LogParts {
    outputs: Pin<Box<dyn Stream<Item = Result<LogOutput, DockerError>> + Send>>,
    lines: Lines,
    records: Records,
    sink: Sink,
    is_ended: bool,
}

/// What was written and not handed on.
enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Sink {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::None => Self::Plain(Vec::new()),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(out) => out.extend_from_slice(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes).expect("a Vec takes every byte"),
        }
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Plain(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    fn finish(&mut self) {
        if let Self::Gzip(encoder) = self {
            encoder.try_finish().expect("a Vec takes every byte");
        }
    }
}

#[cfg(test)]
impl LogReader {
    /// Of a gateway whose engine is away and that has no containers.
    pub(crate) fn without_containers() -> Self {
        Self {
            engine: Engine::new("/nonexistent/docker.sock".into()),
            reconciler: watch::channel(ReconcilerStatus::default()).1,
            hub_name: "hub".into(),
            gateway: "gw".parse().expect("it is a name"),
        }
    }
}

impl LogReader {
    /// The modules with a container of which a request wants the log, by name.
    pub fn desired(&self, request: &LogsRequest) -> Vec<RequestedLog> {
        let status = self.reconciler.borrow();
        let modules = status.observed.modules.iter();
        let desired = modules.filter_map(|(module, observed)| {
            let filter = request.filter_of(module)?.clone();
            Some(RequestedLog { module: module.clone(), container: observed.container_id.clone(), filter })
        });
        desired.collect()
    }

    /// Begins to read a log.
    ///
    /// # Errors
    /// [`DockerError`] when the engine does not answer.
    pub async fn open(
        &self,
        log: RequestedLog,
        content: ContentType,
        encoding: Encoding,
    ) -> Result<LogParts, DockerError> {
        let client = tokio::time::timeout(SILENCE_MAX, self.engine.client());
        let docker = client.await.unwrap_or_else(|_| Err(silent()))?;
        let origin = Origin {
            hub: self.hub_name.to_string(),
            device: self.gateway.to_string(),
            module: log.module.to_string(),
        };
        let range = LogRange {
            follow: false,
            tail: log.filter.tail,
            since_ms: log.filter.since_ms,
            until_ms: log.filter.until_ms,
            timestamps: false,
        };
        let records = Records::new(origin, log.filter, content);
        let range = LogRange { timestamps: records.needs_times(), ..range };
        Ok(LogParts {
            outputs: Box::pin(outputs(&docker, &log.container, &range)),
            lines: Lines::default(),
            records,
            sink: Sink::new(encoding),
            is_ended: false,
        })
    }
}

fn silent() -> DockerError {
    DockerError::Silent { seconds: SILENCE_MAX.as_secs() }
}

impl LogParts {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// [`DockerError`]; nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, DockerError> {
        let mut reads = 0;
        while !self.is_ended && self.sink.buffer().len() < PART_BYTES {
            reads += 1;
            if reads % READS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            let next = tokio::time::timeout(SILENCE_MAX, self.outputs.next());
            match next.await.map_err(|_| silent())?.transpose()? {
                Some(output) => self.take(output),
                None => self.finish(),
            }
        }
        let part = std::mem::take(self.sink.buffer());
        Ok((!part.is_empty()).then_some(part))
    }

    fn take(&mut self, output: LogOutput) {
        let (stream, bytes) = match output {
            LogOutput::StdErr { message } => (LogStream::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (LogStream::Stdout, message),
            LogOutput::StdIn { .. } => return,
        };
        let mut written = Vec::new();
        self.lines.push(stream, &bytes, |line| self.records.line(stream, line, &mut written));
        self.sink.write(&written);
    }

    fn finish(&mut self) {
        let mut written = Vec::new();
        self.lines.finish(|stream, line| self.records.line(stream, line, &mut written));
        self.records.finish(&mut written);
        self.sink.write(&written);
        self.sink.finish();
        self.is_ended = true;
    }
}
