//! What a module's container has written to its standard output and standard error.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::{Stream, StreamExt as _};
use hyper::body::Bytes;

use super::DockerError;

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Go on with what is written from now on, until the container ends.
    pub follow: bool,
    /// The last lines; all when `None`.
    pub tail: Option<u32>,
    /// Milliseconds since the Unix epoch; the engine knows whole seconds.
    pub since_ms: Option<u64>,
    /// Milliseconds since the Unix epoch; the engine knows whole seconds.
    pub until_ms: Option<u64>,
    /// Begin each line with the time at which it was written.
    pub timestamps: bool,
}

/// The part of a container's log, in the order in which it was written.
pub fn logs(
    docker: &Docker,
    container: &str,
    range: &LogRange,
) -> impl Stream<Item = Result<Bytes, DockerError>> + Send + use<> {
    outputs(docker, container, range).map(|part| part.map(LogOutput::into_bytes))
}

/// As [`logs`], with the stream on which each part was written.
pub fn outputs(
    docker: &Docker,
    container: &str,
    range: &LogRange,
) -> impl Stream<Item = Result<LogOutput, DockerError>> + Send + use<> {
    let seconds =
        |at_ms: Option<u64>| at_ms.map_or(0, |at_ms| i32::try_from(at_ms / 1000).unwrap_or(i32::MAX));
    let options = LogsOptions {
        follow: range.follow,
        stdout: true,
        stderr: true,
        since: seconds(range.since_ms),
        until: seconds(range.until_ms),
        timestamps: range.timestamps,
        tail: range.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
    };
    let doing = format!("read the log of container {}", container.get(..12).unwrap_or(container));
    docker
        .logs(container, Some(options))
        .map(move |part| part.map_err(|source| DockerError::Said { doing: doing.clone(), source }))
}
