//! What MQTT 5 has more than MQTT 3.1.1.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use edge_hub::settings::MqttServerSettings;
use mqtt::codec::packet::{
    Ack, Connect, ConnectProperties, Disconnect, Filter, Packet, PublishProperties, RetainHandling,
};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use tokio::time::Instant;

use crate::five::{Five, connect, filter, publish, will, with};
use crate::site::{Seen, Site};

fn properties() -> PublishProperties {
    PublishProperties {
        is_utf8: Some(true),
        response_topic: Some(Text::from("answers/1")),
        correlation_data: Some(Bytes::from_static(b"\0\xff")),
        user_properties: [("line", "1"), ("line", "2")].into_iter().collect(),
        content_type: Some(Text::from("text/plain")),
        ..PublishProperties::default()
    }
}

#[tokio::test]
async fn the_connack_says_the_servers_limits() {
    let site = Site::open(MqttServerSettings { pending_max: 7, ..MqttServerSettings::default() }).await;
    let client = Five::new(site.address, "d1").await;
    let acknowledged = &client.connack.properties;
    assert_eq!(client.connack.reason, Reason::SUCCESS);
    assert_eq!((acknowledged.receive_max, acknowledged.topic_alias_max), (Some(7), Some(32)));
    assert!(acknowledged.packet_bytes_max.unwrap() > 256 * 1024);
    let method = Some(Text::from("SCRAM-SHA-1"));
    let properties = ConnectProperties { authentication_method: method, ..ConnectProperties::default() };
    let refused = Five::open(site.address, Connect { properties, ..connect("d2") }).await;
    assert_eq!(refused.connack.reason, Reason::BAD_AUTHENTICATION_METHOD);
    let refused = Five::open(site.address, connect("")).await;
    assert_eq!(refused.connack.reason, Reason::CLIENT_ID_NOT_VALID);
    site.close().await;
}

#[tokio::test]
async fn properties_pass_through_and_reach_clients_of_3_1_1_without_them() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut old = site.mqtt("old").await;
    old.subscribe("a", rumqttc::QoS::AtLeastOnce).await;
    let mut subscriber = Five::new(site.address, "subscriber").await;
    subscriber.subscribe(filter("a", 1), Some(5)).await;
    subscriber.subscribe(filter("+", 0), Some(300)).await;
    let mut publisher = Five::new(site.address, "publisher").await;
    let sent = PublishProperties { message_expiry: Some(100), ..properties() };
    assert_eq!(publisher.acknowledged(with(publish("a", "x", 1, 1), sent)).await.reason, Reason::SUCCESS);
    let received = subscriber.message().await;
    let received = received.properties.unwrap();
    assert!(received.message_expiry.is_some_and(|left| (40..=100).contains(&left)));
    let mut ids = received.subscription_ids.clone();
    ids.sort_unstable();
    assert_eq!(ids, [5, 300]);
    let rest = PublishProperties { message_expiry: None, subscription_ids: Vec::new(), ..*received };
    assert_eq!(rest, properties());
    assert_eq!(old.message().await.1, "x");
    site.close().await;
}

#[tokio::test]
async fn a_message_that_expires_in_a_queue_is_not_delivered() {
    let site = Site::open(MqttServerSettings::default()).await;
    drop(subscribed_and_gone(&site, "away").await);
    let mut publisher = Five::new(site.address, "publisher").await;
    let soon = PublishProperties { message_expiry: Some(1), ..PublishProperties::default() };
    publisher.acknowledged(with(publish("a", "expires", 1, 1), soon)).await;
    publisher.acknowledged(publish("a", "stays", 1, 2)).await;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1_100)).await;
    let mut away = Five::staying(site.address, "away", 60).await;
    assert!(away.connack.is_session_present);
    assert_eq!(&away.message().await.payload[..], b"stays");
    assert_eq!(site.server.counts().copies_expired.load(Ordering::Relaxed), 1);
    site.close().await;
}

/// A session with a subscription to `a` whose client has left.
async fn subscribed_and_gone(site: &Site, client_id: &str) -> Five {
    let mut client = Five::staying(site.address, client_id, 60).await;
    client.subscribe(filter("a", 1), None).await;
    client.send(Packet::Disconnect(Box::new(Disconnect::because(Reason::SUCCESS)))).await;
    until_away(site, client_id).await;
    client
}

