//! Telemetry: acknowledged when it is stored, in order, and only from those whose it is.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edge_hub::settings::MqttServerSettings;
use mqtt::codec::packet::Packet as Packet5;
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use rumqttc::{Packet, QoS, SubscribeReasonCode};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::five::{Five, publish};
use crate::octets::{Octets, publish_v4};
use crate::site::{Mqtt, Seen, Site};
use crate::wire::{CONNACK, connect};

const TOPIC: &str = "devices/d1/messages/events/";

fn telemetry(from: &str, payload: &str) -> Seen {
    Seen::Telemetry(from.into(), payload.into())
}

#[tokio::test]
async fn a_message_is_acknowledged_only_after_it_is_stored_and_in_order() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    site.program.disk.send_replace(false);
    d1.publish(TOPIC, "one").await;
    // A free message behind it is done at once, and still waits for its turn.
    d1.publish("free", "two").await;
    d1.client.subscribe("a", QoS::AtMostOnce).await.unwrap();
    assert!(matches!(d1.packet().await.unwrap(), Packet::SubAck(_)), "acknowledged before it was stored");
    site.until_seen(telemetry("d1", "one")).await;
    site.program.disk.send_replace(true);
    for id in [1, 2] {
        assert!(matches!(d1.packet().await.unwrap(), Packet::PubAck(ack) if ack.pkid == id));
    }
    site.close().await;
}

#[tokio::test]
async fn a_session_with_too_much_unacknowledged_stops_reading_and_goes_on_later() {
    let mut site = Site::open(MqttServerSettings { pending_max: 2, ..MqttServerSettings::default() }).await;
    let mut d1 = site.mqtt("d1").await;
    site.program.disk.send_replace(false);
    for n in 0..10 {
        d1.publish(TOPIC, &n.to_string()).await;
    }
    let sender = tokio::spawn(async move {
        for _ in 0..10 {
            d1.acknowledged().await;
        }
        d1
    });
    site.until_seen(telemetry("d1", "1")).await;
    // Another client's round trip: the server has had every chance to read more.
    let mut d2 = site.mqtt("d2").await;
    d2.subscribe("x", QoS::AtMostOnce).await;
    assert_eq!(site.sees().await, Seen::Connected("d2".into()));
    site.program.disk.send_replace(true);
    site.until_seen(telemetry("d1", "9")).await;
    sender.await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn a_wrong_message_is_acknowledged_and_counted_and_a_later_one_is_not_acknowledged() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    d1.publish(TOPIC, "wrong").await;
    d1.acknowledged().await;
    assert_eq!(site.server.counts().messages_wrong.load(Ordering::Relaxed), 1);
    d1.publish(TOPIC, "later").await;
    d1.publish(TOPIC, "behind it").await;
    while let Ok(packet) = d1.packet().await {
        assert!(!matches!(packet, Packet::PubAck(_)), "acknowledged what was not taken");
    }
    site.close().await;
}

#[tokio::test]
async fn a_message_longer_than_upstream_takes_is_refused_and_not_acknowledged() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut five = Five::new(site.address, "d5").await;
    let most = schemas::bag::MESSAGE_BYTES_MAX;
    for (bag, bytes, reason) in [
        ("", most, Reason::SUCCESS),
        ("", most + 1, Reason::QUOTA_EXCEEDED),
        ("a=b", most - 2, Reason::SUCCESS),
        ("a=b", most - 1, Reason::QUOTA_EXCEEDED),
        // As it is decoded: one byte of a value.
        ("a=%20", most - 2, Reason::SUCCESS),
    ] {
        let message = publish(&format!("devices/d5/messages/events/{bag}"), &"x".repeat(bytes), 1, 1);
        assert_eq!(five.acknowledged(message).await.reason, reason, "{bag} {bytes}");
    }
    let mut d1 = site.mqtt("d1").await;
    d1.publish(TOPIC, &"x".repeat(most + 1)).await;
    while let Ok(packet) = d1.packet().await {
        assert!(!matches!(packet, Packet::PubAck(_)), "acknowledged what was not taken");
    }
    site.close().await;
}

#[tokio::test]
async fn a_property_bag_that_is_too_long_is_refused_and_not_acknowledged() {
    let topic = |device: &str, bytes: usize| {
        let start = format!("devices/{device}/messages/events/a=");
        format!("{start}{}", "x".repeat(bytes - start.len()))
    };
    let most = 16 << 10;
    let site = Site::open(MqttServerSettings::default()).await;
    let mut five = Five::new(site.address, "d5").await;
    for qos in [1, 2] {
        five.publish(publish(&topic("d5", most + 1), "too long", qos, 1)).await;
        let (Packet5::PubAck(ack) | Packet5::PubRec(ack)) = five.packet().await else { panic!("no answer") };
        assert_eq!((ack.id, ack.reason), (1, Reason::QUOTA_EXCEEDED));
    }
    assert_eq!(five.acknowledged(publish(&topic("d5", most), "fits", 1, 2)).await.reason, Reason::SUCCESS);
    let mut d1 = site.mqtt("d1").await;
    d1.publish(&topic("d1", most), "fits").await;
    d1.acknowledged().await;
    d1.publish(&topic("d1", most + 1), "too long").await;
    while let Ok(packet) = d1.packet().await {
        assert!(!matches!(packet, Packet::PubAck(_)), "acknowledged what was not taken");
    }
    assert_eq!(site.server.counts().publishes_refused.load(Ordering::Relaxed), 3);
    site.close().await;
}

