//! Bodies and answers that scripts written for IoT Central rely on.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::start;
use reqwest::Method;
use serde_json::{Value, json};

fn manifest(image: &str) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": image, "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1",
            "routes": {"up": "FROM /messages/modules/sensor/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}}}})
}

#[tokio::test]
async fn a_gateway_is_of_type_iot_edge() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for (id, kind) in [("gw-1", "iotEdge"), ("gw-2", "edge"), ("gw-3", "gateway")] {
        let made = central.put(&format!("/api/devices/{id}"), json!({"type": [kind]})).await;
        assert_eq!(made["type"], json!(["iotEdge"]));
        central.put(&format!("/api/devices/{id}"), made).await;
    }
    let (status, refused) =
        central.send(Method::PUT, "/api/devices/x", Some(json!({"type": ["toaster"]}))).await;
    assert_eq!(status, 422, "{refused}");
    central.end().await;
}

#[tokio::test]
async fn simulated_and_organizations_are_given_back_as_they_were_put() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let path = "/api/devices/press-1";
    let made = central.put(path, json!({"simulated": true, "organizations": ["seattle"]})).await;
    assert_eq!((&made["simulated"], &made["organizations"]), (&json!(true), &json!(["seattle"])));
    let renamed = central.patch(path, json!({"displayName": "Press"})).await;
    assert_eq!((&renamed["simulated"], &renamed["organizations"]), (&json!(true), &json!(["seattle"])));
    let site = central.patch(path, json!({"simulated": false, "organizations": []})).await;
    assert_eq!((&site["simulated"], site.get("organizations")), (&json!(false), None));
    assert_eq!(central.get(path).await, site);
    for wrong in [json!(["a", "b"]), json!(["Seattle"]), json!("seattle")] {
        let (status, refused) =
            central.send(Method::PATCH, path, Some(json!({"organizations": wrong}))).await;
        assert_eq!(status, 422, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("organizations"), "{refused}");
    }
    let stored = json!({"data": manifest("sensor:1"), "organizations": ["seattle"]});
    let stored = central.put("/api/deploymentManifests/line", stored).await;
    assert_eq!(stored["organizations"], json!(["seattle"]));
    assert_eq!(central.get("/api/deploymentManifests/line").await, stored);
    central.end().await;
}

#[tokio::test]
async fn a_stored_manifest_is_changed_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let path = "/api/deploymentManifests/line";
    let (status, refused) = central.send(Method::PATCH, path, Some(json!({"displayName": "x"}))).await;
    assert_eq!(status, 404, "{refused}");
    let (status, refused) = central.send(Method::PUT, path, Some(json!({"displayName": "x"}))).await;
    assert_eq!(status, 422, "{refused}");
    central
        .put(path, json!({"displayName": "Line", "data": manifest("sensor:1"), "organizations": ["a"]}))
        .await;
    let renamed = central.patch(path, json!({"displayName": "Line 1"})).await;
    assert_eq!(
        (&renamed["displayName"], &renamed["data"], &renamed["organizations"]),
        (&json!("Line 1"), &manifest("sensor:1"), &json!(["a"]))
    );
    let changed = central.patch(path, json!({"data": manifest("sensor:2")})).await;
    assert_eq!((&changed["displayName"], &changed["data"]), (&json!("Line 1"), &manifest("sensor:2")));
    assert_ne!(changed["etag"], renamed["etag"]);
    let (status, refused) = central.send(Method::PATCH, path, Some(json!({"data": {}}))).await;
    assert_eq!(status, 422, "{refused}");
    assert_eq!(central.get(path).await, changed);
    central.end().await;
}

