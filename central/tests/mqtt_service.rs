//! Gateways and devices at central's MQTT server, played by a foreign MQTT client.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{STEP, start};
use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, Packet};
use serde_json::{Value, json};

#[tokio::test]
async fn a_device_of_its_own_sends_telemetry_reports_and_answers_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let mut device = central.client("d").await;
    device.publish("devices/d/messages/events/line=4&%24.ls-queue=q&%24.ls-seq=1", r#"{"t": 21.5}"#).await;
    device.publish("devices/d/messages/events/", vec![0xff, 0x00]).await;
    let messages = central.get("/api/ext/devices/d/messages").await;
    let messages = messages["value"].as_array().unwrap();
    assert_eq!(
        (&messages[0]["body"], &messages[0]["properties"]),
        (&json!({"t": 21.5}), &json!({"line": "4"}))
    );
    assert_eq!((messages[1].get("body"), &messages[1]["bodyBase64"]), (None, &json!("/wA=")));
    let after = format!("/api/ext/devices/d/messages?after={}", messages[1]["id"]);
    assert_eq!(central.get(&after).await["value"], json!([]));
    assert_eq!(central.get("/api/devices/d/telemetry/t").await["value"], 21.5);
    central.until("/api/ext/devices/d/status", |s| (s["connected"] == true).then_some(())).await;

    device.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    central.patch("/api/devices/d/properties", json!({"interval": 5})).await;
    let (topic, patch) = device.message("$iothub/twin/PATCH/properties/desired/").await;
    assert!(topic.ends_with("$version=1"), "{topic}");
    assert_eq!(patch, json!({"interval": 5, "$version": 1}));
    device
        .publish(
            "$iothub/twin/PATCH/properties/reported/?$rid=1",
            r#"{"interval":{"value":5,"ac":200,"av":1}}"#,
        )
        .await;
    let shown = central
        .until("/api/devices/d/properties", |p| {
            (p["$metadata"]["interval"]["ackCode"] == 200).then(|| p["interval"].clone())
        })
        .await;
    assert_eq!(shown, 5);

    device.subscribe("$iothub/methods/POST/#").await;
    let answer =
        central.ok(Method::POST, "/api/devices/d/commands/reset", Some(json!({"request": {"deep": true}})));
    let serve = async {
        let (topic, request) = device.message("$iothub/methods/POST/reset/").await;
        assert_eq!(request, json!({"deep": true}));
        let rid = topic.split("$rid=").nth(1).unwrap();
        device.publish(&format!("$iothub/methods/res/202/?$rid={rid}"), r#"{"reset":true}"#).await;
    };
    let (answer, ()) = tokio::join!(answer, serve);
    assert_eq!((&answer["responseCode"], &answer["response"]), (&json!(202), &json!({"reset": true})));
    let history = central.get("/api/devices/d/commands/reset").await;
    assert_eq!(history["value"], json!([answer]));

    central.patch("/api/devices/d", json!({"enabled": false})).await;
    let ended = tokio::time::timeout(STEP, async { while device.events.poll().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "a blocked device is disconnected");
    let refused = central.client("d").await.events.poll().await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))),
        "{refused:?}"
    );
    central.end().await;
}

#[tokio::test]
async fn another_key_an_unknown_device_and_a_module_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    for who in ["d", "unknown", "d/m"] {
        let refused = central.client_with_key(who, b"another key").events.poll().await;
        assert!(
            matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))),
            "{who}: {refused:?}"
        );
    }
    central.end().await;
}

fn telemetry(of: &str, sequence: u64) -> String {
    format!("{of}/messages/events/a=b&%24.ls-queue=q-1&%24.ls-seq={sequence}&%24.ls-ms=1795450312250")
}

