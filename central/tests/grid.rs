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

#[tokio::test]
async fn a_device_with_a_wrong_key_is_reported_by_the_api_the_overview_and_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for id in ["press-1", "press%2"] {
        central.put(&format!("/api/devices/{}", id.replace('%', "%25")), json!({})).await;
    }
    let why = "/api/ext/devices/press-1/why";
    let before = central.get(why).await;
    assert_eq!(
        (&before["verdict"], &before["causes"][0]["id"]),
        (&json!("unknown"), &json!("never-connected"))
    );
    let mut wrong = central.client_with_key("press-1", b"another key");
    assert!(wrong.events.poll().await.is_err());
    let refused = |answer: &Value| (answer["causes"][0]["id"] == "wrong-key").then(|| answer.clone());
    let explained = central.until(why, refused).await;
    assert_eq!(explained["causes"][0]["certainty"], "certain");
    let evidence = explained["causes"][0]["evidence"][0]["text"].as_str().unwrap();
    assert!(evidence.contains("127.0.0.1") && evidence.contains("another key"), "{evidence}");

    let overview = central.get("/api/ext/overview").await;
    assert_eq!(overview["counts"], json!({"gateways": {}, "devices": {"unknown": 2}}));
    let rows = overview["needsYou"].as_array().unwrap();
    let row = rows.iter().find(|row| row["device"] == "press-1").unwrap();
    assert_eq!(
        (&row["causeId"], &row["group"], &row["hidden"]),
        (&json!("wrong-key"), &json!("later"), &json!(0))
    );
    assert!(overview["storage"]["bytesUsed"].as_u64().unwrap() > 0);

    let listen = central.started.http.to_string();
    for (id, status, phrase) in [
        ("press-1", true, "another key"),
        ("press%2", true, "has never connected"),
        ("none", false, "is not registered"),
    ] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_central"));
        command.args(["device", "why", id, "--data-dir"]).arg(dir.path());
        let done = command.env("CENTRAL__HTTP__LISTEN", &listen).output().await.unwrap();
        let said = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(done.status.success() == status && said.contains(phrase), "{id}: {said}");
    }
    let tokens = central.get("/api/apiTokens").await;
    assert_eq!(tokens["value"].as_array().unwrap().len(), 1, "the command line leaves no token: {tokens}");
    central.end().await;
}

#[tokio::test]
async fn the_overview_shows_a_gateway_that_is_away_once_and_counts_the_devices_that_it_hides() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    for n in 0..3 {
        central.put(&format!("/api/devices/d{n}"), json!({})).await;
        let relationship = json!({"name": "r", "target": format!("d{n}")});
        central.put(&format!("/api/devices/gw/relationships/r{n}"), relationship).await;
    }
    let mut gateway = central.client("gw").await;
    gateway.publish("devices/gw/messages/events/", "{}").await;
    let row = |overview: &Value| {
        let rows = overview["needsYou"].as_array().unwrap();
        rows.iter().find(|row| row["device"] == "gw").cloned()
    };
    central.until("/api/ext/overview", |overview| row(overview).is_none().then_some(())).await;
    drop(gateway);
    let needed = central.until("/api/ext/overview", row).await;
    assert_eq!(
        (&needed["group"], &needed["hidden"], &needed["causeId"]),
        (&json!("now"), &json!(3), &json!("link-down"))
    );
    let overview = central.get("/api/ext/overview").await;
    assert_eq!(overview["needsYou"].as_array().unwrap().len(), 1, "{overview}");
    let why = central.get("/api/ext/devices/d1/why").await;
    assert_eq!(why["causes"][0]["id"], "gateway-down");
    central.end().await;
}
