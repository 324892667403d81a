//! The log under hostile texts, floods, and readers that are gone or do not read.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tracing::{Level, error, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;

use super::rate::Limiter;
use super::writer::Writer;
use super::{Log, LogLayer, levels};

/// A list of its own, not the function under test: what an attacker would send.
fn unsafe_characters() -> Vec<char> {
    let ranges = [
        0..=0x1f_u32,
        0x7f..=0x9f,
        0x200b..=0x200f,
        0x2028..=0x202e,
        0x2060..=0x2064,
        0x2066..=0x206f,
        0xfeff..=0xfeff,
        0xe0001..=0xe007f,
    ];
    ranges.into_iter().flatten().filter_map(char::from_u32).collect()
}

/// Longer than anything here takes on a busy machine.
const STEP: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_to(sink: impl Write + Send + 'static) -> Arc<Log> {
    Arc::new(Log { limiter: Limiter::new(), writer: Writer::start(sink).unwrap(), is_terminal: false })
}

/// What is logged while `run` runs, with the summary of what was suppressed.
fn logged(run: impl FnOnce()) -> String {
    let sink = Sink::default();
    let log = log_to(sink.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(LogLayer(log.clone())), run);
    log.summarize();
    log.writer.flush(STEP);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[derive(Debug)]
struct Raw(String);

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Raw {}

/// How a text comes into the log, by name.
type LogCall = (&'static str, fn(&str));

/// `Debug` that does not escape, as derived ones of foreign types may.
struct RawDebug(String);

impl fmt::Debug for RawDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[test]
fn every_unsafe_character_is_escaped_by_every_writer_of_the_log() {
    let log_calls: [LogCall; 7] = [
        ("a message", |text| warn!("topic {text} refused")),
        ("a displayed field", |text| warn!(topic = %text, "refused")),
        ("a text field", |text| warn!(topic = text, "refused")),
        ("a debugged field", |text| warn!(topic = ?text, "refused")),
        ("a raw debugged field", |text| warn!(topic = ?RawDebug(text.to_owned()), "refused")),
        ("an error's text", |text| warn!(error = %Raw(text.to_owned()), "refused")),
        ("an error", |text| {
            let error = Raw(text.to_owned());
            warn!(error = &error as &(dyn Error + 'static), "refused");
        }),
    ];
    for (log_call, write) in log_calls {
        for c in unsafe_characters() {
            let text = format!("x{c}2026-01-01T00:00:00Z ERROR forged: line");
            // A log of its own for each, as one kind of event is limited.
            let out = logged(|| write(&text));
            let line = out.strip_suffix('\n').unwrap_or_else(|| panic!("{log_call}, {c:?}: {out:?}"));
            assert!(line.contains("forged"), "{log_call}, {c:?}: {line:?}");
            assert!(!line.contains(c) && !line.contains('\n'), "{log_call}, {c:?}: {line:?}");
        }
    }
}

#[test]
fn an_operation_id_with_a_line_break_stays_in_its_line() {
    let id = "x\n2026-01-01T00:00:00.000Z ERROR central: all is lost";
    let out = logged(|| warn!(operation_id = %id, client = "dev", "enrolment refused"));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.contains("x\\n2026"), "{out}");
}

#[test]
fn a_value_cannot_pretend_to_be_another_field() {
    for value in ["a peer=10.0.0.1", "\"a\" peer=\"10.0.0.1\"", "a\" peer=10.0.0.1", ""] {
        let out = logged(|| warn!(client = %value, "refused"));
        let quoted = out.split_once("client=").unwrap().1.trim_end();
        assert!(quoted.starts_with('"') && quoted.ends_with('"'), "{out}");
        let inner = &quoted[1..quoted.len() - 1];
        assert!(!inner.replace("\\\"", "").contains('"'), "{out}");
    }
}

#[test]
fn a_value_of_megabytes_is_cut() {
    let out = logged(|| warn!(topic = %"x".repeat(4 << 20), "refused: {}", "y".repeat(4 << 20)));
    assert!(out.len() < 20_000 && out.contains("(cut)"), "{} bytes", out.len());
}

#[test]
fn a_flood_of_one_client_writes_a_bounded_log_and_says_how_much_it_suppressed() {
    let out = logged(|| {
        for number in 0..200_000 {
            warn!(client = "dev", topic = %format!("$x/{number}"), "publish refused");
        }
    });
    assert!(out.len() < 16 * 1024, "{} bytes", out.len());
    assert!(out.contains("more like this suppressed: publish refused"), "{out}");
    let written = out.lines().count() as u64 - 1;
    assert!(out.contains(&format!("{} more like this", 200_000 - written)), "{out}");
}

#[test]
fn a_flood_under_identities_made_up_writes_a_bounded_log() {
    let out = logged(|| {
        for number in 0_u32..100_000 {
            let peer = std::net::SocketAddr::from((number.to_be_bytes(), 4_000));
            warn!(%peer, client = %format!("c{number}"), "login failed");
        }
    });
    assert!(out.len() < 512 * 1024, "{} bytes", out.len());
    assert!(out.contains("at least 64"), "{out}");
}

#[test]
fn one_address_with_many_ports_is_one_identity() {
    let out = logged(|| {
        for port in 1_u16..10_000 {
            warn!(peer = %std::net::SocketAddr::from(([10, 0, 0, 1], port)), "connection refused");
        }
    });
    assert!(out.lines().count() < 40, "{} lines", out.lines().count());
}

#[test]
fn a_flood_of_one_kind_does_not_hide_other_kinds_and_other_clients() {
    let out = logged(|| {
        for _ in 0..10_000 {
            warn!(client = "noisy", "publish refused");
        }
        warn!(client = "quiet", "certificate refused");
        error!("telemetry was lost");
        info!("edge-agent ready");
    });
    for line in ["certificate refused client=\"quiet\"", "telemetry was lost", "edge-agent ready"] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

/// Fails each time, as a pipe whose reader is gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn lines_for_a_reader_that_is_gone_are_counted() {
    let writer = Writer::start(Broken).unwrap();
    for _ in 0..10 {
        writer.write("line\n".into());
        writer.flush(STEP);
    }
    assert_eq!(writer.dropped(), 10);
}

/// Takes nothing until it is told to.
struct Stuck(mpsc::Receiver<()>, Sink);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Ends at once when the sender is gone.
        let _ = self.0.recv();
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_does_not_read_stops_nobody_and_learns_what_was_dropped() {
    let (release, stuck) = mpsc::channel();
    let sink = Sink::default();
    let writer = Writer::start(Stuck(stuck, sink.clone())).unwrap();
    let started = Instant::now();
    for _ in 0..100_000 {
        writer.write(format!("{}\n", "x".repeat(99)));
    }
    assert!(started.elapsed() < STEP);
    assert!(writer.dropped() > 50_000, "{}", writer.dropped());
    drop(release);
    writer.flush(STEP);
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    // Counted at each time when there is space: twice, if the thread of the writer began only when lines were dropped already.
    let said = text.lines().filter_map(|line| line.split_once(" log lines dropped here"));
    let said: u64 = said.map(|(count, _)| count.parse::<u64>().unwrap()).sum();
    assert_eq!(said, writer.dropped(), "{}", text.len());
}

#[test]
fn levels_are_taken_by_target_and_are_info_without_any() {
    let debug_of_the_hub = [("edge_hub::session", Level::DEBUG, true), ("edge_agent", Level::INFO, false)];
    let info = [("edge_hub", Level::INFO, true), ("edge_agent", Level::DEBUG, false)];
    for (given, expected) in [
        (None, info),
        (Some(""), info),
        (Some(" "), info),
        (Some("edge_hub=loud"), info),
        (Some("info"), info),
        (Some("warn,edge_hub=debug"), debug_of_the_hub),
    ] {
        let levels = levels(given);
        for (target, level, is_enabled) in expected {
            assert_eq!(levels.would_enable(target, &level), is_enabled, "{given:?}: {target} {level}");
        }
    }
}

#[test]
fn a_line_has_the_fields_of_the_spans_around_it_that_it_lacks() {
    let text = logged(|| {
        let command = tracing::info_span!("command", command = %"c-1", target = %"gw/filter").entered();
        let module = tracing::info_span!("step", module = %"fil\nter", target = %"inner").entered();
        warn!(module = %"own", "something failed");
        drop(module);
        warn!("something else failed");
        drop(command);
        warn!("nobody's");
    });
    let lines: Vec<&str> = text.lines().map(|line| line.split_once("tests: ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            "something failed module=own target=inner command=c-1",
            "something else failed command=c-1 target=gw/filter",
            "nobody's",
        ]
    );
    let text = logged(|| tracing::info_span!("step", module = %"a\nb c").in_scope(|| warn!("it failed")));
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("module=\"a\\nb c\""), "{text}");
}

#[test]
fn spans_of_connections_are_off_and_those_of_commands_are_on_at_the_default_level() {
    let levels = levels(None);
    assert!(!levels.would_enable("edge_hub::session", &Level::DEBUG));
    assert!(levels.would_enable("edge_agent::commands", &Level::INFO));
}
