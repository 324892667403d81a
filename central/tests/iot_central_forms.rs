//! Bodies and answers that scripts written for IoT Central rely on.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::clock;
use central::store::StoreError;
use central::store::twins::{self, Half};
use central::token::Role;
use common::{STEP, start};
use reqwest::Method;
use schemas::twin::Section;
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

    let request = json!({"deploymentManifest": {"data": manifest("sensor:2")}});
    let patched = central.patch(full, request).await;
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

    for (path, body, status, phrase) in [
        (apply, json!({"id": "line", "data": manifest("sensor:9")}), 422, "data"),
        (apply, json!({}), 422, "data"),
        (apply, json!({"data": {"modulesContent": {}}}), 422, "edgeAgent"),
        ("/api/devices/leaf/applyDeploymentManifest", json!({"data": manifest("sensor:1")}), 422, "iotEdge"),
        ("/api/devices/none/applyDeploymentManifest", json!({"data": manifest("sensor:1")}), 404, "none"),
    ] {
        let (found, refused) = central.send(Method::POST, path, Some(body)).await;
        assert_eq!(found, status, "{path}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(phrase), "{refused}");
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

/// Puts what a device would report into its twin.
async fn report(central: &common::Central, of: &str, reported: Value) {
    let properties = reported.as_object().unwrap().clone();
    let of = of.parse().unwrap();
    let write = move |c: &_| {
        let section = Section { version: 1, properties };
        Ok::<_, StoreError>(twins::write(c, &of, Half::Reported, &section, clock::now_ms())?)
    };
    central.started.store().submit(write).await.unwrap();
}

#[tokio::test]
async fn a_component_has_its_own_properties_and_its_acknowledgements_are_unwrapped() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"data": manifest("sensor:1")}})).await;
    central.put("/api/devices/leaf", json!({})).await;
    for (root, identity) in [("/api/devices/leaf", "leaf"), ("/api/devices/gw/modules/sensor", "gw/sensor")] {
        let component = format!("{root}/components/fan/properties");
        let whole = format!("{root}/properties");
        assert_eq!(central.send(Method::GET, &component, None).await.0, 404);
        let (status, written) = central.send(Method::PATCH, &component, Some(json!({"speed": 3}))).await;
        assert_eq!((status, &written["$metadata"]["speed"]["desiredValue"]), (202, &json!(3)), "{written}");
        report(
            &central,
            identity,
            json!({"fan": {"__t": "c", "speed": {"value": 2, "ac": 200, "av": 1, "ad": "done"}, "rpm": 90}, "plain": 1,
                "lamp": {"__t": "c", "on": true}}),
        )
        .await;
        let shown = central.get(&component).await;
        assert_eq!((&shown["speed"], &shown["rpm"], shown.get("__t")), (&json!(2), &json!(90), None));
        let about = &shown["$metadata"]["speed"];
        assert_eq!(
            (&about["ackCode"], &about["ackVersion"], &about["ackDescription"], &about["desiredVersion"]),
            (&json!(200), &json!(1), &json!("done"), &json!(1))
        );
        let all = central.get(&whole).await;
        assert_eq!((&all["fan"], &all["plain"]), (&shown, &json!(1)));
        let names: Vec<Value> = central.get(&format!("{root}/components")).await["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].clone())
            .collect();
        assert_eq!(names, ["fan", "lamp"]);

        // The twin that the device reads has the marker, whichever path wrote it and whoever was first.
        let module =
            identity.split_once('/').map(|(_, module)| format!("?module={module}")).unwrap_or_default();
        let device = identity.split('/').next().unwrap();
        let twin = format!("/api/ext/devices/{device}/twin{module}");
        central.patch(&whole, json!({"lamp": {"on": false}, "fan": {"mode": "auto"}})).await;
        let desired = central.get(&twin).await["desired"].clone();
        assert_eq!(desired["lamp"], json!({"__t": "c", "on": false}));
        assert_eq!(desired["fan"], json!({"__t": "c", "speed": 3, "mode": "auto"}));
        // Replacing one leaves the others; what was read can be written.
        central.put(&component, json!({"speed": 5})).await;
        let desired = central.get(&twin).await["desired"].clone();
        assert_eq!(desired["fan"], json!({"__t": "c", "speed": 5}));
        assert_eq!(desired["lamp"], json!({"__t": "c", "on": false}));
        let all = central.get(&whole).await;
        let again = central.put(&whole, all).await;
        assert_eq!(again["fan"]["$metadata"]["speed"]["desiredValue"], 2, "{again}");
        assert_eq!(central.get(&twin).await["desired"]["fan"]["__t"], "c");

        for (name, status) in [("plain", 409), ("a.b", 400), ("a*b", 400), ("%20", 400)] {
            let path = format!("{root}/components/{name}/properties");
            let (found, refused) = central.send(Method::PATCH, &path, Some(json!({"x": 1}))).await;
            assert_eq!(found, status, "{path}: {refused}");
        }
        let (status, refused) = central.send(Method::PATCH, &component, Some(json!({"a.b": 1}))).await;
        assert_eq!(status, 422, "{refused}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_command_of_a_component_is_the_method_of_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let path = "/api/devices/leaf/components/fan/commands/stop";
    let (status, refused) = central.send(Method::POST, path, Some(json!({"request": 1}))).await;
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("DeviceNotConnected")));
    let mut leaf = central.client("leaf").await;
    leaf.subscribe("$iothub/methods/POST/#").await;
    let answer = async {
        let (topic, body) = leaf.message("$iothub/methods/POST/").await;
        assert!(topic.starts_with("$iothub/methods/POST/fan*stop/"), "{topic}");
        let id = topic.split_once("$rid=").unwrap().1;
        leaf.publish(&format!("$iothub/methods/res/200/?$rid={id}"), json!({"got": body}).to_string()).await;
    };
    let (answered, ()) = tokio::join!(central.send(Method::POST, path, Some(json!({"request": 7}))), answer);
    assert_eq!((answered.0, &answered.1["response"]), (201, &json!({"got": 7})), "{}", answered.1);
    let history = central.get(path).await;
    assert_eq!(history["value"].as_array().unwrap().len(), 2, "{history}");
    assert_eq!(central.get("/api/devices/leaf/commands/fan*stop").await, history);
    central.end().await;
}

