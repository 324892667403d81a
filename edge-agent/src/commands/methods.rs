//! The HTTPS endpoint with which a module calls a direct method of another module or of a leaf device of this gateway.
//! Sources: IoT Edge, edgeHub's `POST /twins/{device}[/modules/{module}]/methods`; what the SDKs send (docs/protocol.md).
//!
//! Answers: 200 with the target's own status and payload, whatever they say; 400 for a wrong request, 401 for a caller that
//! is no module of this gateway, 404 for a target that is not connected or does not listen, 504 for one that did not
//! answer, 429 beyond [`MODULE_CALLS_MAX`] and [`CALLS_MAX`]. The daemon's own methods (`$edgeAgent`) are not for modules: 404.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use edge_core::access::secret::Secret;
use edge_hub::clients::Clients;
use edge_hub::https::Caller;
use edge_hub::service::{ConnectRequest, Refusal, Service as _, Transport};
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::{DeviceId, Identity, ModuleId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::gateway_service::GatewayService;

/// Calls of modules that run at once.
const CALLS_MAX: usize = 200;
/// Those of one module: one whose calls get no answers leaves three quarters to the others.
const MODULE_CALLS_MAX: usize = 50;
/// The largest payload: IoT Hub's 128 KB.
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// The largest body: the payload and the JSON around it.
const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 4 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest name of a method: IoT Hub's.
const NAME_CHARS_MAX: usize = 100;
/// The longest timeout of a call.
const SECONDS_MAX: u64 = 300;
const RESPONSE_TIMEOUT_DEFAULT: u64 = 30;
/// Who calls: `{device}/{module}`.
const CALLER_HEADER: &str = "x-ms-edge-moduleid";

struct Methods {
    service: Arc<GatewayService>,
    clients: Clients,
    places: Semaphore,
    shares: CallShares,
}

/// Calls that run now, by the module that makes them.
#[derive(Default)]
struct CallShares(Mutex<HashMap<Identity, usize>>);

/// A call in its caller's share, until it is dropped.
struct RunningCall<'s> {
    shares: &'s CallShares,
    caller: Identity,
}

impl CallShares {
    /// `None` when the caller has no share left.
    fn take(&self, caller: &Identity) -> Option<RunningCall<'_>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.get(caller).copied().unwrap_or(0);
        if count >= MODULE_CALLS_MAX {
            return None;
        }
        running.insert(caller.clone(), count + 1);
        Some(RunningCall { shares: self, caller: caller.clone() })
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        let mut running = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.caller);
            }
        }
    }
}

/// What the HTTPS listener serves beside WebSockets.
pub fn router(service: Arc<GatewayService>, clients: Clients) -> Router {
    let methods =
        Methods { service, clients, places: Semaphore::new(CALLS_MAX), shares: CallShares::default() };
    Router::new()
        .route("/twins/{device}/methods", post(of_device))
        .route("/twins/{device}/modules/{module}/methods", post(of_module))
        .fallback(unknown)
        .with_state(Arc::new(methods))
}

struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.into())
}

async fn unknown(uri: axum::http::Uri) -> Failure {
    let known = "POST /twins/{device}/methods, POST /twins/{device}/modules/{module}/methods, /mqtt and /$iothub/websocket";
    Failure(StatusCode::NOT_FOUND, format!("{}: this gateway serves {known}", uri.path()))
}

async fn of_device(
    State(methods): State<Arc<Methods>>,
    Extension(caller): Extension<Caller>,
    Path(device): Path<String>,
    request: Request,
) -> Result<Json<MethodResponse>, Failure> {
    let device: DeviceId = device.parse().map_err(|error| wrong(format!("device: {error}")))?;
    methods.call(caller, Identity::device(device), request).await
}

