//! What a session keeps: over a reconnect, over a take-over, over a restart and a kill of the program.

use std::path::Path;
use std::sync::atomic::Ordering;

use edge_hub::settings::MqttServerSettings;
use rumqttc::{MqttOptions, Packet, QoS};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::raw::{Raw, Sent};
use crate::site::{Mqtt, PATIENCE, Seen, Site};

/// A client that keeps its session.
fn staying(site: &Site, client_id: &str) -> MqttOptions {
    let mut options = site.options(client_id);
    options.set_clean_session(false);
    options
}

async fn publish(client: &mut Mqtt, topic: &str, qos: QoS, payload: &str) {
    client.client.publish(topic, qos, false, payload).await.unwrap();
    loop {
        match (client.packet().await.unwrap(), qos) {
            (Packet::PubAck(_), QoS::AtLeastOnce) | (Packet::PubComp(_), QoS::ExactlyOnce) => return,
            _ => {}
        }
    }
}

/// The files of a server as a kill would leave them now.
fn as_killed(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn qos_2_goes_through_exactly_once_in_both_directions() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut subscriber = site.mqtt("subscriber").await;
    subscriber.subscribe("a/+", QoS::ExactlyOnce).await;
    let mut publisher = site.mqtt("publisher").await;
    for n in 0..20 {
        publish(&mut publisher, "a/b", QoS::ExactlyOnce, &n.to_string()).await;
    }
    for n in 0..20 {
        let (_, payload, qos) = subscriber.message().await;
        assert_eq!((payload, qos), (n.to_string(), QoS::ExactlyOnce));
    }
    site.close().await;
}

#[tokio::test]
async fn a_qos_2_message_that_comes_again_is_not_given_again_until_its_id_is_free() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut subscriber = site.mqtt("subscriber").await;
    subscriber.subscribe("a", QoS::ExactlyOnce).await;
    let mut publisher = Raw::connect(site.address, "publisher", false).await;
    publisher.publish(2, 7, false, "a", "one").await;
    assert_eq!(publisher.sent().await, Sent::PubRec(7));
    publisher.publish(2, 7, true, "a", "one").await;
    assert_eq!(publisher.sent().await, Sent::PubRec(7));
    // The acknowledgement is lost with the connection.
    drop(publisher);
    let mut publisher = Raw::connect(site.address, "publisher", false).await;
    assert!(publisher.was_present);
    publisher.publish(2, 7, true, "a", "one").await;
    assert_eq!(publisher.sent().await, Sent::PubRec(7));
    publisher.ack(0x62, 7).await;
    assert_eq!(publisher.sent().await, Sent::PubComp(7));
    publisher.publish(2, 7, false, "a", "two").await;
    assert_eq!(publisher.sent().await, Sent::PubRec(7));
    assert_eq!(subscriber.message().await.1, "one");
    assert_eq!(subscriber.message().await.1, "two");
    site.close().await;
}

#[tokio::test]
async fn what_was_not_settled_comes_again_in_order_with_the_same_ids_and_dup() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut subscriber = Raw::connect(site.address, "subscriber", false).await;
    subscriber.subscribe(1, "a", 2).await;
    assert_eq!(subscriber.sent().await, Sent::SubAck(vec![2]));
    let mut publisher = site.mqtt("publisher").await;
    for (payload, qos) in
        [("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce), ("3", QoS::AtLeastOnce), ("4", QoS::ExactlyOnce)]
    {
        publish(&mut publisher, "a", qos, payload).await;
    }
    for (id, qos) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        assert_eq!(subscriber.sent().await, Sent::Publish { id, qos, dup: false, payload: id.to_string() });
    }
    subscriber.ack(0x40, 3).await;
    subscriber.ack(0x50, 2).await;
    assert_eq!(subscriber.sent().await, Sent::PubRel(2));
    // Taken over: the same client id again.
    let mut subscriber = Raw::connect(site.address, "subscriber", false).await;
    assert!(subscriber.was_present);
    assert_eq!(subscriber.sent().await, Sent::Publish { id: 1, qos: 1, dup: true, payload: "1".into() });
    assert_eq!(subscriber.sent().await, Sent::PubRel(2));
    assert_eq!(subscriber.sent().await, Sent::Publish { id: 4, qos: 2, dup: true, payload: "4".into() });
    subscriber.ack(0x70, 2).await;
    subscriber.ack(0x40, 1).await;
    subscriber.ack(0x50, 4).await;
    assert_eq!(subscriber.sent().await, Sent::PubRel(4));
    subscriber.ack(0x70, 4).await;
    publish(&mut publisher, "a", QoS::AtLeastOnce, "5").await;
    assert_eq!(subscriber.sent().await, Sent::Publish { id: 5, qos: 1, dup: false, payload: "5".into() });
    site.close().await;
}

