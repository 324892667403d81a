//! Which logs are wanted, of which time, and in which form. Source: IoT Edge, `GetModuleLogs`.

use regex::{Regex, RegexBuilder};
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::Value;

use crate::daemon_method::{self, PayloadError};
use crate::moment;

/// Items of a request.
const ITEMS_MAX: usize = 100;
/// Memory of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const FORM: &str = r#"{"schemaVersion": "1.0", "items": [{"id": "MODULE or regular expression", "filter": {"tail", "since", "until", "loglevel", "regex", "includeTimestamp"}}], "encoding": "none or gzip", "contentType": "text or json"}"#;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    None,
    Gzip,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    /// The lines as they were written.
    #[default]
    Text,
    /// One list with an object for each line.
    Json,
}

/// Which lines of a log.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// The last lines, before the other filters; all when `None`.
    pub tail: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Severity of syslog, 0 to 7: lines of this one alone.
    pub level: Option<u8>,
    pub pattern: Option<Regex>,
    /// Begin each line with the time at which the engine got it.
    pub timestamps: bool,
}

/// Modules, and what of their logs.
#[derive(Debug, Clone)]
struct LogItem {
    /// Matches names; `None` for all modules.
    id: Option<Regex>,
    filter: LogFilter,
}

/// A request for logs.
#[derive(Debug, Clone)]
pub struct LogsRequest {
    items: Vec<LogItem>,
    pub encoding: Encoding,
    pub content: ContentType,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody {
    items: Value,
    encoding: Option<Encoding>,
    content_type: Option<ContentType>,
}

#[derive(Deserialize)]
struct ItemBody {
    id: String,
    filter: Option<FilterBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilterBody {
    tail: Option<u32>,
    since: Option<Value>,
    until: Option<Value>,
    #[serde(alias = "logLevel")]
    loglevel: Option<u8>,
    regex: Option<String>,
    include_timestamp: Option<bool>,
}

impl LogsRequest {
    /// Reads the payload of a method.
    ///
    /// # Errors
    /// [`PayloadError`], which names the field.
    pub fn read(payload: &Value, now_ms: u64) -> Result<Self, PayloadError> {
        let body: RequestBody = daemon_method::read(payload, FORM)?;
        let unreadable = |source| PayloadError::Unreadable { form: FORM, source };
        let items: Vec<ItemBody> = match body.items {
            Value::Array(items) => {
                items.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(unreadable)?
            }
            one => vec![serde_json::from_value(one).map_err(unreadable)?],
        };
        if items.len() > ITEMS_MAX {
            let (field, found) = ("items".to_owned(), format!("{} of them", items.len()));
            return Err(PayloadError::Field { field, found, allowed: "write at most 100" });
        }
        let items = items.into_iter().enumerate().map(|(at, item)| item.checked(at, now_ms));
        Ok(Self {
            items: items.collect::<Result<_, _>>()?,
            encoding: body.encoding.unwrap_or_default(),
            content: body.content_type.unwrap_or_default(),
        })
    }

    /// The logs of all modules, as text.
    pub fn of_all(filter: LogFilter) -> Self {
        Self { items: vec![LogItem { id: None, filter }], ..Self::of_none() }
    }

    /// No log.
    pub fn of_none() -> Self {
        Self { items: Vec::new(), encoding: Encoding::None, content: ContentType::Text }
    }

