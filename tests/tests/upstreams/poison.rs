//! A message that upstream refuses for itself waits in quarantine with its reason, and those behind it go on.

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::process::run;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;

use crate::broker::{Broker, STEP, gateway, is_now, next, observe, set_upstream, start};
use crate::publisher::{of, publish};

async fn quarantine(site: &Site, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = std::iter::once("quarantine").chain(arguments.iter().copied()).collect();
    site.agent_json(&arguments).await.unwrap()
}

async fn set_aside(site: &Site, count: u64) -> Vec<Value> {
    eventually(&format!("{count} messages are in quarantine"), STEP, || async {
        let list = site.agent_json(&["quarantine", "list"]).await?;
        Ok((list["count"] == count).then(|| list["messages"].as_array().cloned().unwrap_or_default()))
    })
    .await
    .unwrap()
}

async fn nothing_waits(site: &Site) {
    eventually("the queue is empty", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        Ok((status["queues"][0]["messages"] == 0).then_some(()))
    })
    .await
    .unwrap();
}

fn texts(from: u32, count: u32) -> impl Iterator<Item = String> {
    (from..from + count).map(|n| n.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_refuses_is_set_aside_shown_put_back_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let acl = dir.path().join("acl");
    std::fs::write(&acl, "user gateway\ntopic write site/#\ntopic deny site/up-poison/bad\n").unwrap();
    let settings = format!("max_packet_size 3000\nacl_file {}", acl.display());
    let mut broker = Broker::start(&dir.path().join("broker"), &settings).await;
    let (mut seen, mut there) = observe(broker.plain).await;
    let mut site = gateway(&dir.path().join("site"), "up-poison", &broker.upstream(broker.port, "")).await;
    let logins = site.add_here(&["good", "bad"].map(str::to_owned)).await.unwrap();
    let (good, bad) = (of(&logins, "good"), of(&logins, "bad"));

    // MQTT 5: one word for each message. A topic that is denied, and a packet that is too large to be sent.
    publish(site.gateway_mqtt, good, texts(0, 10)).await;
    publish(site.gateway_mqtt, bad, ["denied".to_owned()]).await;
    publish(site.gateway_mqtt, good, texts(10, 5).chain(["x".repeat(3000)])).await;
    publish(site.gateway_mqtt, good, texts(15, 5)).await;
    let arrived: Vec<String> = next(&mut seen, 20).await.into_iter().map(|message| message.body).collect();
    assert_eq!(arrived, texts(0, 20).collect::<Vec<_>>(), "the others keep their order");
    let listed = set_aside(&site, 2).await;
    let denied = listed.iter().find(|entry| entry["sender"] == "bad").unwrap();
    assert_eq!((&denied["code"], &denied["bytes"]), (&json!(0x87), &json!(6)));
    let large = listed.iter().find(|entry| entry["sender"] == "good").unwrap();
    assert!(large["why"].as_str().unwrap().contains("bytes, which upstream does not take"), "{large}");
    nothing_waits(&site).await;
    let status = site.agent_json(&["status"]).await.unwrap();
    assert_eq!((&status["quarantine"]["messages"], &status["upstream"]["kind"]), (&json!(2), &json!("mqtt")));

    // A kill brings nothing back and loses nothing of it.
    site.kill_agent().await.unwrap();
    start(&mut site).await;
    assert_eq!(set_aside(&site, 2).await, listed);
    let number = denied["number"].to_string();
    let shown = quarantine(&site, &["show", &number]).await;
    assert_eq!(shown["body"], "denied");
    assert!(shown["topic"].as_str().unwrap().starts_with("devices/bad/messages/events/"));

    // The broker's operator lets the topic through; ours puts the message back.
    std::fs::write(&acl, "user gateway\ntopic write site/#\n").unwrap();
    broker.kill().await;
    is_now(&mut there, false).await;
    broker.run().await;
    is_now(&mut there, true).await;
    quarantine(&site, &["replay", &number]).await;
    // What the kills had on its way comes again, before it.
    while next(&mut seen, 1).await[0].topic != "site/up-poison/bad" {}
    quarantine(&site, &["drop", "--all"]).await;
    assert_eq!(quarantine(&site, &["list"]).await["count"], 0);
    let (code, _, error) =
        run(&mut site.agent_command(&["quarantine", "show", &number]).unwrap()).await.unwrap();
    assert_eq!(code, 1);
    assert!(error.contains(&format!("no message {number}")), "{error}");
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_closes_the_connection_at_a_message_gets_the_others_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("broker"), "max_packet_size 3000").await;
    let (mut seen, _) = observe(broker.plain).await;
    let upstream = broker.upstream(broker.port, "version = \"3.1.1\"\nproperties = \"topic\"");
    let mut site = gateway(&dir.path().join("site"), "up-close", &upstream).await;
    let good: Login = site.add_here(&["good".to_owned()]).await.unwrap().remove(0);
    let bodies = texts(0, 10).chain(["x".repeat(3000)]).chain(texts(10, 10));
    publish(site.gateway_mqtt, &good, bodies).await;
    // What was in flight when it closed may come twice, as MQTT has it.
    let mut arrived: Vec<String> = Vec::new();
    while arrived.len() < 20 {
        let body = next(&mut seen, 1).await.remove(0).body;
        if !arrived.contains(&body) {
            arrived.push(body);
        }
    }
    assert_eq!(arrived, texts(0, 20).collect::<Vec<_>>());
    let listed = set_aside(&site, 1).await;
    assert!(listed[0]["why"].as_str().unwrap().contains("closes the connection"), "{listed:?}");
    nothing_waits(&site).await;
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_central_refuses_is_set_aside_and_arrives_when_it_is_put_back_after_the_mistake_was_mended() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "up-central", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    start(&mut site).await;
    let mut logins = Vec::new();
    for id in ["up-moved", "up-stays"] {
        logins.push(site.add_leaf(id, Duration::ZERO).await.unwrap().login());
    }
    site.leaves_known(&logins).await.unwrap();
    site.gateway_connected(STEP).await.unwrap();

    // Stored while central is away; then one of the two devices is moved, before the gateway is back.
    site.stop_central().await.unwrap();
    publish(site.gateway_mqtt, &logins[1], texts(0, 3)).await;
    publish(site.gateway_mqtt, &logins[0], ["moved".to_owned()]).await;
    publish(site.gateway_mqtt, &logins[1], texts(3, 3)).await;
    site.kill_agent().await.unwrap();
    site.start_central().await.unwrap();
    let rest = site.rest().unwrap().clone();
    let relationship = "/api/devices/up-central/relationships/to-up-moved";
    rest.send(reqwest::Method::DELETE, relationship, None).await.unwrap();
    start(&mut site).await;

    let telemetry = async |device: &str, count: usize| {
        eventually(&format!("{count} messages of {device} in central"), STEP, || async {
            let all = rest.messages(device).await?;
            Ok((all.len() >= count).then_some(all))
        })
        .await
        .unwrap()
    };
    assert_eq!(telemetry("up-stays", 6).await.len(), 6);
    let listed = set_aside(&site, 1).await;
    assert_eq!((&listed[0]["sender"], &listed[0]["code"]), (&json!("up-moved"), &json!(0x87)), "{listed:?}");
    nothing_waits(&site).await;

    let back = json!({"name": "downstream", "source": "up-central", "target": "up-moved"});
    rest.put(relationship, &back).await.unwrap();
    quarantine(&site, &["replay", "--all"]).await;
    assert_eq!(telemetry("up-moved", 1).await.len(), 1);
    assert_eq!(quarantine(&site, &["list"]).await["count"], 0);
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reads_the_configuration_and_tries_upstream_without_disturbing_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(&dir.path().join("broker"), "").await;
    let mut site = gateway(&dir.path().join("site"), "up-check", &broker.upstream(broker.port, "")).await;
    let check = async |site: &Site| {
        let (_, out, error) = run(&mut site.agent_command(&["check"]).unwrap()).await.unwrap();
        out + &error
    };
    let said = check(&site).await;
    assert!(said.contains(&format!("mqtt at localhost:{} reached", broker.port)), "{said}");
    assert!(!site.agent_log().contains("upstream is away"), "{}", site.agent_log());
    broker.kill().await;
    let said = check(&site).await;
    assert!(said.contains(&format!("mqtt at localhost:{} not reached", broker.port)), "{said}");
    set_upstream(&site, "kind = \"mqtt\"\nhost = \"x\"\nca = \"/nowhere.pem\"\nbroker = \"y\"\n");
    let said = check(&site).await;
    assert!(said.contains("`upstream.broker`: no such key"), "{said}");
    set_upstream(&site, "kind = \"mqtt\"\nhost = \"x\"\nca = \"/nowhere.pem\"\n");
    let said = check(&site).await;
    assert!(said.contains("[upstream] ca: reading /nowhere.pem"), "{said}");
    site.end(false).await.unwrap();
}