#[tokio::test]
async fn messages_for_a_client_that_is_away_wait_for_it() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let (mut away, _) = Mqtt::connect(staying(&site, "away")).await;
    away.subscribe("a", QoS::AtLeastOnce).await;
    away.closed_by_client().await;
    site.until_seen(Seen::Disconnected("away".into())).await;
    let mut publisher = site.mqtt("publisher").await;
    publisher.client.publish("a", QoS::AtMostOnce, false, "QoS 0 is not kept").await.unwrap();
    for n in 0..50 {
        publish(&mut publisher, "a", QoS::AtLeastOnce, &n.to_string()).await;
    }
    let (mut away, was_present) = Mqtt::connect(staying(&site, "away")).await;
    assert!(was_present);
    for n in 0..50 {
        assert_eq!(away.message().await.1, n.to_string());
    }
    site.close().await;
}

#[tokio::test]
async fn the_oldest_is_evicted_when_too_much_waits_for_a_client_that_is_away() {
    let settings = MqttServerSettings { session_messages_max: 10, ..MqttServerSettings::default() };
    let mut site = Site::open(settings).await;
    let (mut away, _) = Mqtt::connect(staying(&site, "away")).await;
    away.subscribe("a", QoS::AtLeastOnce).await;
    away.closed_by_client().await;
    site.until_seen(Seen::Disconnected("away".into())).await;
    let mut publisher = site.mqtt("publisher").await;
    for n in 0..25 {
        publish(&mut publisher, "a", QoS::AtLeastOnce, &n.to_string()).await;
    }
    assert_eq!(site.server.counts().messages_dropped_away.load(Ordering::Relaxed), 15);
    let (mut away, _) = Mqtt::connect(staying(&site, "away")).await;
    for n in 15..25 {
        assert_eq!(away.message().await.1, n.to_string());
    }
    site.close().await;
}