    /// What is wanted of a module's log: the first item that matches its name decides.
    pub fn filter_of(&self, module: &ModuleId) -> Option<&LogFilter> {
        let matches = |item: &&LogItem| item.id.as_ref().is_none_or(|id| id.is_match(module.as_str()));
        self.items.iter().find(matches).map(|item| &item.filter)
    }
}

impl ItemBody {
    fn checked(self, at: usize, now_ms: u64) -> Result<LogItem, PayloadError> {
        let filter = self.filter.unwrap_or_default();
        let field = |name: &str| format!("items.{at}.{name}");
        if let Some(level) = filter.loglevel.filter(|level| *level > 7) {
            let (field, found) = (field("filter.loglevel"), level.to_string());
            return Err(PayloadError::Field { field, found, allowed: "write a severity of syslog, 0 to 7" });
        }
        // IoT Edge's name for all modules, which is no regular expression.
        let id = if self.id.eq_ignore_ascii_case("all") {
            None
        } else {
            Some(pattern(field("id"), &self.id, true)?)
        };
        let of_text = |text: &String| pattern(field("filter.regex"), text, false);
        Ok(LogItem {
            id,
            filter: LogFilter {
                tail: filter.tail,
                since_ms: time(field("filter.since"), filter.since, now_ms)?,
                until_ms: time(field("filter.until"), filter.until, now_ms)?,
                level: filter.loglevel,
                pattern: filter.regex.as_ref().filter(|text| !text.is_empty()).map(of_text).transpose()?,
                timestamps: filter.include_timestamp.unwrap_or(false),
            },
        })
    }
}

fn pattern(field: String, text: &str, ignores_case: bool) -> Result<Regex, PayloadError> {
    RegexBuilder::new(text)
        .case_insensitive(ignores_case)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|source| PayloadError::Pattern { field, found: text.to_owned(), source })
}

/// A time as text, or the seconds since the Unix epoch as a number.
pub(crate) fn time(field: String, value: Option<Value>, now_ms: u64) -> Result<Option<u64>, PayloadError> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let allowed =
        "write a time such as 2026-11-29T03:00:00Z, seconds since 1970, or how long ago: 90s, 15min, 2h, 1d";
    moment::parse(&text, now_ms).map(Some).ok_or(PayloadError::Field { field, found: text, allowed })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_795_450_312_000;

    fn read(payload: Value) -> Result<LogsRequest, PayloadError> {
        LogsRequest::read(&payload, NOW)
    }

    #[test]
    fn the_request_of_iot_edges_documentation_is_read_and_its_first_matching_item_decides() {
        let request = read(json!({
            "schemaVersion": "1.0",
            "items": [
                {"id": "^edge", "filter": {"tail": 10, "since": "1h", "until": 1_795_450_000, "loglevel": 3, "regex": "disconnect"}},
                {"id": "all"},
            ],
            "encoding": "gzip",
            "contentType": "json",
        }))
        .unwrap();
        assert_eq!((request.encoding, request.content), (Encoding::Gzip, ContentType::Json));
        let hub = request.filter_of(&"EdgeHubLike".parse().unwrap()).unwrap();
        assert_eq!((hub.tail, hub.level), (Some(10), Some(3)));
        assert_eq!((hub.since_ms, hub.until_ms), (Some(NOW - 3_600_000), Some(1_795_450_000_000)));
        assert!(hub.pattern.as_ref().unwrap().is_match("a disconnect"));
        assert!(request.filter_of(&"sensor".parse().unwrap()).unwrap().tail.is_none());
        let one = read(json!({"schemaVersion": "1.1", "items": {"id": "sens"}})).unwrap();
        assert!(one.filter_of(&"Sensor".parse().unwrap()).is_some());
        assert!(one.filter_of(&"filter".parse().unwrap()).is_none());
    }

    #[test]
    fn what_is_wrong_in_a_request_is_named() {
        let item = |item: Value| json!({"schemaVersion": "1.0", "items": [item]});
        for (payload, expected) in [
            (Value::Null, "the payload cannot be read"),
            (json!({"schemaVersion": "2.0", "items": []}), "schemaVersion: found \"2.0\""),
            (json!({"schemaVersion": "1.0"}), "the payload cannot be read"),
            (item(json!({"id": "["})), "items.0.id: found \"[\", which is no regular expression"),
            (item(json!({"id": "a", "filter": {"regex": "("}})), "items.0.filter.regex: found \"(\""),
            (item(json!({"id": "a", "filter": {"regex": "\\w{1000}{1000}"}})), "items.0.filter.regex: found"),
            (
                item(json!({"id": "a", "filter": {"since": "soon"}})),
                "items.0.filter.since: found soon; write",
            ),
            (item(json!({"id": "a", "filter": {"loglevel": 8}})), "items.0.filter.loglevel: found 8"),
            (json!({"schemaVersion": "1.0", "items": vec![json!({"id": "a"}); 101]}), "items: found 101"),
            (json!({"schemaVersion": "1.0", "items": [], "encoding": "zip"}), "the payload cannot be read"),
        ] {
            let error = read(payload).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
