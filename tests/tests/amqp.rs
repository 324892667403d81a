//! AMQP clients at a gateway: the unmodified Azure device SDK for Node, and rhea, which knows nothing of Azure, as many devices on
//! one connection whose gateway is killed with SIGKILL again and again. What is accepted is on disk.
//! `LINESIDE_SEED` repeats a run's moments, `LINESIDE_KILLS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use site_tests::client::{Client, Kind};
use site_tests::device_certificate::DeviceCertificate;
use site_tests::port::free_port;
use site_tests::rest::{Rest, eventually};
use site_tests::site::Site;

const STEP: Duration = Duration::from_secs(60);
/// The SDKs know no other.
const AMQPS: u16 = 5671;
/// How the devices of the load send: message by message, with a link that wants to settle second, and in batches.
const STYLES: [&str; 3] = ["plain", "settled second", "batches"];

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A site whose gateway serves AMQP on this port.
async fn site(dir: &Path, port: u16) -> Site {
    let mut site = Site::new(dir, "amqp-gateway", false).unwrap();
    site.agent_env.push(("EDGE_AGENT__LISTEN__AMQPS", format!("127.0.0.1:{port}")));
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site
}

/// Adds a device of which the gateway has heard; gives its key.
async fn added(site: &Site, id: &str) -> String {
    let leaf = site.add_leaf(id, Duration::ZERO).await.unwrap();
    site.leaves_known(&[leaf.login()]).await.unwrap();
    site.key(id).await.unwrap()
}

fn by_key(site: &Site, id: &str, key: &str) -> Value {
    json!({
        "amqp": true,
        "connection_string":
            format!("HostName=localhost;DeviceId={id};SharedAccessKey={key};GatewayHostName=localhost"),
        "ca": site.gateway_ca(),
    })
}

/// Starts the SDK as a device that connects by `how`.
async fn sdk(site: &Site, id: &str, how: &Value) -> Client {
    let mut command = Kind::Node.command("azure_client.js").unwrap();
    command.arg("device");
    let mut client = Client::start(id, command, &site.dir.join(format!("{id}.log"))).unwrap();
    client.command(how).await.unwrap();
    client
}

/// Waits for the messages of a device whose bodies have this round; gives them in the order of their arrival.
async fn in_central(rest: &Rest, id: &str, round: u64, count: usize) -> Vec<Value> {
    eventually("the messages in central", STEP, || async {
        let mut messages = rest.messages(id).await?;
        messages.retain(|message| message["body"]["round"] == round);
        Ok((messages.len() >= count).then_some(messages))
    })
    .await
    .unwrap()
}

/// Two messages arrive, each once, with what belongs to them; `round` makes them different each time.
async fn telemetry_arrives(rest: &Rest, client: &mut Client, id: &str, round: u64) {
    let properties = json!({"line": "A&B", "plus+space": "1 + 1 = 2/1", "round": round.to_string()});
    for n in 0..2 {
        let body = json!({"round": round, "n": n}).to_string();
        client.command(&json!({"do": "send", "body": body, "properties": properties})).await.unwrap();
        client.event("sent", STEP).await.unwrap();
    }
    let messages = in_central(rest, id, round, 2).await;
    let numbers: Vec<u64> = messages.iter().map(|message| message["body"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1], "{messages:?}");
    for (key, value) in properties.as_object().unwrap() {
        for message in &messages {
            assert_eq!(&message["properties"][key], value, "{message}");
        }
    }
}

/// Telemetry, before and after the gateway is killed; what is sent while it is away waits in the SDK.
async fn telemetry_goes_on_over_kills(site: &mut Site, id: &str, how: Value) {
    let rest = site.rest().unwrap().clone();
    let mut client = sdk(site, id, &how).await;
    client.event("ready", STEP).await.unwrap();
    telemetry_arrives(&rest, &mut client, id, 1).await;
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    telemetry_arrives(&rest, &mut client, id, 2).await;
    site.kill_agent().await.unwrap();
    client.command(&json!({"do": "send", "body": json!({"round": 3}).to_string()})).await.unwrap();
    site.start_agent().await.unwrap();
    client.event("sent", STEP).await.unwrap();
    in_central(&rest, id, 3, 1).await;
    telemetry_arrives(&rest, &mut client, id, 4).await;
    client.end(STEP).await.unwrap();
}