#[tokio::test]
async fn without_space_a_client_of_mqtt_5_learns_it_and_stays() {
    let site = Site::open(MqttServerSettings {
        full_timeout: Duration::from_millis(50),
        ..MqttServerSettings::default()
    })
    .await;
    let mut d1 = Five::new(site.address, "d1").await;
    for qos in [1, 2] {
        d1.publish(publish(TOPIC, "full", qos, 1)).await;
        let (Packet5::PubAck(ack) | Packet5::PubRec(ack)) = d1.packet().await else { panic!("no answer") };
        let acknowledged = ack.properties.and_then(|properties| properties.reason_string);
        assert_eq!(
            (ack.id, ack.reason, acknowledged),
            (1, Reason::QUOTA_EXCEEDED, Some(Text::from("the queue is full")))
        );
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(d1.acknowledged(publish(TOPIC, "there is room again", 1, 2)).await.reason, Reason::SUCCESS);
    assert_eq!(site.server.counts().messages_without_space.load(Ordering::Relaxed), 2);
    site.close().await;
}

#[tokio::test]
async fn without_space_a_client_of_mqtt_3_1_1_gets_no_puback_goes_on_and_is_closed_to_send_it_again() {
    let timeout = Duration::from_secs(5);
    let site =
        Site::open(MqttServerSettings { full_timeout: timeout, ..MqttServerSettings::default() }).await;
    let mut d1 = Octets::clean(&site, "d1").await;
    let since = Instant::now();
    // In one write: both are here before the time of the first one is over, however slow the machine is.
    let both = [publish_v4(0x32, TOPIC, 1, "full"), publish_v4(0x32, TOPIC, 2, "taken")];
    d1.ask(&both.concat(), b"\x40\x02\0\x02").await;
    d1.closed().await;
    assert!(since.elapsed() >= timeout, "closed before its time");
    site.close().await;
}

#[tokio::test]
async fn another_identitys_topic_and_an_unknown_one_close_the_connection() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    for topic in ["devices/d2/messages/events/", "devices/d1/other", "$iothub/other", "$ls/presence"] {
        let d1 = site.mqtt("d1").await;
        d1.publish(topic, "x").await;
        d1.closed().await;
        site.until_seen(Seen::Disconnected("d1".into())).await;
    }
    // A gateway speaks for those behind it.
    let mut gateway = site.mqtt("gw").await;
    gateway.publish("devices/d2/messages/events/", "x").await;
    gateway.acknowledged().await;
    site.until_seen(telemetry("d2", "x")).await;
    site.close().await;
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_only_the_last_one_counts_as_gone() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let first = site.mqtt("d1").await;
    let mut second = site.mqtt("d1").await;
    first.closed().await;
    second.publish(TOPIC, "still here").await;
    second.acknowledged().await;
    second.client.disconnect().await.unwrap();
    second.closed().await;
    for expected in [
        Seen::Connected("d1".into()),
        Seen::Connected("d1".into()),
        telemetry("d1", "still here"),
        Seen::Disconnected("d1".into()),
    ] {
        assert_eq!(site.sees().await, expected);
    }
    assert!(!site.clients.is_connected(&"d1".parse().unwrap()));
    site.close().await;
}

#[tokio::test]
async fn a_refused_client_gets_the_code_that_says_whether_to_try_again() {
    let site = Site::open(MqttServerSettings::default()).await;
    for (password, code) in [
        ("wrong", rumqttc::ConnectReturnCode::NotAuthorized),
        ("early", rumqttc::ConnectReturnCode::ServiceUnavailable),
    ] {
        let mut options = site.options("d1");
        options.set_credentials("user", password);
        assert_eq!(Mqtt::refused(options).await, code);
    }
    let mut options = site.options("d1");
    let inbox = "devices/d1/messages/devicebound/";
    options.set_last_will(rumqttc::LastWill::new(inbox, "gone", QoS::AtLeastOnce, false));
    assert_eq!(Mqtt::refused(options).await, rumqttc::ConnectReturnCode::NotAuthorized);
    site.close().await;
}

#[tokio::test]
async fn filters_that_a_client_may_not_have_get_suback_0x80() {
    let site = Site::open(MqttServerSettings { filters_max: 3, ..MqttServerSettings::default() }).await;
    let mut d1 = site.mqtt("d1").await;
    let deep = vec!["a"; 129].join("/");
    for filter in [
        "devices/d2/messages/devicebound/#",
        "$iothub/#",
        "$ls/#",
        "$share/g",
        "$share//a",
        "$share/g/$iothub/methods/POST/#",
        &deep,
    ] {
        assert_eq!(d1.subscribe(filter, QoS::AtLeastOnce).await, SubscribeReasonCode::Failure, "{filter}");
    }
    for (filter, qos) in [
        ("devices/d1/messages/devicebound/#", QoS::AtLeastOnce),
        ("$iothub/methods/POST/#", QoS::AtLeastOnce),
        ("a/+", QoS::ExactlyOnce),
    ] {
        let granted = SubscribeReasonCode::Success(qos);
        assert_eq!(d1.subscribe(filter, QoS::ExactlyOnce).await, granted, "{filter}");
    }
    assert_eq!(d1.subscribe("one/more", QoS::AtMostOnce).await, SubscribeReasonCode::Failure);
    site.close().await;
}

#[tokio::test]
async fn a_closing_server_lets_what_it_took_in_be_stored_and_acknowledged() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    site.program.disk.send_replace(false);
    // Plain bytes: a client library may drop what comes together with the end of the connection.
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let publish = b"\x32\x23\0\x1bdevices/d1/messages/events/\0\x01last";
    stream.write_all(&[&connect(0)[..], publish].concat()).await.unwrap();
    site.until_seen(telemetry("d1", "last")).await;
    site.stop();
    site.until_seen(Seen::Disconnected("d1".into())).await;
    site.program.disk.send_replace(true);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [&CONNACK[..], b"\x40\x02\0\x01"].concat());
    site.close().await;
}