async fn of_module(
    State(methods): State<Arc<Methods>>,
    Extension(caller): Extension<Caller>,
    Path((device, module)): Path<(String, String)>,
    request: Request,
) -> Result<Json<MethodResponse>, Failure> {
    let device: DeviceId = device.parse().map_err(|error| wrong(format!("device: {error}")))?;
    let module: ModuleId = module.parse().map_err(|error| wrong(format!("module: {error}")))?;
    methods.call(caller, Identity::module(device, module), request).await
}

impl Methods {
    async fn call(
        &self,
        caller: Caller,
        target: Identity,
        request: Request,
    ) -> Result<Json<MethodResponse>, Failure> {
        let (head, body) = request.into_parts();
        let module = self.prove(&head.headers, caller).await?;
        let too_many = |message: String| {
            tracing::warn!(%module, %target, "method not called: {message}");
            Failure(StatusCode::TOO_MANY_REQUESTS, message)
        };
        let _share = self.shares.take(&module).ok_or_else(|| {
            too_many(format!("{MODULE_CALLS_MAX} calls of this module run already; try again later"))
        })?;
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| too_many(format!("{CALLS_MAX} calls run already; try again later")))?;
        let request = read(body).await?;
        let answer = self.clients.call(&target, &request).await;
        let method = request.method_name.as_str();
        match answer {
            Ok(response) => {
                tracing::info!(%module, %target, method, status = response.status, "module's call answered");
                Ok(Json(response))
            }
            Err(failure) => {
                tracing::warn!(%module, %target, method, %failure, "module's call failed");
                let status = match failure {
                    MethodFailure::NotConnected { .. } => StatusCode::NOT_FOUND,
                    MethodFailure::QueueFull { .. } => StatusCode::FORBIDDEN,
                    MethodFailure::NoAnswer { .. }
                    | MethodFailure::NotReported { .. }
                    | MethodFailure::Lost { .. }
                    | MethodFailure::Expired { .. } => StatusCode::GATEWAY_TIMEOUT,
                };
                Err(Failure(status, failure.to_string()))
            }
        }
    }

    /// Proves the caller as its CONNECT would be: by the token of the Authorization header, or its certificate.
    async fn prove(&self, headers: &HeaderMap, caller: Caller) -> Result<Identity, Failure> {
        let text = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str());
        let client_id = match text(CALLER_HEADER) {
            Some(Ok(id)) => id,
            Some(Err(_)) | None => {
                return Err(wrong("x-ms-edge-moduleId: write {device}/{module} of the caller"));
            }
        };
        let identity: Identity =
            client_id.parse().map_err(|error| wrong(format!("x-ms-edge-moduleId: {error}")))?;
        let peer = caller.peer;
        let refused = |why: &str| {
            tracing::warn!(%peer, caller = %identity, "module's call refused: {why}");
            let message = "the caller is no module of this gateway, or its token is not valid; the gateway's log names the cause";
            Failure(StatusCode::UNAUTHORIZED, message.to_owned())
        };
        if identity.device != self.service.gateway || identity.module.is_none() {
            return Err(refused("only modules of this gateway may call"));
        }
        let token = text(header::AUTHORIZATION.as_str()).and_then(Result::ok);
        let request = ConnectRequest {
            client_id: identity.to_string(),
            user_name: Some(format!("{}/{identity}/?api-version=2019-10-01", self.service.gateway)),
            password: token.map(|token| Secret::new(token.as_bytes())),
            transport: Transport::Tls(caller.client_cert.clone()),
            peer,
        };
        match self.service.authenticate(request).await {
            Ok(admitted) if admitted.identity == identity => {
                caller.has_proven();
                Ok(identity)
            }
            Ok(_) => Err(refused("it was proven to be somebody else")),
            Err(Refusal::NotAuthorized(why)) => Err(refused(&why)),
            Err(Refusal::Unavailable(why)) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, why)),
        }
    }
}

/// As the SDKs write it: Node leaves out a timeout that it was not given, others write null.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallBody {
    method_name: String,
    #[serde(default)]
    payload: Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