#[tokio::test]
async fn a_node_device_with_a_symmetric_key_sends_over_amqp_and_goes_on_after_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), AMQPS).await;
    let key = added(&site, "amqp-sas").await;
    let how = by_key(&site, "amqp-sas", &key);
    telemetry_goes_on_over_kills(&mut site, "amqp-sas", how).await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_node_device_with_a_certificate_sends_over_amqp_and_goes_on_after_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), AMQPS).await;
    let how = by_certificate(&site, "amqp-x509").await;
    telemetry_goes_on_over_kills(&mut site, "amqp-x509", how).await;
    site.end(false).await.unwrap();
}

/// How a device with a self-signed certificate connects; gateway and central know the certificate.
async fn by_certificate(site: &Site, id: &str) -> Value {
    added(site, id).await;
    let files = DeviceCertificate::of(site, id).await.unwrap();
    // The SDK does not try again after it was refused.
    eventually("the gateway knows the certificate", STEP, || async {
        let listed = site.agent_json(&["device", "list"]).await?;
        let mut devices = listed["devices"].as_array().into_iter().flatten();
        Ok(devices
            .any(|device| device["id"] == id && device["attestation"] == "x509Thumbprint")
            .then_some(()))
    })
    .await
    .unwrap();
    json!({
        "amqp": true, "certificate": files.certificate, "key": files.key, "gateway": "localhost", "device": id,
        "ca": site.gateway_ca(),
    })
}

#[tokio::test]
async fn a_node_device_with_a_wrong_key_is_refused_over_amqp() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), AMQPS).await;
    added(&site, "amqp-wrong").await;
    let how = by_key(&site, "amqp-wrong", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let mut client = sdk(&site, "amqp-wrong", &how).await;
    let refused = client.event("refused", STEP).await.unwrap();
    assert_eq!(refused["error"], "UnauthorizedError", "{refused}");
    site.end(false).await.unwrap();
}

/// Numbers of messages, in the order of their arrival.
async fn arrived(rest: &Rest, id: &str) -> anyhow::Result<Vec<u64>> {
    let messages = rest.messages(id).await?;
    Ok(messages.iter().filter_map(|message| message["body"]["n"].as_u64()).collect())
}

#[tokio::test]
async fn what_is_accepted_over_amqp_arrives_once_and_in_order_over_kills_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let mut site = site(dir.path(), port).await;
    let mut devices = Vec::new();
    for (n, style) in STYLES.iter().enumerate() {
        let id = format!("amqp-load-{n}");
        devices.push(json!({"key": added(&site, &id).await, "style": style, "id": id}));
    }
    let command = Kind::Node.command("rhea_load.js").unwrap();
    let mut load = Client::start("rhea", command, &dir.path().join("rhea.log")).unwrap();
    load.command(&json!({"port": port, "ca": site.gateway_ca(), "devices": devices})).await.unwrap();

    let seed = number_of("LINESIDE_SEED", u64::from(std::process::id()));
    println!("LINESIDE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut least = 0;
    for _ in 0..number_of("LINESIDE_KILLS", 4) {
        least = progress(&mut load, least).await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        site.kill_agent().await.unwrap();
        site.start_agent().await.unwrap();
    }
    progress(&mut load, least).await;
    load.command(&json!({"do": "stop"})).await.unwrap();
    let result = load.event("result", STEP).await.unwrap();
    load.end(STEP).await.unwrap();
    for device in &devices {
        let id = device["id"].as_str().unwrap();
        nothing_is_lost(site.rest().unwrap(), id, &result["devices"][id]).await;
    }
    site.end(false).await.unwrap();
}

/// Waits until every device has had so many more messages accepted that some of them were sent after `least` were.
async fn progress(load: &mut Client, least: u64) -> u64 {
    let is_further = |event: &Value| event["least"].as_u64().is_some_and(|now| now >= least + 150);
    let event = load.event_where("progress", STEP, is_further).await.unwrap();
    event["least"].as_u64().unwrap()
}

async fn nothing_is_lost(rest: &Rest, id: &str, result: &Value) {
    let accepted: BTreeSet<u64> =
        result["accepted"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect();
    assert_eq!((&result["released"], &result["rejected"]), (&json!(0), &json!(0)), "{id}");
    let arrived = eventually("what was accepted in central", STEP, || async {
        let arrived = arrived(rest, id).await?;
        let is_all = accepted.iter().all(|number| arrived.contains(number));
        Ok(is_all.then_some(arrived))
    })
    .await
    .unwrap();
    println!("{id}: sent {}, accepted {}, arrived {}", result["sent"], accepted.len(), arrived.len());
    // Nothing was sent twice.
    assert!(arrived.is_sorted_by(|a, b| a < b), "{id}: twice, or out of order: {arrived:?}");
}
