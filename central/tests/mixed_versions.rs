//! Gateways of the first release at this central: their queues have no epochs, they say no hello, they ask for no time, and what
//! they send is written here as it stood on the wire then.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, Mqtt, start};
use serde_json::{Value, json};

const QUEUE: &str = "6a1d4f0e-9b7c-4d55-8f3a-0c2b7e914d66";

async fn site(dir: &std::path::Path) -> Central {
    let central = start(dir).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/press-1", json!({})).await;
    central
        .put(
            "/api/devices/gw/relationships/r",
            json!({"name": "downstream", "source": "gw", "target": "press-1"}),
        )
        .await;
    central
}

/// A new connection of the gateway, and what central says to have.
async fn connect(central: &Central) -> (Mqtt, Value) {
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let (_, stored) = gateway.message("$ls/stored").await;
    (gateway, stored)
}

fn telemetry(queue: &str, sequence: u64) -> String {
    format!(
        "devices/press-1/messages/events/%24.ls-queue={queue}&%24.ls-seq={sequence}&%24.ls-ms=1793500000000"
    )
}

async fn bodies(central: &Central) -> Vec<u64> {
    let answer = central.get("/api/ext/devices/press-1/messages?limit=1000").await;
    let messages = answer["value"].as_array().unwrap().clone();
    messages.iter().map(|message| message["body"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn telemetry_and_losses_of_a_gateway_without_epochs_arrive_once_and_none_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    let (mut gateway, stored) = connect(&central).await;
    assert_eq!(stored["queues"], json!({}));
    for n in 1..=5 {
        gateway.publish(&telemetry(QUEUE, n), json!({ "n": n }).to_string()).await;
    }
    let loss = |number: u64, first: u64| {
        json!({
            "number": number, "cause": "expired", "sender": "press-1", "first": first, "last": first, "count": 1,
            "fromMs": 1_793_500_000_000_u64, "untilMs": 1_793_500_000_000_u64,
        })
    };
    let losses = |losses: Value| json!({"queue": QUEUE, "name": "upstream", "losses": losses}).to_string();
    gateway.publish("$ls/losses", losses(json!([loss(1, 6)]))).await;
    drop(gateway);

    let (mut gateway, stored) = connect(&central).await;
    assert_eq!(stored["queues"], json!({ QUEUE: 5 }), "its queue by the name that it knows");
    // Sent once more, as after a lost acknowledgement, and on.
    for n in [4, 5, 7] {
        gateway.publish(&telemetry(QUEUE, n), json!({ "n": n }).to_string()).await;
    }
    gateway.publish("$ls/losses", losses(json!([loss(1, 6), loss(2, 8)]))).await;
    assert_eq!(bodies(&central).await, [1, 2, 3, 4, 5, 7]);
    let losses = central.get("/api/ext/devices/gw/losses").await;
    let counts: Vec<u64> =
        losses["value"].as_array().unwrap().iter().map(|loss| loss["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 1], "{losses}");
    drop(gateway);

    // Upgraded in place: what it still has keeps the bare name, what it takes from now on has an epoch, from any sequence on.
    let (mut gateway, stored) = connect(&central).await;
    assert_eq!(stored["queues"], json!({ QUEUE: 7 }));
    let hello = json!({"version": 1, "asksTime": 1}).to_string();
    gateway.client.publish("$ls/hello", rumqttc::QoS::AtLeastOnce, false, hello).await.unwrap();
    let (_, time) = gateway.message("$ls/time").await;
    assert_eq!(time["asksTime"], 1);
    let epoch = format!("{QUEUE}.00000000000000ab");
    for (queue, sequence, n) in [(QUEUE, 9, 9), (&epoch, 3, 10), (&epoch, 4, 11)] {
        gateway.publish(&telemetry(queue, sequence), json!({ "n": n }).to_string()).await;
    }
    drop(gateway);

    // And back to the release: it sends by the bare name again.
    let (mut gateway, stored) = connect(&central).await;
    assert_eq!(stored["queues"], json!({ QUEUE: 9, epoch: 4 }));
    for n in [9, 12] {
        gateway.publish(&telemetry(QUEUE, n), json!({ "n": n }).to_string()).await;
    }
    assert_eq!(bodies(&central).await, [1, 2, 3, 4, 5, 7, 9, 10, 11, 12]);
    drop(gateway);
    central.end().await;
}

#[tokio::test]
async fn a_gateway_that_requests_no_time_is_sent_none() {
    let dir = tempfile::tempdir().unwrap();
    let central = site(dir.path()).await;
    let (mut gateway, _) = connect(&central).await;
    gateway.publish("$ls/hello", json!({"version": 1}).to_string()).await;
    // What central would say first would come first.
    central.patch("/api/devices/press-1/properties", json!({"speed": 3})).await;
    let topic = gateway
        .next(|packet| match packet {
            rumqttc::Packet::Publish(publish) if !publish.topic.starts_with("$ls/children") => {
                (publish.topic == "$ls/time" || publish.topic == "$ls/desired/press-1")
                    .then_some(publish.topic)
            }
            _ => None,
        })
        .await;
    assert_eq!(topic, "$ls/desired/press-1");
    central.end().await;
}
