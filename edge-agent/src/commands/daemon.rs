//! The direct methods of the daemon itself, `$edgeAgent`. Source: IoT Edge, built-in direct methods of edgeAgent: names are
//! compared without case, 400 for a wrong payload or an unknown method, 500 for one that failed, `{"message": …}` with each.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::daemon_method;
use edge_core::error_chain::chain;
use edge_core::module_logs::request::{Encoding, LogsRequest};
use edge_core::upload::request::{BundleUpload, LogsUpload, correlation_id};
use edge_core::upload::tasks::{TaskStatus, TooManyUploads};
use schemas::method::{MethodRequest, MethodResponse};
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::clock::now_ms;
use crate::deployment::docker::DockerError;
use crate::deployment::restart_requests::RestartRequests;
use crate::diagnostics::log_reader::LogReader;
use crate::diagnostics::uploads::Uploads;

/// The methods, as the gateway's answer to others names them.
const METHODS: &str =
    "`ping`, `RestartModule`, `GetModuleLogs`, `UploadModuleLogs`, `UploadSupportBundle` and `GetTaskStatus`";
/// Bytes of logs in one answer. Source: IoT Edge, which refuses more; a direct method's answer has at most 128 KB.
const LOGS_BYTES_MAX: usize = 127_000;
/// Calls that read logs at once: each asks the engine. Others wait for their turn as long as they may take.
const LOG_CALLS_MAX: usize = 4;

/// What the methods act on.
#[derive(Debug, Clone)]
pub struct DaemonMethods {
    restarts: RestartRequests,
    logs: LogReader,
    log_calls: Arc<Semaphore>,
    uploads: Uploads,
}

/// The payload of `RestartModule`.
#[derive(Deserialize)]
struct RestartModule {
    id: ModuleId,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error(
        "items: the logs have more than {LOGS_BYTES_MAX} bytes; ask for fewer with tail or since, or use UploadModuleLogs"
    )]
    TooLarge,
    #[error("reading the log of module `{module}`")]
    Engine {
        module: ModuleId,
        #[source]
        source: DockerError,
    },
}

fn failure(status: i64, message: impl ToString) -> MethodResponse {
    MethodResponse { status, payload: json!({"message": message.to_string()}) }
}

fn begun(upload: Result<TaskStatus, TooManyUploads>) -> MethodResponse {
    match upload {
        Ok(task) => MethodResponse { status: 200, payload: json!(task) },
        Err(error) => failure(429, error),
    }
}

impl DaemonMethods {
    pub fn new(restarts: RestartRequests, logs: LogReader, uploads: Uploads) -> Self {
        Self { restarts, logs, log_calls: Arc::new(Semaphore::new(LOG_CALLS_MAX)), uploads }
    }

    /// Ends the uploads that run.
    pub async fn close(&self) {
        self.uploads.close().await;
    }

    /// Calls one. Every call has an answer.
    pub async fn call(&self, request: &MethodRequest) -> MethodResponse {
        match request.method_name.to_ascii_lowercase().as_str() {
            "ping" => MethodResponse { status: 200, payload: Value::Null },
            "restartmodule" => self.restart(request).await,
            "getmodulelogs" => self.get_logs(request).await,
            "uploadmodulelogs" => match LogsUpload::read(&request.payload, now_ms()) {
                Ok(upload) => begun(self.uploads.start_logs(upload)),
                Err(error) => failure(400, error.shown()),
            },
            "uploadsupportbundle" => match BundleUpload::read(&request.payload, now_ms()) {
                Ok(upload) => begun(self.uploads.start_bundle(upload)),
                Err(error) => failure(400, error.shown()),
            },
            "gettaskstatus" => match correlation_id(&request.payload) {
                Ok(id) => MethodResponse { status: 200, payload: json!(self.uploads.status(&id)) },
                Err(error) => failure(400, error.shown()),
            },
            _ => {
                let name = &request.method_name;
                failure(400, format!("method `{name}`: the gateway knows {METHODS}"))
            }
        }
    }

