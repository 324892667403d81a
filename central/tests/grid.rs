//! The list of devices as the console shows it: pages, filters, orders and counts agree with one another.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::collections::BTreeSet;

use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

/// The ids of all pages.
async fn ids(central: &Central, query: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = central.get(&format!("/api/ext/grid?limit=3{query}{cursor}")).await;
        ids.extend(
            page["value"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn pages_filters_orders_and_counts_agree() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"], "displayName": "Hall 3"})).await;
    for n in 0..8 {
        let template = if n < 3 { json!({"template": "dtmi:x;1"}) } else { json!({}) };
        central.put(&format!("/api/devices/d{n}"), template).await;
    }
    for n in 0..2 {
        let relationship = json!({"name": "r", "target": format!("d{n}")});
        central.put(&format!("/api/devices/gw/relationships/r{n}"), relationship).await;
    }
    central.patch("/api/devices/d7", json!({"enabled": false})).await;
    let mut d6 = central.client("d6").await;
    d6.publish("devices/d6/messages/events/", r#"{"t": 1}"#).await;
    central
        .until("/api/ext/grid?search=d6", |page| page["value"][0]["lastSeen"].is_string().then_some(()))
        .await;

    let all = ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "gw"];
    assert_eq!(ids(&central, "").await, all);
    let mut backwards = all;
    backwards.reverse();
    assert_eq!(ids(&central, "&order=desc").await, backwards);
    assert_eq!(ids(&central, "&sort=name").await, all, "Hall 3 stands behind d7");
    assert_eq!(ids(&central, "&sort=lastSeen&order=desc").await[0], "d6");
    let by_verdict = ids(&central, "&sort=verdict").await;
    assert_eq!((by_verdict[7].as_str(), by_verdict[8].as_str()), ("d7", "d6"), "blocked, and well");
    assert_eq!(by_verdict.iter().collect::<BTreeSet<_>>().len(), 9);
    let mut reversed = ids(&central, "&sort=verdict&order=desc").await;
    reversed.reverse();
    assert_eq!(reversed, by_verdict);
    assert_eq!(ids(&central, "&kind=gateways").await, ["gw"]);
    assert_eq!(ids(&central, "&search=HALL").await, ["gw"]);
    assert_eq!(ids(&central, "&gateway=gw").await, ["d0", "d1"]);
    assert_eq!(ids(&central, "&template=dtmi:x;1").await, ["d0", "d1", "d2"]);
    assert_eq!(ids(&central, "&template=&kind=devices").await, ["d3", "d4", "d5", "d6", "d7"]);
    assert_eq!(ids(&central, "&verdict=blocked").await, ["d7"]);
    for filter in ["", "&kind=devices", "&verdict=unknown", "&template=dtmi:x;1", "&gateway=gw", "&search=d"]
    {
        let counts = central.get(&format!("/api/ext/grid/counts?{}", filter.trim_start_matches('&'))).await;
        let listed = ids(&central, filter).await.len() as u64;
        let sum =
            |of: &Value| of.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
        assert_eq!(counts["total"], listed, "{filter}: {counts}");
        assert_eq!((sum(&counts["byVerdict"]), sum(&counts["byTemplate"])), (listed, listed), "{filter}");
    }
    let page = central.get("/api/ext/grid?search=d6").await;
    let row = &page["value"][0];
    assert!(row["lastTelemetryAt"].is_string() && row["organization"] == "root", "{row}");
    assert_eq!((&row["state"]["verdict"], &row["kind"]), (&json!("ok"), &json!("device")));
    let page = central.get("/api/ext/grid?kind=gateways").await;
    assert_eq!(page["value"][0]["children"], 2);
    let page = central.get("/api/ext/grid?search=d0").await;
    assert_eq!(page["value"][0]["gateway"], "gw");
    central.end().await;
}

#[tokio::test]
async fn a_wrong_query_names_the_parameter_and_what_may_stand_there() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let other = central.get("/api/ext/grid?sort=name").await;
    assert_eq!(other["nextCursor"], Value::Null);
    for (query, name) in [
        ("kind=x", "kind"),
        ("verdict=green", "verdict"),
        ("sort=colour", "sort"),
        ("order=up", "order"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=eyJJZCI6ImEifQ&sort=name", "cursor"),
    ] {
        let (status, answer) = central.send(Method::GET, &format!("/api/ext/grid?{query}"), None).await;
        assert_eq!(status, 400, "{query}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{name}:")), "{query}: {message}");
    }
    central.end().await;
}
