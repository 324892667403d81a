//! A request for the log of one module, as central makes it, and the lines of its answer.

use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Which lines of a log. Times and patterns are read where the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSelection {
    /// The last lines, before the other conditions; all when `None`.
    pub tail: Option<u32>,
    /// As [`crate::moment`] reads it.
    pub since: Option<String>,
    /// As [`crate::moment`] reads it.
    pub until: Option<String>,
    /// A regular expression.
    pub pattern: Option<String>,
    /// Severity of syslog, 0 to 7: lines of this one alone.
    pub level: Option<u8>,
}

/// A line of a log, as `GetModuleLogs` gives it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// When it was written: by the line itself, else by the container engine.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Severity of syslog, 0 to 7.
    pub loglevel: u8,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Without its severity and its time.
    pub text: String,
}

impl LogSelection {
    /// The payload of `GetModuleLogs` for this module. The answer has its lines as JSON in gzip, since an answer is small and lines
    /// repeat each other.
    pub fn payload(&self, module: &ModuleId) -> Value {
        let fields: [(&str, Option<Value>); 5] = [
            ("tail", self.tail.map(Into::into)),
            ("since", self.since.clone().map(Into::into)),
            ("until", self.until.clone().map(Into::into)),
            ("regex", self.pattern.clone().map(Into::into)),
            ("loglevel", self.level.map(Into::into)),
        ];
        let filter: Map<String, Value> =
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let id = format!("^{}$", regex::escape(module.as_str()));
        json!({"schemaVersion": "1.0", "items": [{"id": id, "filter": filter}], "encoding": "gzip", "contentType": "json"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_logs::lines::Stream;
    use crate::module_logs::record::{Origin, Records};
    use crate::module_logs::request::{ContentType, Encoding, LogsRequest};

    const NOW: u64 = 1_795_450_312_000;

    #[test]
    fn what_central_requests_is_what_the_gateway_reads() {
        let module: ModuleId = "vision.v(2)*".parse().unwrap();
        let selection = LogSelection {
            tail: Some(7),
            since: Some("1h".into()),
            until: Some("1795450000".into()),
            pattern: Some("pump \\d".into()),
            level: Some(3),
        };
        let request = LogsRequest::read(&selection.payload(&module), NOW).unwrap();
        assert_eq!((request.encoding, request.content), (Encoding::Gzip, ContentType::Json));
        let filter = request.filter_of(&module).unwrap();
        assert_eq!((filter.tail, filter.level, filter.since_ms), (Some(7), Some(3), Some(NOW - 3_600_000)));
        assert_eq!(filter.until_ms, Some(1_795_450_000_000));
        assert!(filter.pattern.as_ref().unwrap().is_match("pump 4"));
        assert!(request.filter_of(&"vision.v2".parse().unwrap()).is_none(), "a name is no pattern");

        let all = LogsRequest::read(&LogSelection::default().payload(&module), NOW).unwrap();
        let filter = all.filter_of(&module).unwrap();
        assert!(filter.tail.is_none() && filter.pattern.is_none() && filter.level.is_none());
    }

    #[test]
    fn the_lines_that_the_gateway_writes_are_what_central_reads() {
        let origin = Origin { hub: "h".into(), device: "gw".into(), module: "m".into() };
        let request =
            LogsRequest::read(&LogSelection::default().payload(&"m".parse().unwrap()), NOW).unwrap();
        let filter = request.filter_of(&"m".parse().unwrap()).unwrap().clone();
        let mut records = Records::new(origin, filter, request.content);
        let mut out = Vec::new();
        records.line(Stream::Stderr, b"2026-11-29T03:00:00Z <3>pump off", &mut out);
        records.line(Stream::Stdout, b"plain", &mut out);
        records.finish(&mut out);
        let line = |timestamp: Option<&str>, loglevel, stream: &str, text: &str| LogLine {
            timestamp: timestamp.map(Into::into),
            loglevel,
            stream: stream.into(),
            text: text.into(),
        };
        let lines: Vec<LogLine> = serde_json::from_slice(&out).unwrap();
        let expected =
            [line(Some("2026-11-29T03:00:00Z"), 3, "stderr", "pump off"), line(None, 6, "stdout", "plain")];
        assert_eq!(lines, expected);
    }
}
