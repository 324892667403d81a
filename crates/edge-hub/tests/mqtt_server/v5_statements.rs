//! What MQTT 5 demands of a server, byte for byte. docs/conformance.md says which test holds which statement.

use std::time::{Duration, Instant};

use edge_hub::settings::MqttServerSettings;

use crate::octets::{CLEAN, Octets, connect_v4, connect_v5, packet, publish_v4, publish_v5, text};
use crate::site::{Seen, Site};

/// Session expiry: for an hour.
const AN_HOUR: [u8; 5] = [0x11, 0, 0, 0x0e, 0x10];

async fn site() -> Site {
    Site::open(MqttServerSettings::default()).await
}

impl Octets {
    /// Subscribes with these options and a subscription identifier, when there is one.
    async fn subscribed_v5(mut self, filter: &str, options: u8, id: Option<u8>) -> Self {
        let properties = id.map_or(vec![0], |id| vec![2, 0x0b, id]);
        let subscribe = packet(0x82, &[b"\0\x09", &properties, &text(filter), &[options]]);
        self.ask(&subscribe, &[0x90, 4, 0, 9, 0, options & 0b11]).await;
        self
    }

    /// The server says DISCONNECT with this reason, and closes.
    async fn expect_refusal(mut self, reason: u8, why: &str) {
        let packet = self.packet().await;
        assert_eq!((packet[0], packet.get(2)), (0xe0, Some(&reason)), "{why}: {packet:02x?}");
        self.closed().await;
    }
}

/// Takes the properties of a CONNACK apart; those that this server sends.
fn connack_properties(connack: &[u8]) -> Vec<(u8, u32)> {
    let (length, mut rest) = (usize::from(connack[4]), &connack[5..]);
    assert_eq!(length, rest.len());
    let mut properties = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let bytes = match id {
            0x24 | 0x25 | 0x28..=0x2a => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x1f => 2 + usize::from(u16::from_be_bytes([after[0], after[1]])),
            other => panic!("property {other:#x} in a CONNACK"),
        };
        let value = after[..bytes].iter().take(4).fold(0, |value, byte| value << 8 | u32::from(*byte));
        properties.push((id, value));
        rest = &after[bytes..];
    }
    properties
}

#[tokio::test]
async fn a_wrong_connect_is_refused_with_its_reason_and_closed() {
    let site = site().await;
    let will = |properties: &[u8], topic: &[u8]| {
        [&[u8::try_from(properties.len()).unwrap()], properties, topic, b"\0\x01x"].concat()
    };
    for (statement, bytes, reason) in [
        ("1.5.4-1", packet(0x10, &[&text("MQTT"), &[5, CLEAN, 0, 0, 0], b"\0\x03\xed\xa0\x80"]), 0x81),
        ("1.5.4-2", packet(0x10, &[&text("MQTT"), &[5, CLEAN, 0, 0, 0], b"\0\x02d\0"]), 0x81),
        ("1.5.5-1", packet(0x10, &[&text("MQTT"), &[5, CLEAN, 0, 0, 0x80, 0], &text("d1")]), 0x81),
        ("3.1.2-3", connect_v5("d1", CLEAN | 0x01, b"", b""), 0x81),
        ("3.1.2-9", connect_v5("d1", CLEAN | 0x04, b"", b""), 0x81),
        ("3.1.2-11", connect_v5("d1", CLEAN | 0x08, b"", b""), 0x81),
        ("3.1.2-12", connect_v5("d1", CLEAN | 0x1c, b"", &will(b"", b"\0\x01w")), 0x81),
        ("3.1.2-13", connect_v5("d1", CLEAN | 0x20, b"", b""), 0x81),
        ("3.1.2-16", connect_v5("d1", CLEAN, b"", &text("user")), 0x81),
        ("3.1.2-17", connect_v5("d1", CLEAN | 0x80, b"", b""), 0x81),
        ("3.1.2-18", connect_v5("d1", CLEAN | 0x80, b"", &[text("user"), text("password")].concat()), 0x81),
        ("3.1.2-19", connect_v5("d1", CLEAN | 0xc0, b"", &text("user")), 0x81),
        ("3.1.2 receive maximum 0", connect_v5("d1", CLEAN, b"\x21\0\0", b""), 0x82),
        ("3.1.2 maximum packet size 0", connect_v5("d1", CLEAN, b"\x27\0\0\0\0", b""), 0x82),
        ("3.1.2 a property twice", connect_v5("d1", CLEAN, b"\x21\0\x01\x21\0\x01", b""), 0x82),
        ("2.2.2 a property of another packet", connect_v5("d1", CLEAN, b"\x23\0\x01", b""), 0x81),
        ("3.1.3-11", connect_v5("d1", CLEAN | 0x04, b"", &will(b"", b"\0\x01\xff")), 0x81),
        ("3.1.3 a will with a wildcard", connect_v5("d1", CLEAN | 0x04, b"", &will(b"", b"\0\x01#")), 0x90),
        ("3.1.3-12", connect_v5("d1", CLEAN | 0x80, b"", b"\0\x01\xff"), 0x81),
        ("3.1.2 an authentication method", connect_v5("d1", CLEAN, b"\x15\0\x01m", b""), 0x8c),
        ("3.1.2-2", packet(0x10, &[&text("MQTT"), &[6, CLEAN, 0, 0, 0], &text("d1")]), 0x84),
    ] {
        let mut raw = Octets::open(&site).await;
        raw.send(&bytes).await;
        let answer = raw.rest().await;
        // MQTT-3.2.2-6: a refusal has no session.
        assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, reason), "MQTT-{statement}: {answer:02x?}");
        assert_eq!(answer.len(), 2 + usize::from(answer[1]), "MQTT-{statement}: {answer:02x?}");
    }
    // Another protocol is not answered.
    let mut raw = Octets::open(&site).await;
    raw.send(&packet(0x10, &[&text("MQTX"), &[5, CLEAN, 0, 0, 0], &text("d1")])).await;
    raw.closed().await;
    site.close().await;
}