async fn until_away(site: &Site, client_id: &str) {
    let who = client_id.parse().unwrap();
    while site.clients.is_connected(&who) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn subscription_options_are_kept() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut client = Five::new(site.address, "client").await;
    client.subscribe(Filter { no_local: true, ..filter("own", 1) }, None).await;
    client.acknowledged(publish("own", "x", 1, 1)).await;
    client.nothing().await;

    let retained = mqtt::codec::packet::Publish { retain: true, ..publish("kept/1", "old", 1, 2) };
    assert_eq!(client.acknowledged(retained.clone()).await.reason, Reason::SUCCESS);
    client
        .subscribe(Filter { retain_handling: RetainHandling::DoNotSend, ..filter("kept/+", 0) }, None)
        .await;
    client.nothing().await;
    client
        .subscribe(Filter { retain_handling: RetainHandling::SendIfNew, ..filter("kept/+", 0) }, None)
        .await;
    client.nothing().await;
    let new = Filter { retain_handling: RetainHandling::SendIfNew, ..filter("kept/#", 0) };
    client.subscribe(new, Some(9)).await;
    let message = client.message().await;
    assert!(message.retain);
    assert_eq!(message.properties.unwrap().subscription_ids, [9]);

    let mut flags = Five::new(site.address, "flags").await;
    let as_published = Filter { retain_as_published: true, ..filter("kept/1", 0) };
    flags.subscribe(Filter { retain_handling: RetainHandling::DoNotSend, ..as_published }, None).await;
    client.publish(mqtt::codec::packet::Publish { id: 3, ..retained }).await;
    assert!(flags.message().await.retain);
    assert!(!client.message().await.retain, "live, and not as published");
    site.close().await;
}

#[tokio::test]
async fn an_alias_is_used_for_its_topic_and_a_wrong_one_ends_the_connection() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut subscriber = Five::new(site.address, "subscriber").await;
    subscriber.subscribe(filter("a/b", 1), None).await;
    let mut publisher = Five::new(site.address, "publisher").await;
    let alias = |alias| PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
    publisher.acknowledged(with(publish("a/b", "1", 1, 1), alias(3))).await;
    publisher.acknowledged(with(publish("", "2", 1, 2), alias(3))).await;
    for payload in [&b"1"[..], b"2"] {
        let message = subscriber.message().await;
        assert_eq!((&message.topic[..], &message.payload[..]), (&b"a/b"[..], payload));
        subscriber.ack(message.id).await;
    }
    publisher.publish(with(publish("a/b", "x", 1, 3), alias(33))).await;
    assert_eq!(publisher.ended().await, Reason::TOPIC_ALIAS_INVALID);
    site.close().await;
}

#[tokio::test]
async fn a_refused_message_gets_its_reason_and_the_connection_stays() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut client = Five::new(site.address, "d1").await;
    for (topic, reason) in [
        ("devices/d2/messages/events/", Reason::NOT_AUTHORIZED),
        ("$iothub/other", Reason::TOPIC_NAME_INVALID),
        ("$ls/presence", Reason::NOT_AUTHORIZED),
    ] {
        let ack = client.acknowledged(publish(topic, "x", 1, 1)).await;
        assert!(ack.reason.is_failure(), "{topic}");
        if topic != "$ls/presence" {
            assert_eq!(ack.reason, reason, "{topic}");
        }
        assert!(ack.properties.unwrap().reason_string.is_some());
    }
    let ack = client.acknowledged(publish("devices/d1/messages/events/", "wrong", 1, 2)).await;
    assert_eq!(ack.reason, Reason::PAYLOAD_FORMAT_INVALID);
    assert_eq!(
        client.acknowledged(publish("devices/d1/messages/events/", "right", 1, 3)).await.reason,
        Reason::SUCCESS
    );
    client.publish(publish("devices/d2/messages/events/", "x", 2, 4)).await;
    assert!(
        matches!(client.packet().await, Packet::PubRec(Ack { reason, .. }) if reason == Reason::NOT_AUTHORIZED)
    );
    assert_eq!(
        client.subscribe(filter("devices/d2/messages/devicebound/#", 1), None).await,
        Reason::NOT_AUTHORIZED
    );
    assert_eq!(client.subscribe(filter("a/#/b", 1), None).await, Reason::TOPIC_FILTER_INVALID);
    site.close().await;
}

