//! The direct methods of the daemon itself, `$edgeAgent`. Source: IoT Edge, built-in direct methods of edgeAgent: names are
//! compared without case, 400 for a wrong payload or an unknown method, 500 for one that failed, `{"message": …}` with each.

use std::time::Duration;

use edge_core::error_chain::chain;
use schemas::method::{MethodRequest, MethodResponse};
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::deployment::restart_requests::RestartRequests;

/// What the methods act on.
#[derive(Debug, Clone)]
pub struct DaemonMethods {
    restarts: RestartRequests,
}

/// The payload of `RestartModule`. Another minor version than 1.0 is read as 1.0.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestartModule {
    schema_version: String,
    id: ModuleId,
}

/// Why a payload is wrong.
#[derive(Debug, thiserror::Error)]
enum PayloadError {
    #[error("the payload cannot be read; it has this form: {form}")]
    Unreadable {
        form: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("schemaVersion: found {found:?}; this gateway knows 1.0")]
    Version { found: String },
}

impl RestartModule {
    fn read(payload: &Value) -> Result<Self, PayloadError> {
        let form = r#"{"schemaVersion": "1.0", "id": "MODULE"}"#;
        let read: Self =
            Self::deserialize(payload).map_err(|source| PayloadError::Unreadable { form, source })?;
        if read.schema_version.split('.').next() != Some("1") {
            return Err(PayloadError::Version { found: read.schema_version });
        }
        Ok(read)
    }
}

fn failure(status: i64, message: impl ToString) -> MethodResponse {
    MethodResponse { status, payload: json!({"message": message.to_string()}) }
}

impl DaemonMethods {
    pub fn new(restarts: RestartRequests) -> Self {
        Self { restarts }
    }

    /// Calls one. Every call has an answer.
    pub async fn call(&self, request: &MethodRequest) -> MethodResponse {
        match request.method_name.to_ascii_lowercase().as_str() {
            "ping" => MethodResponse { status: 200, payload: Value::Null },
            "restartmodule" => self.restart(request).await,
            _ => {
                let name = &request.method_name;
                failure(400, format!("method `{name}`: the gateway knows `ping` and `RestartModule`"))
            }
        }
    }

    async fn restart(&self, request: &MethodRequest) -> MethodResponse {
        let module = match RestartModule::read(&request.payload) {
            Ok(read) => read.id,
            Err(error) => return failure(400, chain(&error)),
        };
        let within = Duration::from_secs(request.response_timeout_in_seconds);
        match tokio::time::timeout(within, self.restarts.restart(module.clone())).await {
            Ok(Ok(())) => MethodResponse { status: 200, payload: Value::Null },
            Ok(Err(error)) => failure(500, chain(&error)),
            Err(_) => failure(504, format!("module `{module}` is being restarted, but did not stop in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::restart_requests::RestartError;

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
        let methods = DaemonMethods::new(restarts);
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
        let methods = DaemonMethods::new(restarts);
        for (method, payload, expected) in [
            ("RestartModule", Value::Null, "invalid type: null"),
            ("RestartModule", json!({"schemaVersion": "1.0"}), "missing field `id`"),
            ("RestartModule", json!({"schemaVersion": "2.0", "id": "a"}), "schemaVersion: found \"2.0\""),
            ("Reboot", Value::Null, "method `Reboot`: the gateway knows `ping` and `RestartModule`"),
        ] {
            let answer = methods.call(&request(method, payload)).await;
            let message = answer.payload["message"].as_str().unwrap().to_owned();
            assert!(answer.status == 400 && message.contains(expected), "{message}");
        }
        assert_eq!(methods.call(&request("PING", json!({"any": 1}))).await.status, 200);
        drop(requests);
        let stopped =
            methods.call(&request("RestartModule", json!({"schemaVersion": "1.0", "id": "a"}))).await;
        assert_eq!(stopped.status, 500);
    }
}