#[tokio::test]
async fn a_refused_client_learns_why_and_nothing_after_it_is_done() {
    let mut site = site().await;
    let telemetry = publish_v5(0x32, "devices/d1/messages/events/", 1, b"", "never seen");
    for (password, reason) in [("wrong", 0x87), ("early", 0x88)] {
        let login = [text("user"), text(password)].concat();
        let mut raw = Octets::open(&site).await;
        raw.send(&[connect_v5("d1", 0xc0, b"", &login), telemetry.clone()].concat()).await;
        let answer = raw.rest().await;
        assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, reason));
        assert_eq!(answer.len(), 2 + usize::from(answer[1]));
    }
    Octets::clean_v5(&site, "d2").await.leave().await;
    assert_eq!(site.sees().await, Seen::Connected("d2".into()));
    site.close().await;
}

#[tokio::test]
async fn a_connack_says_what_the_server_takes() {
    let site = site().await;
    let (raw, connack) = Octets::v5(&site, "d1", CLEAN, b"").await;
    let properties = connack_properties(&connack);
    let of = |id: u8| properties.iter().find(|(known, _)| *known == id).map(|(_, value)| *value);
    assert!(of(0x21).is_some_and(|receive_max| receive_max > 0), "{properties:?}");
    assert!(of(0x27).is_some_and(|bytes_max| bytes_max > 256 * 1024), "{properties:?}");
    assert!(of(0x22).is_some_and(|aliases| aliases > 0), "{properties:?}");
    // QoS 2, retained messages, wildcards, subscription identifiers and shared subscriptions are there: nothing says no.
    for id in [0x24, 0x25, 0x28, 0x29, 0x2a] {
        assert!(of(id).is_none_or(|value| value == 1), "property {id:#x} says no");
    }
    raw.leave().await;
    site.close().await;
}