#[tokio::test]
async fn a_viewer_sees_no_secret_by_naming_the_component_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let path = "/api/devices/leaf/components/credentials/properties";
    central.patch(path, json!({"pump": "hunter2", "pin": 1234})).await;
    let viewer = central.new_token(Role::Viewer).await;
    for path in [path, "/api/devices/leaf/properties"] {
        let (status, shown) = central.send_as(&viewer, Method::GET, path, None).await;
        assert_eq!(status, 200);
        let text = shown.to_string();
        assert!(!text.contains("hunter2") && !text.contains("1234"), "{path}: {text}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_relationship_is_seen_and_changed_from_both_its_ends_and_lists_have_pages() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    for leaf in 1..=3 {
        central.put(&format!("/api/devices/leaf-{leaf}"), json!({})).await;
        let path = format!("/api/devices/gw/relationships/r-{leaf}");
        central.put(&path, json!({"source": "gw", "target": format!("leaf-{leaf}")})).await;
    }
    let page = central.get("/api/devices/gw/relationships?$top=2").await;
    assert_eq!(page["value"].as_array().unwrap().len(), 2);
    let next = page["nextLink"].as_str().unwrap();
    let rest = central.http.get(next).header("Authorization", &central.token).send().await.unwrap();
    let rest: Value = rest.json().await.unwrap();
    assert_eq!((&rest["value"][0]["id"], rest.get("nextLink")), (&json!("r-3"), None));

    let seen = central.get("/api/devices/leaf-2/relationships").await;
    assert_eq!(seen["value"], json!([{"id": "r-2", "name": "r-2", "source": "gw", "target": "leaf-2"}]));
    assert_eq!(central.get("/api/devices/leaf-2/relationships/r-2").await, seen["value"][0]);

    central.put("/api/devices/leaf-4", json!({})).await;
    let moved = central.patch("/api/devices/gw/relationships/r-1", json!({"target": "leaf-4"})).await;
    assert_eq!((&moved["source"], &moved["target"]), (&json!("gw"), &json!("leaf-4")));
    assert_eq!(central.get("/api/ext/devices/leaf-1/status").await["gateway"], Value::Null);
    assert_eq!(central.get("/api/ext/devices/leaf-4/status").await["gateway"], "gw");
    let named = central.patch("/api/devices/leaf-2/relationships/r-2", json!({"name": "press"})).await;
    assert_eq!((&named["name"], &named["target"]), (&json!("press"), &json!("leaf-2")));
    for (path, body, status) in [
        ("/api/devices/gw/relationships/none", json!({"target": "leaf-1"}), 404),
        ("/api/devices/gw/relationships/r-1", json!({"target": "leaf-2"}), 409),
        ("/api/devices/gw/relationships/r-1", json!({"source": "leaf-1"}), 422),
    ] {
        let (found, refused) = central.send(Method::PATCH, path, Some(body)).await;
        assert_eq!(found, status, "{path}: {refused}");
    }
    central.ok(Method::DELETE, "/api/devices/leaf-2/relationships/r-2", None).await;
    assert_eq!(central.send(Method::GET, "/api/devices/gw/relationships/r-2", None).await.0, 404);
    let made = json!({"source": "gw", "target": "leaf-2"});
    let made = central.put("/api/devices/leaf-2/relationships/r-2", made).await;
    assert_eq!(central.get("/api/devices/gw/relationships/r-2").await, made);
    central.end().await;
}

