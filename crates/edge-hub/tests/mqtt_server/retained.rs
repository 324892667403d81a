//! Retained and queued sets of any size, to subscribers of every QoS.

use std::collections::BTreeMap;

use edge_hub::settings::{IdentitySettings, MqttServerSettings};
use rumqttc::{MqttOptions, Packet, QoS};

use crate::site::{Mqtt, Site};

const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn settings() -> MqttServerSettings {
    let identity = IdentitySettings { retained_messages_max: 10_000, ..IdentitySettings::default() };
    // A machine that stands still is no subscriber that takes nothing.
    let publishers_wait = std::time::Duration::from_secs(600);
    MqttServerSettings { identity, publishers_wait, ..MqttServerSettings::default() }
}

/// Enough of everything that the client itself never waits for the server.
fn options(site: &Site, client_id: &str) -> MqttOptions {
    let mut options = site.options(client_id);
    options.set_inflight(u16::MAX).set_request_channel_capacity(20_000).set_max_packet_size(1 << 20, 1 << 20);
    options
}

async fn client(site: &Site, client_id: &str) -> Mqtt {
    Mqtt::connect(options(site, client_id)).await.0
}

/// Retains a value on each of so many topics; ends when all are taken.
async fn retain(publisher: &mut Mqtt, topics: usize, bytes: usize, qos: QoS) {
    for chunk in (0..topics).collect::<Vec<_>>().chunks(500) {
        for n in chunk {
            let payload = format!("{n:0bytes$}");
            publisher.client.publish(format!("set/{}/{n}", n % 7), qos, true, payload).await.unwrap();
        }
        // What is taken is answered in order: this one is after all others of its kind, and of QoS 0.
        publisher.client.publish("sync", QoS::AtLeastOnce, false, "").await.unwrap();
        let mut answers = match qos {
            QoS::AtMostOnce => 1,
            _ => chunk.len() + 1,
        };
        while answers > 0 {
            let packet = publisher.packet().await.unwrap();
            answers -= usize::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
        }
    }
}

#[tokio::test]
async fn fifteen_hundred_retained_messages_of_more_than_a_mebibyte_reach_a_subscriber_of_qos_0() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut publisher = client(&site, "publisher").await;
    retain(&mut publisher, 1_500, 1_000, QoS::AtLeastOnce).await;
    let mut subscriber = client(&site, "subscriber").await;
    subscriber.subscribe("set/#", QoS::AtMostOnce).await;
    let mut topics = std::collections::BTreeSet::new();
    while topics.len() < 1_500 {
        topics.insert(subscriber.message().await.0);
    }
    site.close().await;
}

/// Sizes around every bound of a queue: 1,000 messages or 1 MiB.
#[tokio::test]
async fn retained_sets_of_any_size_reach_every_qos_of_readers_that_stay_and_that_come_again() {
    for (topics, bytes) in [(1, 1), (1_001, 8), (4_000, 8), (300, 8_000)] {
        let site = Site::open(settings()).await;
        let mut publisher = client(&site, "publisher").await;
        for sent in if topics == 1_001 { &ALL[..] } else { &ALL[1..2] } {
            retain(&mut publisher, topics, bytes, *sent).await;
            for granted in ALL {
                for is_clean in [true, false] {
                    let mut how = options(&site, "subscriber");
                    how.set_clean_session(is_clean);
                    let (mut subscriber, _) = Mqtt::connect(how).await;
                    subscriber.subscribe("set/#", granted).await;
                    let mut found = BTreeMap::new();
                    while found.len() < topics {
                        let (topic, payload, qos) = subscriber.message().await;
                        assert_eq!(qos as u8, (granted as u8).min(*sent as u8), "{topic}");
                        let before = found.insert(topic.clone(), payload);
                        assert_eq!(before, None, "{topic} came twice, of {topics}, {sent:?} to {granted:?}");
                    }
                    subscriber.client.unsubscribe("set/#").await.unwrap();
                    subscriber.closed_by_client().await;
                }
            }
        }
        site.close().await;
    }
}

/// Values grow while subscribers come, with filters that overlap: no subscriber sees a topic go back, and every one sees
/// the last value of each.
#[tokio::test]
async fn a_live_update_is_never_overwritten_by_an_older_retained_value() {
    const TOPICS: usize = 50;
    const ROUNDS: usize = 40;
    let site = Site::open(settings()).await;
    let mut publisher = client(&site, "publisher").await;
    retain(&mut publisher, 2_000, 8, QoS::AtLeastOnce).await;
    let publishing = async {
        for round in 1..=ROUNDS {
            for n in 0..TOPICS {
                // Every other one is not retained: it is newer than what is.
                let (topic, value) = (format!("live/{}/{n}", n % 3), format!("{round:06}"));
                publisher.client.publish(topic, QoS::AtLeastOnce, round % 2 == 0, value).await.unwrap();
            }
            for _ in 0..TOPICS {
                publisher.acknowledged().await;
            }
        }
    };
    let subscribing = async {
        let subscribers = (0..16).map(|n| {
            let site = &site;
            async move {
                for _ in 0..n * 20 {
                    tokio::task::yield_now().await;
                }
                let mut how = options(site, &format!("s{n}"));
                how.set_clean_session(n % 2 == 0);
                let (mut subscriber, _) = Mqtt::connect(how).await;
                let qos = if n % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                // The set holds the queue for a while before what is live.
                let filters: &[&str] = match n % 4 {
                    0 => &["set/#", "live/#"],
                    1 => &["live/+/+"],
                    2 => &["live/0/#", "live/#", "live/+/1", "set/1/#"],
                    _ => &["#"],
                };
                for filter in filters {
                    subscriber.client.subscribe(*filter, qos).await.unwrap();
                }
                let mut last: BTreeMap<String, (String, bool)> = BTreeMap::new();
                let end = format!("{ROUNDS:06}");
                while last.len() < TOPICS || last.values().any(|(value, _)| *value != end) {
                    let Packet::Publish(publish) = subscriber.packet().await.unwrap() else { continue };
                    if !publish.topic.starts_with("live/") {
                        continue;
                    }
                    let value = String::from_utf8(publish.payload.to_vec()).unwrap();
                    let before = last.insert(publish.topic.clone(), (value.clone(), publish.retain));
                    if let Some((before, _)) = before
                        // A second filter is given what is retained again, which is what a new subscription is for.
                        && (filters.len() == 1 || !publish.retain)
                    {
                        assert!(
                            value >= before,
                            "{} went from {before} to {value}, subscriber {n}",
                            publish.topic
                        );
                    }
                }
            }
        });
        futures_util::future::join_all(subscribers).await;
    };
    tokio::join!(publishing, subscribing);
    site.close().await;
}
