//! What one identity may have and do: beyond it that identity alone is refused, told and counted, and gets it again when it gives
//! something back. A local user is one identity with all its client ids.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_hub::settings::{IdentitySettings, MqttServerSettings};
use rumqttc::SubscribeReasonCode::{Failure, Success};
use rumqttc::{ConnectReturnCode, MqttOptions, Packet, QoS};

use crate::octets::{Octets, connect_v4, connect_v5, packet, publish_v4, publish_v5, text};
use crate::site::{Mqtt, Seen, Site};

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

async fn open(identity: IdentitySettings) -> Site {
    Site::open(MqttServerSettings { identity, ..MqttServerSettings::default() }).await
}

/// A client of the local user `plc`.
fn of_user(site: &Site, client_id: &str) -> MqttOptions {
    let mut options = site.options(client_id);
    options.set_credentials("plc", "right");
    options
}

#[tokio::test]
async fn a_user_has_as_many_connections_as_one_identity_may_and_devices_have_theirs() {
    let mut site = open(IdentitySettings { connections_max: 2, ..IdentitySettings::default() }).await;
    let (one, _) = Mqtt::connect(of_user(&site, "one")).await;
    let (_two, _) = Mqtt::connect(of_user(&site, "two")).await;
    assert_eq!(Mqtt::refused(of_user(&site, "three")).await, ConnectReturnCode::ServiceUnavailable);
    // One that takes over its own connection is no third one, and devices are other identities.
    let (again, _) = Mqtt::connect(of_user(&site, "one")).await;
    one.closed().await;
    let _devices = (site.mqtt("d1").await, site.mqtt("d2").await, site.mqtt("d3").await);
    assert_eq!(read(&site.server.counts().quotas_exceeded), 1);
    again.closed_by_client().await;
    site.until_seen(Seen::Disconnected("$user:plc/one".into())).await;
    drop(Mqtt::connect(of_user(&site, "three")).await);
    site.close().await;
}

#[tokio::test]
async fn a_user_has_as_many_sessions_as_one_identity_may_over_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let identity = IdentitySettings { sessions_max: 2, ..IdentitySettings::default() };
    let settings = MqttServerSettings { identity, ..MqttServerSettings::default() };
    let staying = |mut options: MqttOptions| {
        options.set_clean_session(false);
        options
    };
    for round in 0..2 {
        let site = Site::open_in(dir.path(), settings.clone()).await;
        for (n, client_id) in ["one", "two", "three"].into_iter().enumerate() {
            for visit in 0..2 {
                let (client, was_present) = Mqtt::connect(staying(of_user(&site, client_id))).await;
                assert_eq!(was_present, n < 2 && (visit > 0 || round > 0), "{client_id}, round {round}");
                client.closed_by_client().await;
            }
        }
        drop(Mqtt::connect(staying(site.options("device"))).await);
        assert_eq!(read(&site.server.counts().quotas_exceeded), 2, "both visits of the third");
        site.close().await;
    }
    // One that ends its session makes room.
    let site = Site::open_in(dir.path(), settings).await;
    Mqtt::connect(of_user(&site, "one")).await.0.closed_by_client().await;
    Mqtt::connect(staying(of_user(&site, "three"))).await.0.closed_by_client().await;
    assert!(Mqtt::connect(staying(of_user(&site, "three"))).await.1);
    site.close().await;
}