#[tokio::test]
async fn a_gateway_is_given_a_manifest_that_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.put("/api/devices/leaf", json!({})).await;
    let image = |twin: &Value| twin["desired"]["modules"]["sensor"]["settings"]["image"].clone();
    let agent = "/api/ext/devices/gw/twin?module=$edgeAgent";
    let full = "/api/devices/gw?expand=deploymentManifest";

    let apply = "/api/devices/gw/applyDeploymentManifest";
    let applied = central.ok(Method::POST, apply, Some(json!({"data": manifest("sensor:1")}))).await;
    assert_eq!(applied, json!({"data": manifest("sensor:1")}));
    assert_eq!(image(&central.get(agent).await), "sensor:1");
    assert!(central.get("/api/devices/gw").await.get("deploymentManifest").is_none());
    assert_eq!(central.get(full).await["deploymentManifest"]["data"], manifest("sensor:1"));

    let wish = json!({"deploymentManifest": {"data": manifest("sensor:2")}});
    let patched = central.patch(full, wish).await;
    assert_eq!(patched["deploymentManifest"], json!({"data": manifest("sensor:2")}));
    assert_eq!(image(&central.get(agent).await), "sensor:2");

    // What was read can be put back: of a stored manifest, even one that has changed since.
    central
        .put("/api/deploymentManifests/line", json!({"displayName": "Line", "data": manifest("sensor:3")}))
        .await;
    let assigned = central.patch(full, json!({"deploymentManifest": {"id": "line"}})).await;
    assert_eq!(
        assigned["deploymentManifest"],
        json!({"id": "line", "displayName": "Line", "data": manifest("sensor:3")})
    );
    central.patch("/api/deploymentManifests/line", json!({"data": manifest("sensor:4")})).await;
    let again = central.put(full, assigned.clone()).await;
    assert_eq!(again["deploymentManifest"], assigned["deploymentManifest"]);
    assert_eq!(image(&central.get(agent).await), "sensor:3");
    let stored = central.get("/api/deploymentManifests/line").await;
    central.ok(Method::POST, apply, Some(stored)).await;
    assert_eq!(image(&central.get(agent).await), "sensor:4");

    for (path, body, status, word) in [
        (apply, json!({"id": "line", "data": manifest("sensor:9")}), 422, "data"),
        (apply, json!({}), 422, "data"),
        (apply, json!({"data": {"modulesContent": {}}}), 422, "edgeAgent"),
        ("/api/devices/leaf/applyDeploymentManifest", json!({"data": manifest("sensor:1")}), 422, "iotEdge"),
        ("/api/devices/none/applyDeploymentManifest", json!({"data": manifest("sensor:1")}), 404, "none"),
    ] {
        let (found, refused) = central.send(Method::POST, path, Some(body)).await;
        assert_eq!(found, status, "{path}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(word), "{refused}");
    }
    assert_eq!(image(&central.get(agent).await), "sensor:4");
    central.end().await;
}

#[tokio::test]
async fn an_error_says_its_code_in_a_header_and_its_time_as_rfc_1123() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for (path, token, code) in [
        ("/api/devices/none?api-version=1.0", central.token.as_str(), "NotFound"),
        ("/api/devices/none?api-version=9.9", central.token.as_str(), "InvalidApiVersion"),
        ("/api/devices?api-version=1.0", "nonsense", "Unauthorized"),
    ] {
        let request = central.http.get(central.url(path)).header("Authorization", token);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["x-ms-error-code"], code);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], code);
        let time = body["error"]["time"].as_str().unwrap();
        let (day, rest) = time.split_at(5);
        assert!(day.ends_with(", ") && rest.ends_with(" GMT") && time.len() == 29, "{time}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_property_that_is_written_is_accepted_with_202() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"data": manifest("sensor:1")}})).await;
    for path in ["/api/devices/gw/properties", "/api/devices/gw/modules/sensor/properties"] {
        for method in [Method::PUT, Method::PATCH] {
            let (status, answer) = central.send(method.clone(), path, Some(json!({"speed": 3}))).await;
            assert_eq!(status, 202, "{method} {path}: {answer}");
            assert_eq!(answer["$metadata"]["speed"]["desiredValue"], 3);
        }
    }
    central.end().await;
}
