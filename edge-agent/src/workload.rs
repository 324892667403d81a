//! The workload API: what a module asks its gateway for, over a socket of its own. Source: IoT Edge workload API.
//!
//! A module's socket lies in a directory of its own, and it is the directory that its container mounts: a daemon that
//! was restarted makes a new socket there, which the container that runs on sees. Whoever reaches the socket is that
//! module: it signs for nobody else.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use edge_core::access::sas;
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::module_keys::ModuleKeys;

/// The socket's name in a module's directory.
pub const SOCKET: &str = "workload.sock";
/// A request's body: a few hundred bytes to sign.
const BODY_BYTES_MAX: usize = 64 * 1024;

struct Served {
    module: ModuleId,
    keys: ModuleKeys,
    trust_bundle: Arc<str>,
}

/// The sockets of all modules.
pub struct Workload {
    dir: PathBuf,
    keys: ModuleKeys,
    trust_bundle: Arc<str>,
    open: Mutex<BTreeMap<ModuleId, CancellationToken>>,
}

impl Workload {
    /// Sockets under `data_dir`; none is open yet.
    pub fn new(data_dir: &FilePath, keys: ModuleKeys, trust_bundle_pem: String) -> Self {
        Self {
            dir: data_dir.join("workload"),
            keys,
            trust_bundle: trust_bundle_pem.into(),
            open: Mutex::default(),
        }
    }

    /// The directory that a module's container mounts. Manifests allow module names of letters, digits, `_` and `-` only.
    pub fn dir_of(&self, module: &ModuleId) -> PathBuf {
        self.dir.join(module.as_str())
    }

    /// A module's generation id, as its environment names it.
    pub fn generation_id(&self, module: &ModuleId) -> String {
        self.keys.generation_id(module)
    }

    /// Serves a module, if it is not served already.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(&self, module: &ModuleId) -> std::io::Result<()> {
        let mut open = self.open.lock().expect("nothing panics while it holds the list");
        if open.contains_key(module) {
            return Ok(());
        }
        let dir = self.dir_of(module);
        std::fs::create_dir_all(&dir)?;
        // Only the module's container sees this directory; any user in it may connect. Others on this machine may not
        // look into the directory above it.
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        let path = dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        let served = Served {
            module: module.clone(),
            keys: self.keys.clone(),
            trust_bundle: self.trust_bundle.clone(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let name = module.clone();
        // Ends with `close`, or with the daemon: it holds nothing that must be finished.
        tokio::spawn(async move {
            let served = axum::serve(listener, router(served)).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(module = %name, %error, "the module's workload socket failed");
            }
        });
        open.insert(module.clone(), stop);
        Ok(())
    }

    /// Ends a module's service and removes its directory.
    pub fn close(&self, module: &ModuleId) {
        let stop = self.open.lock().expect("nothing panics while it holds the list").remove(module);
        if let Some(stop) = stop {
            stop.cancel();
        }
        let dir = self.dir_of(module);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%module, %error, "the module's workload directory was not removed");
            }
            _ => {}
        }
    }

    /// The modules that are served.
    pub fn modules(&self) -> Vec<ModuleId> {
        self.open.lock().expect("nothing panics while it holds the list").keys().cloned().collect()
    }
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/trust-bundle", get(trust_bundle))
        .route("/modules/{module}/genid/{generation}/sign", post(sign))
        .fallback(unknown)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(served))
}

struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

async fn trust_bundle(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(json!({"certificate": &*served.trust_bundle}))
}

#[derive(Deserialize)]
struct SignRequest {
    /// Only one algorithm exists.
    algo: String,
    /// Base64.
    data: String,
}

/// Azure's Python SDK sends no Content-Type: the body is read as it is.
async fn sign(
    State(served): State<Arc<Served>>,
    Path((module, _generation)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    if module != served.module.as_str() {
        tracing::warn!(module = %served.module, wanted = module, "workload request refused: signing for another module");
        return Err(Failure(StatusCode::FORBIDDEN, format!("this socket signs for {} only", served.module)));
    }
    let wrong = |message: String| Failure(StatusCode::BAD_REQUEST, message);
    let request: SignRequest = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    if !request.algo.eq_ignore_ascii_case("HMACSHA256") {
        return Err(wrong(format!("algo: found `{}`; write HMACSHA256", request.algo)));
    }
    let data =
        STANDARD.decode(request.data).map_err(|_| wrong("data: found text that is not base64".into()))?;
    let digest = sas::sign(&served.keys.key(&served.module), &data);
    Ok(Json(json!({"digest": STANDARD.encode(digest)})))
}

async fn unknown(uri: axum::http::Uri) -> Failure {
    Failure(
        StatusCode::NOT_FOUND,
        format!("{}: this gateway's workload API knows trust-bundle and sign", uri.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full};
    use hyper::Request;
    use hyper_util::rt::TokioIo;

    async fn ask(socket: &FilePath, method: &str, path: &str, body: &str) -> (u16, Value) {
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // As the Python SDK does it: without a Content-Type.
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_module_gets_the_trust_bundle_and_signs_for_itself_only_also_after_a_restart_of_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(crate::module_keys::FILE), [1; 32]).unwrap();
        let keys = ModuleKeys::load(dir.path()).unwrap();
        let sensor: ModuleId = "sensor".parse().unwrap();
        // The first one stands for a daemon that was killed: its socket file stays.
        let before = Workload::new(dir.path(), keys.clone(), "OLD".into());
        before.open(&sensor).unwrap();
        let workload = Workload::new(dir.path(), keys.clone(), "PEM".into());
        workload.open(&sensor).unwrap();
        workload.open(&sensor).unwrap();
        let socket = workload.dir_of(&sensor).join(SOCKET);
        let (status, body) = ask(&socket, "GET", "/trust-bundle?api-version=2018-06-28", "").await;
        assert_eq!((status, &body["certificate"]), (200, &json!("PEM")));
        let request =
            json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode("sr\n1")}).to_string();
        let (status, body) =
            ask(&socket, "POST", "/modules/sensor/genid/7/sign?api-version=x", &request).await;
        let expected = STANDARD.encode(sas::sign(&keys.key(&sensor), b"sr\n1"));
        assert_eq!((status, &body["digest"]), (200, &json!(expected)));
        let (status, _) = ask(&socket, "POST", "/modules/filter/genid/7/sign", &request).await;
        assert_eq!(status, 403);
        let (status, body) = ask(&socket, "POST", "/modules/sensor/genid/7/encrypt", "{}").await;
        assert_eq!(status, 404);
        assert!(body["message"].as_str().unwrap().contains("encrypt"));
        workload.close(&sensor);
        assert!(workload.modules().is_empty() && !socket.exists());
    }
}