#[tokio::test]
async fn the_filters_of_all_clients_of_a_user_share_its_bytes() {
    let site = open(IdentitySettings { subscription_bytes_max: 20_000, ..IdentitySettings::default() }).await;
    let (mut one, _) = Mqtt::connect(of_user(&site, "one")).await;
    let (mut two, _) = Mqtt::connect(of_user(&site, "two")).await;
    let mut device = site.mqtt("device").await;
    let long = format!("a/{}", "x".repeat(5_000));
    assert_eq!(one.subscribe(&long, QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    assert_eq!(two.subscribe(&long, QoS::AtLeastOnce).await, Failure);
    // What is deep costs a node for each level.
    let deep = vec!["x"; 60].join("/");
    assert_eq!(two.subscribe(&deep, QoS::AtLeastOnce).await, Failure);
    assert_eq!(two.subscribe("short", QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    assert_eq!(one.subscribe(&long, QoS::AtMostOnce).await, Success(QoS::AtMostOnce), "it has it already");
    assert_eq!(device.subscribe(&long, QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    one.client.unsubscribe(&long).await.unwrap();
    while !matches!(one.packet().await.unwrap(), Packet::UnsubAck(_)) {}
    assert_eq!(two.subscribe(&long, QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    let counts = site.server.counts();
    assert_eq!((read(&counts.quotas_exceeded), read(&counts.subscriptions_refused)), (2, 2));
    // Nothing is held any more by a session that has ended.
    two.closed_by_client().await;
    drop(one);
    site.close().await;
    let _ = device.client.disconnect().await;
}

#[tokio::test]
async fn one_device_takes_not_all_retained_messages() {
    for identity in [
        IdentitySettings { retained_messages_max: 2, ..IdentitySettings::default() },
        IdentitySettings { retained_bytes_max: 900, ..IdentitySettings::default() },
    ] {
        let site = open(identity).await;
        let mut greedy = Octets::clean_v5(&site, "greedy").await;
        let mut other = Octets::clean(&site, "other").await;
        let payload = "x".repeat(200);
        for (id, topic) in [(1, "a"), (2, "b")] {
            let answer = [0x40, 2, 0, id];
            greedy.ask(&publish_v5(0x33, topic, id.into(), b"", &payload), &answer).await;
        }
        greedy.send(&publish_v5(0x33, "c", 3, b"", &payload)).await;
        let puback = greedy.packet().await;
        assert_eq!((puback[0], puback[4]), (0x40, 0x97), "{puback:02x?}");
        assert_eq!(read(&site.server.counts().quotas_exceeded), 1);
        // Others have their own, and what another one replaces is the other one's.
        other.ask(&publish_v4(0x33, "a", 1, &payload), b"\x40\x02\0\x01").await;
        greedy.ask(&publish_v5(0x33, "c", 4, b"", &payload), b"\x40\x02\0\x04").await;
        greedy.ask(&publish_v5(0x33, "b", 5, b"", ""), b"\x40\x02\0\x05").await;
        greedy.ask(&publish_v5(0x33, "d", 6, b"", &payload), b"\x40\x02\0\x06").await;
        let mut later = Octets::clean(&site, "later").await;
        later.ask(&packet(0x82, &[b"\0\x01", &text("#"), &[0]]), b"\x90\x03\0\x01\0").await;
        let mut topics = Vec::new();
        for _ in 0..3 {
            let message = later.packet().await;
            topics.push(message[message.len() - 201]);
        }
        topics.sort_unstable();
        assert_eq!(topics, b"acd");
        site.close().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_packets_or_changes_filters_too_fast_waits_and_others_do_not() {
    let ping = vec![0xc0, 0];
    let subscribe = packet(0x82, &[b"\0\x01", &text("a"), &[0]]);
    let unsubscribe = packet(0xa2, &[b"\0\x01", &text("a")]);
    for (packet, rates) in [
        (ping, IdentitySettings { packets_per_second: 25, ..IdentitySettings::default() }),
        (subscribe, IdentitySettings { filters_per_second: 25, ..IdentitySettings::default() }),
        (unsubscribe, IdentitySettings { filters_per_second: 25, ..IdentitySettings::default() }),
    ] {
        let site = open(rates).await;
        // This one waits for longer than anybody here has patience.
        let mut flood = Octets::clean(&site, "flood").await;
        flood.send(&packet.repeat(5_000)).await;
        let since = Instant::now();
        let mut fast = Octets::clean(&site, "fast").await;
        fast.send(&packet.repeat(100)).await;
        let mut other = Octets::clean(&site, "other").await;
        other.ask(&[0xc0, 0], &[0xd0, 0]).await;
        for _ in 0..100 {
            fast.packet().await;
        }
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(2_900), "25 at once, 75 in three seconds: {took:?}");
        // Coming again does not make it faster.
        drop(fast);
        let mut again = Octets::clean(&site, "fast").await;
        again.send(&packet.repeat(25)).await;
        for _ in 0..25 {
            again.packet().await;
        }
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(3_900), "25 at once, 100 in four seconds: {took:?}");
        assert!(read(&site.server.counts().clients_paused) > 0);
        drop((flood, other, again));
        site.close().await;
    }
}

#[tokio::test]
async fn a_subscriber_acknowledges_as_fast_as_others_publish() {
    const PUBLISHERS: u8 = 10;
    let site = open(IdentitySettings { packets_per_second: 50, ..IdentitySettings::default() }).await;
    let mut subscriber = Octets::clean(&site, "subscriber").await;
    subscriber.ask(&packet(0x82, &[b"\0\x01", &text("t"), &[1]]), b"\x90\x03\0\x01\x01").await;
    for n in 0..PUBLISHERS {
        let mut publisher = Octets::clean(&site, &format!("publisher-{n}")).await;
        for id in 1..=40 {
            publisher.send(&publish_v4(0x32, "t", id, "x")).await;
            let message = subscriber.packet().await;
            subscriber.send(&[0x40, 2, message[5], message[6]]).await;
            publisher.expect(&[0x40, 2, 0, u8::try_from(id).unwrap()]).await;
        }
    }
    subscriber.ask(&[0xc0, 0], &[0xd0, 0]).await;
    assert_eq!(read(&site.server.counts().clients_paused), 0);
    site.close().await;
}

#[tokio::test]
async fn acknowledgements_that_settle_nothing_count_as_packets() {
    // PUBACK, PUBREC, PUBCOMP.
    for first in [0x40, 0x50, 0x70] {
        let site = open(IdentitySettings { packets_per_second: 50, ..IdentitySettings::default() }).await;
        let since = Instant::now();
        let mut client = Octets::clean(&site, "client").await;
        client.send(&[first, 2, 0, 7].repeat(100)).await;
        client.send(&[0xc0, 0]).await;
        while client.packet().await != [0xd0, 0] {}
        assert!(since.elapsed() >= Duration::from_millis(900), "{first:#x}: {:?}", since.elapsed());
        assert!(read(&site.server.counts().clients_paused) > 0, "{first:#x}");
        site.close().await;
    }
}

/// A CONNECT of the user `plc` with a will, an expiry of its session and a delay of the will, where its version has them.
fn leaves_will(version: u8, client_id: &str, payload: &str) -> Vec<u8> {
    const FLAGS: u8 = 0xc4;
    let login = [text("plc"), text("right")].concat();
    let will = [text(&format!("will/{client_id}")), text(payload)].concat();
    match version {
        4 => connect_v4(client_id, FLAGS, &[will, login].concat()),
        _ => {
            let delayed = [&[5, 0x18, 0, 0, 0x0e, 0x10][..], &will, &login].concat();
            connect_v5(client_id, FLAGS, &[0x11, 0, 0, 0x0e, 0x10], &delayed)
        }
    }
}

/// Sends a CONNECT; what the CONNACK answers, and the connection.
async fn answered(site: &Site, connect: &[u8]) -> (u8, Octets) {
    let mut client = Octets::open(site).await;
    client.send(connect).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{connack:02x?}");
    (connack[3], client)
}

#[tokio::test]
async fn a_user_leaves_as_many_wills_and_bytes_of_them_as_one_identity_may_over_a_restart_too() {
    let of = IdentitySettings::default;
    for identity in
        [IdentitySettings { wills_max: 2, ..of() }, IdentitySettings { will_bytes_max: 25_000, ..of() }]
    {
        let payload = "x".repeat(10_000);
        // What was left before the restart is not published while this looks at it.
        let will_grace = Duration::from_secs(3_600);
        let settings = MqttServerSettings { identity, will_grace, ..MqttServerSettings::default() };
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::open_in(dir.path(), settings.clone()).await;
        // One will is of a client that is here, the other one waits for its delay.
        let (answer, here) = answered(&site, &leaves_will(4, "here", &payload)).await;
        assert_eq!(answer, 0);
        let (answer, gone) = answered(&site, &leaves_will(5, "gone", &payload)).await;
        assert_eq!(answer, 0);
        gone.lost().await;
        site.until_seen(Seen::Disconnected("$user:plc/gone".into())).await;
        for (version, refusal) in [(4, 3), (5, 0x97)] {
            let (answer, refused) = answered(&site, &leaves_will(version, "more", &payload)).await;
            assert_eq!(answer, refusal, "MQTT {version}");
            refused.lost().await;
        }
        let counts = site.server.counts();
        assert_eq!((read(&counts.quotas_exceeded), read(&counts.connections_refused)), (2, 2));
        // Without a will it gets in, others have their own, and the same client may come again.
        drop(Mqtt::connect(of_user(&site, "more")).await);
        let mut other = Octets::open(&site).await;
        other
            .ask(&connect_v4("d1", 0x06, &[text("will/d1"), text(&payload)].concat()), b"\x20\x02\0\0")
            .await;
        for _ in 0..3 {
            let (answer, again) = answered(&site, &leaves_will(5, "gone", &payload)).await;
            assert_eq!(answer, 0);
            again.lost().await;
            site.until_seen(Seen::Disconnected("$user:plc/gone".into())).await;
        }
        site.close().await;
        let mut site = Site::open_in(dir.path(), settings).await;
        let (answer, refused) = answered(&site, &leaves_will(5, "more", &payload)).await;
        assert_eq!(answer, 0x97, "after a restart");
        refused.lost().await;
        // A goodbye gives its will back.
        let (answer, mut back) = answered(&site, &leaves_will(4, "here", &payload)).await;
        assert_eq!(answer, 0);
        back.send(&[0xe0, 0]).await;
        back.closed().await;
        site.until_seen(Seen::Disconnected("$user:plc/here".into())).await;
        let (answer, _more) = answered(&site, &leaves_will(5, "more", &payload)).await;
        assert_eq!(answer, 0);
        drop(here);
        site.close().await;
    }
}

#[tokio::test]
async fn wills_that_the_program_does_not_take_are_within_what_one_identity_may_leave() {
    let identity = IdentitySettings { wills_max: 3, ..IdentitySettings::default() };
    // The server waits in vain for its program when it closes, so not for long.
    let finish_timeout = Duration::from_millis(100);
    let settings = MqttServerSettings { identity, finish_timeout, ..MqttServerSettings::default() };
    let mut site = Site::open(settings).await;
    site.program.takes_wills.store(false, Ordering::Relaxed);
    let will = [text("devices/d1/messages/events/"), text("gone")].concat();
    for n in 0..5 {
        let (answer, client) = answered(&site, &connect_v4("d1", 0x06, &will)).await;
        assert_eq!(answer, if n < 3 { 0 } else { 3 }, "will {n}");
        client.lost().await;
        if n < 3 {
            site.until_seen(Seen::Disconnected("d1".into())).await;
        }
    }
    site.close().await;
}

/// A PUBLISH of QoS 0 with a topic alias.
fn aliased(alias: u8, topic: &str) -> Vec<u8> {
    publish_v5(0x30, topic, 0, &[0x23, 0, alias], "x")
}

#[tokio::test]
async fn the_topics_of_the_aliases_of_an_identity_share_its_bytes() {
    let site = open(IdentitySettings { alias_bytes_max: 100_000, ..IdentitySettings::default() }).await;
    let connect = |client_id: &str| connect_v5(client_id, 0xc2, b"", &[text("plc"), text("right")].concat());
    let long = format!("a/{}", "x".repeat(40_000));
    let (_, mut one) = answered(&site, &connect("one")).await;
    // In place of its own it may always be set again.
    for _ in 0..5 {
        one.send(&aliased(1, &long)).await;
    }
    one.expect_nothing().await;
    let (_, mut two) = answered(&site, &connect("two")).await;
    two.send(&aliased(1, &long)).await;
    two.expect_nothing().await;
    let mut device = Octets::clean_v5(&site, "d1").await;
    device.send(&aliased(1, &long)).await;
    device.expect_nothing().await;
    two.send(&aliased(2, &long)).await;
    let refused = two.packet().await;
    assert_eq!((refused[0], refused[2]), (0xe0, 0x97), "{refused:02x?}");
    two.closed().await;
    assert_eq!(read(&site.server.counts().quotas_exceeded), 1);
    // What the connection had is given back with it.
    one.send(&aliased(2, &long)).await;
    one.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn packet_ids_that_an_identity_does_not_release_are_within_its_limit_over_a_restart_too() {
    let identity = IdentitySettings { unreleased_ids_max: 3, ..IdentitySettings::default() };
    let settings = MqttServerSettings { identity, ..MqttServerSettings::default() };
    let dir = tempfile::tempdir().unwrap();
    let site = Site::open_in(dir.path(), settings.clone()).await;
    let login = [text("plc"), text("right")].concat();
    let (_, mut one) = answered(&site, &connect_v4("one", 0xc0, &login)).await;
    let (_, mut five) = answered(&site, &connect_v5("five", 0xc2, b"", &login)).await;
    for id in 1..=3 {
        one.ask(&publish_v4(0x34, "t", id.into(), "x"), &[0x50, 2, 0, id]).await;
    }
    // A repetition is answered; a new one is not, and other identities have their own.
    one.ask(&publish_v4(0x3c, "t", 3, "x"), &[0x50, 2, 0, 3]).await;
    five.send(&publish_v5(0x34, "t", 1, b"", "x")).await;
    let pubrec = five.packet().await;
    assert_eq!((pubrec[0], pubrec[4]), (0x50, 0x97), "{pubrec:02x?}");
    let mut device = Octets::clean(&site, "d1").await;
    device.ask(&publish_v4(0x34, "t", 1, "x"), &[0x50, 2, 0, 1]).await;
    one.ask(&[0x62, 2, 0, 3], &[0x70, 2, 0, 3]).await;
    five.ask(&publish_v5(0x34, "t", 2, b"", "x"), &[0x50, 2, 0, 2]).await;
    one.send(&publish_v4(0x34, "t", 9, "x")).await;
    one.closed().await;
    assert_eq!(read(&site.server.counts().quotas_exceeded), 2);
    five.leave().await;
    site.close().await;
    // The session of the first is there with its two ids, that of the second one is over.
    let site = Site::open_in(dir.path(), settings).await;
    let (_, mut one) = answered(&site, &connect_v4("one", 0xc0, &login)).await;
    one.ask(&publish_v4(0x34, "t", 4, "x"), &[0x50, 2, 0, 4]).await;
    one.send(&publish_v4(0x34, "t", 5, "x")).await;
    one.closed().await;
    site.close().await;
}

#[tokio::test]
async fn packet_ids_of_messages_that_are_not_stored_yet_count_and_those_of_refused_ones_do_not() {
    let site = open(IdentitySettings { unreleased_ids_max: 2, ..IdentitySettings::default() }).await;
    let mut device = Octets::clean_v5(&site, "d1").await;
    let telemetry = |id: u16, payload| publish_v5(0x34, "devices/d1/messages/events/", id, b"", payload);
    site.program.disk.send_replace(false);
    device.send(&[telemetry(1, "x"), telemetry(2, "x"), telemetry(3, "x")].concat()).await;
    // All three were read, and none is answered.
    device.expect_nothing().await;
    assert_eq!(read(&site.server.counts().quotas_exceeded), 1);
    site.program.disk.send_replace(true);
    device.expect(&[0x50, 2, 0, 1]).await;
    device.expect(&[0x50, 2, 0, 2]).await;
    let pubrec = device.packet().await;
    assert_eq!((pubrec[0], pubrec[3], pubrec[4]), (0x50, 3, 0x97), "{pubrec:02x?}");
    for id in 1..=2 {
        device.ask(&[0x62, 2, 0, id], &[0x70, 2, 0, id]).await;
    }
    for id in 4..=6 {
        device.send(&telemetry(id, "wrong")).await;
        let pubrec = device.packet().await;
        assert_eq!((pubrec[0], pubrec[4]), (0x50, 0x99), "{pubrec:02x?}");
    }
    for id in 7..=8 {
        device.ask(&telemetry(id.into(), "x"), &[0x50, 2, 0, id]).await;
    }
    assert_eq!(read(&site.server.counts().quotas_exceeded), 1);
    site.close().await;
}