    async fn restart(&self, request: &MethodRequest) -> MethodResponse {
        let form = r#"{"schemaVersion": "1.0", "id": "MODULE"}"#;
        let module = match daemon_method::read::<RestartModule>(&request.payload, form) {
            Ok(read) => read.id,
            Err(error) => return failure(400, error.shown()),
        };
        let within = Duration::from_secs(request.response_timeout_in_seconds);
        match tokio::time::timeout(within, self.restarts.restart(module.clone())).await {
            Ok(Ok(())) => MethodResponse { status: 200, payload: Value::Null },
            Ok(Err(error)) => failure(500, chain(&error)),
            Err(_) => failure(504, format!("module `{module}` is being restarted, but did not stop in time")),
        }
    }

    async fn get_logs(&self, request: &MethodRequest) -> MethodResponse {
        let logs = match LogsRequest::read(&request.payload, now_ms()) {
            Ok(logs) => logs,
            Err(error) => return failure(400, error.shown()),
        };
        let within = Duration::from_secs(request.response_timeout_in_seconds);
        let collecting = async {
            let _turn = self.log_calls.acquire().await.expect("it is never closed");
            self.collect(&logs).await
        };
        match tokio::time::timeout(within, collecting).await {
            Ok(Ok(logs)) => MethodResponse { status: 200, payload: logs.into() },
            Ok(Err(error @ LogsError::TooLarge)) => failure(400, error),
            Ok(Err(error @ LogsError::Engine { .. })) => failure(500, chain(&error)),
            Err(_) => failure(504, "the logs could not be read in time"),
        }
    }

