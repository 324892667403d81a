//! central's API against its own description: schemathesis makes requests of `/openapi.json`, right ones and wrong ones, and no answer may be
//! a server's error, have a status or a content type that is not described, or a body that is not as described.
//!
//! The requests are the same in every run. `LINESIDE_SCHEMATHESIS_EXAMPLES` makes that many for each operation (4 when it is not set), and
//! `LINESIDE_SCHEMATHESIS_SEED` others.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::client::cache;
use site_tests::process::run;
use site_tests::rest::Rest;
use site_tests::site::Site;
use tokio::process::Command;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance";

/// What the requests find beside what they make.
async fn fill(rest: &Rest) {
    let manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let group = json!({"displayName": "Line", "type": "iot", "attestation": {"type": "symmetricKey"}});
    for (path, body) in [
        ("/api/deploymentManifests/0", json!({"data": manifest})),
        ("/api/devices/0", json!({"type": ["iotEdge"], "deploymentManifest": {"id": "0"}})),
        ("/api/devices/1", json!({"organizations": ["seattle"], "template": "dtmi:site:press;1"})),
        ("/api/devices/0/relationships/0", json!({"source": "0", "target": "1"})),
        ("/api/devices/1/properties", json!({"speed": 12.5, "fan": {"__t": "c", "on": true}})),
        ("/api/enrollmentGroups/0", group),
    ] {
        rest.put(path, &body).await.unwrap();
    }
}

/// The description with ids that exist beside others that do not, so that requests reach what they are for; and each parameter by one
/// name, because its other names beside it are refused.
fn with_ids(mut document: Value) -> Value {
    let ids = [
        ("device_id", ["0", "1", "2"]),
        ("manifest_id", ["0", "1", "2"]),
        ("group_id", ["0", "1", "2"]),
        ("relationship_id", ["0", "1", "2"]),
        ("module_name", ["sensor", "filter", "none"]),
        ("component_name", ["fan", "pump", "none"]),
        ("telemetry_name", ["speed", "value", "none"]),
    ];
    let paths = document["paths"].as_object_mut().unwrap();
    // Events never end, wrong passwords are slowed, and commands wait for their target as long as the request says.
    paths.retain(|path, _| {
        !["/api/ext/events", "/api/ext/session", "/api/ext/setup"].contains(&path.as_str())
    });
    for (path, item) in paths.iter_mut() {
        if path.contains("/commands/") {
            item.as_object_mut().unwrap().remove("post");
        }
    }
    for operation in document["paths"]
        .as_object_mut()
        .unwrap()
        .values_mut()
        .flat_map(|item| item.as_object_mut().unwrap().values_mut())
    {
        let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else {
            continue;
        };
        parameters.retain(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            !["$top", "$maxpagesize", "$filter", "$orderby", "$skiptoken"].contains(&name)
        });
        for parameter in parameters {
            let of = ids.iter().find(|(name, _)| parameter["name"] == *name);
            if let Some((_, ids)) = of {
                parameter["schema"] = json!({"type": "string", "enum": ids});
            }
        }
    }
    document
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::test]
async fn every_request_that_the_description_allows_and_its_opposites_are_answered_as_described() {
    let program = cache().join("api/bin/schemathesis");
    assert!(program.exists(), "schemathesis is not installed; install it first: scripts/ensure-clients.sh");
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "described", false).unwrap();
    site.start_central().await.unwrap();
    let rest = site.rest().unwrap().clone();
    fill(&rest).await;
    let document = with_ids(rest.get("/openapi.json").await.unwrap());
    std::fs::write(dir.path().join("openapi.json"), document.to_string()).unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(dir.path())
        .args(["run", "openapi.json", "--url", &format!("http://{}", site.http)])
        .args(["--header", &format!("Authorization: {}", site.token())])
        .args(["--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing", "--workers", "1", "--continue-on-failure"])
        .args(["--max-examples", &setting("LINESIDE_SCHEMATHESIS_EXAMPLES", "4")])
        .args(["--seed", &setting("LINESIDE_SCHEMATHESIS_SEED", "1"), "--generation-deterministic"])
        .args(["--generation-with-security-parameters", "false"])
        .args([
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
            "--request-timeout",
            "60",
            "--no-color",
        ]);
    let (code, out, error) =
        tokio::time::timeout(Duration::from_secs(3600), run(&mut command)).await.unwrap().unwrap();
    println!(
        "{}",
        out.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    assert_eq!(code, 0, "{out}\n{error}");
    // It is up, and its store is whole.
    assert_eq!(rest.get("/api/ext/health").await.unwrap()["status"], "ok");
    site.end(false).await.unwrap();
}
