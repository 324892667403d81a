//! Data directories that go back in time, with both programs: what is acknowledged arrives, or is told as a loss. No containers
//! needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::five::Device;
use site_tests::process::run;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::process::Command;

const DEVICE: &str = "press-1";

async fn site(dir: &Path, gateway: &str) -> (Site, Login) {
    let mut site = Site::new(dir, gateway, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    let login = site.add_leaf(DEVICE, Duration::ZERO).await.unwrap().login();
    site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    (site, login)
}

/// Publishes numbers; each is acknowledged.
async fn publish(site: &Site, login: &Login, numbers: Range<u32>) {
    let mut device = Device::connect(login, site.gateway_mqtt).await.unwrap();
    for number in numbers {
        let topic = format!("devices/{DEVICE}/messages/events/");
        let answer = device.publish(&topic, number.to_string()).await.unwrap();
        assert_eq!(answer.reason, rumqttc::v5::mqttbytes::v5::PubAckReason::Success, "{}", answer.why);
    }
}

/// The numbers that central has.
async fn arrived(site: &Site) -> BTreeSet<u32> {
    let messages = site.rest().unwrap().messages(DEVICE).await.unwrap();
    messages.iter().map(|message| u32::try_from(message["body"].as_u64().unwrap()).unwrap()).collect()
}

async fn all_arrived(site: &Site, numbers: &BTreeSet<u32>) {
    eventually("each acknowledged message in central", STEP, || async {
        Ok(arrived(site).await.is_superset(numbers).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}; {}", site.agent_log()));
}

async fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let (code, _, error) = run(Command::new("cp").arg("-a").args([from, to])).await.unwrap();
    assert_eq!(code, 0, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_takes_after_its_directory_was_restored_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, login) = site(dir.path(), "restored-gateway").await;
    let mut random = StdRng::seed_from_u64(11);
    let (mut next, mut sent) = (0, BTreeSet::new());
    let mut more = |most: u32| {
        let numbers = next..next + random.random_range(1..most);
        next = numbers.end;
        sent.extend(numbers.clone());
        (numbers, sent.clone())
    };
    let copied = dir.path().join("copy");
    for round in 0..4 {
        let (numbers, all) = more(60);
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
        site.stop_agent().await.unwrap();
        copy(&site.agent_dir(), &copied).await;
        site.start_agent().await.unwrap();
        site.gateway_connected(STEP).await.unwrap();
        let (numbers, all) = more(60);
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
        site.kill_agent().await.unwrap();
        // Fewer sequences than central has of it, as many, and more follow in the rounds.
        copy(&copied, &site.agent_dir()).await;
        site.start_agent().await.unwrap();
        let (numbers, all) = more(if round % 2 == 0 { 20 } else { 120 });
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
    }
    let totals = "/api/ext/devices/restored-gateway/losses/totals";
    let totals = site.rest().unwrap().get(totals).await.unwrap();
    assert!(!totals.to_string().contains("central-restored"), "{totals}");
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_central_has_no_more_is_reported_as_lost_and_what_follows_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, login) = site(dir.path(), "restored-central").await;
    publish(&site, &login, 0..50).await;
    all_arrived(&site, &(0..50).collect()).await;
    site.stop_central().await.unwrap();
    let (central, copied) = (dir.path().join("central"), dir.path().join("copy"));
    copy(&central, &copied).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    publish(&site, &login, 50..80).await;
    all_arrived(&site, &(0..80).collect()).await;
    site.kill_central().await.unwrap();
    copy(&copied, &central).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    publish(&site, &login, 80..100).await;
    all_arrived(&site, &(0..50).chain(80..100).collect()).await;
    assert_eq!(arrived(&site).await.len(), 70);
    let rest = site.rest().unwrap();
    let lost = eventually("the loss in central", STEP, || async {
        let losses = rest.get("/api/ext/devices/restored-central/losses").await?;
        let losses = losses["value"].as_array().cloned().unwrap_or_default();
        let of_cause = losses.iter().filter(|loss| loss["cause"] == "central-restored");
        let count: u64 = of_cause.filter_map(|loss| loss["count"].as_u64()).sum();
        // It may come in parts.
        Ok((count >= 30).then_some(count))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}; {}", site.agent_log()));
    assert_eq!(lost, 30, "acknowledged = arrived + told");
    let logged = || site.central_log().matches("not in its store, which was restored").count();
    eventually("the loss in central's log", STEP, || async { Ok((logged() > 0).then_some(())) })
        .await
        .unwrap();
    assert_eq!(logged(), 1, "{}", site.central_log());
    for start in 0..3 {
        let logged = site.central_log().len();
        site.stop_central().await.unwrap();
        site.start_central().await.unwrap();
        site.gateway_connected(STEP).await.unwrap();
        // What is repeated comes before it.
        let number = 100 + start;
        publish(&site, &login, number..number + 1).await;
        eventually("what follows", STEP, || async {
            Ok(arrived(&site).await.contains(&number).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!(alarms(&site.central_log()[logged..]), NOTHING, "start {start}");
    }
    site.end(false).await.unwrap();
}

const NOTHING: [&str; 0] = [];

/// What somebody should look at.
fn alarms(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect()
}

/// What central knows of: a path, and whether its answer says so.
type Fact = (&'static str, &'static str, fn(u16, &Value) -> bool);

fn lost(losses: &Value) -> u64 {
    let counts = losses["value"].as_array().into_iter().flatten().filter_map(|loss| loss["count"].as_u64());
    counts.sum()
}

/// Each kind of thing that a gateway tells central once and then forgets, and those that it tells on each connection.
const FACTS: [Fact; 7] = [
    ("losses", "/api/ext/devices/told-gateway/losses/totals", |_, v| v["byCause"]["expired"] == 20),
    ("losses of a device", "/api/ext/devices/press-1/losses", |_, v| lost(v) == 20),
    ("the answer of a command", "/api/devices/press-1/commands/reset", |_, v| {
        v["value"][0]["responseCode"] == 201 && v["value"][0]["response"] == "done"
    }),
    ("the end of a message", "/api/ext/devices/press-1/messages/devicebound", |_, v| {
        v["value"][0]["state"] == "delivered"
    }),
    ("the removal of a device", "/api/devices/gone-1", |status, _| status == 404),
    ("reported properties", "/api/devices/press-1/properties", |_, v| v["mode"] == "slow"),
    ("who is connected", "/api/ext/devices/press-1/status", |_, v| v["connected"] == true),
];

async fn central_knows_all(site: &Site, when: &str) {
    let rest = site.rest().unwrap();
    for (what, path, is_known) in FACTS {
        let mut last = Value::Null;
        let known = tokio::time::timeout(STEP, async {
            loop {
                if let Ok((status, answer)) = rest.send(Method::GET, path, None).await {
                    if is_known(status, &answer) {
                        return;
                    }
                    last = answer;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(known.await.is_ok(), "{when}, central does not know {what}: {last}; {}", site.agent_log());
    }
}

/// The next call of a method, answered, or the next message.
async fn next(device: &mut Device) -> String {
    let (topic, _) = device.message().await.unwrap();
    if let Some((method, rid)) = topic.split_once("/?$rid=") {
        device.publish(&format!("$iothub/methods/res/201/?$rid={rid}"), "\"done\"").await.unwrap();
        return method.rsplit('/').next().unwrap().to_owned();
    }
    "message".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_reported_once_is_reported_again_to_a_central_that_was_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, login) = site(dir.path(), "told-gateway").await;
    let rest = site.rest().unwrap().clone();
    let added = site.add_here(&["gone-1".to_owned()]).await.unwrap().remove(0);
    let mut gone = Device::connect(&added, site.gateway_mqtt).await.unwrap();
    gone.publish("devices/gone-1/messages/events/", "1").await.unwrap();
    drop(gone);
    let waits = json!({"validFor": 3600, "request": {}});
    rest.post("/api/devices/press-1/commands/reset", &waits).await.unwrap();
    rest.post("/api/ext/devices/press-1/messages/devicebound", &json!({"bodyText": "m"})).await.unwrap();
    eventually("the gateway has the command, the message, and central the device", STEP, || async {
        let command = rest.get("/api/devices/press-1/commands/reset").await?;
        let message = rest.get("/api/ext/devices/press-1/messages/devicebound").await?;
        let (known, _) = rest.send(Method::GET, "/api/devices/gone-1", None).await?;
        let has = command["value"][0].get("takenTime").is_some();
        Ok((has && message["value"][0]["state"] == "atGateway" && known == 200).then_some(()))
    })
    .await
    .unwrap();
    site.stop_central().await.unwrap();
    let (central, copied) = (dir.path().join("central"), dir.path().join("copy"));
    copy(&central, &copied).await;

    // After the backup: each kind of thing is told, acknowledged, and forgotten by the gateway.
    site.keep_for(1).await.unwrap();
    publish(&site, &login, 0..20).await;
    eventually("the messages expire", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        Ok((status["lostByCause"]["expired"] == 20).then_some(()))
    })
    .await
    .unwrap();
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"mode":"slow"}"#).await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    device.subscribe("devices/press-1/messages/devicebound/#").await.unwrap();
    let heard = BTreeSet::from([next(&mut device).await, next(&mut device).await]);
    assert_eq!(heard, BTreeSet::from(["message".to_owned(), "reset".to_owned()]));
    let (code, _, error) =
        run(&mut site.agent_command(&["device", "remove", "gone-1"]).unwrap()).await.unwrap();
    assert_eq!(code, 0, "{error}");
    central_knows_all(&site, "before the restore").await;

    // Nothing of it is in the backup, and the gateway sends nothing new.
    site.kill_central().await.unwrap();
    copy(&copied, &central).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    central_knows_all(&site, "after the restore").await;

    // Once more, to a central that has it: nothing counts twice, and no command runs twice, after a restart of the gateway either.
    site.kill_central().await.unwrap();
    site.kill_agent().await.unwrap();
    let (central_logged, agent_logged) = (site.central_log().len(), site.agent_log().len());
    site.start_central().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    rest.post("/api/devices/press-1/commands/next", &waits).await.unwrap();
    assert_eq!(next(&mut device).await, "next");
    central_knows_all(&site, "after a restart").await;
    assert_eq!(
        alarms(&site.central_log()[central_logged..]),
        NOTHING,
        "what was reported before is no alarm"
    );
    assert_eq!(alarms(&site.agent_log()[agent_logged..]), NOTHING, "what was reported before is no alarm");
    site.end(false).await.unwrap();
}
