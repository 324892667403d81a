//! Commands and twins of devices that are away, over a whole site whose programs are killed: a command that is valid for hours
//! runs once when its device comes, and what a device reports while the line is down goes up as one. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use rumqttc::Publish;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::device::Device;
use site_tests::leaf::LeafOptions;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::process::Command;

async fn listening(options: &LeafOptions, filter: &str) -> Device {
    let mut device = Device::leaf(options).await.unwrap();
    device.subscribe(filter).await.unwrap();
    device
}

async fn answer(device: &mut Device, call: &Publish, status: u16) {
    let rid = call.topic.split("$rid=").nth(1).unwrap();
    device.publish(&format!("$iothub/methods/res/{status}/?$rid={rid}"), "\"done\"").await.unwrap();
}

async fn site(dir: &std::path::Path, gateway: &str) -> (Site, LeafOptions) {
    let mut site = Site::new(dir, gateway, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let leaf = site.add_leaf("leaf", STEP).await.unwrap();
    (site, leaf)
}

async fn keep(site: &Site, name: &str, valid_for: u64) {
    let path = format!("/api/devices/leaf/commands/{name}");
    site.rest().unwrap().post(&path, &json!({"validFor": valid_for, "request": name})).await.unwrap();
}

async fn until(site: &Site, name: &str, has: impl Fn(&Value) -> bool) -> Value {
    let (path, rest) = (format!("/api/devices/leaf/commands/{name}"), site.rest().unwrap().clone());
    eventually(&format!("command {name}"), STEP, || async {
        let history = rest.get(&path).await?;
        let row = history["value"][0].clone();
        Ok(has(&row).then_some(row))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn commands_wait_for_a_leaf_over_kills_of_both_programs_and_each_runs_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, leaf) = site(dir.path(), "offline-gateway").await;

    // One stands on the gateway's disk, one waits in central for a gateway that is away; both programs are killed.
    keep(&site, "first", 3600).await;
    until(&site, "first", |row| row.get("takenTime").is_some()).await;
    site.kill_agent().await.unwrap();
    keep(&site, "second", 3600).await;
    keep(&site, "short", 1).await;
    let short = until(&site, "short", |row| row.get("error").is_some()).await;
    assert!(short["error"].as_str().unwrap().starts_with("expired: leaf"), "{short}");
    site.kill_central().await.unwrap();
    site.start_central().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    until(&site, "second", |row| row.get("takenTime").is_some()).await;

    let status = site.agent_json(&["status"]).await.unwrap();
    assert_eq!(status["commands"], json!({"waiting": 2, "running": 0, "answersNotTold": 0}), "{status}");

    // The line is down when the leaf comes: the gateway calls it, and is killed before it could tell central.
    site.kill_central().await.unwrap();
    let mut device = listening(&leaf, "$iothub/methods/POST/#").await;
    let call = device.message().await.unwrap();
    assert!(call.topic.starts_with("$iothub/methods/POST/first/"), "{}", call.topic);
    assert_eq!(&call.payload[..], b"\"first\"");
    answer(&mut device, &call, 201).await;
    // The second is called when the first one's answer stands in the journal, and is not answered.
    let call = device.message().await.unwrap();
    assert!(call.topic.starts_with("$iothub/methods/POST/second/"), "{}", call.topic);
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let first = until(&site, "first", |row| row.get("endedTime").is_some()).await;
    assert_eq!((&first["responseCode"], &first["response"]), (&json!(201), &json!("done")), "{first}");
    let second = until(&site, "second", |row| row.get("error").is_some()).await;
    assert!(second["error"].as_str().unwrap().starts_with("no answer by the deadline"), "{second}");

    // Neither runs again: what the leaf is called with next is the next command.
    let mut device = listening(&leaf, "$iothub/methods/POST/#").await;
    keep(&site, "third", 3600).await;
    let call = device.message().await.unwrap();
    assert!(call.topic.starts_with("$iothub/methods/POST/third/"), "{}", call.topic);
    answer(&mut device, &call, 200).await;
    until(&site, "third", |row| row["responseCode"] == 200).await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn patches_of_a_time_without_a_line_merge_and_a_desired_change_arrives_once_with_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, leaf) = site(dir.path(), "twin-gateway").await;
    let mut device = listening(&leaf, "$iothub/twin/PATCH/properties/desired/#").await;
    device
        .publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"mode":"slow","old":1}"#)
        .await
        .unwrap();
    site.kill_central().await.unwrap();
    for (rid, patch) in
        [(2, r#"{"mode":"fast"}"#), (3, r#"{"old":null,"new":{"a":1}}"#), (4, r#"{"new":{"b":2}}"#)]
    {
        device.publish(&format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}"), patch).await.unwrap();
    }
    // What was acknowledged is on the gateway's disk.
    site.kill_agent().await.unwrap();
    site.start_central().await.unwrap();
    let rest = site.rest().unwrap().clone();
    let path = "/api/devices/leaf/properties";
    for interval in [5, 6, 7] {
        rest.patch(path, &json!({"interval": interval})).await.unwrap();
    }
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    eventually("the merged reported section", STEP, || async {
        let shown = rest.get("/api/ext/devices/leaf/twin").await?;
        Ok((shown["reported"]["mode"] == "fast").then_some(shown))
    })
    .await
    .map(|shown| {
        let reported = &shown["reported"];
        assert_eq!((reported.get("old"), &reported["new"]), (None, &json!({"a": 1, "b": 2})), "{shown}");
        assert_eq!(reported["$version"], 4, "{shown}");
    })
    .unwrap();

    // The device reads its twin, and then hears only what is new.
    let mut device = listening(&leaf, "$iothub/twin/res/#").await;
    let deadline = tokio::time::Instant::now() + STEP;
    loop {
        let twin = device.twin().await.unwrap();
        if twin["desired"] == json!({"interval": 7, "$version": 3}) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{twin}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    device.subscribe("$iothub/twin/PATCH/properties/desired/#").await.unwrap();
    rest.patch(path, &json!({"interval": 8})).await.unwrap();
    let patch = device.message().await.unwrap();
    assert!(patch.topic.ends_with("$version=4"), "{}", patch.topic);
    let patch: Value = serde_json::from_slice(&patch.payload).unwrap();
    assert_eq!(patch, json!({"interval": 8, "$version": 4}));
    site.end(false).await.unwrap();
}

async fn copy(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    let (code, _, error) = run(Command::new("cp").arg("-a").args([from, to])).await.unwrap();
    assert_eq!(code, 0, "{error}");
}

/// The command of this name ended, and nobody says that its target was called, or was not.
async fn ended_as_lost(site: &Site, name: &str) {
    let lost = until(site, name, |row| row.get("error").is_some()).await;
    let text = lost["error"].as_str().unwrap();
    assert!(text.starts_with("lost: the gateway of leaf ") && text.ends_with("is not known"), "{lost}");
}

/// The leaf listens, and is called with what is requested now, with nothing before it.
async fn nothing_is_called_before(site: &Site, leaf: &LeafOptions, name: &str) {
    let mut device = listening(leaf, "$iothub/methods/POST/#").await;
    keep(site, name, 3600).await;
    let call = device.message().await.unwrap();
    assert!(call.topic.starts_with(&format!("$iothub/methods/POST/{name}/")), "{}", call.topic);
    answer(&mut device, &call, 200).await;
    until(site, name, |row| row["responseCode"] == 200).await;
}

/// Each part of a gateway's data that has its commands, removed or as it was before one came.
#[tokio::test]
async fn a_command_that_its_gateway_has_lost_ends_at_once_and_is_not_said_to_have_been_called() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, leaf) = site(dir.path(), "lost-gateway").await;
    let (data, copied) = (site.agent_dir(), dir.path().join("copy"));
    for (round, (part, is_older)) in
        [("", true), ("state", true), ("state", false), ("state/journal", false)].into_iter().enumerate()
    {
        site.stop_agent().await.unwrap();
        copy(&data.join(part), &copied).await;
        site.start_agent().await.unwrap();
        let name = format!("lost-{round}");
        keep(&site, &name, 3600).await;
        until(&site, &name, |row| row.get("takenTime").is_some()).await;
        site.kill_agent().await.unwrap();
        std::fs::remove_dir_all(data.join(part)).unwrap();
        if is_older {
            copy(&copied, &data.join(part)).await;
        }
        site.start_agent().await.unwrap();
        ended_as_lost(&site, &name).await;
        nothing_is_called_before(&site, &leaf, &format!("next-{round}")).await;
    }
    site.end(false).await.unwrap();
}

/// The copy of the state has it waiting, and it ran since, while central was away.
#[tokio::test]
async fn a_command_that_ran_does_not_run_again_from_an_older_state() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, leaf) = site(dir.path(), "older-gateway").await;
    let (state, copied) = (site.agent_dir().join("state"), dir.path().join("copy"));
    keep(&site, "reset", 3600).await;
    until(&site, "reset", |row| row.get("takenTime").is_some()).await;
    site.stop_agent().await.unwrap();
    copy(&state, &copied).await;
    site.kill_central().await.unwrap();
    site.start_agent().await.unwrap();
    let mut device = listening(&leaf, "$iothub/methods/POST/#").await;
    let call = device.message().await.unwrap();
    answer(&mut device, &call, 200).await;
    eventually("the answer on the gateway's disk", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        Ok((status["commands"]["answersNotTold"] == 1).then_some(()))
    })
    .await
    .unwrap();
    drop(device);
    site.kill_agent().await.unwrap();
    copy(&copied, &state).await;
    site.start_agent().await.unwrap();
    // It is here before the gateway reaches central.
    let mut device = listening(&leaf, "$iothub/methods/POST/#").await;
    site.start_central().await.unwrap();
    ended_as_lost(&site, "reset").await;
    keep(&site, "next", 3600).await;
    let call = device.message().await.unwrap();
    assert!(call.topic.starts_with("$iothub/methods/POST/next/"), "{}", call.topic);
    site.end(false).await.unwrap();
}
