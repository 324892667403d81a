//! Answers that grow with data: devices are served while they are made, and one answer has a bounded size.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::time::Duration;

use central::token::Role;
use common::{Central, STEP, start};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

/// What every field of every text of this site holds, so that all of it must be looked at for viewers.
const TEXT: &str = "password: x";
/// The work that an async thread may do at once. Time of the processor, so that other programs change nothing; the answers below
/// take seconds of it in a build for tests.
const AT_ONCE_MAX: Duration = Duration::from_millis(700);

fn many(prefix: &str, count: usize, value: &Value) -> Value {
    let member = |number| (format!("{prefix}{number}"), value.clone());
    Value::Object((0..count).map(member).collect::<Map<_, _>>())
}

/// A site in which everything is large.
async fn large_site(central: &Central) {
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    let module = json!({"type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": "a:1"}, "env": many("E", 12_000, &json!({"value": TEXT}))});
    let manifest = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}}, "systemModules": {}, "modules": {"m": module}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {}}}}});
    for id in ["large", "large2", "large3"] {
        central.put(&format!("/api/deploymentManifests/{id}"), json!({"data": manifest})).await;
    }
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "large"}})).await;
    let mut device = central.client("gw").await;
    let body = many("k", 3_000, &TEXT.into()).to_string();
    for _ in 0..30 {
        device
            .publish("devices/gw/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8", body.clone())
            .await;
    }
}

/// A path of the description with things of this site.
fn concrete(template: &str) -> String {
    let path = template.replace("{device_id}", "gw").replace("{manifest_id}", "large");
    path.split('/')
        .map(|segment| if segment.starts_with('{') { "m" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

fn cpu_of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[tokio::test]
async fn no_answer_of_any_path_holds_the_async_threads_and_none_is_larger_than_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    large_site(&central).await;
    let document = central.get("/openapi.json").await;
    let reads: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(template, item)| item.get("get").is_some() && *template != "/api/ext/events")
        .map(|(template, _)| concrete(template))
        .collect();
    assert!(reads.len() > 50, "{}", reads.len());
    let mut queries = reads;
    queries.extend(
        ["/api/ext/devices/gw/messages?limit=1000", "/api/devices?expand=deploymentManifest", "/status"]
            .map(str::to_owned),
    );
    let tokens = [central.new_token(Role::Viewer).await, central.token.clone()];
    let (base, longest) = (central.url(""), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    // The client has a thread of its own: what it does is not central's work.
    let (at, lengths) = (std::sync::Arc::new(std::sync::Mutex::new(String::new())), longest.clone());
    let requested_now = at.clone();
    let requesting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let client = reqwest::Client::new();
            for path in queries {
                requested_now.lock().unwrap().clone_from(&path);
                let separator = if path.contains('?') { '&' } else { '?' };
                let url = format!("{base}{path}{separator}api-version=2022-10-31-preview");
                let ask = |token: &String| {
                    let request = client.get(&url).header("Authorization", token).timeout(2 * STEP);
                    async move {
                        let response = request.send().await.unwrap();
                        (response.status().as_u16(), response.bytes().await.unwrap().len())
                    }
                };
                let answers = futures_util::future::join_all(tokens.iter().chain(&tokens).map(ask)).await;
                for (status, length) in answers {
                    assert_ne!(status, 500, "{path}");
                    lengths.lock().unwrap().push((length, status, path.clone()));
                }
            }
        });
    });
    let (mut before, mut worst) = (cpu_of_this_thread(), (Duration::ZERO, String::new()));
    while !requesting.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = cpu_of_this_thread();
        if now - before > worst.0 {
            worst = (now - before, at.lock().unwrap().clone());
        }
        before = now;
    }
    requesting.join().unwrap();
    println!("{worst:?} at once at most");
    assert!(worst.0 < AT_ONCE_MAX, "{worst:?}");
    let lengths = longest.lock().unwrap().clone();
    let (largest, status, path) = lengths.iter().max().unwrap();
    // A page, its last row, and what stands around both.
    assert!(*largest < 4 << 20, "{largest} bytes of {path}");
    assert!(*largest > 100_000 && *status == 200, "the site is large");
    central.end().await;
}

