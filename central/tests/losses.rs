//! What gateways lose: told on the link, kept once, and shown by the REST API as its description says.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::start;
use reqwest::Method;
use serde_json::{Value, json};

fn loss(number: u64, sender: &str, cause: &str, count: u64) -> Value {
    json!({"number": number, "cause": cause, "sender": sender, "first": number * 10, "last": number * 10 + 9,
        "count": count, "fromMs": 1_700_000_000_000_u64 + number, "untilMs": 1_700_000_000_500_u64 + number})
}

fn report(losses: Vec<Value>) -> String {
    json!({"queue": "5f0c", "name": "upstream@3", "losses": losses}).to_string()
}

#[tokio::test]
async fn a_loss_is_kept_once_over_a_restart_and_shown_for_its_gateway_and_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/press-1", json!({})).await;
    let behind = json!({"name": "x", "source": "gw", "target": "press-1"});
    central.put("/api/devices/gw/relationships/press-1", behind).await;
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let (topic, stored) = gateway.message("$ls/").await;
    assert_eq!((topic.as_str(), &stored["queues"]), ("$ls/stored", &json!({})), "the first word");
    let origin = stored["origin"].clone();
    gateway
        .publish(
            "$ls/losses",
            report(vec![loss(1, "press-1", "expired", 4), loss(2, "gw/filter", "evicted", 2)]),
        )
        .await;
    let place = "%24.ls-queue=5f0c&%24.ls-seq=7&%24.ls-ms=1700000000000";
    gateway.publish(&format!("devices/gw/messages/events/{place}"), "{}").await;
    central.end().await;

    // It was killed before it heard of the acknowledgement: it tells again, and more.
    let central = start(dir.path()).await;
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let (topic, stored) = gateway.message("$ls/").await;
    assert_eq!((topic.as_str(), &stored["queues"]), ("$ls/stored", &json!({"5f0c": 7})));
    assert_eq!((&stored["origin"], &stored["isComplete"]), (&origin, &json!(true)));
    let again = vec![
        loss(1, "press-1", "expired", 4),
        loss(2, "gw/filter", "evicted", 2),
        loss(3, "press-1", "central-restored", 1),
    ];
    gateway.publish("$ls/losses", report(again)).await;

    let all = central.get("/api/ext/devices/gw/losses").await;
    let all = all["value"].as_array().unwrap();
    let short: Vec<_> =
        all.iter().map(|loss| (loss["cause"].as_str().unwrap(), loss["count"].as_u64().unwrap())).collect();
    assert_eq!(short, [("expired", 4), ("evicted", 2), ("central-restored", 1)]);
    let health = central.get("/api/ext/health").await;
    assert_eq!(health["messagesLostByRestore"], 1, "{health}");
    assert_eq!(
        (&all[1]["gateway"], &all[1]["queue"], &all[1]["device"], &all[1]["module"]),
        (&json!("gw"), &json!("upstream@3"), &json!("gw"), &json!("filter"))
    );
    assert_eq!((&all[0]["firstSequence"], &all[0]["lastSequence"]), (&json!(10), &json!(19)));
    assert_eq!(all[0]["from"], "2023-11-14T22:13:20.001Z");
    let after = format!("/api/ext/devices/gw/losses?after={}&limit=1", all[0]["id"]);
    assert_eq!(central.get(&after).await["value"], json!([all[1]]));

    let of_press = central.get("/api/ext/devices/press-1/losses/totals").await;
    assert_eq!(of_press["byCause"], json!({"expired": 4, "central-restored": 1}));
    assert_eq!(of_press["value"][0]["count"], 1, "{of_press}");
    let sums = central.get("/api/ext/devices/gw/losses/totals").await;
    assert_eq!(sums["byCause"], json!({"expired": 4, "evicted": 2, "central-restored": 1}));

    for (path, status, phrase) in [
        ("/api/ext/devices/none/losses", 404, "`none`"),
        ("/api/ext/devices/gw/losses?limit=1001", 400, "limit"),
        ("/api/ext/devices/gw/losses?before=1", 400, "before"),
    ] {
        let (found, answer) = central.send(Method::GET, path, None).await;
        assert_eq!(found, status, "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(phrase), "{answer}");
    }
    // What the description says that there is, there is, and nothing else.
    let described = central.get("/openapi.json").await;
    let schemas = &described["components"]["schemas"];
    let described: Vec<&String> = schemas["LossBody"]["properties"].as_object().unwrap().keys().collect();
    let mut shown: Vec<&String> = all[1].as_object().unwrap().keys().collect();
    let mut expected = described.clone();
    shown.sort();
    expected.sort();
    assert_eq!(shown, expected, "{}", schemas["LossBody"]);
    central.end().await;
}