    /// Reads the logs of all modules that a request names.
    async fn collect(&self, request: &LogsRequest) -> Result<Vec<Value>, LogsError> {
        let (mut found, mut total) = (Vec::new(), 0);
        for desired in self.logs.desired(request) {
            let module = desired.module.clone();
            let engine = |source| LogsError::Engine { module: module.clone(), source };
            let mut parts =
                self.logs.open(desired, request.content, request.encoding).await.map_err(engine)?;
            let mut text = Vec::new();
            while let Some(part) = parts.next().await.map_err(engine)? {
                total += part.len();
                if total > LOGS_BYTES_MAX {
                    return Err(LogsError::TooLarge);
                }
                text.extend(part);
            }
            found.push(match request.encoding {
                Encoding::None => json!({"id": module, "payload": String::from_utf8_lossy(&text)}),
                Encoding::Gzip => json!({"id": module, "payloadBytes": STANDARD.encode(&text)}),
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::restart_requests::RestartError;

    /// At a gateway without containers.
    fn methods(restarts: RestartRequests) -> DaemonMethods {
        DaemonMethods::new(restarts, LogReader::without_containers(), Uploads::without_containers())
    }

    fn request(method: &str, payload: Value) -> MethodRequest {
        MethodRequest {
            method_name: method.into(),
            payload,
            response_timeout_in_seconds: 5,
            connect_timeout_in_seconds: 0,
        }
    }

    #[tokio::test]
    async fn a_module_is_restarted_by_the_method_of_iot_edge_and_a_refusal_is_reported() {
        let (restarts, mut requests) = RestartRequests::channel();
        let methods = methods(restarts);
        let reconciler = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let is_known = request.module.as_str() == "filter";
                let unknown = RestartError::NotInManifest { module: request.module };
                request.answer.send(if is_known { Ok(()) } else { Err(unknown) }).unwrap();
            }
        });
        let restart = async |id: &str| {
            methods.call(&request("restartModule", json!({"schemaVersion": "1.0", "id": id}))).await
        };
        assert_eq!(restart("filter").await, MethodResponse { status: 200, payload: Value::Null });
        let unknown = restart("sensor").await;
        assert_eq!(unknown.status, 500);
        assert_eq!(unknown.payload["message"], "the manifest in force has no module `sensor`");
        drop(methods);
        reconciler.await.unwrap();
    }

    #[tokio::test]
    async fn a_wrong_payload_and_an_unknown_method_are_refused_by_name() {
        let (restarts, requests) = RestartRequests::channel();
        let methods = methods(restarts);
        for (method, payload, expected) in [
            ("RestartModule", Value::Null, "invalid type: null"),
            ("RestartModule", json!({"schemaVersion": "1.0"}), "missing field `id`"),
            ("RestartModule", json!({"schemaVersion": "2.0", "id": "a"}), "schemaVersion: found \"2.0\""),
            (
                "GetModuleLogs",
                json!({"schemaVersion": "1.0", "items": {"id": "["}}),
                "items.0.id: found \"[\"",
            ),
            ("UploadModuleLogs", json!({"schemaVersion": "1.0", "items": []}), "sasUrl: found nothing"),
            (
                "UploadModuleLogs",
                json!({"schemaVersion": "1.0", "items": [], "sasUrl": "https://store/logs?sig=c2VjcmV0", "encoding": "https://store/logs?sig=c2VjcmV0"}),
                "unknown variant",
            ),
            ("UploadSupportBundle", json!({"schemaVersion": "1.0"}), "sasUrl: found nothing"),
            (
                "UploadSupportBundle",
                json!({"schemaVersion": "1.0", "sasUrl": "http://store/logs?sig=c2VjcmV0"}),
                "sasUrl: found http to another machine",
            ),
            ("GetTaskStatus", json!({"schemaVersion": "1.0"}), "missing field `correlationId`"),
            ("Reboot", Value::Null, "method `Reboot`: the gateway knows `ping`, `RestartModule`"),
        ] {
            let answer = methods.call(&request(method, payload)).await;
            let message = answer.payload["message"].as_str().unwrap().to_owned();
            assert!(answer.status == 400 && message.contains(expected), "{message}");
            assert!(!message.contains("c2VjcmV0"), "{message}");
        }
        assert_eq!(methods.call(&request("PING", json!({"any": 1}))).await.status, 200);
        let all = json!({"schemaVersion": "1.0", "items": [{"id": "all"}]});
        assert_eq!(
            methods.call(&request("getmodulelogs", all)).await,
            MethodResponse { status: 200, payload: json!([]) }
        );
        drop(requests);
        let stopped =
            methods.call(&request("RestartModule", json!({"schemaVersion": "1.0", "id": "a"}))).await;
        assert_eq!(stopped.status, 500);
    }

    #[tokio::test]
    async fn an_upload_is_answered_with_its_correlation_id_by_which_its_status_is_found() {
        let (restarts, _requests) = RestartRequests::channel();
        let methods = methods(restarts);
        let payload = json!({"schemaVersion": "1.0", "sasUrl": "https://store.invalid/logs?sig=c2VjcmV0", "items": {"id": "all"}});
        let begun = methods.call(&request("UploadModuleLogs", payload)).await;
        assert_eq!((begun.status, &begun.payload["status"]), (200, &json!("NotStarted")));
        let id = begun.payload["correlationId"].clone();
        let status = async |id: &Value| {
            let payload = json!({"schemaVersion": "1.0", "correlationId": id});
            let answer = methods.call(&request("getTaskStatus", payload)).await;
            assert_eq!((answer.status, &answer.payload["correlationId"]), (200, id));
            answer.payload
        };
        let ended = loop {
            let status = status(&id).await;
            if status["status"] != "NotStarted" && status["status"] != "Running" {
                break status;
            }
            tokio::task::yield_now().await;
        };
        // There is no container of which a log could be sent.
        assert_eq!(ended["status"], "Completed", "{ended}");
        assert!(ended["message"].as_str().unwrap().contains("nothing was uploaded"), "{ended}");
        assert_eq!(status(&json!("another")).await["status"], "Unknown");
    }
}
