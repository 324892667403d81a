//! Inputs of modules: several messages in flight, in order, again after the module was away; and one that never answers
//! keeps nobody waiting and costs no more memory than its window. The modules are plain clients; no containers run.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use edge_core::access::sas;
use rumqttc::{MqttOptions, Publish};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::device;
use site_tests::five::Device;
use site_tests::leaf::LeafOptions;
use site_tests::rest::eventually;
use site_tests::site::Site;

/// As docs/protocol.md says.
const WINDOW: u64 = 64;
const MESSAGES: u64 = 200;

/// A module that acknowledges only what it is told to.
struct Module(device::Device);

impl Module {
    async fn connect(site: &Site, name: &str) -> Self {
        let secret = std::fs::read(site.agent_dir().join("module-key")).unwrap();
        let options = LeafOptions {
            identity: format!("{}/{name}", site.gateway).parse().unwrap(),
            key: sas::sign(&secret, format!("key {name}").as_bytes()),
            hub_name: site_tests::site::hostname(),
            port: site.gateway_mqtt,
            ca: None,
            interval: Duration::ZERO,
            padding: 0,
        };
        let (user, token) = options.login().account.unwrap();
        let mut mqtt = MqttOptions::new(format!("{}/{name}", site.gateway), "127.0.0.1", site.gateway_mqtt);
        mqtt.set_credentials(user, token).set_manual_acks(true).set_max_packet_size(1 << 20, 1 << 20);
        let mut device = device::Device::connect(mqtt).await.unwrap();
        device.subscribe(&format!("devices/{}/modules/{name}/inputs/#", site.gateway)).await.unwrap();
        Self(device)
    }

    async fn message(&mut self) -> (u64, Publish) {
        let publish = self.0.message().await.unwrap();
        let body: Value = serde_json::from_slice(&publish.payload).unwrap();
        (body["n"].as_u64().unwrap(), publish)
    }

    async fn acknowledge(&self, publish: &Publish) {
        self.0.client.ack(publish).await.unwrap();
    }

    /// That nothing more comes: the answer to a PINGREQ overtakes nothing.
    async fn nothing_more(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(700), self.message()).await;
        assert!(quiet.is_err(), "more than the window: {:?}", quiet.map(|(n, _)| n));
    }
}

fn memory_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_module_has_a_window_in_order_and_one_that_never_answers_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "inputs-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    // They are in the manifest, so they may connect; no image of theirs is ever there.
    let module = || json!({"status": "stopped", "imagePullPolicy": "never", "settings": {"image": "lineside-test/none:1"}});
    let into = |name: &str| format!("FROM /messages/* INTO BrokeredEndpoint(\"/modules/{name}/inputs/in\")");
    let manifest = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"echo": module(), "deaf": module()}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.2",
            "routes": {"echo": into("echo"), "deaf": into("deaf")}}},
    }});
    let file = dir.path().join("inputs.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    site.put_in_force(&file).await.unwrap();
    let (mut echo, mut deaf) = (Module::connect(&site, "echo").await, Module::connect(&site, "deaf").await);
    let login = site.add_here(&["inputs-1".to_owned()]).await.unwrap().remove(0);
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    let topic = "devices/inputs-1/messages/events/";
    for n in 1..=MESSAGES {
        device.publish(topic, json!({"n": n}).to_string()).await.unwrap();
    }

    // Neither has acknowledged anything: each has a window, in order, and no more.
    let mut held = Vec::new();
    for expected in 1..=WINDOW {
        let (n, publish) = echo.message().await;
        assert_eq!(n, expected);
        held.push(publish);
        assert_eq!(deaf.message().await.0, expected);
    }
    deaf.nothing_more().await;
    echo.nothing_more().await;
    // One of them answers, and gets the rest in order.
    for publish in &held {
        echo.acknowledge(publish).await;
    }
    for expected in WINDOW + 1..=MESSAGES {
        let (n, publish) = echo.message().await;
        assert_eq!(n, expected);
        echo.acknowledge(&publish).await;
    }
    // The other one goes, and comes back to the first that it had not acknowledged.
    drop(deaf);
    let mut deaf = Module::connect(&site, "deaf").await;
    for expected in 1..=WINDOW {
        assert_eq!(deaf.message().await.0, expected);
    }

    // Thirty megabytes wait for it on disk, not in memory, and the device is served as ever.
    let before = memory_kib(site.agent_id().unwrap());
    let padding = "x".repeat(100_000);
    for n in MESSAGES + 1..=MESSAGES + 300 {
        device.publish(topic, json!({"n": n, "padding": padding}).to_string()).await.unwrap();
        // At once: what the other one has not read yet is no part of what is measured.
        let (found, publish) = echo.message().await;
        assert_eq!(found, n);
        echo.acknowledge(&publish).await;
    }
    let settled = eventually("echo's queue is empty and deaf's is not", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        let waits = |name: &str| {
            let queues = status["queues"].as_array().into_iter().flatten();
            queues.filter(|queue| queue["name"] == name).find_map(|queue| queue["messages"].as_u64())
        };
        Ok((waits("inputs/echo") == Some(0) && waits("inputs/deaf") == Some(MESSAGES + 300)).then_some(()))
    });
    tokio::select! {
        settled = settled => settled.unwrap(),
        // What was acknowledged last must leave this client.
        ended = async { loop { if let Err(error) = echo.0.events.poll().await { break error } } } => panic!("{ended}"),
    }
    let grown = memory_kib(site.agent_id().unwrap()).saturating_sub(before);
    println!("30 MB wait for a module that never answers; the daemon grew by {grown} KiB");
    assert!(grown < 12 * 1024, "{grown} KiB");
    site.end(true).await.unwrap();
}
