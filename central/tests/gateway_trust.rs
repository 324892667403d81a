//! What a compromised gateway cannot do on its link: speak for others, bring back what was deleted, break the API.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, Mqtt, start};
use reqwest::Method;
use serde_json::{Value, json};

async fn report(gateway: &mut Mqtt, topic: &str, body: Value) {
    gateway.publish(topic, body.to_string()).await;
}

async fn lose(gateway: &mut Mqtt, queue: &str, number: u64, sender: &str, count: u64) {
    let loss = json!({"number": number, "cause": "expired", "sender": sender, "first": 1, "last": 2,
        "count": count, "fromMs": u64::MAX, "untilMs": u64::MAX});
    report(gateway, "$ls/losses", json!({"queue": queue, "name": "upstream", "losses": [loss]})).await;
}

/// Speaks for a device in every way that a gateway has.
async fn send_every_message(gateway: &mut Mqtt, device: &str) {
    gateway.publish(&format!("devices/{device}/messages/events/"), "{}").await;
    let client = json!({"identity": {"device": device}, "isConnected": true, "sinceMs": 1});
    report(gateway, "$ls/presence", json!({"isComplete": false, "clients": [client]})).await;
    report(gateway, &format!("$ls/reported/{device}"), json!({"$version": 9, "serial": "old"})).await;
    report(gateway, &format!("$ls/settled/{device}/1"), json!({"end": "delivered", "atMs": 1})).await;
    lose(gateway, device, 1, device, 1).await;
}

async fn with_gateway(dir: &std::path::Path) -> (Central, Mqtt) {
    let central = start(dir).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let mut gateway = central.client("gw").await;
    gateway.events.mqtt_options.set_max_packet_size(1 << 20, 1 << 20);
    (central, gateway)
}

#[tokio::test]
async fn a_deleted_device_is_not_brought_back_by_what_a_gateway_says_in_any_form() {
    let dir = tempfile::tempdir().unwrap();
    let (central, mut gateway) = with_gateway(dir.path()).await;
    send_every_message(&mut gateway, "press-1").await;
    assert_eq!(central.get("/api/ext/devices/press-1/status").await["gateway"], "gw", "it was brought");
    central.ok(Method::DELETE, "/api/devices/press-1", None).await;
    send_every_message(&mut gateway, "press-1").await;
    let (status, _) = central.send(Method::GET, "/api/devices/press-1", None).await;
    assert_eq!(status, 404, "the gateway registered it again");

    // An operator does; the gateway says nothing for it until it is attached.
    central.put("/api/devices/press-1", json!({})).await;
    send_every_message(&mut gateway, "press-1").await;
    let state = central.get("/api/ext/devices/press-1/status").await;
    assert_eq!((&state["gateway"], &state["connected"]), (&Value::Null, &json!(false)));
    let properties = central.get("/api/devices/press-1/properties").await;
    assert!(!properties.to_string().contains("old"), "{properties}");
    let losses = central.get("/api/ext/devices/press-1/losses").await;
    assert_eq!(losses["value"], json!([]), "what an earlier device of its name lost is not its own");
    let behind = json!({"name": "x", "source": "gw", "target": "press-1"});
    central.put("/api/devices/gw/relationships/press-1", behind).await;
    send_every_message(&mut gateway, "press-1").await;
    assert_eq!(central.get("/api/ext/devices/press-1/status").await["connected"], true);
    central.end().await;
}

#[tokio::test]
async fn a_gateway_reports_only_modules_that_its_manifest_or_its_own_report_names() {
    let dir = tempfile::tempdir().unwrap();
    let (central, mut gateway) = with_gateway(dir.path()).await;
    let modules = async |central: &Central| -> Vec<String> {
        let status = central.get("/api/ext/devices/gw/status").await;
        let names = status["modules"].as_array().unwrap().iter();
        names.map(|module| format!("{}:{}", module["name"].as_str().unwrap(), module["connected"])).collect()
    };
    let connected =
        json!({"identity": {"device": "gw", "module": "ghost"}, "isConnected": true, "sinceMs": 1});
    report(&mut gateway, "$ls/presence", json!({"isComplete": false, "clients": [connected]})).await;
    report(&mut gateway, "$ls/reported/gw/ghost", json!({"$version": 1, "a": 1})).await;
    assert!(modules(&central).await.is_empty());
    // A manifest that was applied on the gateway itself.
    report(&mut gateway, "$ls/reported/gw/$edgeAgent", json!({"$version": 1, "modules": {"ghost": {}}}))
        .await;
    report(&mut gateway, "$ls/reported/gw/ghost", json!({"$version": 1, "a": 1})).await;
    assert_eq!(modules(&central).await, ["ghost:true"]);
    let large = json!({"$version": 2, "a": "x".repeat(100_000)});
    report(&mut gateway, "$ls/reported/gw/ghost", large).await;
    let twin = central.get("/api/devices/gw/modules/ghost/properties").await;
    assert!(twin.to_string().len() < 10_000);
    central.end().await;
}

