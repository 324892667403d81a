//! Large changes: devices and other callers are served while they are read, checked, stored and written into the audit log.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use central::token::Role;
use common::{Central, STEP, start};
use reqwest::Method;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

/// The work that an async thread may do at once for a change: its head, its bytes, and its answer. Time of the processor, so that other
/// programs change nothing.
const AT_ONCE_MAX: Duration = Duration::from_millis(250);
/// Callers that send large changes at once.
const SENDERS: usize = 12;

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn many(count: usize, member: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..count).map(member).collect::<Map<_, _>>())
}

fn large_manifest(values: usize) -> Value {
    let env = many(values, |number| (format!("E{number}"), json!({"value": "password: \\u0041"})));
    let module = json!({"type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": "a:1"}, "env": env});
    json!({"data": {"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}}, "systemModules": {}, "modules": {"m": module}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {}}}}}})
}

fn large_template(fields: usize) -> Value {
    let field = |number| json!({"@type": "Telemetry", "name": format!("t{number}"), "schema": "double"});
    json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": "Press", "capabilityModel": {
        "@id": "dtmi:site:press:model;1", "@type": "Interface", "contents": (0..fields).map(field).collect::<Vec<_>>()}})
}

fn large_import(lines: usize) -> Value {
    let lines: String =
        (0..lines).map(|number| format!("press {number},a name of some length\r\n")).collect();
    json!({"csv": format!("IOTC_DEVICEID,IOTC_DEVICENAME\r\n{lines}"), "fileName": "a.csv"})
}

/// Sends a change on a thread of its own: what the client does is not central's work.
fn sent(central: &Central, method: &str, path: &str, body: &Value) -> std::thread::JoinHandle<u16> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}api-version=2022-10-31-preview", central.url(path));
    let (method, token, body) = (
        Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
        central.token.clone(),
        body.to_string(),
    );
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let request = reqwest::Client::new().request(method, url).header("Authorization", token);
            let request = request.header("Content-Type", "application/json").body(body).timeout(2 * STEP);
            request.send().await.unwrap().status().as_u16()
        })
    })
}

/// The status of a change, the most that the async thread did at once meanwhile, and what the whole process did.
async fn measured(central: &Central, method: &str, path: &str, body: &Value) -> (u16, Duration, Duration) {
    let whole = cpu(ClockId::ProcessCPUTime);
    let sending = sent(central, method, path, body);
    let (mut before, mut worst) = (cpu(ClockId::ThreadCPUTime), Duration::ZERO);
    while !sending.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = cpu(ClockId::ThreadCPUTime);
        worst = worst.max(now - before);
        before = now;
    }
    (sending.join().unwrap(), worst, cpu(ClockId::ProcessCPUTime) - whole)
}

/// A path of the description with names of things.
fn concrete(template: &str) -> String {
    let path = template.replace("{device_id}", "gw");
    path.split('/')
        .map(|segment| if segment.starts_with('{') { "m" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn no_change_at_any_path_holds_the_async_threads() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    let document = central.get("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().iter();
    let mut changes: Vec<(String, String, Value)> = paths
        .flat_map(|(template, item)| {
            let methods = ["put", "patch", "post"].iter().filter(|method| item.get(**method).is_some());
            // Those of the session and of the first account are open to everybody, and have small bodies.
            let methods =
                methods.filter(|_| !["/api/ext/session", "/api/ext/setup"].contains(&template.as_str()));
            methods.map(|method| ((*method).to_owned(), concrete(template), large_manifest(6_000)))
        })
        .collect();
    assert!(changes.len() > 40, "{}", changes.len());
    // What is taken, as large as it may be, is stored and goes into the audit log besides.
    let manifest = "/api/deploymentManifests/large";
    for (method, path, body) in [
        ("put", manifest, large_manifest(20_000)),
        ("put", manifest, large_manifest(20_001)),
        ("put", "/api/deviceTemplates/dtmi:site:press;1", large_template(10_000)),
        ("post", "/api/ext/devices/import", large_import(20_000)),
    ] {
        assert!(body.to_string().len() > 500_000, "{path}");
        changes.push((method.to_owned(), path.to_owned(), body));
    }
    let (mut most, mut worst) = (Duration::ZERO, Duration::ZERO);
    for (method, path, body) in changes {
        let (status, at_once, whole) = measured(&central, &method, &path, &body).await;
        assert_ne!(status, 500, "{method} {path}");
        assert!(at_once < AT_ONCE_MAX, "{method} {path}: {at_once:?}");
        (most, worst) = (most.max(whole), worst.max(at_once));
    }
    println!("{worst:?} at once at most, of {most:?}");
    assert_eq!(central.send(Method::GET, manifest, None).await.0, 200, "the large ones are taken");
    assert!(most > 2 * AT_ONCE_MAX, "so much work that it would be seen: {most:?}");
    central.end().await;
}

#[tokio::test]
async fn devices_and_other_callers_do_not_wait_for_large_changes_of_one_token() {
    let dir = tempfile::tempdir().unwrap();
    let central = Arc::new(start(dir.path()).await);
    central.put("/api/devices/press-1", json!({})).await;
    let mut device = central.client("press-1").await;
    let reader = central.new_token(Role::Viewer).await;
    let bodies = [
        ("put", "/api/deploymentManifests/m", large_manifest(20_000)),
        ("put", "/api/deviceTemplates/dtmi:site:press;1", large_template(5_000)),
        ("post", "/api/ext/devices/import/preview", large_import(20_000)),
    ];
    // More at once than one caller may have made at a time, again and again until the others are done.
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let statuses = Arc::new(Mutex::new(Vec::new()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let (method, path, body) = bodies[number % bodies.len()].clone();
            let (central, is_over, statuses) = (central.clone(), is_over.clone(), statuses.clone());
            std::thread::spawn(move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let status = sent(&central, method, path, &body).join().unwrap();
                    statuses.lock().unwrap().push(status);
                }
            })
        })
        .collect();
    while statuses.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answered = || statuses.lock().unwrap().len();
    let (mut published, mut read, mut slowest) = (0, 0, Duration::ZERO);
    for number in 0..40 {
        let (before, begun) = (answered(), Instant::now());
        device.publish("devices/press-1/messages/events/", json!({"n": number}).to_string()).await;
        let between = answered();
        let (status, _) = central.send_as(&reader, Method::GET, "/api/devices/press-1", None).await;
        assert_eq!(status, 200);
        (published, read) = (published.max(between - before), read.max(answered() - between));
        slowest = slowest.max(begun.elapsed());
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    // Their last ones are answered by this thread.
    let joined =
        tokio::task::spawn_blocking(move || senders.into_iter().for_each(|sender| sender.join().unwrap()));
    joined.await.unwrap();
    let statuses = statuses.lock().unwrap().clone();
    println!(
        "{} changes; {published} during a PUBACK and {read} during a GET at most; slowest of both: {slowest:?}",
        statuses.len()
    );
    // A template of so many fields is refused, once it was read.
    assert!(statuses.iter().all(|status| [200, 422, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    // Counted in changes, since a busy machine is slow with all. Done on the async thread, more than all that are on their way would come
    // first, and each takes a second of it.
    assert!(published < SENDERS && read < SENDERS, "{published} {read}");
    drop(device);
    Arc::into_inner(central).unwrap().end().await;
}