#[tokio::test]
async fn what_is_wrong_is_reported_by_its_reason_and_closed() {
    let site = site().await;
    for (statement, bytes, reason) in [
        ("2.1.3-1", packet(0x41, &[b"\0\x01"]), 0x81),
        ("1.5.4-1", packet(0x30, &[b"\0\x03\xed\xa0\x80", b"\0x"]), 0x81),
        ("1.5.4-2", packet(0x30, &[b"\0\x01\0", b"\0x"]), 0x81),
        ("1.5.5-1", b"\xc0\x80\0".to_vec(), 0x81),
        ("2.2.1-3", publish_v5(0x32, "a", 0, b"", "x"), 0x82),
        ("2.2.1-3", packet(0x82, &[b"\0\0\0", &text("a"), &[0]]), 0x82),
        ("2.2.1-3", packet(0xa2, &[b"\0\0\0", &text("a")]), 0x82),
        ("3.1.0-2", connect_v5("d1", CLEAN, b"", b""), 0x82),
        ("3.3.1-2", publish_v5(0x38, "a", 0, b"", "x"), 0x81),
        ("3.3.1-4", publish_v5(0x36, "a", 1, b"", "x"), 0x81),
        ("3.3.2-1", packet(0x30, &[b"\0\x01\xff\0x"]), 0x81),
        ("3.3.2-2", publish_v5(0x30, "a/#", 0, b"", "x"), 0x90),
        ("3.3.2 no topic and no alias", publish_v5(0x30, "", 0, b"", "x"), 0x82),
        ("3.3.2-8", publish_v5(0x30, "a", 0, b"\x23\0\0", "x"), 0x94),
        ("3.3.2-9", publish_v5(0x30, "a", 0, b"\x23\xff\xff", "x"), 0x94),
        ("3.3.2 an alias that nobody set", publish_v5(0x30, "", 0, b"\x23\0\x01", "x"), 0x82),
        ("3.3.2-13", publish_v5(0x30, "a", 0, b"\x08\0\x01\xff", "x"), 0x81),
        ("3.3.2-14", publish_v5(0x30, "a", 0, b"\x08\0\x01#", "x"), 0x82),
        ("3.3.2-19", publish_v5(0x30, "a", 0, b"\x03\0\x01\xff", "x"), 0x81),
        ("3.3.4-6", publish_v5(0x30, "a", 0, b"\x0b\x01", "x"), 0x82),
        ("3.6.1-1", packet(0x60, &[b"\0\x01"]), 0x81),
        ("3.8.1-1", packet(0x80, &[b"\0\x01\0", &text("a"), &[0]]), 0x81),
        ("3.8.3-1", packet(0x82, &[b"\0\x01\0\0\x01\xff", &[0]]), 0x81),
        ("3.8.3-2", packet(0x82, &[b"\0\x01\0"]), 0x82),
        ("3.8.3-4", packet(0x82, &[b"\0\x01\0", &text("$share/g/a"), &[0x04]]), 0x82),
        ("3.8.3-5", packet(0x82, &[b"\0\x01\0", &text("a"), &[0xc0]]), 0x81),
        ("3.8.3 QoS 3", packet(0x82, &[b"\0\x01\0", &text("a"), &[3]]), 0x82),
        ("3.8.3 retain handling 3", packet(0x82, &[b"\0\x01\0", &text("a"), &[0x30]]), 0x82),
        ("3.8.2 subscription identifier 0", packet(0x82, &[b"\0\x01\x02\x0b\0", &text("a"), &[0]]), 0x82),
        ("3.10.1-1", packet(0xa0, &[b"\0\x01\0", &text("a")]), 0x81),
        ("3.10.3-1", packet(0xa2, &[b"\0\x01\0\0\x01\xff"]), 0x81),
        ("3.10.3-2", packet(0xa2, &[b"\0\x01\0"]), 0x82),
        ("3.14.1-1", packet(0xe1, &[]), 0x81),
        ("3.14.2-1", packet(0xe0, &[b"\x01"]), 0x82),
        ("3.14.2 a session that comes to life at its end", packet(0xe0, &[b"\0\x05\x11\0\0\0\x01"]), 0x82),
        ("3.15.1-1", packet(0xf1, &[]), 0x81),
        ("4.12.0-6", packet(0xf0, &[b"\x18\x04\x15\0\x01m"]), 0x82),
        ("4.13.1-1", packet(0x90, &[b"\0\x01\0\0"]), 0x82),
        ("3.1.2 a packet larger than allowed", b"\x30\xff\xff\xff\x7f".to_vec(), 0x95),
    ] {
        let mut raw = Octets::clean_v5(&site, "d1").await;
        raw.send(&bytes).await;
        raw.expect_refusal(reason, statement).await;
    }
    site.close().await;
}

#[tokio::test]
async fn a_session_lives_as_long_as_it_was_meant_to() {
    let site = site().await;
    // Without an expiry a session ends with its connection.
    Octets::v5(&site, "d1", 0, b"").await.0.leave().await;
    let (raw, connack) = Octets::v5(&site, "d1", 0, &AN_HOUR).await;
    assert_eq!(connack[2], 0);
    raw.leave().await;
    let (raw, connack) = Octets::v5(&site, "d1", 0, &AN_HOUR).await;
    assert_eq!(connack[2], 1, "no session");
    // A DISCONNECT may end it.
    let mut raw = raw.subscribed_v5("a", 1, None).await;
    raw.send(&packet(0xe0, &[b"\0\x05\x11\0\0\0\0"])).await;
    raw.closed().await;
    let (raw, connack) = Octets::v5(&site, "d1", 0, &AN_HOUR).await;
    assert_eq!(connack[2], 0, "a session that was to end");
    raw.leave().await;
    // A clean start has nothing of it.
    let (raw, connack) = Octets::v5(&site, "d1", CLEAN, &AN_HOUR).await;
    assert_eq!(connack[2], 0);
    raw.leave().await;
    // One second is one second.
    Octets::v5(&site, "d2", 0, b"\x11\0\0\0\x01").await.0.leave().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (raw, connack) = Octets::v5(&site, "d2", 0, b"\x11\0\0\0\x01").await;
    assert_eq!(connack[2], 0, "a session that has ended");
    raw.leave().await;
    site.close().await;
}