#[tokio::test]
async fn the_server_says_why_it_ends_a_connection() {
    let site = Site::open(MqttServerSettings { pending_max: 2, ..MqttServerSettings::default() }).await;
    let mut older = Five::new(site.address, "d1").await;
    let mut newer = Five::new(site.address, "d1").await;
    assert_eq!(older.ended().await, Reason::SESSION_TAKEN_OVER);
    site.clients.disconnect(&"d1".parse().unwrap(), "blocked");
    assert_eq!(newer.ended().await, Reason::ADMINISTRATIVE_ACTION);
    let mut silent = Five::open(site.address, Connect { keep_alive: 1, ..connect("d2") }).await;
    assert_eq!(silent.ended().await, Reason::KEEP_ALIVE_TIMEOUT);
    let mut greedy = Five::new(site.address, "d3").await;
    for id in 1..=3 {
        greedy.publish(publish("a", "x", 2, id)).await;
    }
    assert_eq!(greedy.ended().await, Reason::RECEIVE_MAXIMUM_EXCEEDED);
    let mut raising = Five::new(site.address, "d4").await;
    let disconnect = Disconnect { session_expiry: Some(10), ..Disconnect::because(Reason::SUCCESS) };
    raising.send(Packet::Disconnect(Box::new(disconnect))).await;
    assert_eq!(raising.ended().await, Reason::PROTOCOL_ERROR);
    let mut last = Five::new(site.address, "d5").await;
    site.stop();
    assert_eq!(last.ended().await, Reason::SERVER_SHUTTING_DOWN);
    drop(last);
    site.close().await;
}

#[tokio::test]
async fn a_client_is_sent_no_more_at_once_and_nothing_larger_than_it_takes() {
    let site = Site::open(MqttServerSettings::default()).await;
    let properties = ConnectProperties {
        receive_max: Some(2),
        packet_bytes_max: Some(40),
        ..ConnectProperties::default()
    };
    let mut slow = Five::open(site.address, Connect { properties, ..connect("slow") }).await;
    slow.subscribe(filter("a", 2), None).await;
    let mut publisher = Five::new(site.address, "publisher").await;
    publisher.acknowledged(publish("a", &"x".repeat(100), 1, 1)).await;
    for id in 2..=5 {
        publisher.acknowledged(publish("a", &id.to_string(), 1, id)).await;
    }
    let (first, second) = (slow.message().await, slow.message().await);
    assert_eq!((&first.payload[..], &second.payload[..]), (&b"2"[..], &b"3"[..]));
    slow.nothing().await;
    slow.ack(first.id).await;
    assert_eq!(&slow.message().await.payload[..], b"4");
    slow.nothing().await;
    assert_eq!(site.server.counts().copies_too_large.load(Ordering::Relaxed), 1);
    site.close().await;
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_client_set() {
    let site = Site::open(MqttServerSettings::default()).await;
    let client = Five::new(site.address, "none").await;
    drop(client);
    until_away(&site, "none").await;
    assert!(!Five::new(site.address, "none").await.connack.is_session_present);

    drop(subscribed_and_gone(&site, "long").await);
    assert!(Five::staying(site.address, "long", 60).await.connack.is_session_present);

    let mut brief = Five::staying(site.address, "brief", 60).await;
    let disconnect = Disconnect { session_expiry: Some(1), ..Disconnect::because(Reason::SUCCESS) };
    brief.send(Packet::Disconnect(Box::new(disconnect))).await;
    until_away(&site, "brief").await;
    let expired = || site.server.counts().sessions_expired.load(Ordering::Relaxed);
    while expired() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!Five::staying(site.address, "brief", 60).await.connack.is_session_present);
    site.close().await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_is_void_when_the_client_comes_back() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut watcher = Five::new(site.address, "watcher").await;
    watcher.subscribe(filter("gone/+", 1), None).await;
    let with_will = |client_id: &str, delay| {
        let properties = ConnectProperties { session_expiry: Some(60), ..ConnectProperties::default() };
        let will = Some(will(&format!("gone/{client_id}"), delay));
        Connect { properties, will, ..connect(client_id) }
    };
    let back = Five::open(site.address, with_will("back", 15)).await;
    let gone = Five::open(site.address, with_will("gone", 16)).await;
    let at_once = Five::open(site.address, with_will("at-once", 0)).await;
    let began = Instant::now();
    drop((back, gone));
    until_away(&site, "back").await;
    let _back = Five::open(site.address, connect("back")).await;
    drop(at_once);
    let message = watcher.message().await;
    assert_eq!(message.topic(), "gone/at-once");
    watcher.ack(message.id).await;
    assert_eq!(watcher.message().await.topic(), "gone/gone");
    assert!(began.elapsed() >= Duration::from_secs(16));
    site.close().await;
}

