//! The requests of one module's workload socket and their answers. Source: IoT Edge workload API; where it leaves a choice,
//! docs/protocol.md has ours.
//!
//! Every error is `{"message": …}`: 400 for a wrong request, 403 for another module, 404 for what is not served, 500 for
//! what this gateway could not make. The body is read as JSON whatever its Content-Type: Azure's Python SDK sends none.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::sas;
use edge_core::deploy::observed::{ContainerState, ObservedModule};
use edge_core::error_chain::chain;
use edge_tls::error::TlsError;
use edge_tls::issue::Issued;
use schemas::names::ModuleId;
use schemas::timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::about::About;
use super::certificates::ModuleCertificates;
use super::encryption::{self, Bound};
use super::server_name::ServerName;

/// A request's body: something to sign, or to encrypt.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The first version of the API. Later ones added to it.
const API_VERSION_LEAST: &str = "2018-06-28";

struct Served {
    module: ModuleId,
    about: Arc<About>,
}

type Shared = State<Arc<Served>>;
type Answer = Result<Json<Value>, Failure>;

/// What is served to `module`.
pub(super) fn router(module: ModuleId, about: Arc<About>) -> Router {
    Router::new()
        .route("/modules", get(modules))
        .route("/modules/{module}/genid/{generation}/sign", post(sign))
        .route("/modules/{module}/genid/{generation}/encrypt", post(encrypt))
        .route("/modules/{module}/genid/{generation}/decrypt", post(decrypt))
        .route("/modules/{module}/genid/{generation}/certificate/server", post(server_certificate))
        .route("/modules/{module}/certificate/identity", post(identity_certificate))
        .route("/trust-bundle", get(trust_bundle))
        .route("/manifest-trust-bundle", get(manifest_trust_bundle))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(check_version))
        .with_state(Arc::new(Served { module, about }))
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

/// A version is a date. One before the first is refused; none at all is taken for the newest.
async fn check_version(request: Request, next: Next) -> Result<Response, Failure> {
    let query = request.uri().query().unwrap_or_default();
    let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
    match version {
        Some(version) if version < API_VERSION_LEAST || !version.is_ascii() => {
            let version: String = version.chars().take(40).collect();
            Err(wrong(format!("api-version: found `{version}`; write {API_VERSION_LEAST} or later")))
        }
        _ => Ok(next.run(request).await),
    }
}

async fn unknown(uri: Uri) -> Failure {
    let path = uri.path();
    Failure(StatusCode::NOT_FOUND, format!("{path}: the workload API has no such path"))
}

async fn wrong_method(uri: Uri) -> Failure {
    let path = uri.path();
    Failure(StatusCode::METHOD_NOT_ALLOWED, format!("{path}: the workload API has it for another method"))
}

impl Served {
    /// Nobody asks for another module.
    fn check(&self, module: &str) -> Result<(), Failure> {
        if module == self.module.as_str() {
            return Ok(());
        }
        tracing::warn!(module = %self.module, requested = ?module, "workload request refused: it is for another module");
        Err(Failure(StatusCode::FORBIDDEN, format!("this socket is for module {} only", self.module)))
    }

    /// As [`Served::check`], of the present module of the name: the container of an earlier one may still be here.
    fn check_generation(&self, module: &str, generation: &str) -> Result<(), Failure> {
        self.check(module)?;
        let keys = &self.about.keys;
        // Older daemons looked at no generation id, and their modules may send any.
        if keys.is_first(&self.module) || generation == keys.generation_id(&self.module) {
            return Ok(());
        }
        tracing::warn!(module = %self.module, "workload request refused: it is of an earlier module of this name");
        Err(Failure(StatusCode::FORBIDDEN, format!("module {} of this generation was removed", self.module)))
    }

    fn certificates(&self) -> Result<&ModuleCertificates, Failure> {
        self.about.certificates.as_ref().ok_or_else(|| {
            let message =
                "this gateway has not the key of its authority ([tls] ca_key), and makes no certificates";
            Failure(StatusCode::INTERNAL_SERVER_ERROR, message.to_owned())
        })
    }