#[tokio::test]
async fn losses_name_only_who_is_behind_the_gateway_and_no_count_breaks_the_sums() {
    let dir = tempfile::tempdir().unwrap();
    let (central, mut gateway) = with_gateway(dir.path()).await;
    central.put("/api/devices/stranger", json!({})).await;
    for (number, count) in [(1, i64::MAX as u64), (2, i64::MAX as u64), (3, u64::MAX)] {
        lose(&mut gateway, "q", number, "stranger", count).await;
    }
    lose(&mut gateway, "q", u64::MAX, "stranger", 1).await;
    lose(&mut gateway, &"q".repeat(1000), 1, "stranger", 1).await;
    lose(&mut gateway, "q", 4, "gw/filter", 1).await;
    let of_stranger = central.get("/api/ext/devices/stranger/losses/totals").await;
    assert_eq!(of_stranger["value"], json!([]));
    let most = (1_u64 << 53) - 1;
    let totals = central.get("/api/ext/devices/gw/losses/totals").await;
    let sums: Vec<_> =
        totals["value"].as_array().unwrap().iter().map(|sum| (&sum["module"], &sum["count"])).collect();
    assert_eq!(sums, [(&Value::Null, &json!(most)), (&json!("filter"), &json!(1))], "{totals}");
    assert_eq!(totals["byCause"]["expired"], most);
    assert_eq!(central.get("/api/ext/devices/gw/losses").await["value"].as_array().unwrap().len(), 4);
    central.end().await;
}

#[tokio::test]
async fn an_operator_takes_over_an_id_that_a_gateway_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let (central, mut gateway) = with_gateway(dir.path()).await;
    for id in ["press-1", "press-2", "press-3", "press-4"] {
        send_every_message(&mut gateway, id).await;
        assert_eq!(central.get(&format!("/api/ext/devices/{id}/status")).await["gateway"], "gw");
    }
    // A change leaves it with the gateway.
    central.patch("/api/devices/press-1", json!({"displayName": "Press 1"})).await;
    assert_eq!(central.get("/api/ext/devices/press-1/status").await["gateway"], "gw");

    // A registration makes it another device, which may be a gateway as well.
    for (id, request) in [("press-1", json!({})), ("press-2", json!({"type": ["edge"]}))] {
        central.put(&format!("/api/devices/{id}"), request).await;
        let state = central.get(&format!("/api/ext/devices/{id}/status")).await;
        assert_eq!(state["gateway"], Value::Null, "{state}");
        central.get(&format!("/api/devices/{id}/credentials")).await;
        let properties = central.get(&format!("/api/devices/{id}/properties")).await;
        assert!(!properties.to_string().contains("old"), "{properties}");
        send_every_message(&mut gateway, id).await;
        assert_eq!(central.get(&format!("/api/ext/devices/{id}/status")).await["connected"], false);
    }
    assert_eq!(central.get("/api/devices/press-1").await["displayName"], "Press 1");
    let mut press = central.client("press-1").await;
    press.publish("devices/press-1/messages/events/", "{}").await;

    // So does a relationship, to this gateway or another.
    central.put("/api/devices/gw-2", json!({"type": ["edge"]})).await;
    for (source, id) in [("gw-2", "press-3"), ("gw", "press-4")] {
        central.put(&format!("/api/devices/{source}/relationships/r-{id}"), json!({"target": id})).await;
        assert_eq!(central.get(&format!("/api/ext/devices/{id}/status")).await["gateway"], source);
    }
    central.end().await;
}
