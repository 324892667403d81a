//! `edge-agent check` and central tell what is wrong with a running site.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::LeafOptions;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;

async fn finding(site: &Site, id: &str) -> Value {
    let (_, out, error) = run(&mut site.agent_command(&["check", "--json"]).unwrap()).await.unwrap();
    let findings: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    findings.into_iter().find(|finding| finding["id"] == id).unwrap_or_default()
}

fn signal(site: &Site, name: &str) {
    let id = site.agent_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_and_a_killed_daemon_a_wrong_key_and_a_refused_leaf_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "gw-check", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    // central knows the link a moment before the gateway does.
    site.link_is(true, STEP).await.unwrap();
    for id in ["daemon", "link", "upstream-reachable"] {
        assert_eq!(finding(&site, id).await["level"], "ok", "{id}");
    }

    // A leaf device with another key than its own: here, and at central.
    let leaf = site.add_leaf("press-1", Duration::ZERO).await.unwrap();
    site.leaves_known(&[leaf.login()]).await.unwrap();
    let thief = LeafOptions { key: vec![1; 32], ..leaf };
    assert!(thief.login().open(site.gateway_mqtt).await.is_err());
    let refusals = site.agent_json(&["refusals"]).await.unwrap();
    let refused = &refusals[0];
    assert_eq!(refused["identity"], "press-1", "{refusals}");
    assert!(refused["why"].as_str().unwrap().contains("another key"), "{refusals}");
    assert!(refused["proof"].as_str().unwrap().starts_with("SAS token SHA-256 "), "{refusals}");
    assert_eq!((&refused["from"], &refused["protocol"]), (&"127.0.0.1".into(), &"MQTT 3.1.1".into()));
    assert_eq!(finding(&site, "refusals").await["level"], "warn");
    let rest = site.rest().unwrap().clone();
    let shown_there = eventually("central is told of the refusal", STEP, || async {
        let status = rest.get("/api/ext/devices/gw-check/status").await?;
        let shown_there = status["health"]["refusals"][0].clone();
        Ok((shown_there["identity"] == "press-1").then_some(shown_there))
    });
    assert!(shown_there.await.unwrap()["why"].as_str().unwrap().contains("another key"));

    signal(&site, "-STOP");
    let stopped = finding(&site, "daemon").await;
    assert!(
        stopped["level"] == "error" && stopped["evidence"].as_str().unwrap().contains("no answer"),
        "{stopped}"
    );
    signal(&site, "-CONT");
    site.kill_agent().await.unwrap();
    let killed = finding(&site, "daemon").await;
    assert!(
        killed["level"] == "error" && killed["evidence"].as_str().unwrap().contains("nobody listens"),
        "{killed}"
    );

    // A key that is not the gateway's.
    let text = std::fs::read_to_string(site.edge_toml()).unwrap();
    let at = text.find("SharedAccessKey=").unwrap() + "SharedAccessKey=".len();
    let mut wrong = text.clone();
    wrong.replace_range(at..at + 4, "AAAA");
    std::fs::write(site.edge_toml(), &wrong).unwrap();
    site.start_agent().await.unwrap();
    let found = eventually("the wrong key is found", STEP, || async {
        // A daemon that has not heard from central yet has another reason.
        let found = finding(&site, "link").await;
        let mend = found["mend"].as_str().unwrap_or_default();
        Ok((found["level"] == "error" && mend.contains("connection string")).then_some(()))
    });
    found.await.unwrap();
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_of_a_manifest_from_central_is_logged_once_and_shown_by_central() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "gw-warned", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    let rest = site.rest().unwrap().clone();
    let assign = async |id: &str, module: Value| {
        let content = json!({
            "$edgeAgent": {"properties.desired": {
                "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "systemModules": {},
                "modules": {"filter": module},
            }},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
        });
        let manifest = json!({"displayName": id, "data": {"modulesContent": content}});
        rest.put(&format!("/api/deploymentManifests/{id}"), &manifest).await.unwrap();
        rest.patch("/api/devices/gw-warned", &json!({"deploymentManifest": {"id": id}})).await.unwrap();
    };
    let shown = async |text: &str| {
        let shown_there = eventually("central shows the warnings", STEP, || async {
            let status = rest.get("/api/ext/devices/gw-warned/status").await?;
            let version = rest.get("/api/ext/devices/gw-warned/twin?module=%24edgeAgent").await?;
            let is_in_force = version["reported"]["lastDesiredVersion"] == version["desired"]["$version"]
                && status["manifestWarnings"].to_string().contains(text);
            Ok(is_in_force.then(|| status["manifestWarnings"].clone()))
        });
        shown_there.await.unwrap()
    };
    let module = json!({
        "type": "docker", "status": "stopped", "restartPolicy": "never",
        "settings": {"image": "nobody/pulls:1", "createOptions": "{}"},
    });
    let mut mistyped = module.clone();
    mistyped["restartPolcy"] = "always".into();
    assign("mistyped", mistyped).await;
    let warnings = shown("restartPolcy").await;
    assert_eq!(warnings.as_array().unwrap().len(), 1, "{warnings}");
    let logged = || site.agent_log().lines().filter(|line| line.contains("restartPolcy")).count();
    eventually("the warning is logged", STEP, || async { Ok((logged() > 0).then_some(())) }).await.unwrap();
    // It stands in the status, and is not said again at each start.
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    eventually("the status has the warning", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        Ok(status["deployment"]["warnings"].to_string().contains("restartPolcy").then_some(()))
    })
    .await
    .unwrap();
    assign("right", module).await;
    assert_eq!(shown("[]").await, json!([]));
    let logged = site.agent_log().lines().filter(|line| line.contains("restartPolcy")).count();
    assert_eq!(logged, 1);
    site.end(false).await.unwrap();
}