#[tokio::test]
async fn certificates_are_shown_by_their_sha1_and_credentials_name_what_proves_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let path = "/api/devices/leaf/attestation";
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["leaf".into()]).unwrap().self_signed(&key).unwrap();
    let sha1 = edge_core::access::thumbprint::Thumbprint::Sha1(
        edge_core::access::proof::Fingerprint::of(certificate.der()).sha1,
    )
    .to_string();
    let given = json!({"clientCertificates": {"primary": {"certificate": certificate.pem()}}});
    let set = central.put(path, json!({"type": "x509", "x509": given})).await;
    let info = &set["x509"]["clientCertificates"]["primary"]["info"];
    assert_eq!((&set["type"], &info["sha1Thumbprint"]), (&json!("x509"), &json!(sha1)), "{set}");
    assert!(info["sha256Thumbprint"].is_string());
    assert_eq!(central.get(path).await, set);
    assert_eq!(central.put(path, set.clone()).await, set, "what was read can be put back");
    let shown = central.get("/api/devices/leaf/credentials").await;
    assert_eq!((&shown["x509"], shown.get("symmetricKey")), (&set["x509"], None), "{shown}");
    assert!(shown["idScope"].is_string());

    let tpm = json!({"type": "tpm", "tpm": {"endorsementKey": "AToAAQALAAMAsgAg"}});
    assert_eq!(central.put(path, tpm.clone()).await, tpm);
    assert_eq!(central.get(path).await, tpm);
    let shown = central.get("/api/devices/leaf/credentials").await;
    assert_eq!((&shown["tpm"], shown.get("x509")), (&tpm["tpm"], None), "{shown}");
    for wrong in [
        json!({"type": "tpm"}),
        json!({"type": "tpm", "tpm": {"endorsementKey": "no base64!"}}),
        json!({"type": "x509", "tpm": tpm["tpm"]}),
        json!({"x509": given, "tpm": tpm["tpm"]}),
        json!({"type": "password"}),
    ] {
        let (status, refused) = central.send(Method::PUT, path, Some(wrong)).await;
        assert_eq!(status, 422, "{refused}");
    }
    central.ok(Method::DELETE, path, None).await;
    assert_eq!(central.get(path).await["type"], "symmetricKey");
    central.end().await;
}

#[tokio::test]
async fn a_device_with_a_tpm_is_not_let_in_by_the_keys_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let mut with_keys = central.client("leaf").await;
    with_keys.subscribe("$iothub/methods/POST/#").await;
    let mut again = central.client("leaf").await;
    let tpm = json!({"type": "tpm", "tpm": {"endorsementKey": "AToAAQALAAMAsgAg"}});
    central.put("/api/devices/leaf/attestation", tpm).await;
    let closed = async { while with_keys.events.poll().await.is_ok() {} };
    tokio::time::timeout(STEP, closed).await.expect("the connection by its key is closed");
    let refused = tokio::time::timeout(STEP, async {
        loop {
            match again.events.poll().await {
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        }
    });
    let refused = refused.await.unwrap();
    assert!(refused.contains("BadUserNamePassword") || refused.contains("NotAuthorized"), "{refused}");
    central.end().await;
}

#[tokio::test]
async fn the_last_value_of_a_component_is_not_that_of_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let mut leaf = central.client("leaf").await;
    for (sub, value) in [("", 1), ("%24.sub=fan", 2), ("%24.sub=lamp", 3)] {
        leaf.publish(&format!("devices/leaf/messages/events/{sub}"), format!("{{\"t\":{value}}}")).await;
    }
    for (path, value) in [("", 1), ("/components/fan", 2), ("/components/lamp", 3)] {
        let last = central.get(&format!("/api/devices/leaf{path}/telemetry/t")).await;
        assert_eq!(last["value"], value, "{path}: {last}");
    }
    assert_eq!(central.send(Method::GET, "/api/devices/leaf/components/none/telemetry/t", None).await.0, 404);
    central.end().await;
}