#[tokio::test]
async fn both_versions_meet_in_one_session_and_one_message() {
    let site = site().await;
    let old = Octets::v4(&site, "d1", 0).await.0;
    old.leave().await;
    let (raw, connack) = Octets::v5(&site, "d1", 0, &AN_HOUR).await;
    assert_eq!(connack[2], 1);
    let mut new = raw.subscribed_v5("a", 1, None).await;
    let mut old = Octets::clean(&site, "d2").await;
    old.ask(&packet(0x82, &[b"\0\x01", &text("b"), &[1]]), b"\x90\x03\0\x01\x01").await;
    old.ask(&publish_v4(0x32, "a", 1, "to 5"), b"\x40\x02\0\x01").await;
    new.expect(&publish_v5(0x32, "a", 1, b"", "to 5")).await;
    new.send(b"\x40\x02\0\x01").await;
    new.ask(&publish_v5(0x32, "b", 1, b"\x01\x01\x26\0\x01k\0\x01v", "to 3.1.1"), b"\x40\x02\0\x01").await;
    old.expect(&publish_v4(0x32, "b", 1, "to 3.1.1")).await;
    site.close().await;
}

#[tokio::test]
async fn the_properties_of_a_message_are_passed_on_unchanged_and_in_order() {
    let site = site().await;
    let mut subscriber = Octets::clean_v5(&site, "d2").await.subscribed_v5("a", 0, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    let user = b"\x26\0\x01b\0\x012\x26\0\x01a\0\x011\x26\0\x01b\0\x010";
    let own: [&[u8]; 4] = [b"\x01\x01", b"\x08\0\x01r", b"\x09\0\x02\0\xff", b"\x03\0\x01t"];
    let sent = publish_v5(0x30, "a", 0, &[&own.concat()[..], user].concat(), "x");
    publisher.send(&sent).await;
    let got = subscriber.packet().await;
    assert_eq!(got.len(), sent.len());
    for property in own.into_iter().chain([&user[..]]) {
        assert!(got.windows(property.len()).any(|part| part == property), "{property:02x?} in {got:02x?}");
    }
    // A payload that is not the text it says it is, is passed on too: nobody here reads it.
    site.close().await;
}

#[tokio::test]
async fn a_topic_alias_is_used_for_its_topic_on_its_connection_only() {
    let site = site().await;
    let mut subscriber = Octets::clean_v5(&site, "d2").await.subscribed_v5("#", 0, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    let alias = b"\x23\0\x01";
    for (topic, expected) in [("a", "a"), ("", "a"), ("b", "b"), ("", "b")] {
        publisher.send(&publish_v5(0x30, topic, 0, alias, "x")).await;
        // The alias is not passed on.
        subscriber.expect(&publish_v5(0x30, expected, 0, b"", "x")).await;
    }
    publisher.leave().await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.send(&publish_v5(0x30, "", 0, alias, "x")).await;
    publisher.expect_refusal(0x82, "an alias of an earlier connection").await;
    subscriber.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_message_is_not_given_after_its_expiry_and_the_rest_of_it_is_reported() {
    let site = site().await;
    Octets::v5(&site, "d2", 0, &AN_HOUR).await.0.subscribed_v5("a", 1, None).await.leave().await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.ask(&publish_v5(0x32, "a", 1, b"\x02\0\0\0\x01", "short"), b"\x40\x02\0\x01").await;
    publisher.ask(&publish_v5(0x32, "a", 2, b"\x02\0\0\0\xfa", "long"), b"\x40\x02\0\x02").await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (mut back, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    let packet = back.packet().await;
    assert!(packet.ends_with(b"long"), "{packet:02x?}");
    let at = packet.windows(4).position(|part| part == b"\x02\0\0\0").expect("no expiry");
    assert!((100..=248).contains(&packet[at + 4]), "{} s left", packet[at + 4]);
    site.close().await;
}

#[tokio::test]
async fn no_more_messages_are_in_flight_than_each_side_takes() {
    let site = Site::open(MqttServerSettings { pending_max: 2, ..MqttServerSettings::default() }).await;
    let (raw, _) = Octets::v5(&site, "d2", CLEAN, b"\x21\0\x02").await;
    let mut subscriber = raw.subscribed_v5("a", 2, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    for id in 1..=3u8 {
        publisher.ask(&publish_v5(0x32, "a", id.into(), b"", "x"), &[0x40, 2, 0, id]).await;
    }
    subscriber.expect(&publish_v5(0x32, "a", 1, b"", "x")).await;
    subscriber.expect(&publish_v5(0x32, "a", 2, b"", "x")).await;
    // The pings are answered although no message may be sent.
    subscriber.expect_nothing().await;
    subscriber.send(b"\x40\x02\0\x01").await;
    subscriber.expect(&publish_v5(0x32, "a", 3, b"", "x")).await;
    // And towards the server: two QoS 2 messages that wait for their PUBREL are all that it takes.
    let (mut publisher, connack) = Octets::v5(&site, "d1", CLEAN, b"").await;
    assert!(connack_properties(&connack).contains(&(0x21, 2)));
    for id in 1..=2u8 {
        publisher.ask(&publish_v5(0x34, "b", id.into(), b"", "x"), &[0x50, 2, 0, id]).await;
    }
    publisher.send(&publish_v5(0x34, "b", 3, b"", "x")).await;
    publisher.expect_refusal(0x93, "three messages").await;
    site.close().await;
}

#[tokio::test]
async fn a_packet_that_is_too_large_for_the_client_is_not_sent() {
    let site = site().await;
    let (raw, _) = Octets::v5(&site, "d2", CLEAN, b"\x27\0\0\0\x20").await;
    let mut subscriber = raw.subscribed_v5("a", 1, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.ask(&publish_v5(0x32, "a", 1, b"", &"x".repeat(100)), b"\x40\x02\0\x01").await;
    publisher.ask(&publish_v5(0x32, "a", 2, b"", "small"), b"\x40\x02\0\x02").await;
    let packet = subscriber.packet().await;
    assert!(packet.ends_with(b"small") && packet.len() <= 32, "{packet:02x?}");
    // Nor is what the server says of itself: a reason string that does not fit is left out.
    subscriber.send(&connect_v5("d2", CLEAN, b"", b"")).await;
    let disconnect = subscriber.packet().await;
    assert!(disconnect.len() <= 32 && disconnect[2] == 0x82, "{disconnect:02x?}");
    site.close().await;
}

#[tokio::test]
async fn subscription_options_are_kept() {
    let site = site().await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.send(&publish_v5(0x31, "r", 0, b"", "kept")).await;
    publisher.expect_nothing().await;
    // No-local.
    let mut both = Octets::clean_v5(&site, "d2").await.subscribed_v5("own", 0x04, None).await;
    both.send(&publish_v5(0x30, "own", 0, b"", "mine")).await;
    both.expect_nothing().await;
    publisher.send(&publish_v5(0x30, "own", 0, b"", "theirs")).await;
    both.expect(&publish_v5(0x30, "own", 0, b"", "theirs")).await;
    // Retain handling: always, when it is new, never.
    let retained = publish_v5(0x31, "r", 0, b"", "kept");
    let mut raw = Octets::clean_v5(&site, "d3").await.subscribed_v5("r", 0x10, None).await;
    raw.expect(&retained).await;
    let mut raw = raw.subscribed_v5("r", 0x10, None).await;
    raw.expect_nothing().await;
    let mut raw = raw.subscribed_v5("r", 0x00, None).await;
    raw.expect(&retained).await;
    let mut raw = raw.subscribed_v5("r", 0x20, None).await;
    raw.expect_nothing().await;
    // Retain as published, and not.
    publisher.send(&publish_v5(0x31, "r", 0, b"", "kept")).await;
    raw.expect(&publish_v5(0x30, "r", 0, b"", "kept")).await;
    let mut raw = raw.subscribed_v5("r", 0x28, None).await;
    publisher.send(&publish_v5(0x31, "r", 0, b"", "kept")).await;
    raw.expect(&retained).await;
    site.close().await;
}

#[tokio::test]
async fn a_message_carries_the_identifier_of_each_subscription_that_it_meets() {
    let site = site().await;
    let raw = Octets::clean_v5(&site, "d2").await.subscribed_v5("a/#", 0, Some(1)).await;
    let mut raw = raw.subscribed_v5("b", 0, Some(3)).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.send(&publish_v5(0x30, "a/b", 0, b"", "x")).await;
    raw.expect(&publish_v5(0x30, "a/b", 0, b"\x0b\x01", "x")).await;
    // Overlapping ones: one copy with both, or one copy each.
    let mut raw = raw.subscribed_v5("a/b", 0, Some(2)).await;
    publisher.send(&publish_v5(0x30, "a/b", 0, b"", "x")).await;
    let first = raw.packet().await;
    let mut ids: Vec<u8> = first[8..].chunks(2).filter(|pair| pair[0] == 0x0b).map(|pair| pair[1]).collect();
    if ids.len() == 1 {
        let second = raw.packet().await;
        ids.push(second[9]);
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    // A subscription that is replaced loses its identifier.
    let mut raw = raw.subscribed_v5("b", 0, None).await;
    publisher.send(&publish_v5(0x30, "b", 0, b"", "x")).await;
    raw.expect(&publish_v5(0x30, "b", 0, b"", "x")).await;
    site.close().await;
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_of_its_group() {
    let site = site().await;
    let mut one = Octets::clean_v5(&site, "d2").await.subscribed_v5("$share/g/s/#", 1, None).await;
    let mut two = Octets::clean_v5(&site, "d3").await.subscribed_v5("$share/g/s/#", 1, None).await;
    let mut other = Octets::clean_v5(&site, "d4").await.subscribed_v5("$share/h/s/#", 0, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    for id in 1..=6u8 {
        publisher.ask(&publish_v5(0x32, "s/t", id.into(), b"", &id.to_string()), &[0x40, 2, 0, id]).await;
        other.expect(&publish_v5(0x30, "s/t", 0, b"", &id.to_string())).await;
    }
    let mut seen = Vec::new();
    for raw in [&mut one, &mut two] {
        raw.send(b"\xc0\0\xc0\0").await;
        let mut pongs = 0;
        while pongs < 2 {
            let packet = raw.packet().await;
            match packet[0] {
                0xd0 => pongs += 1,
                _ => seen.push(*packet.last().unwrap()),
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, *b"123456");
    // What the grammar does not allow is no subscription.
    let refused = packet(
        0x82,
        &[
            b"\0\x01\0",
            &text("$share/g"),
            &[0],
            &text("$share//a"),
            &[0],
            &text("$share/+/a"),
            &[0],
            &text("$share/g/"),
            &[0],
        ],
    );
    one.send(&refused).await;
    let answer = loop {
        let packet = one.packet().await;
        if packet[0] == 0x90 {
            break packet;
        }
    };
    assert_eq!(answer[answer.len() - 4..], [0x8f; 4], "{answer:02x?}");
    site.close().await;
}

#[tokio::test]
async fn answers_carry_reason_codes_and_reason_strings_when_they_are_requested() {
    let site = site().await;
    let mut raw = Octets::clean_v5(&site, "d1").await;
    let filters = packet(0x82, &[b"\0\x01\0", &text("a"), &[2], &text("b#"), &[0], &text("$reserved"), &[0]]);
    raw.send(&filters).await;
    let answer = raw.packet().await;
    assert_eq!(answer[answer.len() - 3..], [0x02, 0x8f, 0x87], "{answer:02x?}");
    assert!(answer[4] > 0, "no reason string");
    raw.ask(&packet(0xa2, &[b"\0\x02\0", &text("a"), &text("never")]), b"\xb0\x05\0\x02\0\0\x11").await;
    raw.send(&publish_v5(0x32, "devices/other/messages/events/", 3, b"", "x")).await;
    let puback = raw.packet().await;
    assert_eq!((puback[0], &puback[2..5]), (0x40, &b"\0\x03\x87"[..]));
    raw.send(&publish_v5(0x34, "devices/other/messages/events/", 4, b"", "x")).await;
    let pubrec = raw.packet().await;
    assert_eq!((pubrec[0], &pubrec[2..5]), (0x50, &b"\0\x04\x87"[..]));
    // MQTT-4.3.3-9: a message that was refused is over; its id means another one now.
    raw.ask(&publish_v5(0x34, "free", 4, b"", "x"), b"\x50\x02\0\x04").await;
    raw.ask(b"\x62\x02\0\x04", b"\x70\x02\0\x04").await;
    // An id that nobody knows.
    raw.ask(b"\x62\x02\0\x63", b"\x70\x03\0\x63\x92").await;
    raw.send(b"\x50\x02\0\x63").await;
    raw.expect(b"\x62\x03\0\x63\x92").await;
    raw.leave().await;
    // Request problem information 0: no reason strings.
    let (mut raw, _) = Octets::v5(&site, "d1", CLEAN, b"\x17\0").await;
    raw.ask(&filters, b"\x90\x06\0\x01\0\x02\x8f\x87").await;
    raw.ask(&publish_v5(0x32, "devices/other/messages/events/", 3, b"", "x"), b"\x40\x03\0\x03\x87").await;
    raw.leave().await;
    site.close().await;
}

#[tokio::test]
async fn a_connection_that_the_server_ends_learns_why() {
    let site = site().await;
    let older = Octets::clean_v5(&site, "d1").await;
    let newer = Octets::clean_v5(&site, "d1").await;
    older.expect_refusal(0x8e, "taken over").await;
    let mut silent = Octets::open(&site).await;
    let start = Instant::now();
    silent.send(&packet(0x10, &[&text("MQTT"), &[5, CLEAN, 0, 1, 0], &text("d2")])).await;
    assert_eq!(silent.packet().await[3], 0);
    silent.expect_refusal(0x8d, "silent for one and a half times its keep-alive").await;
    assert!(start.elapsed() >= Duration::from_millis(1_500));
    site.stop();
    newer.expect_refusal(0x8b, "the server shuts down").await;
    site.close().await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_may_be_requested() {
    let site = site().await;
    let mut watcher = Octets::clean_v5(&site, "d2").await.subscribed_v5("will/#", 0, None).await;
    let with_will = |delay: u8, topic: &str| {
        let rest = [&[5, 0x18, 0, 0, 0, delay][..], &text(topic), &text("gone")].concat();
        connect_v5("d1", 0x04, &AN_HOUR, &rest)
    };
    // A client that is back in time has no will.
    let mut raw = Octets::open(&site).await;
    raw.send(&with_will(60, "will/back")).await;
    assert_eq!(raw.packet().await[3], 0);
    raw.lost().await;
    let (raw, _) = Octets::v5(&site, "d1", 0, &AN_HOUR).await;
    raw.leave().await;
    // One that is not, has one, after the delay.
    let mut raw = Octets::open(&site).await;
    raw.send(&with_will(3, "will/late")).await;
    assert_eq!(raw.packet().await[3], 0);
    let since = Instant::now();
    raw.lost().await;
    watcher.expect(&publish_v5(0x30, "will/late", 0, b"", "gone")).await;
    assert!(since.elapsed() >= Duration::from_secs(3), "{:?}", since.elapsed());
    // DISCONNECT with its will: at once, when there is no delay.
    let mut raw = Octets::open(&site).await;
    raw.send(&with_will(0, "will/wanted")).await;
    assert_eq!(raw.packet().await[3], 0);
    raw.send(b"\xe0\x01\x04").await;
    raw.closed().await;
    watcher.expect(&publish_v5(0x30, "will/wanted", 0, b"", "gone")).await;
    // The end of the session is the end of the wait: its expiry is 0.
    let mut raw = Octets::open(&site).await;
    let rest = [&[5, 0x18, 0, 0, 0, 100][..], &text("will/ended"), &text("gone")].concat();
    raw.send(&connect_v5("d1", CLEAN | 0x04, b"", &rest)).await;
    assert_eq!(raw.packet().await[3], 0);
    raw.lost().await;
    watcher.expect(&publish_v5(0x30, "will/ended", 0, b"", "gone")).await;
    watcher.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_will_has_the_properties_that_it_was_given() {
    let site = site().await;
    let mut watcher = Octets::clean_v5(&site, "d2").await.subscribed_v5("will/#", 0, None).await;
    let properties = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01c\x26\0\x01k\0\x01v";
    let rest = [&[properties.len() as u8][..], properties, &text("will/d1"), &text("gone")].concat();
    let mut raw = Octets::open(&site).await;
    raw.send(&connect_v5("d1", CLEAN | 0x04, b"", &rest)).await;
    assert_eq!(raw.packet().await[3], 0);
    raw.lost().await;
    let got = watcher.packet().await;
    assert_eq!(got.len(), publish_v5(0x30, "will/d1", 0, properties, "gone").len());
    for property in [&b"\x01\x01"[..], b"\x03\0\x01t", b"\x08\0\x01r", b"\x09\0\x01c", b"\x26\0\x01k\0\x01v"]
    {
        assert!(got.windows(property.len()).any(|part| part == property), "{property:02x?} in {got:02x?}");
    }
    site.close().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_only_on_the_next_connection() {
    let site = site().await;
    let (raw, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    let mut raw = raw.subscribed_v5("a", 2, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.ask(&publish_v5(0x32, "a", 1, b"", "one"), b"\x40\x02\0\x01").await;
    publisher.ask(&publish_v5(0x34, "a", 2, b"", "two"), b"\x50\x02\0\x02").await;
    publisher.ask(b"\x62\x02\0\x02", b"\x70\x02\0\x02").await;
    raw.expect(&publish_v5(0x32, "a", 1, b"", "one")).await;
    raw.expect(&publish_v5(0x34, "a", 2, b"", "two")).await;
    raw.expect_nothing().await;
    raw.lost().await;
    let (mut raw, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    raw.expect(&publish_v5(0x3a, "a", 1, b"", "one")).await;
    raw.expect(&publish_v5(0x3c, "a", 2, b"", "two")).await;
    // A PUBACK or PUBREC with a failure ends a message too.
    raw.send(b"\x40\x03\0\x01\x97\x50\x03\0\x02\x97").await;
    raw.expect_nothing().await;
    raw.leave().await;
    let (mut raw, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    raw.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn an_unknown_level_is_answered_in_the_form_of_the_version_that_is_nearest() {
    let site = site().await;
    for (level, answer) in [(0x83, &b"\x20\x02\0\x01"[..]), (3, b"\x20\x02\0\x01"), (6, b"\x20\x03\0\x84\0")]
    {
        let mut raw = Octets::open(&site).await;
        raw.send(&packet(0x10, &[&text("MQTT"), &[level, CLEAN, 0, 0], &text("d1")])).await;
        assert_eq!(raw.rest().await, answer, "level {level}");
    }
    let mut raw = Octets::open(&site).await;
    raw.send(&connect_v4("d1", CLEAN, b"")).await;
    raw.expect(b"\x20\x02\0\0").await;
    site.close().await;
}

#[tokio::test]
async fn an_empty_client_id_is_given_a_new_one_where_the_user_name_says_who_it_is() {
    let site = site().await;
    let mut ids = Vec::new();
    for flags in [0x80, 0x80 | CLEAN] {
        let mut raw = Octets::open(&site).await;
        raw.send(&connect_v5("", flags, &AN_HOUR, &text("plc"))).await;
        let connack = raw.packet().await;
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
        let at = connack.iter().rposition(|byte| *byte == 0x12).expect("no assigned client id");
        let length = usize::from(u16::from_be_bytes([connack[at + 1], connack[at + 2]]));
        ids.push(String::from_utf8(connack[at + 3..at + 3 + length].to_vec()).unwrap());
        raw.leave().await;
    }
    assert_ne!(ids[0], ids[1]);
    // It is the name of a session like any other.
    let mut raw = Octets::open(&site).await;
    raw.send(&connect_v5(&ids[0], 0x80, &AN_HOUR, &text("plc"))).await;
    assert_eq!(raw.packet().await[2..4], [1, 0], "its session is there");
    raw.leave().await;
    site.close().await;
}

#[tokio::test]
async fn an_empty_client_id_is_refused_where_it_says_who_the_client_is() {
    let site = site().await;
    for flags in [0, CLEAN] {
        let mut raw = Octets::open(&site).await;
        raw.send(&connect_v5("", flags, b"", b"")).await;
        let answer = raw.rest().await;
        assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, 0x85), "{answer:02x?}");
    }
    site.close().await;
}

#[tokio::test]
async fn a_reason_string_that_does_not_fit_is_left_out() {
    let site = site().await;
    let bytes_max = b"\x27\0\0\0\x20";
    let mut raw = Octets::open(&site).await;
    raw.send(&connect_v5("d1", CLEAN, &[&bytes_max[..], b"\x15\0\x01m"].concat(), b"")).await;
    assert_eq!(raw.rest().await, b"\x20\x03\0\x8c\0");
    let (mut raw, _) = Octets::v5(&site, "d1", CLEAN, bytes_max).await;
    raw.ask(&publish_v5(0x32, "devices/other/messages/events/", 1, b"", "x"), b"\x40\x03\0\x01\x87").await;
    raw.ask(&publish_v5(0x34, "devices/other/messages/events/", 2, b"", "x"), b"\x50\x03\0\x02\x87").await;
    raw.ask(&packet(0x82, &[b"\0\x03\0", &text("$reserved"), &[0]]), b"\x90\x04\0\x03\0\x87").await;
    raw.send(&connect_v5("d1", CLEAN, b"", b"")).await;
    assert_eq!(raw.rest().await, b"\xe0\x01\x82");
    site.close().await;
}

#[tokio::test]
async fn a_qos_2_message_that_was_sent_is_ended_though_it_has_expired() {
    let site = site().await;
    let (raw, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    let mut raw = raw.subscribed_v5("a", 2, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.ask(&publish_v5(0x34, "a", 1, b"\x02\0\0\0\x0f", "short"), b"\x50\x02\0\x01").await;
    publisher.ask(b"\x62\x02\0\x01", b"\x70\x02\0\x01").await;
    let sent = raw.packet().await;
    assert_eq!((sent[0], sent.ends_with(b"short")), (0x34, true), "{sent:02x?}");
    raw.lost().await;
    tokio::time::sleep(Duration::from_millis(15_100)).await;
    let (mut raw, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    let again = raw.packet().await;
    assert_eq!((again[0], again.ends_with(b"short")), (0x3c, true), "{again:02x?}");
    raw.ask(b"\x50\x02\0\x01", b"\x62\x02\0\x01").await;
    raw.send(b"\x70\x02\0\x01").await;
    raw.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_shared_message_stays_with_the_member_that_has_it() {
    let site = site().await;
    let (one, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    let mut one = one.subscribed_v5("$share/g/s", 2, None).await;
    let mut publisher = Octets::clean_v5(&site, "d1").await;
    publisher.ask(&publish_v5(0x34, "s", 1, b"", "x"), b"\x50\x02\0\x01").await;
    publisher.ask(b"\x62\x02\0\x01", b"\x70\x02\0\x01").await;
    one.expect(&publish_v5(0x34, "s", 1, b"", "x")).await;
    let mut two = Octets::clean_v5(&site, "d3").await.subscribed_v5("$share/g/s", 2, None).await;
    one.lost().await;
    two.expect_nothing().await;
    let (mut one, _) = Octets::v5(&site, "d2", 0, &AN_HOUR).await;
    one.expect(&publish_v5(0x3c, "s", 1, b"", "x")).await;
    // One that answers with a failure has ended it for everybody.
    one.send(b"\x50\x03\0\x01\x97").await;
    one.expect_nothing().await;
    two.expect_nothing().await;
    two.leave().await;
    // So has one whose session ends.
    publisher.ask(&publish_v5(0x34, "s", 2, b"", "y"), b"\x50\x02\0\x02").await;
    publisher.ask(b"\x62\x02\0\x02", b"\x70\x02\0\x02").await;
    let sent = one.packet().await;
    assert_eq!((sent[0], sent.ends_with(b"y")), (0x34, true), "{sent:02x?}");
    let mut two = Octets::clean_v5(&site, "d3").await.subscribed_v5("$share/g/s", 2, None).await;
    one.send(&packet(0xe0, &[b"\0\x05\x11\0\0\0\0"])).await;
    one.closed().await;
    two.expect_nothing().await;
    site.close().await;
}
