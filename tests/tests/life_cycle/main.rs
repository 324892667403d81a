//! The end of identities over a whole site: nothing that was kept of a device, user or module is found by the next one of its
//! name. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod generated;

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, LastWill, MqttOptions, QoS, TlsConfiguration, Transport};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::device::Device;
use site_tests::leaf::{LeafOptions, trust};
use site_tests::rest::eventually;
use site_tests::site::Site;

async fn site(dir: &Path, gateway: &str) -> Site {
    let mut site = Site::new(dir, gateway, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site
}

/// A leaf device whose session stays when it leaves, connected as soon as the gateway lets it in.
async fn leaf(options: &LeafOptions) -> Device {
    staying(options.client(10).1.mqtt_options).await
}

async fn staying(mut options: MqttOptions) -> Device {
    options.set_clean_session(false);
    Device::connect(options).await.unwrap()
}

/// Leaves behind what a device can: reported properties, a session with what it subscribed, telemetry.
async fn leaves(mut device: Device, id: &str) {
    device.subscribe("$iothub/twin/res/#").await.unwrap();
    device.subscribe(&format!("devices/{id}/messages/devicebound/#")).await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    device.report(&json!({"serial": "old"})).await.unwrap();
    let telemetry = format!("devices/{id}/messages/events/");
    device.publish(&telemetry, r#"{"serial":"old"}"#).await.unwrap();
}

/// Makes sure that nothing of an earlier device is here.
async fn checked_as_new(mut device: Device) -> Device {
    assert!(!device.found_session, "the session of an earlier device");
    device.subscribe("$iothub/twin/res/#").await.unwrap();
    let twin = device.twin().await.unwrap();
    assert!(twin["reported"].get("serial").is_none(), "{twin}");
    assert!(twin["desired"].get("speed").is_none(), "{twin}");
    hears_nothing(&mut device).await;
    device
}

/// Nothing of an earlier device comes.
async fn hears_nothing(device: &mut Device) {
    assert_eq!(device.unasked().await.unwrap(), [""; 0], "messages of an earlier device");
}

async fn deleted(site: &Site, path: &str) {
    let (status, answer) = site.rest().unwrap().send(Method::DELETE, path, None).await.unwrap();
    assert_eq!(status, 204, "{answer}");
}

/// Waits until the gateway knows a device, or does not.
async fn gateway_knows(site: &Site, id: &str, is_known: bool) {
    eventually("the gateway's list of devices", STEP, || async {
        let list = site.agent_json(&["device", "list"]).await?;
        let found =
            list["devices"].as_array().is_some_and(|list| list.iter().any(|device| device["id"] == id));
        Ok((found == is_known).then_some(()))
    })
    .await
    .unwrap();
}

/// What an operator leaves for a device: desired properties, a message, a command that waits.
async fn operator_leaves(site: &Site, id: &str) {
    let rest = site.rest().unwrap();
    rest.patch(&format!("/api/devices/{id}/properties"), &json!({"speed": 3})).await.unwrap();
    let message = json!({"bodyText": "for the old one"});
    rest.post(&format!("/api/ext/devices/{id}/messages/devicebound"), &message).await.unwrap();
    let command = json!({"validFor": 600, "connectionTimeout": 0, "responseTimeout": 5, "request": {}});
    rest.post(&format!("/api/devices/{id}/commands/reset"), &command).await.unwrap();
}

/// Central shows nothing of an earlier device.
async fn central_shows_new(site: &Site, id: &str) {
    let rest = site.rest().unwrap();
    let properties = rest.get(&format!("/api/devices/{id}/properties")).await.unwrap();
    assert!(properties.get("serial").is_none() && properties.get("speed").is_none(), "{properties}");
    let messages = rest.get(&format!("/api/ext/devices/{id}/messages/devicebound")).await.unwrap();
    assert_eq!(messages["value"], json!([]));
}

#[tokio::test]
async fn a_device_deleted_at_central_leaves_nothing_to_the_next_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-gateway").await;
    let old = site.add_leaf("press", STEP).await.unwrap();
    leaves(leaf(&old).await, "press").await;
    operator_leaves(&site, "press").await;
    deleted(&site, "/api/devices/press").await;
    gateway_knows(&site, "press", false).await;

    let new = site.add_leaf("press", STEP).await.unwrap();
    let mut device = checked_as_new(leaf(&new).await).await;
    device.subscribe("devices/press/messages/devicebound/#").await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    hears_nothing(&mut device).await;
    device.report(&json!({"color": "red"})).await.unwrap();
    eventually("the new device's report", STEP, || async {
        let properties = site.rest()?.get("/api/devices/press/properties").await?;
        Ok((properties["color"] == "red").then_some(()))
    })
    .await
    .unwrap();
    central_shows_new(&site, "press").await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_device_removed_on_its_gateway_leaves_nothing_to_the_next_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-here-gateway").await;
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let options = site.add_leaf("known", STEP).await.unwrap();
    let here = LeafOptions { identity: "press".parse().unwrap(), key: vec![0; 32], ..options };
    // With the same key: what the old one proved itself with is right for the new one too.
    for round in 0..2 {
        site.agent_json(&["device", "add", "press", "--key", key]).await.unwrap();
        let mut device = checked_as_new(leaf(&here).await).await;
        if round == 0 {
            leaves(device, "press").await;
            // Killed at once: the end of a removal is not lost.
            site.agent_json(&["device", "remove", "press"]).await.unwrap();
            site.kill_agent().await.unwrap();
            site.start_agent().await.unwrap();
        } else {
            device.report(&json!({"color": "red"})).await.unwrap();
        }
    }
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_user_that_is_removed_leaves_no_session_to_the_next_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-user-gateway").await;
    site.open_free_topics("#").await.unwrap();
    let known = site.add_leaf("known", STEP).await.unwrap();
    let options = |user: &Value| {
        let mut options = MqttOptions::new("panel", "localhost", known.port);
        let password = user["password"].as_str().unwrap();
        options.set_credentials("plc", password).set_keep_alive(Duration::from_secs(30));
        let ca = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca)));
        options
    };
    let add = ["user", "add", "plc"];
    let old = site.agent_json(&add).await.unwrap();
    let mut user = staying(options(&old)).await;
    user.subscribe("line/#").await.unwrap();
    drop(user);
    eventually("the user's connection ends", STEP, || async {
        let users = site.agent_json(&["user", "list"]).await?;
        Ok((users["users"][0]["connections"] == 0).then_some(()))
    })
    .await
    .unwrap();
    site.agent_json(&["user", "remove", "plc"]).await.unwrap();
    let new = site.agent_json(&add).await.unwrap();
    assert!(!staying(options(&new)).await.found_session);
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_device_deleted_and_made_anew_while_its_gateway_was_away_leaves_nothing_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-away-gateway").await;
    let old = site.add_leaf("press", STEP).await.unwrap();
    leaves(leaf(&old).await, "press").await;
    operator_leaves(&site, "press").await;
    eventually("the message at the gateway", STEP, || async {
        let list = site.rest()?.get("/api/ext/devices/press/messages/devicebound").await?;
        Ok((list["value"][0]["state"] == "atGateway").then_some(()))
    })
    .await
    .unwrap();
    site.kill_agent().await.unwrap();
    deleted(&site, "/api/devices/press").await;
    let new = site.add_leaf("press", STEP).await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();

    let mut device = checked_as_new(leaf(&new).await).await;
    device.subscribe("devices/press/messages/devicebound/#").await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    hears_nothing(&mut device).await;
    device.report(&json!({"color": "red"})).await.unwrap();
    eventually("the new device's report", STEP, || async {
        let properties = site.rest()?.get("/api/devices/press/properties").await?;
        Ok((properties["color"] == "red").then_some(()))
    })
    .await
    .unwrap();
    central_shows_new(&site, "press").await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_device_that_was_moved_to_another_gateway_and_back_finds_nothing_of_its_first_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-first-gateway").await;
    let other = json!({"displayName": "other", "type": ["edge"]});
    site.rest().unwrap().put("/api/devices/life-other-gateway", &other).await.unwrap();
    let press = site.add_leaf("press", STEP).await.unwrap();
    let removals =
        |site: &Site| site.agent_log().matches("all that was kept of the removed identity is gone").count();
    for is_away in [false, true] {
        leaves(leaf(&press).await, "press").await;
        let before = removals(&site);
        if is_away {
            site.kill_agent().await.unwrap();
        }
        deleted(&site, "/api/devices/life-first-gateway/relationships/to-press").await;
        let there = json!({"name": "downstream", "source": "life-other-gateway", "target": "press"});
        let path = "/api/devices/life-other-gateway/relationships/to-press";
        site.rest().unwrap().put(path, &there).await.unwrap();
        if !is_away {
            gateway_knows(&site, "press", false).await;
        }
        deleted(&site, path).await;
        site.add_leaf("press", STEP).await.unwrap();
        if is_away {
            site.start_agent().await.unwrap();
        }
        eventually("the gateway removed it", STEP, || async { Ok((removals(&site) > before).then_some(())) })
            .await
            .unwrap();
        let device = leaf(&press).await;
        assert!(!device.found_session, "the session of its first stay; away: {is_away}");
        drop(checked_as_new(device).await);
    }
    site.end(false).await.unwrap();
}