    fn issued(&self, kind: &str, issued: Result<Issued, TlsError>) -> Result<Response, Failure> {
        let issued = issued.map_err(|error| wrong(chain(&error).to_string()))?;
        tracing::info!(module = %self.module, kind, "certificate made for a module");
        let body = json!({
            "privateKey": {"type": "key", "bytes": issued.key_pem},
            "certificate": issued.chain_pem,
            "expiration": timestamp::rfc3339(issued.not_after_secs * 1000),
        });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    schemas::json::from_outside(body).map_err(|error| wrong(error.to_string()))
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD.decode(text).map_err(|_| wrong(format!("{field}: found text that is not base64")))
}

async fn trust_bundle(State(served): Shared) -> Json<Value> {
    Json(json!({"certificate": served.about.trust_bundle}))
}

/// There is none: manifests are not signed here.
async fn manifest_trust_bundle() -> Json<Value> {
    Json(json!({"certificate": ""}))
}

#[derive(Deserialize)]
struct SignRequest {
    /// Only one algorithm exists.
    algo: String,
    /// Base64.
    data: String,
}

async fn sign(
    State(served): Shared,
    Path((module, generation)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    served.check_generation(&module, &generation)?;
    let request: SignRequest = read(&body)?;
    if !request.algo.eq_ignore_ascii_case("HMACSHA256") {
        return Err(wrong(format!("algo: found `{}`; write HMACSHA256", request.algo)));
    }
    let digest = sas::sign(&served.about.keys.key(&served.module), &decode("data", &request.data)?);
    Ok(Json(json!({"digest": STANDARD.encode(digest)})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest {
    plaintext: String,
    initialization_vector: String,
}

async fn encrypt(
    State(served): Shared,
    Path((module, generation)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    served.check_generation(&module, &generation)?;
    let request: EncryptRequest = read(&body)?;
    let vector = decode("initializationVector", &request.initialization_vector)?;
    let plaintext = decode("plaintext", &request.plaintext)?;
    let bound = Bound { module: &module, generation: &generation, initialization_vector: &vector };
    let key = served.about.keys.encryption_key(&served.module);
    Ok(Json(json!({"ciphertext": STANDARD.encode(encryption::encrypt(&key, &bound, &plaintext))})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest {
    ciphertext: String,
    initialization_vector: String,
}

async fn decrypt(
    State(served): Shared,
    Path((module, generation)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    served.check_generation(&module, &generation)?;
    let request: DecryptRequest = read(&body)?;
    let vector = decode("initializationVector", &request.initialization_vector)?;
    let ciphertext = decode("ciphertext", &request.ciphertext)?;
    let bound = Bound { module: &module, generation: &generation, initialization_vector: &vector };
    let key = served.about.keys.encryption_key(&served.module);
    match encryption::decrypt(&key, &bound, &ciphertext) {
        Some(plaintext) => Ok(Json(json!({"plaintext": STANDARD.encode(plaintext)}))),
        None => {
            Err(wrong("ciphertext: not encrypted here for this module, generation and initializationVector"))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerRequest {
    common_name: String,
}

async fn server_certificate(
    State(served): Shared,
    Path((module, generation)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Failure> {
    served.check_generation(&module, &generation)?;
    let request: ServerRequest = read(&body)?;
    let gateway = served.about.certificates.as_ref().map(|certificates| &certificates.gateway);
    let name = ServerName::parse(&request.common_name, &served.module, gateway)
        .ok_or_else(|| wrong("commonName: write a DNS name or an address"))?;
    served.issued("server", served.certificates()?.server(&served.module, &name))
}

async fn identity_certificate(
    State(served): Shared,
    Path(module): Path<String>,
) -> Result<Response, Failure> {
    served.check(&module)?;
    served.issued("identity", served.certificates()?.identity(&served.module))
}

/// The modules that run here, as the management API lists them. Their environment is theirs alone and left out.
async fn modules(State(served): Shared) -> Json<Value> {
    let status = served.about.reconciler.borrow();
    let modules: Vec<Value> =
        status.observed.modules.iter().map(|(id, observed)| listed(id, observed)).collect();
    Json(json!({"modules": modules}))
}

fn listed(id: &ModuleId, observed: &ObservedModule) -> Value {
    let (status, code) = match observed.state {
        ContainerState::Running | ContainerState::Paused => ("running", None),
        ContainerState::Created | ContainerState::Restarting => ("stopped", None),
        ContainerState::Exited { code: 0 } => ("stopped", Some(0)),
        ContainerState::Exited { code } => ("failed", Some(code)),
        ContainerState::Dead => ("failed", None),
    };
    let mut of = json!({"runtimeStatus": {"status": status}});
    if let Some(started) = observed.started_at_ms {
        of["startTime"] = timestamp::rfc3339(started).into();
    }
    if let (Some(code), Some(finished)) = (code, observed.finished_at_ms) {
        of["exitStatus"] = json!({"exitTime": timestamp::rfc3339(finished), "statusCode": code.to_string()});
    }
    json!({
        "id": id, "name": id, "type": "docker", "status": of,
        "config": {"settings": {"image": observed.image}, "env": []},
    })
}