#[tokio::test]
async fn a_gateway_speaks_for_its_modules_and_devices_once_each_over_a_restart_of_central() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/stranger", json!({})).await;
    let mut gateway = central.client("gw").await;
    gateway.publish(&telemetry("devices/gw/modules/filter", 1), r#"{"n":1}"#).await;
    gateway.publish(&telemetry("devices/local-leaf", 2), r#"{"n":2}"#).await;
    gateway.publish(&telemetry("devices/local-leaf", 2), r#"{"n":2}"#).await;
    // A device that does not stand behind it: taken off its hands, and not stored.
    gateway.publish(&telemetry("devices/stranger", 3), r#"{"n":3}"#).await;
    // A leaf that writes the link's properties itself gains nothing: the gateway's stand behind them.
    let forged =
        "devices/local-leaf/messages/events/%24.ls-queue=q-1&%24.ls-seq=999&%24.ls-queue=q-1&%24.ls-seq=3";
    gateway.publish(forged, r#"{"n":3}"#).await;
    central.end().await;

    let central = start(dir.path()).await;
    let mut gateway = central.client("gw").await;
    gateway.publish(&telemetry("devices/local-leaf", 2), r#"{"n":2}"#).await;
    gateway.publish(&telemetry("devices/local-leaf", 4), r#"{"n":4}"#).await;
    let list = |device: &'static str| {
        let path = format!("/api/ext/devices/{device}/messages");
        let central = &central;
        async move { central.get(&path).await["value"].as_array().unwrap().clone() }
    };
    let numbers = |list: &[Value]| list.iter().map(|m| m["body"]["n"].as_u64().unwrap()).collect::<Vec<_>>();
    let of_gateway = list("gw").await;
    assert_eq!((numbers(&of_gateway), &of_gateway[0]["module"]), (vec![1], &json!("filter")));
    assert_eq!(of_gateway[0]["enqueuedTime"], "2026-11-23T16:11:52.250Z");
    assert_eq!(of_gateway[0]["properties"], json!({"a": "b"}));
    assert_eq!(numbers(&list("local-leaf").await), [2, 3, 4]);
    assert!(list("stranger").await.is_empty());
    assert_eq!(central.get("/api/ext/devices/local-leaf/status").await["gateway"], "gw");
    assert_eq!(central.send(Method::GET, "/api/devices/local-leaf/credentials", None).await.0, 404);

    gateway
        .publish(
            "$ls/presence",
            r#"{"isComplete":true,"clients":[{"identity":{"device":"local-leaf"},"isConnected":true,"sinceMs":1}]}"#,
        )
        .await;
    let status = "/api/ext/devices/local-leaf/status";
    central.until(status, |s| (s["connected"] == true).then_some(())).await;
    gateway.client.disconnect().await.unwrap();
    while gateway.events.poll().await.is_ok() {}
    central.until(status, |s| (s["connected"] == false).then_some(())).await;
    central.end().await;
}

#[tokio::test]
async fn a_gateway_is_sent_everything_when_it_listens_and_each_change_after() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/leaf", json!({})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
    central.patch("/api/devices/leaf/properties", json!({"limit": 1})).await;
    let mut gateway = central.client("gw").await;
    gateway.client.subscribe("$ls/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (_, children) = gateway.message("$ls/children").await;
    let key = central.get("/api/devices/leaf/credentials").await["symmetricKey"]["primaryKey"].clone();
    let child = &children["children"][0];
    assert_eq!(
        (&child["deviceId"], &child["primaryKey"], &child["enabled"]),
        (&json!("leaf"), &key, &json!(true))
    );
    let (_, desired) = gateway.message("$ls/desired/leaf").await;
    assert_eq!(desired, json!({"limit": 1, "$version": 1}));

    let data = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"type": "docker", "settings": {"image": "sensor:1"}}}}},
        "sensor": {"properties.desired": {"intervalMs": 1000}}}});
    central.put("/api/deploymentManifests/m", json!({"data": data})).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "m"}})).await;
    let (_, agent) = gateway.message("$ls/desired/gw/$edgeAgent").await;
    assert_eq!(agent["modules"]["sensor"]["settings"]["image"], "sensor:1");
    central.patch("/api/devices/gw/modules/sensor/properties", json!({"intervalMs": 200})).await;
    loop {
        let (_, sensor) = gateway.message("$ls/desired/gw/sensor").await;
        if sensor == json!({"intervalMs": 200, "$version": 2}) {
            break;
        }
    }
    central.patch("/api/devices/leaf", json!({"enabled": false})).await;
    let (_, children) = gateway.message("$ls/children").await;
    assert_eq!(children["children"][0]["enabled"], false);

    gateway.publish("$ls/reported/gw/sensor", r#"{"intervalMs":200,"$version":3}"#).await;
    central
        .until("/api/ext/devices/gw/twin?module=sensor", |t| {
            (t["reported"]["intervalMs"] == 200).then_some(())
        })
        .await;
    central.end().await;
}