/// The last number of a module in the gateway's state, which holds texts.
fn module_number(dir: &Path, module: &str) -> Option<u64> {
    let key = format!("\"module/{module}\" ");
    let state = dir.join("gateway/state");
    let journal = std::fs::read_dir(state.join("journal")).unwrap().map(|file| file.unwrap().path());
    // The journal begins anew once the export holds what it held.
    let files = journal.chain([state.join("export.old"), state.join("export")]);
    let bytes: Vec<Vec<u8>> = files.filter_map(|file| std::fs::read(file).ok()).collect();
    let texts = bytes.iter().map(|bytes| String::from_utf8_lossy(bytes));
    let numbers = texts.flat_map(|text| {
        let rest = text.split(&key).skip(1);
        let digits = rest.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        digits.filter_map(|digits| digits.parse::<u64>().ok()).collect::<Vec<_>>()
    });
    numbers.max()
}

async fn refused(options: &LeafOptions) {
    let (_client, mut events) = options.client(10);
    match events.poll().await {
        Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)) => {}
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// Assigns a manifest to a gateway, with one module that never runs or none.
async fn assign(site: &Site, gateway: &str, module: Option<&str>, hub: Value) {
    let mut modules = json!({});
    let mut content = json!({"$edgeHub": {"properties.desired": hub}});
    if let Some(module) = module {
        modules[module] = json!({
            "type": "docker", "status": "stopped", "restartPolicy": "never", "version": "1.0",
            "settings": {"image": "nobody/pulls:1", "createOptions": "{}"},
        });
        content[module] = json!({"properties.desired": {"limit": 7}});
    }
    content["$edgeAgent"] = json!({"properties.desired": {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {}},
        "systemModules": {},
        "modules": modules,
    }});
    let rest = site.rest().unwrap();
    let manifest = json!({"displayName": "m", "data": {"modulesContent": content}});
    rest.put("/api/deploymentManifests/m", &manifest).await.unwrap();
    let assigned = json!({"deploymentManifest": {"id": "m"}});
    rest.patch(&format!("/api/devices/{gateway}"), &assigned).await.unwrap();
}

