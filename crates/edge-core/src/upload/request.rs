//! The payloads of `UploadModuleLogs`, `UploadSupportBundle` and `GetTaskStatus`. Source: IoT Edge.

use serde::Deserialize;
use serde_json::Value;

use super::sas_url::SasUrl;
use crate::daemon_method::{self, PayloadError};
use crate::module_logs::request::{LogsRequest, time};

/// Characters of a correlation id; ours are UUIDs.
const CORRELATION_ID_CHARS_MAX: usize = 128;
/// How far back a support bundle goes. Source: IoT Edge.
const BUNDLE_SINCE_DEFAULT_MS: u64 = 24 * 3600 * 1000;

/// Which logs go where.
#[derive(Debug, Clone)]
pub struct LogsUpload {
    pub logs: LogsRequest,
    pub to: SasUrl,
}

/// What a support bundle has, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleUpload {
    /// The beginning of its logs, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Their end; `None` for now.
    pub until_ms: Option<u64>,
    /// The gateway's own log alone, none of modules.
    pub is_runtime_only: bool,
    pub to: SasUrl,
}

// The URL is read as any value: a parser's own error would show it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogsBody {
    sas_url: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleBody {
    sas_url: Option<Value>,
    since: Option<Value>,
    until: Option<Value>,
    edge_runtime_only: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody {
    correlation_id: String,
}

impl LogsUpload {
    /// Reads the payload of a method.
    ///
    /// # Errors
    /// [`PayloadError`], which names the field.
    pub fn read(payload: &Value, now_ms: u64) -> Result<Self, PayloadError> {
        let form = r#"{"schemaVersion": "1.0", "items": [{"id", "filter"}], "encoding": "none or gzip", "contentType": "text or json", "sasUrl": "https://HOST/CONTAINER?SIGNATURE"}"#;
        let body: LogsBody = daemon_method::read(payload, form)?;
        let to = SasUrl::read(body.sas_url.as_ref())?;
        Ok(Self { logs: LogsRequest::read(payload, now_ms)?, to })
    }
}

impl BundleUpload {
    /// Reads the payload of a method.
    ///
    /// # Errors
    /// [`PayloadError`], which names the field.
    pub fn read(payload: &Value, now_ms: u64) -> Result<Self, PayloadError> {
        let form = r#"{"schemaVersion": "1.0", "sasUrl": "https://HOST/CONTAINER?SIGNATURE", "since": "TIME", "until": "TIME", "edgeRuntimeOnly": false}"#;
        let body: BundleBody = daemon_method::read(payload, form)?;
        let to = SasUrl::read(body.sas_url.as_ref())?;
        let since_ms = time("since".to_owned(), body.since, now_ms)?;
        Ok(Self {
            since_ms: since_ms.unwrap_or(now_ms.saturating_sub(BUNDLE_SINCE_DEFAULT_MS)),
            until_ms: time("until".to_owned(), body.until, now_ms)?,
            is_runtime_only: body.edge_runtime_only.unwrap_or(false),
            to,
        })
    }
}

/// Reads the payload of `GetTaskStatus`, the correlation id of an upload.
///
/// # Errors
/// [`PayloadError`], which names the field.
pub fn correlation_id(payload: &Value) -> Result<String, PayloadError> {
    let form = r#"{"schemaVersion": "1.0", "correlationId": "ID"}"#;
    let id = daemon_method::read::<StatusBody>(payload, form)?.correlation_id;
    let length = id.chars().count();
    if id.trim().is_empty() || length > CORRELATION_ID_CHARS_MAX {
        return Err(PayloadError::Field {
            field: "correlationId".to_owned(),
            found: format!("{length} characters"),
            allowed: "write the correlationId with which the upload was answered",
        });
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_795_450_312_000;
    const URL: &str = "https://store/logs?sig=c2VjcmV0LXNlY3JldA";

    #[test]
    fn the_requests_of_iot_edges_documentation_are_read() {
        let logs = LogsUpload::read(
            &json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [{"id": "edge", "filter": {"tail": 10}}], "encoding": "none", "contentType": "text"}),
            NOW,
        );
        assert_eq!(logs.unwrap().to.host(), "store");
        let read = |payload: Value| BundleUpload::read(&payload, NOW).unwrap();
        let whole = read(
            json!({"schemaVersion": "1.0", "sasUrl": URL, "since": "2d", "until": "1d", "edgeRuntimeOnly": true}),
        );
        let day_ms = BUNDLE_SINCE_DEFAULT_MS;
        assert_eq!(
            (whole.since_ms, whole.until_ms, whole.is_runtime_only),
            (NOW - 2 * day_ms, Some(NOW - day_ms), true)
        );
        let least = read(json!({"schemaVersion": "1.1", "sasUrl": URL, "since": null}));
        assert_eq!((least.since_ms, least.until_ms, least.is_runtime_only), (NOW - day_ms, None, false));
        let status = correlation_id(&json!({"schemaVersion": "1.0", "correlationId": "a-1"}));
        assert_eq!(status.unwrap(), "a-1");
    }

    /// As `$edgeAgent` answers.
    fn refusals(payload: &Value) -> [Option<String>; 3] {
        let shown = |error: PayloadError| error.shown();
        [
            LogsUpload::read(payload, NOW).err().map(shown),
            BundleUpload::read(payload, NOW).err().map(shown),
            correlation_id(payload).err().map(shown),
        ]
    }

    #[test]
    fn what_is_wrong_in_a_request_is_named_without_the_urls_secret() {
        const ANY: Option<&str> = Some("");
        let unreadable = Some("the payload cannot be read");
        for (payload, [logs, bundle, status]) in [
            (Value::Null, [unreadable; 3]),
            (json!(URL), [unreadable; 3]),
            // A list is read as the fields of an object in their order.
            (json!([URL]), [Some("schemaVersion: found \"https://store/logs?sig=***"); 3]),
            (json!({"sasUrl": URL}), [unreadable; 3]),
            (
                json!({"schemaVersion": "2.0", "sasUrl": URL, "items": []}),
                [Some("schemaVersion: found \"2.0\""); 3],
            ),
            (
                json!({"schemaVersion": "1.0", "items": []}),
                [Some("sasUrl: found nothing"), Some("sasUrl: found nothing"), ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": 7}),
                [Some("sasUrl: found no text"), Some("sasUrl: found no text"), ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": [URL]}),
                [Some("sasUrl: found no text"), Some("sasUrl: found no text"), ANY],
            ),
            (json!({"schemaVersion": "1.0", "sasUrl": URL}), [unreadable, None, ANY]),
            (
                json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [{"id": "["}]}),
                [Some("items.0.id: found \"[\", which is no regular expression"), None, ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [], "encoding": URL}),
                [unreadable, None, ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [], "since": "soon"}),
                [None, Some("since: found soon; write"), ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [], "until": {}}),
                [None, Some("until: found {}; write"), ANY],
            ),
            (
                json!({"schemaVersion": "1.0", "sasUrl": URL, "items": [], "edgeRuntimeOnly": URL}),
                [None, unreadable, ANY],
            ),
            (json!({"schemaVersion": "1.0", "correlationId": 1}), [ANY, ANY, unreadable]),
            (
                json!({"schemaVersion": "1.0", "correlationId": " "}),
                [ANY, ANY, Some("correlationId: found 1 characters")],
            ),
            (
                json!({"schemaVersion": "1.0", "correlationId": "x".repeat(129)}),
                [ANY, ANY, Some("correlationId: found 129 characters")],
            ),
        ] {
            for (found, expected) in refusals(&payload).into_iter().zip([logs, bundle, status]) {
                match (&found, expected) {
                    (Some(found), Some(expected)) => {
                        assert!(
                            found.starts_with(expected) && !found.contains("c2VjcmV0"),
                            "{payload}: {found}"
                        );
                    }
                    (found, expected) => {
                        assert_eq!(found.is_some(), expected.is_some(), "{payload}: {found:?}")
                    }
                }
            }
        }
    }
}
