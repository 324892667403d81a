//! `GetModuleLogs` of `$edgeAgent` on a real Docker Engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod idle_image;

use std::io::Read as _;
use std::process::Command;

use base64::Engine as _;
use edge_agent::commands::daemon::DaemonMethods;
use edge_agent::config::ProxyChoice;
use edge_agent::deployment::docker::Engine;
use edge_agent::deployment::restart_requests::RestartRequests;
use edge_agent::deployment::status::ReconcilerStatus;
use edge_agent::diagnostics::blob_store::{BlobStore, SILENCE_MAX};
use edge_agent::diagnostics::bundle;
use edge_agent::diagnostics::log_reader::LogReader;
use edge_agent::diagnostics::uploads::{UploadSettings, Uploads};
use edge_core::deploy::observed::{ContainerState, ObservedModule};
use schemas::method::{MethodRequest, MethodResponse};
use serde_json::{Value, json};
use test_needs::Need;
use tokio::sync::watch;

const NEEDS: [Need; 2] = [Need::Docker, Need::File("/bin/busybox")];

/// Containers that have written something, removed at the end.
struct Modules {
    containers: Vec<String>,
    status: watch::Sender<ReconcilerStatus>,
}

impl Modules {
    fn new() -> Self {
        idle_image::make();
        Self { containers: Vec::new(), status: watch::channel(ReconcilerStatus::default()).0 }
    }

    /// A module whose container has run `script` to its end.
    fn add(&mut self, module: &str, script: &str) {
        let output = Command::new("docker").args(["create", idle_image::IMAGE, script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let ran = Command::new("docker").args(["start", "-a", &id]).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        let observed = ObservedModule {
            container_id: id.clone(),
            image: idle_image::IMAGE.into(),
            state: ContainerState::Exited { code: 0 },
            ..ObservedModule::default()
        };
        self.containers.push(id);
        let module = module.parse().unwrap();
        self.status.send_modify(|status| {
            status.observed.modules.insert(module, observed);
        });
    }

    fn methods(&self, socket: &str) -> DaemonMethods {
        let logs = LogReader {
            engine: Engine::new(socket.into()),
            reconciler: self.status.subscribe(),
            hub_name: "hub".into(),
            gateway: "gw".parse().unwrap(),
        };
        DaemonMethods::new(RestartRequests::channel().0, logs.clone(), uploads(logs))
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        for id in &self.containers {
            let _ = Command::new("docker").args(["rm", "-f", id]).output();
        }
    }
}

fn uploads(logs: LogReader) -> Uploads {
    let store = BlobStore { proxy: ProxyChoice::None, silence_max: SILENCE_MAX };
    let settings = UploadSettings {
        config: "/nonexistent/edge.toml".into(),
        write_bundle: bundle::write_upload,
        data_dir: std::env::temp_dir(),
        keep_free_bytes: 0,
        store,
    };
    Uploads::new(settings, logs)
}

async fn get(methods: &DaemonMethods, payload: Value) -> MethodResponse {
    get_within(methods, payload, 300).await
}

async fn get_within(methods: &DaemonMethods, payload: Value, seconds: u64) -> MethodResponse {
    let request = MethodRequest {
        method_name: "GetModuleLogs".into(),
        payload,
        response_timeout_in_seconds: seconds,
        connect_timeout_in_seconds: 0,
    };
    methods.call(&request).await
}

fn wants(id: &str, filter: Value) -> Value {
    json!({"schemaVersion": "1.0", "items": [{"id": id, "filter": filter}]})
}

#[tokio::test]
async fn logs_of_modules_are_given_as_iot_edge_gives_them() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut modules = Modules::new();
    modules.add(
        "sensor",
        "/bin/busybox echo '<6>started'; /bin/busybox echo '<3>pump off' >&2; /bin/busybox echo password=hunter2hunter2",
    );
    modules.add("filter", "/bin/busybox seq 1 5; /bin/busybox printf half");
    let methods = modules.methods("/var/run/docker.sock");

    let both = get(&methods, wants("all", json!({"tail": 2}))).await;
    assert_eq!(both.status, 200, "{both:?}");
    assert_eq!(both.payload[0], json!({"id": "filter", "payload": "5\nhalf\n"}));
    let sensor = both.payload[1]["payload"].as_str().unwrap();
    assert!(!sensor.contains("hunter2"), "{sensor}");

    let faults = get(&methods, wants("^SENS", json!({"loglevel": 3}))).await;
    assert_eq!(faults.payload, json!([{"id": "sensor", "payload": "<3>pump off\n"}]));
    assert_eq!(get(&methods, wants("nobody", json!({}))).await.payload, json!([]));
    assert_eq!(get(&methods, wants("filter", json!({"until": "1d"}))).await.payload[0]["payload"], "");

    let mut request = wants("sensor", json!({"regex": "pump"}));
    (request["contentType"], request["encoding"]) = (json!("json"), json!("gzip"));
    let packed = get(&methods, request).await;
    let bytes = packed.payload[0]["payloadBytes"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    let records: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(records.as_array().unwrap().len(), 1);
    let record = &records[0];
    assert_eq!(
        (&record["id"], &record["loglevel"], &record["stream"]),
        (&json!("sensor"), &json!(3), &json!("stderr"))
    );
    assert_eq!(
        (&record["text"], &record["iothub"], &record["device"]),
        (&json!("pump off"), &json!("hub"), &json!("gw"))
    );
    assert!(record["timestamp"].as_str().unwrap().ends_with('Z'), "{record}");
}

#[tokio::test]
async fn logs_that_an_answer_cannot_hold_are_refused_and_an_engine_that_is_silent_costs_the_time_of_the_call()
{
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut modules = Modules::new();
    modules.add("chatty", "/bin/busybox seq 1 100000");
    let methods = modules.methods("/var/run/docker.sock");
    let large = get(&methods, wants("chatty", json!({}))).await;
    assert_eq!(large.status, 400, "{large:?}");
    assert!(large.payload["message"].as_str().unwrap().contains("127000"), "{large:?}");
    let end = get(&methods, wants("chatty", json!({"tail": 1}))).await;
    assert_eq!(end.payload[0]["payload"], "100000\n");

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let methods = modules.methods(socket.to_str().unwrap());
    let answer = get_within(&methods, wants("chatty", json!({})), 5).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    // The end of the call's time, and not that of the engine's, which comes later.
    assert_eq!(answer.payload["message"], "the logs could not be read in time");
}
