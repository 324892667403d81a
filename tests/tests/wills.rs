//! A client that dies leaves telemetry behind, as at IoT Hub: through a gateway, and at central's own WebSocket listener.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::leaf::{LeafOptions, trust};
use site_tests::rest::eventually;
use site_tests::site::Site;

/// Starts `script` as a device with a will on its telemetry topic; it is connected when this returns.
async fn with_will(kind: Kind, script: &str, device: &LeafOptions, how: Value, dir: &Path) -> Client {
    let login = device.login();
    let (user, password) = login.account.unwrap();
    let mut options = json!({
        "port": device.port, "client_id": login.client_id, "user": user, "password": password, "clean": true,
        "will": {"topic": format!("devices/{}/messages/events/place=hall-2", login.client_id), "payload": "{\"gone\":true}",
            "qos": 1, "retain": false},
    });
    options.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
    let log = dir.join(format!("{}.log", login.client_id));
    let mut client = Client::start(&login.client_id, kind.command(script).unwrap(), &log).unwrap();
    client.command(&options).await.unwrap();
    let connected = client.event("connected", STEP).await.unwrap();
    assert_eq!(connected["code"], 0, "{connected}");
    client
}

/// Publishes, and dies: central has the message, and behind it the will.
async fn dies(mut client: Client, site: &Site, device: &str) {
    let topic = format!("devices/{device}/messages/events/");
    let alive = json!({"do": "publish", "topic": topic, "payload": "{\"gone\":false}", "qos": 1, "retain": false, "properties": {}});
    client.command(&alive).await.unwrap();
    client.event("published", STEP).await.unwrap();
    client.command(&json!({"do": "die"})).await.unwrap();
    let rest = site.rest().unwrap();
    let messages = eventually(&format!("the will of {device} in central"), STEP, || async {
        let messages = rest.messages(device).await?;
        Ok((messages.len() >= 2).then_some(messages))
    })
    .await
    .unwrap();
    let received: Vec<_> = messages.iter().map(|m| (&m["body"], &m["properties"])).collect();
    let will = json!({"place": "hall-2", "iothub-MessageType": "Will"});
    assert_eq!(received, [(&json!({"gone": false}), &json!({})), (&json!({"gone": true}), &will)]);
}

#[tokio::test]
async fn a_will_is_telemetry_through_a_gateway_and_at_centrals_mqtt_server_over_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "wills-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();

    let leaf = site.add_leaf("wills-leaf", Duration::from_secs(1)).await.unwrap();
    // The gateway knows it a moment after central does.
    eventually("the leaf at the gateway", STEP, || async {
        let (_client, mut events) = leaf.client(1);
        Ok(events.poll().await.is_ok().then_some(()))
    })
    .await
    .unwrap();
    let how = json!({"version": 4, "ca": site.gateway_ca()});
    let client = with_will(Kind::PlainPython, "paho_client.py", &leaf, how, dir.path()).await;
    dies(client, &site, "wills-leaf").await;

    site.rest().unwrap().put("/api/devices/wills-direct", &json!({})).await.unwrap();
    let direct = LeafOptions {
        identity: "wills-direct".parse().unwrap(),
        key: STANDARD.decode(site.key("wills-direct").await.unwrap()).unwrap(),
        hub_name: "localhost".into(),
        port: site.central_wss,
        ca: Some(trust(&std::fs::read(site.central_ca()).unwrap()).unwrap()),
        interval: Duration::from_secs(1),
        padding: 0,
    };
    let how = json!({"version": 5, "ca": site.central_ca(), "websockets": true});
    let client = with_will(Kind::PlainPython, "paho_client.py", &direct, how.clone(), dir.path()).await;
    dies(client, &site, "wills-direct").await;
    // MQTT.js comes in there too.
    let client = with_will(Kind::Node, "mqttjs_client.js", &direct, how, dir.path()).await;
    client.end(STEP).await.unwrap();
    site.end(false).await.unwrap();
}
