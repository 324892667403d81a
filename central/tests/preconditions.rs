//! Etags: a change names the state that it was made for, and is refused when another one has come in between.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, STEP, start};
use reqwest::{Method, Response};
use serde_json::{Value, json};

fn manifest() -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "sensor:1", "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}}})
}

fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// A thing that has an etag.
struct Resource {
    path: &'static str,
    /// Makes it.
    made: Value,
    /// Two changes that make different states of it.
    changes: [Value; 2],
    is_patched: bool,
}

async fn resources(central: &Central) -> Vec<Resource> {
    let names = || [json!({"displayName": "one"}), json!({"displayName": "two"})];
    central.put("/api/enrollmentGroups/x509", json!({"attestation": {"type": "x509"}})).await;
    let resource = |path, made, changes, is_patched| Resource { path, made, changes, is_patched };
    let pem = authority();
    vec![
        resource("/api/devices/gw", json!({"type": ["iotEdge"]}), names(), true),
        resource("/api/deploymentManifests/line", json!({"data": manifest()}), names(), true),
        resource(
            "/api/deviceTemplates/dtmi:site:press;1",
            json!({"@type": ["ModelDefinition", "DeviceModel"],
                "capabilityModel": {"@id": "dtmi:site:press:model;1", "@type": "Interface"}}),
            names(),
            true,
        ),
        resource(
            "/api/enrollmentGroups/keys",
            json!({"attestation": {"type": "symmetricKey"}}),
            names(),
            true,
        ),
        resource(
            "/api/enrollmentGroups/x509/certificates/primary",
            json!({"certificate": pem}),
            [json!({"verified": true}), json!({"verified": false})],
            false,
        ),
    ]
}

