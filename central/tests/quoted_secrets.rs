//! A gateway's report quotes its manifest as a container engine does; viewers read none of it that the manifest hides from them.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use central::store::StoreError;
use central::token::Role;
use common::{Central, Mqtt, STEP, start};
use reqwest::Method;
use schemas::redaction::REDACTED;
use serde_json::{Map, Value, json};

/// Every planted secret begins so.
const SECRET: &str = "hunter2x";

/// A member of `createOptions` with a secret, and what an engine says of it.
type Case = (fn(&str) -> Value, &'static str);

const CASES: [Case; 12] = [
    (
        |secret| json!({"Entrypoint": [format!("app -k {secret}")]}),
        "runc create failed: unable to start container process: exec: \"app -k {}\": executable file not found in $PATH",
    ),
    (|secret| json!({"Cmd": ["run", secret]}), "exec: \"{}\": no such file or directory"),
    (|secret| json!({"Env": [format!("KEY={secret}")]}), "invalid environment variable: {}"),
    (|secret| json!({"WorkingDir": format!("/srv/{secret}")}), "mkdir /srv/{}: read-only file system"),
    (|secret| json!({"Shell": ["/bin/sh", secret]}), "exec /bin/sh {}: exec format error"),
    (
        |secret| json!({"Healthcheck": {"Test": ["CMD", "wget", format!("http://127.0.0.1/{secret}")]}}),
        "unknown type in healthcheck: http://127.0.0.1/{}",
    ),
    (|secret| json!({"Labels": {"user": secret}}), "invalid label user={}"),
    (
        |secret| json!({"HostConfig": {"LogConfig": {"Type": "splunk", "Config": {"name": secret}}}}),
        "unknown log opt '{}' for splunk log driver",
    ),
    (|secret| json!({"HostConfig": {"Sysctls": {"net.x": secret}}}), "sysctl net.x={} is not allowed"),
    (
        |secret| json!({"HostConfig": {"Tmpfs": {"/run": format!("rw,{secret}")}}}),
        "invalid tmpfs option [\"{}\"]",
    ),
    (
        |secret| json!({"HostConfig": {"GroupAdd": [secret]}}),
        "unable to find group {}: no matching entries in group file",
    ),
    (
        |secret| json!({"HostConfig": {"VolumeDriver": secret}}),
        "error looking up volume plugin {}: plugin not found",
    ),
];

/// A manifest with a module for each case, and the engine's error for each. Secrets of manifests differ by their letter.
fn planted(letter: char) -> (Value, Vec<String>) {
    let (mut modules, mut errors) = (Map::new(), Vec::new());
    for (number, (options, error)) in CASES.iter().enumerate() {
        let secret = format!("{SECRET}{letter}{number:02}");
        modules.insert(
            format!("m{number:02}"),
            json!({"version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
                "env": {"PIN": {"value": format!("{secret}-env")}},
                "settings": {"image": "acme/press:1", "createOptions": options(&secret).to_string()}}),
        );
        errors.push(format!(
            "could not create m{number:02}: {}; PIN={secret}-env",
            error.replace("{}", &secret)
        ));
    }
    let agent = json!({"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "systemModules": {}, "modules": modules});
    let hub = json!({"schemaVersion": "1.1", "routes": {}});
    let data = json!({"modulesContent": {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}}});
    (data, errors)
}

async fn assign(central: &Central, data: &Value) {
    central.put("/api/deploymentManifests/line", json!({"data": data})).await;
    central.ok(Method::POST, "/api/devices/gw/applyDeploymentManifest", Some(json!({"id": "line"}))).await;
}

/// Reports errors wherever a gateway reports text, as the `version`th report, with all modules in one state.
async fn report(gateway: &mut Mqtt, version: u64, state: &str, errors: &[String]) {
    let modules: Map<String, Value> = errors
        .iter()
        .enumerate()
        .map(|(number, error)| {
            let module = json!({"runtimeStatus": state, "statusDescription": error, "restartCount": 1});
            (format!("m{number:02}"), module)
        })
        .collect();
    let all = errors.join("; ");
    // As a report does that grew too long.
    let cut = format!("{}…", &errors[0][..errors[0].find(SECRET).unwrap() + SECRET.len() - 2]);
    let finding =
        |level: &str, text: &str| json!({"id": "modules", "level": level, "evidence": text, "mend": text});
    let report = json!({"$version": version, "lastDesiredVersion": 1, "modules": modules,
        "lastDesiredStatus": {"code": 500, "description": format!("rolled back to version 1: {all}")},
        "rollout": {"state": "rolledBack", "versionInForce": 1, "reason": all},
        "manifestWarnings": [all, cut],
        "health": {"updated": "2026-11-30T00:00:00Z", "refusals": [],
            "findings": [finding("error", &all), finding("warn", &cut)]}});
    gateway.publish("$ls/reported/gw/$edgeAgent", report.to_string()).await;
    let hub = json!({"$version": version, "lastDesiredVersion": 1, "lastDesiredStatus": {"code": 400, "description": all}});
    gateway.publish("$ls/reported/gw/$edgeHub", hub.to_string()).await;
}

/// A command of the gateway's own that it answered with errors.
async fn answer_command(central: &Central, errors: &[String]) {
    let outcome = json!({"Ok": {"status": 500, "payload": {"message": errors.join("; ")}}}).to_string();
    let insert = central.started.store().submit(move |c| {
        c.execute(
            "INSERT INTO commands (id, gateway, device, module, request, asked_ms, deadline_ms, ended_ms, outcome, valid_until_ms)
             VALUES ('c', 'gw', 'gw', '$edgeAgent', ?1, 1, 2, 3, ?2, NULL)",
            (
                r#"{"methodName":"RestartModule","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}"#,
                outcome,
            ),
        )?;
        Ok::<_, StoreError>(())
    });
    insert.await.unwrap();
}

/// Every GET of one thing or list that has texts of gateways.
async fn reads(central: &Central) -> Vec<String> {
    let described = central.get("/openapi.json").await;
    let mut reads = Vec::new();
    for (path, operations) in described["paths"].as_object().unwrap() {
        if operations.get("get").is_none() || path == "/api/ext/events" {
            continue;
        }
        let path = path
            .replace("{device_id}", "gw")
            .replace("{manifest_id}", "line")
            .replace("{command_name}", "RestartModule");
        for module in ["$edgeAgent", "$edgeHub"] {
            let path = path.replace("{module_name}", module);
            if path.ends_with("/twin") {
                reads.push(format!("{path}?module={module}"));
            }
            if !path.contains('{') && !reads.contains(&path) {
                reads.push(path);
            }
        }
    }
    reads
}

async fn read(central: &Central, token: &str, path: &str) -> String {
    let version = if path.starts_with("/api/ext/") { "" } else { "api-version=2022-10-31-preview" };
    let separator = if path.contains('?') { '&' } else { '?' };
    let request = central.http.get(format!("{}{separator}{version}", central.url(path))).timeout(STEP);
    let request = if path == "/status" {
        request.basic_auth("a", Some(token))
    } else {
        request.header("Authorization", token)
    };
    common::text(request.send().await.unwrap()).await
}

/// What a stream of events has sent.
type Streamed = Arc<Mutex<Vec<u8>>>;

fn text_of(streamed: &Streamed) -> String {
    String::from_utf8_lossy(&streamed.lock().unwrap()).into_owned()
}

/// Reads the stream of events of the gateway from now on, beside the test.
async fn streamed(central: &Central, token: String) -> Streamed {
    let (http, url) = (central.http.clone(), format!("{}?device=gw", central.url("/api/ext/events")));
    let streamed = Streamed::default();
    let into = streamed.clone();
    let open = move |last: &str| {
        let request = http.get(&url).header("Authorization", &token);
        if last.is_empty() { request.send() } else { request.header("Last-Event-ID", last).send() }
    };
    let mut stream = open("").await.unwrap();
    tokio::spawn(async move {
        loop {
            while let Ok(Some(chunk)) = stream.chunk().await {
                into.lock().unwrap().extend_from_slice(&chunk);
            }
            // It lasts for some minutes, and goes on behind its last event.
            let text = text_of(&into);
            let last = text.rsplit("id: ").next().and_then(|rest| rest.lines().next()).unwrap_or_default();
            match open(last).await {
                Ok(again) => stream = again,
                Err(_) => return,
            }
        }
    });
    streamed
}

/// Asserts that no read shows a viewer anything of a secret; returns which ones hide something.
async fn hidden_in(central: &Central, viewer: &str) -> Vec<String> {
    let mut hidden = Vec::new();
    for path in reads(central).await {
        let text = read(central, viewer, &path).await;
        let found = text
            .find(&SECRET[..6])
            .map(|at| text[at.saturating_sub(80)..].chars().take(120).collect::<String>());
        assert_eq!(found, None, "{path}");
        if text.contains(REDACTED) {
            hidden.push(path);
        }
    }
    hidden
}

#[tokio::test]
async fn a_viewer_reads_no_secret_of_a_manifest_in_a_gateways_errors_and_an_administrator_reads_them_whole() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let viewer = central.new_token(Role::Viewer).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    let mut gateway = central.client("gw").await;
    gateway.events.mqtt_options.set_max_packet_size(1 << 20, 1 << 20);
    let (first, errors) = planted('a');
    assign(&central, &first).await;
    let streamed = streamed(&central, viewer.clone()).await;
    report(&mut gateway, 1, "backoff", &errors).await;
    answer_command(&central, &errors).await;
    let reported = "/api/devices/gw/modules/$edgeAgent/properties";
    central.until(reported, |shown| shown.to_string().contains(SECRET).then_some(())).await;

    // Where the texts are shown, whole to an administrator and to a viewer without what they quote.
    let places = [
        reported,
        "/api/devices/gw/modules/$edgeAgent/commands/RestartModule",
        "/api/ext/deploymentManifests/line/rollout",
        "/api/ext/devices/gw/status",
        "/api/ext/devices/gw/twin?module=$edgeAgent",
        "/api/ext/devices/gw/twin?module=$edgeHub",
        "/api/ext/devices/gw/why",
        "/api/ext/overview",
    ];
    let hidden = hidden_in(&central, &viewer).await;
    for place in places {
        let whole = central.get(place).await.to_string();
        assert!(whole.contains(&format!("{SECRET}a00")), "{place}: {whole}");
        assert!(hidden.iter().any(|path| path == place), "{place}: {hidden:?}");
    }
    assert!(hidden.iter().any(|path| path == "/status"), "{hidden:?}");
    let shown = read(&central, &viewer, "/api/ext/devices/gw/status").await;
    assert!(shown.contains("executable file not found in $PATH"), "{shown}");

    // Others take its place, and the gateway goes on reporting on the first one, then on the last.
    for letter in ['b', 'c', 'd'] {
        assign(&central, &planted(letter).0).await;
        hidden_in(&central, &viewer).await;
    }
    report(&mut gateway, 2, "running", &planted('d').1).await;
    let is_last = |shown: &Value| shown.to_string().contains(&format!("{SECRET}d00")).then_some(());
    central.until("/api/ext/grid", is_last).await;
    let hidden = hidden_in(&central, &viewer).await;
    assert!(hidden.iter().any(|path| path == "/api/ext/grid"), "{hidden:?}");

    // The stream of events too, up to the state with that reason.
    let until_hidden = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !text_of(&streamed).contains(REDACTED) {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(STEP, until_hidden).await.unwrap();
    let events = text_of(&streamed);
    assert!(!events.contains(&SECRET[..6]), "{events}");
    central.end().await;
}

#[tokio::test]
async fn what_may_be_quoted_is_known_after_a_restart_and_of_manifests_that_an_earlier_version_assigned() {
    let dir = tempfile::tempdir().unwrap();
    let mut central = start(dir.path()).await;
    let (data, errors) = planted('a');
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    assign(&central, &data).await;
    let mut gateway = central.client("gw").await;
    gateway.events.mqtt_options.set_max_packet_size(1 << 20, 1 << 20);
    report(&mut gateway, 1, "running", &errors).await;
    let reported = "/api/devices/gw/modules/$edgeAgent/properties";
    central.until(reported, |shown| shown.to_string().contains(SECRET).then_some(())).await;
    drop(gateway);
    for is_noted in [true, false] {
        if !is_noted {
            // As in a store of a version that did not note it.
            let forget = central.started.store().submit(|c| {
                c.execute("DELETE FROM manifest_quotes", [])?;
                Ok::<_, StoreError>(())
            });
            forget.await.unwrap();
        }
        central.end().await;
        central = start(dir.path()).await;
        let viewer = central.new_token(Role::Viewer).await;
        let hidden = hidden_in(&central, &viewer).await;
        assert!(hidden.iter().any(|path| path == reported), "{hidden:?}");
    }
    // Nothing is kept of a gateway that is deleted.
    central.send(Method::DELETE, "/api/devices/gw", None).await;
    let left =
        central.started.store().read(|c| Ok::<_, StoreError>(central::store::manifest_quotes::state(c)?));
    assert_eq!(left.await.unwrap(), (0, 0));
    central.end().await;
}
