//! Commands that wait for targets that are away: at central, handed to gateways, and at central's own listener.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start};
use reqwest::Method;
use rumqttc::Packet;
use serde_json::{Value, json};

async fn keep(central: &Central, device: &str, method: &str, valid_for: u64) -> Value {
    let path = format!("/api/devices/{device}/commands/{method}");
    let (status, kept) = central.send(Method::POST, &path, Some(json!({"validFor": valid_for}))).await;
    assert_eq!(status, 202, "{kept}");
    kept
}

/// The one command of this name, when `has` holds for it.
async fn until(central: &Central, device: &str, method: &str, has: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/devices/{device}/commands/{method}");
    central
        .until(&path, |history| {
            let rows = history["value"].as_array().unwrap();
            assert_eq!(rows.len(), 1, "{history}");
            has(&rows[0]).then(|| rows[0].clone())
        })
        .await
}

fn command(topic: &str) -> (&str, &str) {
    topic.strip_prefix("$ls/command/").unwrap().split_once('/').unwrap()
}

#[tokio::test]
async fn a_gateway_that_comes_takes_what_waits_in_order_once_and_its_late_answer_counts() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/leaf", json!({})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
    for (body, field) in [
        (json!({"validFor": 0}), "validFor"),
        (json!({"validFor": 604_801}), "validFor"),
        (json!({"validFor": 5, "connectionTimeout": 1}), "connectionTimeout"),
    ] {
        let (status, refused) = central.send(Method::POST, "/api/devices/leaf/commands/a", Some(body)).await;
        assert_eq!(status, 422);
        assert!(refused["error"]["message"].as_str().unwrap().starts_with(field), "{refused}");
    }
    let first = keep(&central, "leaf", "first", 600).await;
    assert!(first.get("validUntil").is_some() && first.get("takenTime").is_none(), "{first}");
    keep(&central, "gw", "second", 600).await;
    keep(&central, "leaf", "short", 1).await;
    let short = until(&central, "leaf", "short", |row| row.get("error").is_some()).await;
    assert!(short["error"].as_str().unwrap().starts_with("expired: leaf "), "{short}");
    central.end().await;

    let central = start(dir.path()).await;
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let (topic, received) = gateway.message("$ls/command/").await;
    assert_eq!((command(&topic).1, &received["methodName"]), ("leaf", &json!("first")));
    let left = received["validForInSeconds"].as_u64().unwrap();
    assert!((1..=600).contains(&left), "{received}");
    let answer = format!("$ls/answer/{}", command(&topic).0);
    let (topic, received) = gateway.message("$ls/command/").await;
    assert_eq!((command(&topic).1, &received["methodName"]), ("gw", &json!("second")));
    until(&central, "leaf", "first", |row| row.get("takenTime").is_some()).await;
    until(&central, "gw", "second", |row| row.get("takenTime").is_some()).await;

    // A new link is not told again what the gateway has; then comes one that is asked for now.
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    keep(&central, "leaf", "third", 600).await;
    let (_, received) = gateway.message("$ls/command/").await;
    assert_eq!(received["methodName"], "third");
    gateway.publish(&answer, r#"{"Ok":{"status":200,"payload":"done"}}"#).await;
    let first = until(&central, "leaf", "first", |row| row.get("endedTime").is_some()).await;
    assert_eq!((&first["responseCode"], &first["response"]), (&json!(200), &json!("done")));
    central.end().await;
}

#[tokio::test]
async fn no_more_than_fifty_wait_for_one_target_and_a_deleted_device_takes_its_own_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    for _ in 0..50 {
        keep(&central, "d", "reset", 600).await;
    }
    let (status, full) =
        central.send(Method::POST, "/api/devices/d/commands/reset", Some(json!({"validFor": 600}))).await;
    assert_eq!((status, &full["error"]["code"]), (403, &json!("DeviceMaximumQueueDepthExceeded")));
    central.ok(Method::DELETE, "/api/devices/d", None).await;
    central.put("/api/devices/d", json!({})).await;
    keep(&central, "d", "other", 600).await;
    let mut device = central.client("d").await;
    device.subscribe("$iothub/methods/POST/#").await;
    let (topic, _) = device.message("$iothub/methods/POST/").await;
    assert!(topic.contains("/other/"), "{topic}");
    central.end().await;
}

#[tokio::test]
async fn a_device_at_centrals_mqtt_server_is_called_when_it_listens_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    for method in ["one", "two", "three"] {
        keep(&central, "d", method, 600).await;
    }
    let mut device = central.client("d").await;
    device.subscribe("$iothub/methods/POST/#").await;
    let call = |packet| match packet {
        Packet::Publish(publish) => Some(publish.topic.split("$rid=").nth(1).unwrap().to_owned()),
        _ => None,
    };
    let (topic, _) = device.message("$iothub/methods/POST/one/").await;
    let rid = topic.split("$rid=").nth(1).unwrap().to_owned();
    device.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), "1").await;
    until(&central, "d", "one", |row| row["responseCode"] == 200).await;
    // The second one is called, and central stops: it may have run, so it is not called again.
    device.next(call).await;
    central.end().await;

    let central = start(dir.path()).await;
    let two = until(&central, "d", "two", |row| row.get("error").is_some()).await;
    assert!(two["error"].as_str().unwrap().starts_with("no answer by the deadline"), "{two}");
    let mut device = central.client("d").await;
    device.subscribe("$iothub/methods/POST/#").await;
    let (topic, _) = device.message("$iothub/methods/POST/").await;
    assert!(topic.contains("/three/"), "{topic}");
    central.end().await;
}