async fn send(
    central: &Central,
    method: Method,
    path: &str,
    condition: Option<(&str, &str)>,
    body: Option<&Value>,
) -> Response {
    let url = format!("{}?api-version=2022-07-31", central.url(path));
    let mut request = central.http.request(method, url).header("Authorization", &central.token).timeout(STEP);
    if let Some((name, value)) = condition {
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.unwrap()
}

fn tag(of: &Value) -> String {
    of["etag"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_change_of_another_state_than_it_names_is_refused_for_everything_that_has_an_etag() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for Resource { path, made, changes, is_patched } in resources(&central).await {
        let nothing = send(&central, Method::PUT, path, Some(("If-Match", "*")), Some(&made)).await;
        assert_eq!(nothing.status(), 412, "{path}");
        assert_eq!(nothing.headers()["x-ms-error-code"], "PreconditionFailed");
        assert_eq!(central.send(Method::GET, path, None).await.0, 404, "{path}");
        let new = send(&central, Method::PUT, path, Some(("If-None-Match", "*")), Some(&made)).await;
        assert_eq!(new.status(), 200, "{path}");
        assert!(new.headers().contains_key("etag"), "{path}");
        let mut stale = "\"never\"".to_owned();
        for method in
            [Method::PUT, Method::PATCH].into_iter().filter(|method| is_patched || *method == Method::PUT)
        {
            for change in [&changes[0], &changes[1], &changes[0]] {
                let before = central.get(path).await;
                let current = tag(&before);
                let mut of_stale = change.clone();
                of_stale["etag"] = stale.clone().into();
                for (condition, body) in [
                    (Some(("If-Match", stale.as_str())), change),
                    (Some(("If-Match", "")), change),
                    (Some(("If-None-Match", "*")), change),
                    (Some(("If-None-Match", current.as_str())), change),
                    (None, &of_stale),
                    (Some(("If-Match", current.as_str())), &of_stale),
                ] {
                    let refused = send(&central, method.clone(), path, condition, Some(body)).await;
                    assert_eq!(refused.status(), 412, "{method} {path} {condition:?} {body}");
                    assert_eq!(central.get(path).await, before, "{method} {path} {condition:?} {body}");
                }
                let listed = format!("{stale}, W/{current}");
                let done =
                    send(&central, method.clone(), path, Some(("If-Match", &listed)), Some(change)).await;
                assert_eq!(done.status(), 200, "{method} {path}");
                let header = done.headers()["etag"].to_str().unwrap().to_owned();
                let after = central.get(path).await;
                assert_eq!((header, tag(&done.json().await.unwrap())), (tag(&after), tag(&after)), "{path}");
                stale = current;
                let mut of_current = change.clone();
                of_current["etag"] = tag(&after).into();
                central.ok(method.clone(), path, Some(of_current)).await;
                let any = send(&central, method.clone(), path, Some(("If-Match", "*")), Some(change)).await;
                assert_eq!(any.status(), 200, "{method} {path}");
            }
        }
        let refused = send(&central, Method::DELETE, path, Some(("If-Match", "\"never\"")), None).await;
        assert_eq!(refused.status(), 412, "{path}");
        let current = tag(&central.get(path).await);
        let gone = send(&central, Method::DELETE, path, Some(("If-Match", &current)), None).await;
        assert_eq!(gone.status(), 204, "{path}");
    }
    central.end().await;
}

#[tokio::test]
async fn what_is_made_in_place_of_something_deleted_has_none_of_its_etags_and_is_not_changed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let all = resources(&central).await;
    let described = central.get("/openapi.json").await;
    let with_etag = described["paths"].as_object().unwrap().values();
    let with_etag = with_etag.filter(|path| path["get"]["responses"].get("304").is_some()).count();
    assert_eq!(all.len(), with_etag);
    for Resource { path, made, changes, is_patched } in all {
        let mut tags = vec![tag(&central.put(path, made.clone()).await)];
        for change in &changes {
            tags.push(tag(&central.put(path, change.clone()).await));
        }
        central.ok(Method::DELETE, path, None).await;
        let mut successor = made;
        if successor.get("certificate").is_some() {
            successor["certificate"] = authority().into();
        }
        // As many changes as before: neither its first state nor its last one has an earlier etag.
        for state in [&successor, &changes[1], &changes[0]] {
            central.put(path, state.clone()).await;
            let current = central.get(path).await;
            assert!(!tags.contains(&tag(&current)), "{path}: {current}");
            for stale in &tags {
                let stale = stale.as_str();
                let read = send(&central, Method::GET, path, Some(("If-None-Match", stale)), None).await;
                assert_eq!(read.status(), 200, "{path} {stale}");
                assert_eq!(read.json::<Value>().await.unwrap(), current, "{path} {stale}");
                let mut of_stale = changes[0].clone();
                of_stale["etag"] = stale.into();
                let named = Some(("If-Match", stale));
                for (method, condition, body) in [
                    (Method::PUT, named, Some(&changes[0])),
                    (Method::PUT, None, Some(&of_stale)),
                    (Method::PATCH, named, Some(&changes[0])),
                    (Method::PATCH, None, Some(&of_stale)),
                    (Method::DELETE, named, None),
                ] {
                    if method == Method::PATCH && !is_patched {
                        continue;
                    }
                    let refused = send(&central, method.clone(), path, condition, body).await;
                    assert_eq!(refused.status(), 412, "{method} {path} {condition:?} {body:?}");
                    assert_eq!(central.get(path).await, current, "{method} {path} {condition:?} {body:?}");
                }
            }
        }
        if path == "/api/devices/gw" {
            let assign = json!({"data": manifest()});
            let path = "/api/devices/gw/applyDeploymentManifest";
            for stale in &tags {
                let refused =
                    send(&central, Method::POST, path, Some(("If-Match", stale)), Some(&assign)).await;
                assert_eq!(refused.status(), 412, "{path} {stale}");
            }
        }
    }
    central.end().await;
}

#[tokio::test]
async fn whoever_has_the_current_version_gets_304_and_every_answer_with_an_etag_has_it_in_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for resource in resources(&central).await {
        central.put(resource.path, resource.made).await;
    }
    central.put("/api/devices/leaf", json!({})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
    let described = central.get("/openapi.json").await;
    let mut with_etag = 0;
    for (path, operations) in described["paths"].as_object().unwrap() {
        let concrete = path
            .replace("{device_id}", "gw")
            .replace("{relationship_id}", "r")
            .replace("{manifest_id}", "line")
            .replace("{template_id}", "dtmi:site:press;1")
            .replace("{group_id}", "x509")
            .replace("{entry}", "primary");
        // A stream of events has no end to wait for.
        let is_stream = operations["get"]["responses"]["200"]["content"].get("text/event-stream").is_some();
        if operations.get("get").is_none() || concrete.contains('{') || is_stream {
            continue;
        }
        let read = send(&central, Method::GET, &concrete, None, None).await;
        let header = read.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_str(&read.text().await.unwrap()).unwrap_or_default();
        let is_described = operations["get"]["responses"].get("304").is_some();
        assert_eq!(header.as_deref(), body["etag"].as_str(), "{path}");
        assert_eq!(header.is_some(), is_described, "{path}");
        let Some(current) = header else { continue };
        with_etag += 1;
        for change in ["put", "patch", "delete"].into_iter().filter_map(|method| operations.get(method)) {
            assert!(change["responses"].get("412").is_some(), "{path}: {change}");
        }
        for (known, status) in [(current.as_str(), 304), ("*", 304), ("\"never\"", 200)] {
            let again = send(&central, Method::GET, &concrete, Some(("If-None-Match", known)), None).await;
            assert_eq!(
                (again.status().as_u16(), again.headers()["etag"].to_str().unwrap()),
                (status, &*current),
                "{path}"
            );
            assert_eq!(again.bytes().await.unwrap().is_empty(), status == 304, "{path}");
        }
    }
    assert_eq!(with_etag, 5);
    central.end().await;
}

#[tokio::test]
async fn a_registration_has_another_etag_once_what_is_read_of_it_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/deploymentManifests/line", json!({"data": manifest()})).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"], "deploymentManifest": {"id": "line"}})).await;
    let before = central.get("/api/devices/gw").await;
    central.patch("/api/deploymentManifests/line", json!({"displayName": "Line 1"})).await;
    let renamed = central.get("/api/devices/gw").await;
    assert_eq!(renamed["deploymentManifest"]["displayName"], "Line 1");
    assert_ne!(renamed["etag"], before["etag"]);

    let registered = central.put("/api/devices/leaf", json!({})).await;
    let mut mqtt = central.client("leaf").await;
    mqtt.subscribe("devices/leaf/messages/devicebound/#").await;
    let connected = central
        .until("/api/devices/leaf", |device| (device["provisioned"] == true).then(|| device.clone()))
        .await;
    assert_ne!(connected["etag"], registered["etag"]);
    central.end().await;
}

#[tokio::test]
async fn of_changes_that_name_the_same_state_one_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press", json!({})).await;
    for round in 0..5 {
        let current = tag(&central.get("/api/devices/press").await);
        let bodies: Vec<Value> = (0..8).map(|n| json!({"displayName": format!("{round}-{n}")})).collect();
        let condition = Some(("If-Match", current.as_str()));
        let path = "/api/devices/press";
        let [a, b, c, d, e, f, g, h] =
            std::array::from_fn(|n| send(&central, Method::PATCH, path, condition, Some(&bodies[n])));
        let all = tokio::join!(a, b, c, d, e, f, g, h);
        let statuses: Vec<u16> = [all.0, all.1, all.2, all.3, all.4, all.5, all.6, all.7]
            .map(|answer| answer.status().as_u16())
            .into();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_condition_that_nobody_would_check_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let path = "/api/devices/leaf/properties";
    let body = json!({"limit": 1});
    for (name, value, status) in
        [("If-Match", "\"1\"", 412), ("If-None-Match", "*", 412), ("If-Match", "*", 202)]
    {
        let answer = send(&central, Method::PATCH, path, Some((name, value)), Some(&body)).await;
        assert_eq!(answer.status(), status, "{name}: {value}");
    }
    central.end().await;
}
