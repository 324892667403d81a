//! One line of a module's log: its severity and time, whether a filter takes it, and how it is written.
//!
//! Source: IoT Edge. A line may begin with a severity of syslog, `<6>`, and a time, `2026-11-29 03:00:00.000 +00:00`; without a
//! severity it has 6. Secrets are hidden by their forms ([`crate::redact`]): logs travel further than the machine.

use std::borrow::Cow;

use serde::Serialize;

use super::lines::Stream;
use super::request::{ContentType, LogFilter};
use crate::redact;

/// Severity of a line that names none: informational.
const LEVEL_DEFAULT: u8 = 6;
/// `2026-11-29 03:00:00.000 +00:00`.
const TIME_FORM: &[u8] = b"0000-00-00 00:00:00.000 +00:00";

/// What the records of one log have in common.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the IoT hub; without one, of the gateway.
    pub hub: String,
    pub device: String,
    pub module: String,
}

#[derive(Serialize)]
struct Record<'a> {
    iothub: &'a str,
    device: &'a str,
    id: &'a str,
    stream: &'static str,
    loglevel: u8,
    text: &'a str,
    timestamp: Option<&'a str>,
}

/// Writes records of one log, as text or as one JSON list.
#[derive(Debug)]
pub struct Records {
    origin: Origin,
    filter: LogFilter,
    content: ContentType,
    is_first: bool,
}

impl Records {
    pub fn new(origin: Origin, filter: LogFilter, content: ContentType) -> Self {
        Self { origin, filter, content, is_first: true }
    }

    /// Returns true if each line must begin with the time at which the engine got it: [`Self::line`] takes it away where it is not
    /// wanted.
    pub fn needs_times(&self) -> bool {
        self.filter.timestamps || self.content == ContentType::Json
    }

    /// Appends a line as the engine sent it, if the filter takes it.
    pub fn line(&mut self, stream: Stream, line: &[u8], out: &mut Vec<u8>) {
        let line = String::from_utf8_lossy(line);
        let (engine_time, line) = match line.split_once(' ') {
            Some((time, rest)) if self.needs_times() => (Some(time), rest),
            _ => (None, line.as_ref()),
        };
        let (level, time, text) = parse(line);
        if self.filter.level.is_some_and(|desired| desired != level)
            || self.filter.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(line))
        {
            return;
        }
        match self.content {
            ContentType::Text => {
                if let Some(time) = engine_time {
                    out.extend_from_slice(time.as_bytes());
                    out.push(b' ');
                }
                out.extend_from_slice(redact::text(line).as_bytes());
                out.push(b'\n');
            }
            ContentType::Json => {
                out.push(if self.is_first { b'[' } else { b',' });
                let text: Cow<'_, str> = redact::text(text);
                let Origin { hub, device, module } = &self.origin;
                let record = Record {
                    iothub: hub,
                    device,
                    id: module,
                    stream: stream.name(),
                    loglevel: level,
                    text: &text,
                    timestamp: time.or(engine_time),
                };
                serde_json::to_writer(out, &record).expect("a record has text keys only");
            }
        }
        self.is_first = false;
    }

    /// The log ended.
    pub fn finish(&self, out: &mut Vec<u8>) {
        if self.content == ContentType::Json {
            out.extend_from_slice(if self.is_first { b"[]" } else { b"]" });
        }
    }
}

/// Severity, time and text of a line.
fn parse(line: &str) -> (u8, Option<&str>, &str) {
    let (level, rest) = match line.as_bytes() {
        [b'<', level @ b'0'..=b'7', b'>', ..] => (level - b'0', &line[3..]),
        _ => (LEVEL_DEFAULT, line),
    };
    let rest = rest.trim_start();
    match rest.split_at_checked(TIME_FORM.len()) {
        Some((time, text)) if has_time_form(time) => (level, Some(time), text.trim_start()),
        _ => (level, None, rest),
    }
}

fn has_time_form(text: &str) -> bool {
    text.bytes().zip(TIME_FORM).all(|(found, form)| match form {
        b'0' => found.is_ascii_digit(),
        b'+' => matches!(found, b'+' | b'-'),
        _ => found == *form,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(filter: &LogFilter, content: ContentType, lines: &[&str]) -> String {
        let mut records = Records::new(
            Origin { hub: "h".into(), device: "gw".into(), module: "m".into() },
            filter.clone(),
            content,
        );
        let mut out = Vec::new();
        for line in lines {
            records.line(Stream::Stderr, line.as_bytes(), &mut out);
        }
        records.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_severity_and_the_time_that_it_begins_with_or_those_of_the_engine() {
        let lines = [
            "2026-11-29T03:00:00.5Z <3> 2026-11-29 02:59:59.123 +01:00 [ERR] - pump off",
            "2026-11-29T03:00:01Z plain",
        ];
        let list: Value =
            serde_json::from_str(&written(&LogFilter::default(), ContentType::Json, &lines)).unwrap();
        let common = |level: u8, text: &str, time: &str| json!({"iothub": "h", "device": "gw", "id": "m", "stream": "stderr", "loglevel": level, "text": text, "timestamp": time});
        assert_eq!(
            list,
            json!([
                common(3, "[ERR] - pump off", "2026-11-29 02:59:59.123 +01:00"),
                common(6, "plain", "2026-11-29T03:00:01Z")
            ])
        );
        assert_eq!(written(&LogFilter::default(), ContentType::Json, &[]), "[]");
    }

    #[test]
    fn a_filter_takes_lines_by_severity_and_pattern_and_secrets_are_hidden() {
        let filter = |level, pattern: Option<&str>| LogFilter {
            level,
            pattern: pattern.map(|pattern| regex::Regex::new(pattern).unwrap()),
            ..LogFilter::default()
        };
        let lines = ["<4>warm", "<6>cold", "key SharedAccessKey=c2VjcmV0LXNlY3JldA=="];
        let text = |filter: &LogFilter| written(filter, ContentType::Text, &lines);
        assert_eq!(text(&filter(Some(4), None)), "<4>warm\n");
        assert_eq!(text(&filter(None, Some("c.ld"))), "<6>cold\n");
        let secret = text(&filter(None, Some("^key")));
        assert!(!secret.contains("c2VjcmV0") && secret.contains(schemas::redaction::REDACTED), "{secret}");
        let timed = LogFilter { timestamps: true, ..LogFilter::default() };
        assert_eq!(
            written(&timed, ContentType::Text, &["2026-11-29T03:00:01Z a b"]),
            "2026-11-29T03:00:01Z a b\n"
        );
    }
}
