//! The log of both programs: one line per event on standard error, whatever the event holds and whoever reads it.
//!
//! - Every text is escaped here, once ([`escape`]): an event never starts a second line and never moves a terminal's cursor.
//! - Repeated events of one kind and identity are limited, and counted in a summary ([`rate`]).
//! - A line has the fields of the spans around it that it lacks. Spans of what happens seldom (a command, a step of a deployment) have
//!   the level info. Those of tasks that run for each message (a connection) have the level debug: at the default level they cost nothing.
//! - Lines are written by a thread of their own through a bounded buffer ([`writer`]): a reader that is gone or does not read
//!   costs log lines, never the program.

mod escape;
mod event;
mod rate;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use schemas::timestamp::rfc3339;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use escape::is_unsafe;
use event::{Line, SpanFields};
use rate::{Limiter, Verdict};
use writer::Writer;

use crate::clock;
use crate::tasks;

/// How long the end of the program, or a panic, waits for a log reader that does not read.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// How often suppressed events are logged.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// Writes out what is buffered when it is dropped, at the end of `main`.
pub struct Logging(Arc<Log>);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.summarize();
        self.0.writer.flush(FLUSH_MAX);
    }
}

struct Log {
    limiter: Limiter,
    writer: Writer,
    is_terminal: bool,
}

static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// Log lines that were not written since the program started, by cause.
pub fn counts() -> Vec<(&'static str, u64)> {
    LOG.get().map_or_else(Vec::new, |log| {
        vec![("logLinesSuppressed", log.limiter.suppressed()), ("logLinesDropped", log.writer.dropped())]
    })
}

/// Starts the log on standard error, with the levels of `RUST_LOG` (default `info`), and logs panics. Once per program.
///
/// # Errors
/// When standard error cannot be duplicated, the writer's thread does not start, or a log was started before.
pub fn start() -> std::io::Result<Logging> {
    let stderr = std::io::stderr();
    let is_terminal = std::io::IsTerminal::is_terminal(&stderr);
    let sink = std::fs::File::from(stderr.as_fd().try_clone_to_owned()?);
    let log = Arc::new(Log { limiter: Limiter::new(), writer: Writer::start(sink)?, is_terminal });
    let levels = levels(std::env::var("RUST_LOG").ok().as_deref());
    tracing_subscriber::registry()
        .with(LogLayer(log.clone()).with_filter(levels))
        .try_init()
        .map_err(std::io::Error::other)?;
    let _ = LOG.set(log.clone());
    let summaries = Arc::downgrade(&log);
    std::thread::Builder::new().name("log-summaries".into()).spawn(move || {
        loop {
            std::thread::sleep(SUMMARY_EVERY);
            let Some(log) = summaries.upgrade() else { return };
            log.summarize();
        }
    })?;
    log_panics(log.clone());
    tasks::follow_queue_threads();
    Ok(Logging(log))
}

/// Levels by target, as `warn,edge_hub=debug`; `info` when none or wrong ones are given. Not `EnvFilter`, which selects by spans and
/// fields too, and brings an engine for regular expressions.
fn levels(given: Option<&str>) -> Targets {
    let given = given.filter(|given| !given.trim().is_empty()).and_then(|given| given.parse().ok());
    given.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

/// Panics are logged like everything else. The default hook would write to standard error itself, unescaped, and may wait there
/// for a reader that does not read.
fn log_panics(log: Arc<Log>) {
    std::panic::set_hook(Box::new(move |panic| {
        let why = tasks::message(panic.payload());
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        error!(location, task = tasks::current_name(), why, "a task panicked");
        tasks::observe_panic(&thread, why);
        log.writer.flush(FLUSH_MAX);
    }));
}

/// Prints to standard output; characters that would steer a terminal or hide text are escaped. A reader that is gone (`| head -1`)
/// is no failure.
pub fn print(text: &str) {
    let mut out = std::io::stdout();
    if let Err(error) = writeln!(out, "{}", escape::printed(text)).and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        *STDOUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Prints JSON to standard output in several lines, as [`print`] does.
pub fn print_json(json: &serde_json::Value) {
    print(&escape::json(&format!("{json:#}")));
}

/// Why what was printed is not all where it should be, for example on a full disk.
static STDOUT_FAILURE: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// The failure of [`print`], once, if there was one: a command that printed in vain has failed.
pub fn stdout_failure() -> Option<std::io::Error> {
    STDOUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Prints to standard error, after the log lines before it. A reader that is gone is no failure.
pub fn print_error(text: &str) {
    match LOG.get() {
        Some(log) => {
            log.writer.write(format!("{}\n", escape::lines(text)));
            log.writer.flush(FLUSH_MAX);
        }
        None => {
            let _ = writeln!(std::io::stderr(), "{}", escape::lines(text));
        }
    }
}

impl Log {
    fn summarize(&self) {
        for summary in self.limiter.summaries() {
            let mut line = head(summary.level, summary.target, self.is_terminal);
            let _ = write!(
                line,
                "{} more like this suppressed: {} identities=\"{}\"",
                summary.count, summary.sample, summary.identities
            );
            line.push('\n');
            self.writer.write(line);
        }
    }
}

/// Time, level and target.
fn head(level: Level, target: &str, is_terminal: bool) -> String {
    let time = rfc3339(clock::now_ms());
    let (color, reset) = match (is_terminal, level) {
        (false, _) => ("", ""),
        (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
        (true, _) => ("\x1b[32m", "\x1b[0m"),
    };
    format!("{time} {color}{level:>5}{reset} {}: ", escape::escaped(target))
}

struct LogLayer(Arc<Log>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = SpanFields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let line = Line::of(event, &context);
        let target = line.target.as_deref().unwrap_or(metadata.target());
        let kind =
            rate::Kind { callsite: metadata.callsite(), target: metadata.target(), level: *metadata.level() };
        if self.0.limiter.admit(&kind, &line.identity, &line.text, Instant::now()) == Verdict::Suppress {
            return;
        }
        let mut out = head(*metadata.level(), target, self.0.is_terminal);
        out.push_str(&line.text);
        out.push('\n');
        self.0.writer.write(out);
    }
}