async fn read(body: Body) -> Result<MethodRequest, Failure> {
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await;
    let bytes = bytes
        .map_err(|_| Failure(StatusCode::REQUEST_TIMEOUT, "the body did not come".to_owned()))?
        .map_err(|_| {
            wrong(format!("the body did not come whole, or has more than {BODY_BYTES_MAX} bytes"))
        })?;
    let body: CallBody =
        schemas::json::from_outside(&bytes).map_err(|error| wrong(format!("the body: {error}")))?;
    checked(body).map_err(|error| wrong(error.to_string()))
}

/// What is wrong with a call.
#[derive(Debug, thiserror::Error)]
enum CallBodyError {
    #[error("{field}: found {found}; write {least} to {SECONDS_MAX}")]
    Seconds { field: &'static str, found: u64, least: u64 },
    #[error("methodName: write 1 to {NAME_CHARS_MAX} characters")]
    Name,
    #[error("payload: found {found} bytes; {PAYLOAD_BYTES_MAX} are allowed")]
    Payload { found: usize },
}

fn checked(body: CallBody) -> Result<MethodRequest, CallBodyError> {
    let within = |field: &'static str, found: u64, least: u64| {
        if (least..=SECONDS_MAX).contains(&found) {
            Ok(found)
        } else {
            Err(CallBodyError::Seconds { field, found, least })
        }
    };
    if !(1..=NAME_CHARS_MAX).contains(&body.method_name.chars().count()) {
        return Err(CallBodyError::Name);
    }
    let size = body.payload.to_string().len();
    if size > PAYLOAD_BYTES_MAX {
        return Err(CallBodyError::Payload { found: size });
    }
    let response = body.response_timeout_in_seconds.unwrap_or(RESPONSE_TIMEOUT_DEFAULT);
    let connect = body.connect_timeout_in_seconds.unwrap_or(0);
    Ok(MethodRequest {
        response_timeout_in_seconds: within("responseTimeoutInSeconds", response, 5)?,
        connect_timeout_in_seconds: within("connectTimeoutInSeconds", connect, 0)?,
        method_name: body.method_name,
        payload: body.payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value) -> Result<MethodRequest, CallBodyError> {
        checked(serde_json::from_value(body).unwrap())
    }

    #[test]
    fn what_a_module_leaves_out_has_iot_hubs_default_and_what_is_wrong_is_named() {
        let request =
            check(json!({"methodName": "m", "responseTimeoutInSeconds": null, "extra": 1})).unwrap();
        assert_eq!((request.response_timeout_in_seconds, request.connect_timeout_in_seconds), (30, 0));
        assert_eq!(request.payload, Value::Null);
        for (body, field) in [
            (json!({"methodName": ""}), "methodName"),
            (json!({"methodName": "é".repeat(101)}), "methodName"),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 4}), "responseTimeoutInSeconds"),
            (json!({"methodName": "m", "connectTimeoutInSeconds": 301}), "connectTimeoutInSeconds"),
            (json!({"methodName": "m", "payload": "x".repeat(131_072)}), "payload"),
        ] {
            let error = check(body).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
        check(json!({"methodName": "é".repeat(100), "responseTimeoutInSeconds": 300})).unwrap();
    }

    #[test]
    fn a_module_whose_calls_get_no_answers_leaves_the_others_their_share() {
        let shares = CallShares::default();
        let module = |name: &str| Identity::module("gw".parse().unwrap(), name.parse().unwrap());
        let (one, other) = (module("m1"), module("m2"));
        let mut waiting: Vec<_> = (0..MODULE_CALLS_MAX).map(|_| shares.take(&one).unwrap()).collect();
        assert!(shares.take(&one).is_none());
        assert!(shares.take(&other).is_some());
        waiting.pop();
        drop(shares.take(&one).unwrap());
        waiting.clear();
        assert!(shares.0.lock().unwrap().is_empty(), "ended calls leave nothing behind");
    }
}