#[tokio::test]
async fn a_will_outlives_a_restart_and_is_void_when_the_client_comes_back_in_time() {
    let dir = tempfile::TempDir::new().unwrap();
    let settings =
        || MqttServerSettings { will_grace: Duration::from_secs(15), ..MqttServerSettings::default() };
    let site = Site::open_in(dir.path(), settings()).await;
    for client_id in ["back", "gone"] {
        let will = Some(will(&format!("gone/{client_id}"), 0));
        let client = Five::open(site.address, Connect { will, ..connect(client_id) }).await;
        tokio::spawn(async move {
            let mut client = client;
            client.ended().await;
        });
    }
    site.close().await;
    let site = Site::open_in(dir.path(), settings()).await;
    let _back = Five::new(site.address, "back").await;
    let mut watcher = Five::new(site.address, "watcher").await;
    watcher.subscribe(filter("gone/+", 1), None).await;
    assert_eq!(watcher.message().await.topic(), "gone/gone");
    watcher.nothing().await;
    site.close().await;
}

#[tokio::test]
async fn retained_messages_outlive_a_restart_and_are_cleared_by_an_empty_one() {
    let dir = tempfile::TempDir::new().unwrap();
    let site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
    let mut publisher = Five::new(site.address, "publisher").await;
    let retained = |topic: &str, payload: &str, id| mqtt::codec::packet::Publish {
        retain: true,
        ..publish(topic, payload, 1, id)
    };
    publisher.acknowledged(with(retained("line/1", "old", 1), properties())).await;
    publisher.acknowledged(with(retained("line/1", "new", 2), properties())).await;
    publisher.acknowledged(retained("line/2", "x", 3)).await;
    publisher.acknowledged(retained("line/2", "", 4)).await;
    drop(publisher);
    site.close().await;
    let site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
    let mut subscriber = Five::new(site.address, "subscriber").await;
    subscriber.subscribe(filter("line/+", 1), None).await;
    let message = subscriber.message().await;
    assert_eq!((message.topic(), &message.payload[..], message.retain), ("line/1", &b"new"[..], true));
    assert_eq!(*message.properties.unwrap(), properties());
    subscriber.nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member_and_passes_on_what_it_left() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut one = Five::new(site.address, "one").await;
    let mut two = Five::new(site.address, "two").await;
    for member in [&mut one, &mut two] {
        assert_eq!(member.subscribe(filter("$share/g/a", 1), None).await, Reason::GRANTED_QOS_1);
    }
    let mut publisher = Five::new(site.address, "publisher").await;
    for id in 1..=4 {
        publisher.acknowledged(publish("a", &id.to_string(), 1, id)).await;
    }
    let first = one.message().await;
    let theirs = [first, one.message().await];
    for _ in 0..2 {
        let message = two.message().await;
        two.ack(message.id).await;
    }
    one.nothing().await;
    two.nothing().await;
    drop(one);
    site.until_seen(Seen::Disconnected("one".into())).await;
    let mut passed_on = vec![two.message().await.payload, two.message().await.payload];
    passed_on.sort();
    assert_eq!(passed_on, theirs.map(|message| message.payload));
    site.close().await;
}
