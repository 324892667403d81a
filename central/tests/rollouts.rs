//! What a manifest would do to a gateway, where its routes send a message, and how far gateways are with it: over REST, with a gateway that
//! reports as `edge-agent` does.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::{Central, Mqtt, start};
use reqwest::Method;
use serde_json::{Value, json};

fn manifest(modules: Value) -> Value {
    let agent = json!({"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "systemModules": {}, "modules": modules});
    let hub = json!({"schemaVersion": "1.1", "routes": {"all": "FROM /messages/* INTO $upstream"}});
    json!({"modulesContent": {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}}})
}

fn module(image: &str) -> Value {
    json!({"version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "env": {"PASSWORD": {"value": "hunter2"}}, "settings": {"image": image, "createOptions": "{}"}})
}

async fn gateway(central: &Central, id: &str) -> Mqtt {
    central.put(&format!("/api/devices/{id}"), json!({"type": ["iotEdge"]})).await;
    let mut client = central.client(id).await;
    client.events.mqtt_options.set_max_packet_size(1 << 20, 1 << 20);
    client
}

async fn assign(central: &Central, id: &str, manifest: &str) {
    let path = format!("/api/devices/{id}/applyDeploymentManifest");
    central.ok(Method::POST, &path, Some(json!({"id": manifest}))).await;
}

/// Reports that modules of the manifest of `version` run, as the gateway does.
async fn report(client: &mut Mqtt, id: &str, version: u64, code: u64, modules: Value) {
    let report = json!({"$version": version, "lastDesiredVersion": version, "modules": modules,
        "lastDesiredStatus": {"code": code, "description": if code == 200 { "" } else { "a: no such image" }}});
    client.publish(&format!("$ls/reported/{id}/$edgeAgent"), report.to_string()).await;
}

fn running(image: &str) -> Value {
    json!({"runtimeStatus": "running", "settings": {"image": image}})
}

/// The gateways of a rollout with their states, in order.
fn states(rollout: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rollout["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["gateway"]), text(&row["state"])))
        .collect()
}

#[tokio::test]
async fn a_rollout_follows_each_gateway_from_not_delivered_to_running_failed_and_out_of_date() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let path = "/api/ext/deploymentManifests/line/rollout";
    assert_eq!(central.send(Method::GET, path, None).await.0, 404);
    central
        .put("/api/deploymentManifests/line", json!({"data": manifest(json!({"a": module("a:1")}))}))
        .await;
    assert_eq!(central.get(path).await["total"], 0);
    let mut clients = Vec::new();
    for id in ["gw-1", "gw-2", "gw-3"] {
        clients.push(gateway(&central, id).await);
        assign(&central, id, "line").await;
    }
    central.put("/api/devices/gw-other", json!({"type": ["iotEdge"]})).await;
    assert_eq!(central.get(path).await["counts"]["notDelivered"], 3);

    report(&mut clients[0], "gw-1", 1, 200, json!({"a": running("a:1")})).await;
    report(&mut clients[1], "gw-2", 1, 500, json!({"a": {"runtimeStatus": "backoff"}})).await;
    report(&mut clients[2], "gw-3", 1, 406, json!({})).await;
    let all = |rollout: &Value| (rollout["counts"]["notDelivered"] == 0).then(|| rollout.clone());
    let rollout = central.until(path, all).await;
    let of = |pairs: [(&str, &str); 3]| pairs.map(|(id, state)| (id.to_owned(), state.to_owned()));
    assert_eq!(states(&rollout), of([("gw-2", "failed"), ("gw-3", "applying"), ("gw-1", "running")]));
    assert_eq!(rollout["value"][0]["reason"], "a: no such image");

    // A change of the stored manifest makes the others out of date; what failed stays first.
    central
        .patch("/api/deploymentManifests/line", json!({"data": manifest(json!({"a": module("a:2")}))}))
        .await;
    let rollout = central.get(path).await;
    assert_eq!(states(&rollout), of([("gw-2", "failed"), ("gw-1", "outOfDate"), ("gw-3", "outOfDate")]));
    assign(&central, "gw-1", "line").await;
    let rollout = central.get(path).await;
    assert_eq!(states(&rollout), of([("gw-2", "failed"), ("gw-3", "outOfDate"), ("gw-1", "notDelivered")]));

    // Pages and filters.
    let first = central.get(&format!("{path}?limit=2")).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = central.get(&format!("{path}?limit=2&cursor={cursor}")).await;
    assert_eq!([states(&first), states(&second)].concat(), states(&rollout));
    assert_eq!((&second["nextCursor"], &second["total"]), (&Value::Null, &json!(3)));
    assert_eq!(states(&central.get(&format!("{path}?state=failed")).await).len(), 1);
    for wrong in ["state=green", "cursor=x", "limit=0", "limit=501"] {
        assert_eq!(central.send(Method::GET, &format!("{path}?{wrong}"), None).await.0, 400, "{wrong}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_preview_says_what_is_replaced_and_why_and_what_central_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut client = gateway(&central, "gw").await;
    let path = "/api/ext/devices/gw/deploymentManifest/preview";
    let old = json!({"kept": module("k:1"), "changed": module("c:1"), "gone": module("g:1")});
    central.put("/api/deploymentManifests/line", json!({"data": manifest(old)})).await;
    let preview = async |body: Value| central.ok(Method::POST, path, Some(body)).await;
    let counted = preview(json!({"id": "line"})).await;
    assert_eq!(counted["counts"]["create"], 3, "{counted}");
    assert!(counted["unknown"][0].as_str().unwrap().contains("has not reported"), "{counted}");

    assign(&central, "gw", "line").await;
    let modules = json!({"kept": running("k:1"), "changed": running("c:1"), "gone": running("g:1")});
    report(&mut client, "gw", 1, 200, modules).await;
    central
        .until("/api/ext/deploymentManifests/line/rollout", |rollout| {
            (rollout["counts"]["running"] == 1).then_some(())
        })
        .await;
    let mut changed = module("c:1");
    changed["env"]["PASSWORD"]["value"] = json!("correct horse");
    let mut new = manifest(json!({"kept": module("k:1"), "changed": changed, "new": module("n:1")}));
    new["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] =
        json!({"all": "FROM /* INTO $upstream"});
    new["modulesContent"]["new"] = json!({"properties.desired": {"rate": 5}});
    let found = preview(json!({"data": new})).await;
    let effects: Vec<String> = found["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            format!(
                "{} {} {}",
                of["module"].as_str().unwrap(),
                of["effect"].as_str().unwrap(),
                of["fields"][0]["field"]
            )
        })
        .collect();
    assert_eq!(
        effects,
        ["changed replace \"env.PASSWORD\"", "gone remove null", "kept leave null", "new create null"]
    );
    assert_eq!(
        found["routes"],
        json!([{"name": "all", "from": "FROM /messages/* INTO $upstream", "to": "FROM /* INTO $upstream"}])
    );
    assert_eq!(found["twins"], json!(["new"]));
    for secret in ["hunter2", "correct horse"] {
        assert!(!found.to_string().contains(secret), "{found}");
    }
    let same = preview(json!({"id": "line"})).await;
    assert_eq!((&same["counts"]["leave"], &same["routes"]), (&json!(3), &json!([])), "{same}");
    // Nothing was changed by asking.
    assert_eq!(central.get("/api/ext/devices/gw/twin?module=$edgeAgent").await["desired"]["$version"], 1);

    let wrong = manifest(json!({"a": {"settings": {}}}));
    for (body, status, says) in [
        (json!({}), 422, "id, data: write one of them"),
        (json!({"id": "line", "data": {}}), 422, "id, data: write one of them"),
        (json!({"id": "none"}), 404, "is not stored"),
        (json!({"data": wrong}), 422, "modules.a.settings.image"),
    ] {
        let (found, answer) = central.send(Method::POST, path, Some(body.clone())).await;
        assert!(found == status && answer.to_string().contains(says), "{body}: {found} {answer}");
    }
    central.put("/api/devices/leaf", json!({})).await;
    let leaf = "/api/ext/devices/leaf/deploymentManifest/preview";
    assert_eq!(central.send(Method::POST, leaf, Some(json!({"id": "line"}))).await.0, 422);
    let viewer = central.new_token(Role::Viewer).await;
    assert_eq!(central.send_as(&viewer, Method::POST, path, Some(json!({"id": "line"}))).await.0, 403);
    central.end().await;
}

#[tokio::test]
async fn routes_are_tested_with_a_message_of_a_device_or_module_and_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut data = manifest(json!({"m": module("m:1")}));
    data["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] = json!({
        "hot": "FROM /messages/* WHERE $body.t > 30 INTO $upstream",
        "own": "FROM /messages/modules/m/outputs/o INTO BrokeredEndpoint(\"/modules/m/inputs/i\")",
    });
    let test = async |message: Value| {
        central
            .send(
                Method::POST,
                "/api/ext/routes/test",
                Some(json!({"data": data, "gateway": "gw", "message": message})),
            )
            .await
    };
    let system = json!({"contentType": "application/json", "contentEncoding": "utf-8"});
    let (status, answer) =
        test(json!({"from": "press-1", "body": {"t": 31}, "systemProperties": system})).await;
    assert_eq!((status, &answer["goesTo"][0]["route"]), (200, &json!("hot")), "{answer}");
    let (_, answer) =
        test(json!({"from": "gw/m", "output": "o", "body": {"t": 1}, "systemProperties": system})).await;
    assert_eq!(answer["goesTo"][0]["sink"], "BrokeredEndpoint(\"/modules/m/inputs/i\")", "{answer}");
    assert_eq!(answer["routes"][0]["verdict"], "condition false");
    for (message, says) in [
        (json!({}), "from"),
        (json!({"from": "a b"}), "message.from"),
        (json!({"from": "d", "topic": "t", "twinChange": {}}), "topic"),
    ] {
        let (status, answer) = test(message).await;
        assert!(status == 422 && answer.to_string().contains(says), "{status} {answer}");
    }
    assert_eq!(central.get("/api/ext/overview").await["ingest"]["messagesPerSecond"], 0.0);
    central.end().await;
}
