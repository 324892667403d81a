//! Cloud-to-device messages over a whole site whose programs are killed: each reaches its leaf device, and central hears
//! how it ended. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Method;
use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::LeafOptions;
use site_tests::patient;
use site_tests::rest::eventually;
use site_tests::site::Site;

const SENT: &str = "/api/ext/devices/leaf/messages/devicebound";

/// A leaf that listens for messages and acknowledges them when the test says so.
struct Listening {
    client: AsyncClient,
    events: EventLoop,
    received: VecDeque<Publish>,
}

impl Listening {
    async fn start(options: &LeafOptions) -> Self {
        let mut options = options.client(10).1.mqtt_options;
        // It pings only when it is read from, which the test does not do for a while.
        options.set_manual_acks(true).set_keep_alive(Duration::ZERO);
        let (client, events) = patient::client(options, 10);
        client.subscribe("devices/leaf/messages/devicebound/#", QoS::AtLeastOnce).await.unwrap();
        Self { client, events, received: VecDeque::new() }
    }

    /// Reads until such a packet came; messages are kept.
    async fn read(&mut self, is_awaited: impl Fn(&Packet) -> bool) {
        loop {
            match tokio::time::timeout(STEP, self.events.poll()).await.expect("nothing came") {
                Ok(Event::Incoming(packet)) if is_awaited(&packet) => {
                    if let Packet::Publish(publish) = packet {
                        self.received.push_back(publish);
                    }
                    return;
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.received.push_back(publish),
                Ok(_) => {}
                Err(error) => panic!("the leaf's connection ended: {error}"),
            }
        }
    }

    async fn receive(&mut self) -> Publish {
        if self.received.is_empty() {
            self.read(|packet| matches!(packet, Packet::Publish(_))).await;
        }
        self.received.pop_front().unwrap()
    }

    async fn acknowledge(&mut self, publish: &Publish) {
        self.client.ack(publish).await.unwrap();
        // It is at the gateway once what was handed in after it is answered.
        self.client.publish("devices/leaf/messages/events/", QoS::AtLeastOnce, false, "{}").await.unwrap();
        self.read(|packet| matches!(packet, Packet::PubAck(_))).await;
    }
}

fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}

async fn send(site: &Site, body: Value) {
    site.rest().unwrap().post(SENT, &body).await.unwrap();
}

async fn until(site: &Site, states: &[&str]) {
    let rest = site.rest().unwrap().clone();
    eventually(&format!("messages in states {states:?}"), STEP, || async {
        let list = rest.get(SENT).await?;
        let found: Vec<&str> =
            list["value"].as_array().unwrap().iter().map(|m| m["state"].as_str().unwrap()).collect();
        Ok((found == states).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn messages_reach_a_leaf_that_was_away_although_both_programs_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "mail-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let leaf = site.add_leaf("leaf", STEP).await.unwrap();

    // The leaf is away: the messages stand on the gateway's disk, and both programs are killed.
    for text in ["one", "two", "three"] {
        send(&site, json!({"bodyText": text, "ack": "full", "properties": {"n": text}})).await;
    }
    until(&site, &["atGateway"; 3]).await;
    site.kill_agent().await.unwrap();
    site.kill_central().await.unwrap();
    site.start_agent().await.unwrap();

    // central is still away: the gateway delivers, and is killed before it could tell; one message is not acknowledged.
    let mut listening = Listening::start(&leaf).await;
    let (one, two) = (listening.receive().await, listening.receive().await);
    assert_eq!((text(&one), text(&two)), ("one", "two"));
    assert!(one.topic.starts_with("devices/leaf/messages/devicebound/%24.mid="), "{}", one.topic);
    assert!(one.topic.ends_with("&iothub-ack=full&n=one"), "{}", one.topic);
    listening.acknowledge(&one).await;
    site.kill_agent().await.unwrap();
    site.start_central().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    until(&site, &["delivered", "atGateway", "atGateway"]).await;

    let mut listening = Listening::start(&leaf).await;
    for expected in ["two", "three"] {
        let message = listening.receive().await;
        assert_eq!(text(&message), expected);
        listening.acknowledge(&message).await;
    }
    until(&site, &["delivered"; 3]).await;
    let feedback = site.rest().unwrap().get("/api/ext/messages/feedback").await.unwrap();
    let outcomes: Vec<&Value> =
        feedback["value"].as_array().unwrap().iter().map(|record| &record["statusCode"]).collect();
    assert_eq!(outcomes, ["Success"; 3]);

    // Once more for a leaf that listens, then what expires and what is purged while it is away.
    send(&site, json!({"bodyText": "now"})).await;
    let message = listening.receive().await;
    assert_eq!(text(&message), "now");
    listening.acknowledge(&message).await;
    listening.client.disconnect().await.unwrap();
    while listening.events.poll().await.is_ok() {}
    send(&site, json!({"bodyText": "short", "timeToLiveSecs": 2})).await;
    until(&site, &["delivered", "delivered", "delivered", "delivered", "expired"]).await;
    send(&site, json!({"bodyText": "void"})).await;
    until(&site, &["delivered", "delivered", "delivered", "delivered", "expired", "atGateway"]).await;
    let (status, purged) = site.rest().unwrap().send(Method::DELETE, SENT, None).await.unwrap();
    assert_eq!((status, &purged["totalMessagesPurged"]), (200, &json!(1)));
    eventually("the gateway's word that it purged the message", STEP, || async {
        Ok(site.agent_log().contains("purged by an operator").then_some(()))
    })
    .await
    .unwrap();
    send(&site, json!({"bodyText": "last"})).await;
    let mut listening = Listening::start(&leaf).await;
    assert_eq!(text(&listening.receive().await), "last");
    site.end(false).await.unwrap();
}
