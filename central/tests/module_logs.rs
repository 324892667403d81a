//! Logs of modules: read from the gateway by the API, for operators, with a row in the audit log and nothing in the history.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::token::Role;
use common::described::{Exchange, check};
use common::{Central, Mqtt, start};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const LOGS: &str = "/api/ext/devices/gw/modules/filter/logs";

fn packed(bytes: &[u8]) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    STANDARD.encode(encoder.finish().unwrap())
}

/// What a gateway answers that has these lines of `filter`.
fn log(lines: &[(u8, &str)]) -> Value {
    let record = |(level, text): &(u8, &str)| {
        json!({"iothub": "h", "device": "gw", "id": "filter", "stream": "stdout", "loglevel": level, "text": text,
            "timestamp": "2026-11-29T03:00:00Z"})
    };
    let records: Vec<Value> = lines.iter().map(record).collect();
    json!([{"id": "filter", "payloadBytes": packed(json!(records).to_string().as_bytes())}])
}

/// A central with a gateway whose manifest has the module `filter`.
async fn site(dir: &std::path::Path) -> Central {
    let central = start(dir).await;
    let module = json!({"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": "filter:1"}});
    let manifest = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}},
            "modules": {"filter": module}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}}}});
    central.put("/api/deploymentManifests/line", json!({"displayName": "line", "data": manifest})).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "line"}})).await;
    central
}

async fn gateway(central: &Central) -> Mqtt {
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    gateway
}

/// Reads a log while the test is the gateway.
fn read(central: &Central, query: &str) -> JoinHandle<(u16, Value)> {
    let request = central.http.get(central.url(&format!("{LOGS}{query}")));
    let request = request.header("Authorization", &central.token).timeout(common::STEP);
    tokio::spawn(async move {
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        check(&Exchange { method: "GET", path: LOGS, sent: None, status, text: &text });
        (status, serde_json::from_str(&text).unwrap())
    })
}

/// The next call of `GetModuleLogs`: where its answer goes, and its payload.
async fn call(gateway: &mut Mqtt) -> (String, Value) {
    let (topic, request) = gateway.message("$ls/command/").await;
    let (id, target) = topic.strip_prefix("$ls/command/").unwrap().split_once('/').unwrap();
    assert_eq!((target, &request["methodName"]), ("gw/$edgeAgent", &json!("GetModuleLogs")), "{request}");
    (format!("$ls/answer/{id}"), request["payload"].clone())
}

async fn answer(gateway: &mut Mqtt, topic: &str, status: i64, payload: Value) {
    gateway.publish(topic, json!({"Ok": {"status": status, "payload": payload}}).to_string()).await;
}

#[tokio::test]
async fn lines_come_from_the_gateway_with_one_row_in_the_audit_log_and_none_in_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    let mut gateway = gateway(&central).await;
    for (query, filter) in [
        ("", json!({"tail": 200})),
        ("?tail=7", json!({"tail": 7})),
        (
            "?since=1%20h&until=5min&regex=a%2Bb&logLevel=3",
            json!({"since": "1 h", "until": "5min", "regex": "a+b", "loglevel": 3}),
        ),
    ] {
        let reading = read(&central, query);
        let (topic, payload) = call(&mut gateway).await;
        assert_eq!(payload["items"], json!([{"id": "^filter$", "filter": filter}]), "{query}");
        answer(&mut gateway, &topic, 200, log(&[(6, "started"), (3, "pump off")])).await;
        let (status, body) = reading.await.unwrap();
        let line = |level: u8, text: &str| json!({"time": "2026-11-29T03:00:00Z", "level": level, "stream": "stdout", "text": text});
        assert_eq!(
            (status, body),
            (200, json!({"lines": [line(6, "started"), line(3, "pump off")]})),
            "{query}"
        );
    }
    let history = central.get("/api/ext/devices/gw/commands").await;
    assert_eq!(history["value"], json!([]), "an answer with a log is for its reader");
    let rows = central
        .until(&format!("/api/ext/audit?path={LOGS}"), |page| {
            let rows = page["value"].as_array().unwrap();
            (!rows.is_empty() && rows.iter().all(|row| !row["status"].is_null())).then(|| rows.clone())
        })
        .await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!((&row["kind"], &row["status"], &row["method"]), (&json!("read"), &json!(200), &json!("GET")));
    central.end().await;
}

