//! Free publish/subscribe, and what a session keeps.

use edge_core::dialect::client::Subscribe;
use edge_hub::settings::MqttServerSettings;
use rumqttc::{LastWill, Packet, QoS};
use schemas::topics;

use crate::site::{Mqtt, Seen, Site};

#[tokio::test]
async fn a_message_goes_to_every_matching_filter_at_the_lower_qos() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut exact = site.mqtt("exact").await;
    let mut wild = site.mqtt("wild").await;
    let publisher = site.mqtt("publisher").await;
    exact.subscribe("line1/press/temperature", QoS::AtLeastOnce).await;
    wild.subscribe("line1/+/temperature", QoS::AtMostOnce).await;
    wild.subscribe("#", QoS::AtMostOnce).await;
    publisher.publish("line2/press/temperature", "only for #").await;
    publisher.publish("line1/press/temperature", "20").await;
    publisher.client.publish("line1/press/temperature", QoS::AtMostOnce, false, "21").await.unwrap();
    let driver = tokio::spawn(publisher.closed());
    let message = |topic: &str, payload: &str, qos| (topic.to_owned(), payload.to_owned(), qos);
    let topic = "line1/press/temperature";
    assert_eq!(exact.message().await, message(topic, "20", QoS::AtLeastOnce));
    assert_eq!(exact.message().await, message(topic, "21", QoS::AtMostOnce));
    assert_eq!(wild.message().await, message("line2/press/temperature", "only for #", QoS::AtMostOnce));
    assert_eq!(wild.message().await, message(topic, "20", QoS::AtMostOnce));
    assert_eq!(wild.message().await, message(topic, "21", QoS::AtMostOnce), "one copy for two filters");
    site.close().await;
    driver.await.unwrap();
}

#[tokio::test]
async fn a_filter_that_was_given_up_receives_nothing_more() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    d1.subscribe("a", QoS::AtLeastOnce).await;
    d1.subscribe("b", QoS::AtLeastOnce).await;
    d1.client.unsubscribe("a").await.unwrap();
    while !matches!(d1.packet().await.unwrap(), Packet::UnsubAck(_)) {}
    d1.publish("a", "1").await;
    d1.publish("b", "2").await;
    assert_eq!(d1.message().await.0, "b");
    site.close().await;
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_to_a_subscriber_that_lags() {
    const MESSAGES: usize = 5_000;
    // A machine that stands still is no subscriber that takes nothing.
    let publishers_wait = std::time::Duration::from_secs(600);
    let site = Site::open(MqttServerSettings { publishers_wait, ..MqttServerSettings::default() }).await;
    let mut slow = site.mqtt("slow").await;
    slow.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = site.mqtt("publisher").await;
    let client = publisher.client.clone();
    let sending = tokio::spawn(async move {
        for n in 0..MESSAGES {
            client.publish("a", QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
        }
    });
    let (lagging, is_lagging) = tokio::sync::oneshot::channel();
    let filled = tokio::spawn(async move {
        for _ in 0..1_000 {
            publisher.acknowledged().await;
        }
        lagging.send(()).unwrap();
        for _ in 1_000..MESSAGES {
            publisher.acknowledged().await;
        }
    });
    // Nothing of it was read or acknowledged by the subscriber until here.
    is_lagging.await.unwrap();
    for n in 0..MESSAGES {
        assert_eq!(slow.message().await.1, n.to_string());
    }
    sending.await.unwrap();
    filled.await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn a_session_is_kept_over_a_reconnect_and_forgotten_when_it_is_clean() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let options = |is_clean| {
        let mut options = site.options("d1");
        options.set_clean_session(is_clean);
        options
    };
    let (mut d1, was_present) = Mqtt::connect(options(false)).await;
    assert!(!was_present);
    d1.subscribe(topics::METHOD_CALLS, QoS::AtLeastOnce).await;
    d1.subscribe("a/#", QoS::AtLeastOnce).await;
    d1.client.disconnect().await.unwrap();
    d1.closed().await;
    let (again, kept, clean) = (options(false), options(false), options(true));
    site.until_seen(Seen::Disconnected("d1".into())).await;

    let (mut d1, was_present) = Mqtt::connect(again).await;
    assert!(was_present);
    site.until_seen(Seen::Connected("d1".into())).await;
    assert_eq!(site.sees().await, Seen::Subscribed("d1".into(), Subscribe::MethodCalls));
    assert_eq!(site.sees().await, Seen::Subscribed("d1".into(), Subscribe::Free));
    assert!(site.clients.has_subscribed(&"d1".parse().unwrap(), &Subscribe::MethodCalls));
    d1.publish("a/b", "without subscribing again").await;
    assert_eq!(d1.message().await.0, "a/b");
    d1.closed_by_client().await;

    assert!(!Mqtt::connect(clean).await.1);
    assert!(!Mqtt::connect(kept).await.1);
    site.close().await;
}

#[tokio::test]
async fn a_will_is_published_for_a_client_that_vanishes_and_not_for_one_that_leaves() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut watcher = site.mqtt("watcher").await;
    watcher.subscribe("gone/+", QoS::AtLeastOnce).await;
    for (name, is_orderly) in [("polite", true), ("rude", false)] {
        let mut options = site.options(name);
        options.set_last_will(LastWill::new(format!("gone/{name}"), "bye", QoS::AtLeastOnce, false));
        let (client, _) = Mqtt::connect(options).await;
        if is_orderly { client.closed_by_client().await } else { drop(client) }
    }
    assert_eq!(watcher.message().await.0, "gone/rude");
    site.close().await;
}

#[tokio::test]
async fn a_free_message_that_the_program_takes_too_is_acknowledged_when_it_has_it_and_its_subscribers_do_not_wait()
 {
    let mut site = Site::open(MqttServerSettings::default()).await;
    site.program.takes_free.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut reader, mut d1) = (site.mqtt("reader").await, site.mqtt("d1").await);
    reader.subscribe("line1/#", QoS::AtMostOnce).await;
    site.program.disk.send_replace(false);
    d1.publish("line1/t", "21.5").await;
    // QoS 0 is taken as well, and has nothing to be acknowledged.
    d1.client.publish("line1/t", QoS::AtMostOnce, false, "22").await.unwrap();
    d1.client.subscribe("a", QoS::AtMostOnce).await.unwrap();
    assert!(matches!(d1.packet().await.unwrap(), Packet::SubAck(_)), "acknowledged before it was taken");
    for payload in ["21.5", "22"] {
        site.until_seen(Seen::Free("d1".into(), "line1/t".into(), payload.into())).await;
        assert!(matches!(reader.packet().await.unwrap(), Packet::Publish(got) if got.payload == payload));
    }
    site.program.disk.send_replace(true);
    assert!(matches!(d1.packet().await.unwrap(), Packet::PubAck(_)));
    site.close().await;
}