#[tokio::test]
async fn a_command_travels_over_the_link_and_its_first_end_counts() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/leaf", json!({})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
    let path = "/api/devices/leaf/commands/reset";
    let (status, away) = central.send(Method::POST, path, Some(json!({}))).await;
    assert_eq!((status, &away["error"]["code"]), (404, &json!("DeviceNotConnected")), "{away}");

    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let call = central.ok(Method::POST, path, Some(json!({"request": {"x": 1}, "responseTimeout": 300})));
    let serve = async {
        let (topic, request) = gateway.message("$ls/command/").await;
        assert_eq!((&request["methodName"], &request["payload"]), (&json!("reset"), &json!({"x": 1})));
        let (id, target) = topic.strip_prefix("$ls/command/").unwrap().split_once('/').unwrap();
        assert_eq!(target, "leaf");
        let answer = format!("$ls/answer/{id}");
        gateway.publish(&answer, r#"{"Ok":{"status":200,"payload":{"reset":true}}}"#).await;
        gateway.publish(&answer, r#"{"Ok":{"status":500,"payload":null}}"#).await;
        id.to_owned()
    };
    let (answer, id) = tokio::join!(call, serve);
    assert_eq!((&answer["id"], &answer["responseCode"]), (&json!(id), &json!(200)));

    let call = central.send(Method::POST, path, Some(json!({})));
    let serve = async {
        let (topic, _) = gateway.message("$ls/command/").await;
        let id = topic.strip_prefix("$ls/command/").unwrap().split_once('/').unwrap().0.to_owned();
        let failure = r#"{"Err":{"noAnswer":{"target":"leaf","seconds":30}}}"#;
        gateway.publish(&format!("$ls/answer/{id}"), failure).await;
    };
    let ((status, failed), ()) = tokio::join!(call, serve);
    assert_eq!((status, &failed["error"]["code"]), (504, &json!("NoAnswer")), "{failed}");
    let history = central.get(path).await;
    let codes: Vec<&Value> =
        history["value"].as_array().unwrap().iter().map(|row| &row["responseCode"]).collect();
    assert_eq!(codes, [&Value::Null, &json!(200), &Value::Null], "{history}");

    // A gateway that is not a gateway may not use the link.
    let mut other = central.client("leaf").await;
    other.client.publish("$ls/presence", rumqttc::QoS::AtLeastOnce, false, "{}").await.unwrap();
    let is_acknowledged = tokio::time::timeout(STEP, async {
        loop {
            match other.events.poll().await {
                Ok(rumqttc::Event::Incoming(Packet::PubAck(_))) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        }
    });
    assert!(!is_acknowledged.await.unwrap());
    central.end().await;
}

#[tokio::test]
async fn a_command_whose_answer_comes_after_a_restart_of_central_still_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let path = "/api/devices/gw/commands/reset";
    let request = central.http.post(central.url(&format!("{path}?api-version=1.0")));
    let pending = tokio::spawn(
        request.header("Authorization", &central.token).json(&json!({"responseTimeout": 300})).send(),
    );
    let (topic, _) = gateway.message("$ls/command/").await;
    let id = topic.strip_prefix("$ls/command/").unwrap().split_once('/').unwrap().0.to_owned();
    central.end().await;
    assert_eq!(pending.await.unwrap().unwrap().status(), 503);

    let central = start(dir.path()).await;
    assert!(central.get(path).await["value"][0].get("endedTime").is_none());
    let mut gateway = central.client("gw").await;
    gateway.publish(&format!("$ls/answer/{id}"), r#"{"Ok":{"status":200,"payload":1}}"#).await;
    let history = central.get(path).await;
    assert_eq!((&history["value"][0]["id"], &history["value"][0]["responseCode"]), (&json!(id), &json!(200)));
    central.end().await;
}

#[tokio::test]
async fn a_device_that_keeps_its_session_is_found_again_after_a_restart_of_central() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let mut device = central.lasting_client("d").await;
    device.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    central.end().await;

    let central = start(dir.path()).await;
    let mut device = central.lasting_client("d").await;
    // It does not subscribe again, as Azure's Python SDK does not.
    device.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    central.patch("/api/devices/d/properties", json!({"interval": 5})).await;
    let (_, patch) = device.message("$iothub/twin/PATCH/properties/desired/").await;
    assert_eq!(patch["interval"], 5);
    central.end().await;
}

#[tokio::test]
async fn a_gateways_will_speaks_for_whom_its_messages_may_and_for_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for id in ["gw", "other"] {
        central.put(&format!("/api/devices/{id}"), json!({"type": ["edge"]})).await;
    }
    for id in ["child", "stranger", "cousin"] {
        central.put(&format!("/api/devices/{id}"), json!({})).await;
    }
    for (source, target) in [("gw", "child"), ("other", "cousin")] {
        let relationship = json!({"name": "downstream", "source": source, "target": target});
        central.put(&format!("/api/devices/{source}/relationships/to-{target}"), relationship).await;
    }
    // Each of the gateway's connections leaves one will; those that are taken come last, so that all were decided then.
    for of in ["stranger", "cousin", "other", "nobody", "child", "gw"] {
        let mut gateway = central.client_with_will("gw", &format!("devices/{of}/messages/events/")).await;
        let _ = gateway.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        drop(gateway);
        if matches!(of, "child" | "gw") {
            let path = format!("/api/ext/devices/{of}/messages");
            central.until(&path, |page| (page["value"].as_array()?.len() == 1).then_some(())).await;
        }
    }
    for of in ["stranger", "cousin", "other"] {
        let page = central.get(&format!("/api/ext/devices/{of}/messages")).await;
        assert_eq!(page["value"], json!([]), "{of}");
    }
    central.end().await;
}

#[tokio::test]
async fn clients_that_take_an_identity_from_each_other_are_shown_with_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let status = central.get("/api/ext/devices/gw/status").await;
    assert_eq!(status["identityConflict"], Value::Null);
    // A clone and its original, each of which comes back when it was ended.
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = central.client("gw").await;
        client.subscribe("$ls/#").await;
        open.push(client);
    }
    let status = central.get("/api/ext/devices/gw/status").await;
    let conflict = &status["identityConflict"];
    assert_eq!((&conflict["takeovers"], &conflict["isProven"]), (&json!(4), &json!(false)), "{status}");
    central.end().await;
}