#[tokio::test]
async fn why_there_is_no_log_is_said_for_each_answer_of_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    let mut gateway = gateway(&central).await;
    let unreadable = "is no log of at most";
    let too_large = packed(&vec![b' '; 9 << 20]);
    for (answered, payload, status, code, message) in [
        (200, json!([]), 404, "ModuleHasNoContainer", "module `filter` has no container on gateway `gw`"),
        // Compared without case, another module is found.
        (200, json!([{"id": "Filter", "payloadBytes": ""}]), 404, "ModuleHasNoContainer", "no container"),
        (
            400,
            json!({"message": "items: too many bytes"}),
            422,
            "GatewayRefused",
            "gateway `gw` refused: items: too many bytes",
        ),
        (500, json!({"message": "no engine"}), 502, "GatewayFailed", "could not read the log: no engine"),
        (504, json!(null), 502, "GatewayFailed", "it gave the status 504 and no reason"),
        (200, json!({"lines": []}), 502, "GatewayFailed", unreadable),
        (200, json!([{"id": "filter", "payload": "text"}]), 502, "GatewayFailed", unreadable),
        (200, json!([{"id": "filter", "payloadBytes": "?"}]), 502, "GatewayFailed", unreadable),
        (
            200,
            json!([{"id": "filter", "payloadBytes": STANDARD.encode("not gzip")}]),
            502,
            "GatewayFailed",
            unreadable,
        ),
        (
            200,
            json!([{"id": "filter", "payloadBytes": packed(b"[{\"text\": 1}]")}]),
            502,
            "GatewayFailed",
            unreadable,
        ),
        (200, json!([{"id": "filter", "payloadBytes": too_large}]), 502, "GatewayFailed", unreadable),
    ] {
        let reading = read(&central, "");
        let (topic, _) = call(&mut gateway).await;
        answer(&mut gateway, &topic, answered, payload).await;
        let (found, body) = reading.await.unwrap();
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(message), "{body}");
    }
    assert_eq!(central.get("/api/ext/devices/gw/commands").await["value"], json!([]));
    central.end().await;
}

#[tokio::test]
async fn a_wrong_request_is_refused_by_name_and_a_gateway_that_is_away_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    for (query, message) in [
        ("tail=0", "tail: found 0; write 1 to 10000"),
        ("tail=10001", "tail: found 10001"),
        ("logLevel=8", "logLevel: found 8; write 0 to 7"),
        ("since=soon", "since: found soon; write a time"),
        ("until=later", "until: found later; write a time"),
        ("regex=(", "regex: found \"(\", which is no regular expression"),
        ("follow=true", "follow: this path has no such parameter"),
    ] {
        let (status, body) = central.send(Method::GET, &format!("{LOGS}?{query}"), None).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("InvalidQuery")), "{query}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().starts_with(message), "{query}: {body}");
    }
    let (status, body) = central.send(Method::GET, LOGS, None).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("DeviceNotConnected")), "{body}");
    assert!(
        body["error"]["message"].as_str().unwrap().starts_with("gateway `gw` is not connected"),
        "{body}"
    );
    for (path, message) in [
        ("/api/ext/devices/nobody/modules/filter/logs", "device `nobody` is not registered"),
        ("/api/ext/devices/gw/modules/other/logs", "gateway `gw` has no module `other`"),
    ] {
        let (status, body) = central.send(Method::GET, path, None).await;
        assert_eq!(status, 404, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().starts_with(message), "{body}");
    }
    let viewer = central.new_token(Role::Viewer).await;
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(central.send_as(&viewer, method, LOGS, None).await.0, 403);
    }
    central.end().await;
}

/// A caller makes two answers at once; a log of a slow gateway is none of them while it waits.
#[tokio::test]
async fn logs_that_gateways_are_slow_with_keep_nobody_from_reading_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    let mut gateway = gateway(&central).await;
    let reading: Vec<_> = (0..8).map(|_| read(&central, "")).collect();
    let mut topics = Vec::new();
    for _ in 0..8 {
        topics.push(call(&mut gateway).await.0);
    }
    central.get("/api/devices/gw").await;
    for topic in topics {
        answer(&mut gateway, &topic, 200, log(&[])).await;
    }
    for reading in reading {
        assert_eq!(reading.await.unwrap(), (200, json!({"lines": []})));
    }
    central.end().await;
}