#[tokio::test]
async fn sessions_messages_and_ids_outlive_a_kill() {
    let dir = TempDir::new().unwrap();
    let killed = {
        let mut site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
        let (mut away, _) = Mqtt::connect(staying(&site, "away")).await;
        away.subscribe("a/#", QoS::ExactlyOnce).await;
        away.subscribe("$iothub/methods/POST/#", QoS::AtLeastOnce).await;
        away.closed_by_client().await;
        site.until_seen(Seen::Disconnected("away".into())).await;
        // In flight at the kill: one taken (PUBREC), one not.
        let mut here = Raw::connect(site.address, "here", false).await;
        here.subscribe(1, "a/#", 2).await;
        assert_eq!(here.sent().await, Sent::SubAck(vec![2]));
        let mut publisher = Raw::connect(site.address, "publisher", false).await;
        publisher.publish(2, 9, false, "a/1", "once").await;
        assert_eq!(publisher.sent().await, Sent::PubRec(9));
        publisher.publish(1, 10, false, "a/2", "at least once").await;
        assert_eq!(publisher.sent().await, Sent::PubAck(10));
        assert_eq!(here.sent().await, Sent::Publish { id: 1, qos: 2, dup: false, payload: "once".into() });
        let second = here.sent().await;
        assert_eq!(second, Sent::Publish { id: 2, qos: 1, dup: false, payload: "at least once".into() });
        here.ack(0x50, 1).await;
        assert_eq!(here.sent().await, Sent::PubRel(1));
        as_killed(dir.path())
    };
    let mut site = Site::open_in(killed.path(), MqttServerSettings::default()).await;
    let mut here = Raw::connect(site.address, "here", false).await;
    assert!(here.was_present);
    assert_eq!(here.sent().await, Sent::PubRel(1), "it has the message: it must not come again");
    assert_eq!(
        here.sent().await,
        Sent::Publish { id: 2, qos: 1, dup: true, payload: "at least once".into() }
    );
    let mut publisher = Raw::connect(site.address, "publisher", false).await;
    publisher.publish(2, 9, true, "a/1", "once").await;
    assert_eq!(publisher.sent().await, Sent::PubRec(9));
    publisher.ack(0x62, 9).await;
    assert_eq!(publisher.sent().await, Sent::PubComp(9));
    let (mut away, was_present) = Mqtt::connect(staying(&site, "away")).await;
    assert!(was_present);
    assert_eq!(away.message().await, ("a/1".into(), "once".into(), QoS::ExactlyOnce));
    assert_eq!(away.message().await, ("a/2".into(), "at least once".into(), QoS::AtLeastOnce));
    site.until_seen(Seen::Subscribed("away".into(), edge_core::dialect::client::Subscribe::MethodCalls))
        .await;
    publish(&mut away, "a/3", QoS::AtLeastOnce, "new").await;
    site.close().await;
}

#[tokio::test]
async fn a_clean_session_and_an_expired_one_are_gone_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
    let (kept, _) = Mqtt::connect(staying(&site, "kept")).await;
    let (mut ended, _) = Mqtt::connect(staying(&site, "ended")).await;
    ended.subscribe("a", QoS::AtLeastOnce).await;
    let clean = site.mqtt("ended").await;
    drop((kept, clean));
    site.close().await;
    let site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
    assert!(Mqtt::connect(staying(&site, "kept")).await.1);
    assert!(!Mqtt::connect(staying(&site, "ended")).await.1);
    site.close().await;
}

#[tokio::test]
async fn a_client_that_the_program_forgets_has_no_session_any_more() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let (gone, _) = Mqtt::connect(staying(&site, "gone")).await;
    site.clients.forget(|who| *who == "gone".parse().unwrap(), "deleted").await.unwrap();
    gone.closed().await;
    site.until_seen(Seen::Disconnected("gone".into())).await;
    assert!(!Mqtt::connect(staying(&site, "gone")).await.1);
    site.close().await;
}

#[tokio::test]
async fn a_subscriber_that_never_reads_has_bounded_memory_and_keeps_nobody_from_being_served() {
    let publishers_wait = std::time::Duration::from_millis(200);
    let site = Site::open(MqttServerSettings { publishers_wait, ..MqttServerSettings::default() }).await;
    let mut stuck = Raw::connect(site.address, "stuck", true).await;
    stuck.subscribe(1, "a", 1).await;
    assert_eq!(stuck.sent().await, Sent::SubAck(vec![1]));
    let mut well = site.mqtt("well").await;
    well.subscribe("a", QoS::AtMostOnce).await;
    let publisher = site.mqtt("publisher").await;
    let payload = "x".repeat(10_000);
    for _ in 0..3_000 {
        publisher.client.try_publish("a", QoS::AtMostOnce, false, payload.clone()).ok();
    }
    let sending = tokio::spawn(publisher.closed());
    let served = timeout(PATIENCE, async {
        for _ in 0..500 {
            well.message().await;
        }
    });
    served.await.expect("the others were not served");
    site.close().await;
    sending.await.unwrap();
}