#[tokio::test]
async fn pages_that_are_cut_by_their_bytes_lead_to_all_that_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    large_site(&central).await;
    for number in 0..3 {
        let id = format!("gw-{number}");
        central.put(&format!("/api/devices/{id}"), json!({"type": ["iotEdge"]})).await;
        central.patch(&format!("/api/devices/{id}"), json!({"deploymentManifest": {"id": "large"}})).await;
    }
    for (list, expected) in [
        ("/api/deploymentManifests?$orderby=displayName%20desc", 3),
        ("/api/devices?expand=deploymentManifest&$orderby=id%20desc", 4),
    ] {
        let (mut path, mut ids, mut pages) = (list.to_owned(), Vec::new(), 0);
        loop {
            let answer = central.get(&path).await;
            ids.extend(answer["value"].as_array().unwrap().iter().map(|item| item["id"].to_string()));
            pages += 1;
            let Some(next) = answer["nextLink"].as_str() else { break };
            let url: reqwest::Url = next.parse().unwrap();
            let pairs = url.query_pairs().filter(|(name, _)| name != "api-version");
            let query: Vec<String> = pairs
                .map(|(name, value)| {
                    let all = percent_encoding::NON_ALPHANUMERIC;
                    format!("{name}={}", percent_encoding::utf8_percent_encode(&value, all))
                })
                .collect();
            path = format!("{}?{}", url.path(), query.join("&"));
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), expected, "{list}");
        assert!(pages > 1, "{list} was cut");
    }
    let (mut after, mut count, mut pages) = (0, 0, 0);
    loop {
        let page = central.get(&format!("/api/ext/devices/gw/messages?limit=1000&after={after}")).await;
        let Some(last) = page["value"].as_array().unwrap().last() else { break };
        after = last["id"].as_i64().unwrap();
        count += page["value"].as_array().unwrap().len();
        pages += 1;
    }
    assert!(count == 30 && pages > 1, "{count} in {pages}");
    central.end().await;
}

#[tokio::test]
async fn a_body_that_anybody_may_send_is_refused_when_it_is_large_before_it_is_read() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for path in ["/api/ext/session", "/api/ext/setup"] {
        for length in ["Content-Length: 4000000", "Transfer-Encoding: chunked"] {
            let mut stream = tokio::net::TcpStream::connect(central.started.http).await.unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            if length.contains("chunked") {
                stream.write_all(format!("5000\r\n{}\r\n", "x".repeat(0x5000)).as_bytes()).await.unwrap();
            }
            let mut answer = [0; 12];
            tokio::time::timeout(STEP, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 413", "{path} {length}");
        }
    }
    central.end().await;
}

#[tokio::test]
async fn no_path_makes_anything_with_a_name_of_dots_alone() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let document = central.get("/openapi.json").await;
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        let names: Vec<&str> = template.split('/').filter(|segment| segment.starts_with('{')).collect();
        for (method, name) in
            ["put", "patch", "post"].iter().flat_map(|method| names.iter().map(move |name| (method, name)))
        {
            if item.get(*method).is_none() {
                continue;
            }
            for dots in ["%2E", "%2e%2E", "%2E%2E%2E"] {
                let path = concrete(&template.replace(name, dots));
                // As it stands: an URL of the client's library would lead elsewhere.
                let status = raw(&central, &method.to_uppercase(), &path).await;
                assert!([400, 404, 422].contains(&status), "{method} {path}: {status}");
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
    for list in ["deploymentManifests", "enrollmentGroups", "users", "deviceTemplates", "devices"] {
        assert_eq!(central.get(&format!("/api/{list}")).await["value"], json!([]), "{list}");
    }
    central.end().await;
}

/// The status of a request with `{}` as its body.
async fn raw(central: &Central, method: &str, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(central.started.http).await.unwrap();
    let request = format!(
        "{method} {path}?api-version=2022-10-31-preview HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
        central.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