/// What the present module of a name proves itself with.
fn module_options(site: &Site, like: &LeafOptions, identity: &str) -> LeafOptions {
    let (_, module) = identity.split_once('/').unwrap();
    let secret = std::fs::read(site.agent_dir().join("module-key")).unwrap();
    let text = match module_number(&site.dir, identity) {
        None => format!("key {module}"),
        Some(number) => format!("key {module} {number}"),
    };
    let key = edge_core::access::sas::sign(&secret, text.as_bytes());
    LeafOptions { identity: identity.parse().unwrap(), key, ..like.clone() }
}

#[tokio::test]
async fn a_module_that_left_the_manifest_leaves_nothing_to_the_next_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-module-gateway").await;
    let known = site.add_leaf("known", STEP).await.unwrap();
    let secret = std::fs::read(dir.path().join("gateway/module-key")).unwrap();
    let module = LeafOptions {
        identity: "life-module-gateway/caller".parse().unwrap(),
        key: edge_core::access::sas::sign(&secret, b"key caller"),
        ..known
    };
    let hub = || json!({"schemaVersion": "1.1", "routes": {}});
    let assign = async |has_module: bool| {
        assign(&site, "life-module-gateway", has_module.then_some("caller"), hub()).await;
    };
    assign(true).await;
    let mut old = leaf(&module).await;
    old.subscribe("$iothub/twin/res/#").await.unwrap();
    old.report(&json!({"serial": "old"})).await.unwrap();
    assign(false).await;
    // Its connection ends.
    while old.events.poll().await.is_ok() {}
    assign(true).await;
    // The key of the old one is not right for the new one, nor after a restart.
    let number = || async { Ok(module_number(dir.path(), "life-module-gateway/caller")) };
    let number = eventually("the number of the next module", STEP, number).await.unwrap();
    let key = edge_core::access::sas::sign(&secret, format!("key caller {number}").as_bytes());
    let next = LeafOptions { key, ..module.clone() };
    assert!(!leaf(&next).await.found_session);
    refused(&module).await;
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    let mut new = leaf(&next).await;
    refused(&module).await;
    new.subscribe("$iothub/twin/res/#").await.unwrap();
    let twin = new.twin().await.unwrap();
    assert!(twin["reported"].get("serial").is_none(), "{twin}");
    assert_eq!(twin["desired"]["limit"], 7, "{twin}");
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn the_will_of_a_removed_device_or_user_is_never_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "life-will-gateway").await;
    site.open_free_topics("#").await.unwrap();
    let known = site.add_leaf("known", STEP).await.unwrap();
    let press = LeafOptions { identity: "press".parse().unwrap(), key: vec![0; 32], ..known };
    let of_user = |name: &str, user: &Value| {
        let mut options = MqttOptions::new("panel", "localhost", press.port);
        options.set_credentials(name, user["password"].as_str().unwrap());
        let ca = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca)));
        options
    };
    let watching = site.agent_json(&["user", "add", "watcher"]).await.unwrap();
    let mut watcher = staying(of_user("watcher", &watching)).await;
    watcher.subscribe("line/#").await.unwrap();

    let telemetry = "devices/press/messages/events/";
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for topic in ["line/gone", telemetry] {
        for is_user in [false, true] {
            site.agent_json(&["device", "add", "press", "--key", key]).await.unwrap();
            let user = ["user", "add", "plc", "--device", "press"];
            let user = site.agent_json(&user).await.unwrap();
            let mut options = if is_user { of_user("plc", &user) } else { press.client(10).1.mqtt_options };
            options.set_last_will(LastWill::new(topic, r#"{"is":"will"}"#, QoS::AtLeastOnce, false));
            let mut old = staying(options).await;
            if is_user {
                site.agent_json(&["user", "remove", "plc"]).await.unwrap()
            } else {
                site.agent_json(&["device", "remove", "press"]).await.unwrap()
            };
            while old.events.poll().await.is_ok() {}
            if !is_user {
                site.agent_json(&["device", "add", "press", "--key", key]).await.unwrap();
            }
            // The users of a device end with it.
            let user = site.agent_json(&["user", "add", "plc", "--device", "press"]).await.unwrap();
            let next = if is_user { of_user("plc", &user) } else { press.client(10).1.mqtt_options };
            let mut next = staying(next).await;
            next.publish(telemetry, r#"{"is":"next"}"#).await.unwrap();
            next.publish("line/next", "{}").await.unwrap();
            assert_eq!(watcher.message().await.unwrap().topic, "line/next", "user: {is_user}");
            let rest = site.rest().unwrap();
            let bodies = eventually("the telemetry of the next one", STEP, || async {
                let messages = rest.messages("press").await.unwrap_or_default();
                let bodies: Vec<Value> = messages.iter().map(|message| message["body"].clone()).collect();
                Ok(bodies.contains(&json!({"is": "next"})).then_some(bodies))
            });
            assert_eq!(bodies.await.unwrap(), [json!({"is": "next"})], "user: {is_user}");
            site.agent_json(&["device", "remove", "press"]).await.unwrap();
        }
    }
    site.end(false).await.unwrap();
}
