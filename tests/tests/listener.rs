//! Who may come through the gateway's listener, and what the log says of those who may not. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError, Event, Packet, QoS};
use site_tests::STEP;
use site_tests::job::exactly_once;
use site_tests::leaf::{Leaf, LeafOptions};
use site_tests::rest::eventually;
use site_tests::site::Site;

async fn site(dir: &std::path::Path) -> Site {
    let mut site = Site::new(dir, "listener-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site
}

/// Waits until the gateway knows a leaf that central attached, by the leaf's first acknowledged message.
async fn known(options: &LeafOptions) {
    let mut leaf = Leaf::start(options.clone());
    leaf.acknowledged_more(1, STEP).await.unwrap();
    leaf.stop().await.unwrap();
}

async fn logged(site: &Site, words: &[&str]) {
    eventually(&format!("a log line with {words:?}"), STEP, || async {
        let log = site.agent_log();
        Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn another_devices_key_or_topic_is_refused_and_the_log_says_who_and_what() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let one = site.add_leaf("leaf-one", Duration::from_millis(20)).await.unwrap();
    let two = site.add_leaf("leaf-two", Duration::from_millis(20)).await.unwrap();
    known(&one).await;
    known(&two).await;

    // Another device's key.
    let thief = LeafOptions { key: two.key.clone(), ..one.clone() };
    let (_client, mut events) = thief.client(10);
    let refused = events.poll().await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))),
        "{refused:?}"
    );
    logged(&site, &["leaf-one", "refused"]).await;

    // Another device's topic.
    let (client, mut events) = one.client(10);
    client.publish("devices/leaf-two/messages/events/", QoS::AtLeastOnce, false, "{}").await.unwrap();
    let ended = loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => panic!("another device's topic was acknowledged"),
            Ok(_) => {}
            Err(ended) => break ended,
        }
    };
    assert!(!matches!(ended, ConnectionError::ConnectionRefused(_)), "{ended:?}");
    logged(&site, &["leaf-one", "devices/leaf-two/messages/events/", "refused"]).await;

    // Another device's inbox.
    let (client, mut events) = one.client(10);
    client.subscribe("devices/leaf-two/messages/devicebound/#", QoS::AtLeastOnce).await.unwrap();
    let ack = loop {
        if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.unwrap() {
            break ack;
        }
    };
    assert_eq!(ack.return_codes, [rumqttc::SubscribeReasonCode::Failure]);
    logged(&site, &["leaf-one", "devices/leaf-two/messages/devicebound/#", "refused"]).await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn killed_five_times_under_load_the_gateway_loses_nothing_acknowledged_and_central_stores_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let mut leaves = Vec::new();
    for index in 0..5 {
        leaves.push(Leaf::start(
            site.add_leaf(&format!("load-{index}"), Duration::from_millis(2)).await.unwrap(),
        ));
    }
    for round in 0..5 {
        for leaf in &mut leaves {
            leaf.acknowledged_more(50, STEP).await.unwrap();
        }
        site.kill_agent().await.unwrap();
        if round == 2 {
            site.kill_central().await.unwrap();
            site.start_central().await.unwrap();
        }
        site.start_agent().await.unwrap();
    }
    let rest = site.rest().unwrap().clone();
    let (mut acknowledged, mut unknown) = (0, 0);
    for (index, leaf) in leaves.into_iter().enumerate() {
        let seen = leaf.stop().await.unwrap();
        assert!(seen.connections >= 5, "the leaf was connected {} times", seen.connections);
        acknowledged += seen.acknowledged.len();
        unknown += seen.unknown.len();
        exactly_once(&rest, &format!("load-{index}"), || seen.clone()).await.unwrap();
    }
    println!("acknowledged {acknowledged}, lost 0, twice 0, unknown to the leaf {unknown}");
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/demo.json");
    let (code, out, error) =
        site_tests::process::run(&mut site.agent_command(&["plan", manifest]).unwrap()).await.unwrap();
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("sensor") && out.contains("filter"), "{out}");
    let running = site_tests::docker::running(&site.network).await.unwrap();
    assert!(running.is_empty(), "{running:?}");
    site.end(true).await.unwrap();
}
