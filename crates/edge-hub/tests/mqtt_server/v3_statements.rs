//! What MQTT 3.1.1 demands of a server, byte for byte. docs/conformance.md says which test holds which statement.

use std::time::Duration;

use edge_hub::settings::MqttServerSettings;

use crate::octets::{CLEAN, DISCONNECT, Octets, connect_v4, packet, publish_v4, text};
use crate::site::{Seen, Site};

async fn site() -> Site {
    Site::open(MqttServerSettings::default()).await
}

/// A SUBSCRIBE of one filter with packet id 9, and the SUBACK that grants it.
fn subscribe(filter: &str, qos: u8) -> (Vec<u8>, [u8; 5]) {
    (packet(0x82, &[b"\0\x09", &text(filter), &[qos]]), [0x90, 3, 0, 9, qos])
}

impl Octets {
    async fn subscribed(mut self, filter: &str, qos: u8) -> Self {
        let (subscribe, suback) = subscribe(filter, qos);
        self.ask(&subscribe, &suback).await;
        self
    }
}

#[tokio::test]
async fn a_connect_that_is_wrong_is_closed_without_an_answer() {
    let site = site().await;
    let will_at_qos_3 = [&text("w")[..], &text("x")].concat();
    for (statement, bytes) in [
        ("3.1.2-1", packet(0x10, &[&text("MQTX"), &[4, CLEAN, 0, 0], &text("d1")])),
        ("3.1.2-3", connect_v4("d1", CLEAN | 0x01, b"")),
        ("3.1.2-9", connect_v4("d1", CLEAN | 0x04, b"")),
        ("3.1.2-11", connect_v4("d1", CLEAN, &will_at_qos_3)),
        ("3.1.2-13", connect_v4("d1", CLEAN | 0x08, b"")),
        ("3.1.2-14", connect_v4("d1", CLEAN | 0x1c, &will_at_qos_3)),
        ("3.1.2-15", connect_v4("d1", CLEAN | 0x20, b"")),
        ("3.1.2-18", connect_v4("d1", CLEAN, &text("user"))),
        ("3.1.2-19", connect_v4("d1", CLEAN | 0x80, b"")),
        ("3.1.2-20", connect_v4("d1", CLEAN | 0x80, &[text("user"), text("password")].concat())),
        ("3.1.2-21", connect_v4("d1", CLEAN | 0xc0, &text("user"))),
        ("3.1.2-22", connect_v4("d1", CLEAN | 0x40, &text("password"))),
        ("3.1.3-3", packet(0x10, &[&text("MQTT"), &[4, CLEAN, 0, 0]])),
        ("3.1.3-4", packet(0x10, &[&text("MQTT"), &[4, CLEAN, 0, 0], b"\0\x02\xc3\x28"])),
        ("3.1.3-10", connect_v4("d1", CLEAN | 0x04, &[&b"\0\x01\xff"[..], &text("x")].concat())),
        ("3.1.3-11", connect_v4("d1", CLEAN | 0x80, b"\0\x01\xff")),
        ("1.5.3-1", packet(0x10, &[&text("MQTT"), &[4, CLEAN, 0, 0], b"\0\x03\xed\xa0\x80"])),
        ("1.5.3-2", packet(0x10, &[&text("MQTT"), &[4, CLEAN, 0, 0], b"\0\x02d\0"])),
        ("2.2.2-2", packet(0x11, &[&text("MQTT"), &[4, CLEAN, 0, 0], &text("d1")])),
    ] {
        let mut raw = Octets::open(&site).await;
        raw.send(&bytes).await;
        assert_eq!(raw.rest().await, b"", "MQTT-{statement}");
    }
    site.close().await;
}

#[tokio::test]
async fn a_refused_connect_gets_its_code_and_nothing_after_it_is_done() {
    let mut site = site().await;
    let telemetry = publish_v4(0x32, "devices/d1/messages/events/", 1, "never seen");
    for (statement, connect, answer) in [
        ("3.1.2-2", packet(0x10, &[&text("MQIsdp"), &[3, CLEAN, 0, 0], &text("d1")]), [0x20, 2, 0, 1]),
        ("3.1.2-2", packet(0x10, &[&text("MQTT"), &[3, CLEAN, 0, 0], &text("d1")]), [0x20, 2, 0, 1]),
        ("3.1.3-8", connect_v4("", 0, b""), [0x20, 2, 0, 2]),
        ("3.1.3-8", connect_v4("", 0x80, &text("plc")), [0x20, 2, 0, 2]),
        // Who this is, only its client id could say.
        ("3.1.3-9", connect_v4("", CLEAN, b""), [0x20, 2, 0, 2]),
        ("3.1.3-9", connect_v4("", 0x80 | CLEAN, &text("hub/d1/?api-version=1")), [0x20, 2, 0, 2]),
        ("3.2.2-4", connect_v4("d1", 0xc0, &[text("user"), text("wrong")].concat()), [0x20, 2, 0, 5]),
        ("3.2.2-5", connect_v4("d1", 0xc0, &[text("user"), text("early")].concat()), [0x20, 2, 0, 3]),
    ] {
        let mut raw = Octets::open(&site).await;
        raw.send(&[connect, telemetry.clone()].concat()).await;
        assert_eq!(raw.rest().await, answer, "MQTT-{statement}");
    }
    // MQTT-3.1.4-5: the first thing that the program sees is the next client.
    let seen = Octets::clean(&site, "d2").await;
    assert_eq!(site.sees().await, Seen::Connected("d2".into()));
    seen.leave().await;
    site.close().await;
}

#[tokio::test]
async fn an_empty_client_id_with_a_clean_session_is_given_one_where_the_user_name_says_who_it_is() {
    let site = site().await;
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut raw = Octets::open(&site).await;
        raw.send(&connect_v4("", 0x80 | CLEAN, &text("plc"))).await;
        raw.expect(b"\x20\x02\0\0").await;
        both.push(raw);
    }
    // They are two clients: neither took over from the other.
    for raw in &mut both {
        raw.expect_nothing().await;
    }
    site.close().await;
}

#[tokio::test]
async fn the_first_packet_is_a_connect_and_it_comes_once() {
    let site = site().await;
    for first in [publish_v4(0x30, "a", 0, "x"), vec![0xc0, 0], subscribe("a", 0).0] {
        let mut raw = Octets::open(&site).await;
        raw.send(&first).await;
        raw.closed().await;
    }
    let mut raw = Octets::clean(&site, "d1").await;
    raw.send(&connect_v4("d1", CLEAN, b"")).await;
    raw.closed().await;
    site.close().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_connection() {
    let site = site().await;
    for (statement, bytes) in [
        ("1.5.3-1", packet(0x30, &[b"\0\x03\xed\xa0\x80", b"x"])),
        ("1.5.3-2", packet(0x30, &[b"\0\x02a\0", b"x"])),
        ("2.2.2-2", packet(0x41, &[b"\0\x01"])),
        ("2.2.2-2", packet(0xc1, &[])),
        ("2.3.1-1", publish_v4(0x32, "a", 0, "x")),
        ("2.3.1-1", packet(0x82, &[b"\0\0", &text("a"), &[0]])),
        ("2.3.1-1", packet(0xa2, &[b"\0\0", &text("a")])),
        ("3.3.1-2", publish_v4(0x38, "a", 0, "x")),
        ("3.3.1-4", publish_v4(0x36, "a", 1, "x")),
        ("3.3.2-1", packet(0x30, &[b"\0\x01\xff", b"x"])),
        ("3.3.2-2", publish_v4(0x30, "a/+", 0, "x")),
        ("3.6.1-1", packet(0x60, &[b"\0\x01"])),
        ("3.8.1-1", packet(0x80, &[b"\0\x01", &text("a"), &[0]])),
        ("3.8.3-1", packet(0x82, &[b"\0\x01\0\x01\xff", &[0]])),
        ("3.8.3-3", packet(0x82, &[b"\0\x01"])),
        ("3.8.3-4", packet(0x82, &[b"\0\x01", &text("a"), &[3]])),
        ("3.8.3-4", packet(0x82, &[b"\0\x01", &text("a"), &[0x40]])),
        ("3.10.1-1", packet(0xa0, &[b"\0\x01", &text("a")])),
        ("3.10.3-1", packet(0xa2, &[b"\0\x01\0\x01\xff"])),
        ("3.10.3-2", packet(0xa2, &[b"\0\x01"])),
        ("3.14.1-1", packet(0xe1, &[])),
        ("4.7.3-1", publish_v4(0x30, "", 0, "x")),
        ("4.8.0-1", packet(0x90, &[b"\0\x01\0"])),
    ] {
        let mut raw = Octets::clean(&site, "d1").await;
        raw.send(&bytes).await;
        assert_eq!(raw.rest().await, b"", "MQTT-{statement}");
    }
    site.close().await;
}

#[tokio::test]
async fn a_client_id_of_letters_and_digits_is_taken() {
    let site = site().await;
    for client_id in ["0", "Az09", "abcdefghijklmnopqrstuvw", "ABCDEFGHIJKLMNOPQRSTUVW"] {
        Octets::clean(&site, client_id).await.leave().await;
    }
    site.close().await;
}

#[tokio::test]
async fn a_client_id_that_comes_again_ends_the_older_connection() {
    let site = site().await;
    let older = Octets::clean(&site, "d1").await;
    let mut newer = Octets::clean(&site, "d1").await;
    older.closed().await;
    newer.expect_nothing().await;
    newer.leave().await;
    site.close().await;
}

#[tokio::test]
async fn a_session_is_there_until_a_clean_one_takes_its_place() {
    let site = site().await;
    for (flags, is_present) in [(0, false), (0, true), (CLEAN, false), (0, false), (0, true)] {
        let (raw, session_present) = Octets::v4(&site, "d1", flags).await;
        assert_eq!(session_present, is_present, "flags {flags}");
        raw.leave().await;
    }
    site.close().await;
}

#[tokio::test]
async fn a_session_keeps_its_filters_and_the_messages_that_come_while_it_is_away() {
    let site = site().await;
    let (away, _) = Octets::v4(&site, "d1", 0).await;
    away.subscribed("a/#", 2).await.leave().await;
    let mut publisher = Octets::clean(&site, "d2").await;
    publisher.ask(&publish_v4(0x32, "a/1", 1, "one"), b"\x40\x02\0\x01").await;
    publisher.ask(&publish_v4(0x34, "a/2", 2, "two"), b"\x50\x02\0\x02").await;
    publisher.ask(b"\x62\x02\0\x02", b"\x70\x02\0\x02").await;
    let (mut back, is_present) = Octets::v4(&site, "d1", 0).await;
    assert!(is_present);
    back.expect(&publish_v4(0x32, "a/1", 1, "one")).await;
    back.expect(&publish_v4(0x34, "a/2", 2, "two")).await;
    // MQTT-3.1.2-6: a clean session has nothing of it.
    back.leave().await;
    let (mut clean, is_present) = Octets::v4(&site, "d1", CLEAN).await;
    assert!(!is_present);
    publisher.ask(&publish_v4(0x32, "a/3", 3, "three"), b"\x40\x02\0\x03").await;
    clean.expect_nothing().await;
    clean.leave().await;
    site.close().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_in_order_with_its_id_and_dup() {
    let site = site().await;
    let (client, _) = Octets::v4(&site, "d1", 0).await;
    let mut client = client.subscribed("a", 2).await;
    let mut publisher = Octets::clean(&site, "d2").await;
    publisher.ask(&publish_v4(0x32, "a", 1, "one"), b"\x40\x02\0\x01").await;
    for (id, payload) in [(2, "two"), (3, "three")] {
        publisher.ask(&publish_v4(0x34, "a", id, payload), &[0x50, 2, 0, id as u8]).await;
        publisher.ask(&[0x62, 2, 0, id as u8], &[0x70, 2, 0, id as u8]).await;
    }
    client.expect(&publish_v4(0x32, "a", 1, "one")).await;
    client.expect(&publish_v4(0x34, "a", 2, "two")).await;
    client.expect(&publish_v4(0x34, "a", 3, "three")).await;
    // Of the second, the client says that it has it.
    client.ask(b"\x50\x02\0\x02", b"\x62\x02\0\x02").await;
    client.lost().await;
    let (mut client, _) = Octets::v4(&site, "d1", 0).await;
    let mut again = vec![client.packet().await, client.packet().await, client.packet().await];
    // PUBREL may stand anywhere; the messages keep their order.
    let at = again.iter().position(|packet| packet[0] == 0x62).expect("no PUBREL");
    assert_eq!(again.remove(at), b"\x62\x02\0\x02");
    assert_eq!(again, [publish_v4(0x3a, "a", 1, "one"), publish_v4(0x3c, "a", 3, "three")]);
    client.send(b"\x40\x02\0\x01\x70\x02\0\x02").await;
    client.ask(b"\x50\x02\0\x03", b"\x62\x02\0\x03").await;
    client.send(b"\x70\x02\0\x03").await;
    client.expect_nothing().await;
    client.leave().await;
    let (mut client, _) = Octets::v4(&site, "d1", 0).await;
    client.expect_nothing().await;
    client.leave().await;
    site.close().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_disconnects() {
    let site = site().await;
    let mut watcher = Octets::clean(&site, "d2").await.subscribed("will/#", 2).await;
    let will = [text("will/d1"), text("gone")].concat();
    for (flags, is_lost, first) in
        [(0x04, true, 0x30), (0x0c, true, 0x32), (0x14, true, 0x34), (0x04, false, 0)]
    {
        let mut raw = Octets::open(&site).await;
        raw.ask(&connect_v4("d1", CLEAN | flags, &will), b"\x20\x02\0\0").await;
        if is_lost {
            raw.lost().await
        } else {
            raw.leave().await
        }
        if first == 0 {
            watcher.expect_nothing().await;
            continue;
        }
        let packet = watcher.packet().await;
        assert_eq!((packet[0], packet.ends_with(b"gone")), (first, true));
        let id = [packet[11], packet[12]];
        match first {
            0x32 => watcher.send(&[0x40, 2, id[0], id[1]]).await,
            0x34 => {
                watcher.ask(&[0x50, 2, id[0], id[1]], &[0x62, 2, id[0], id[1]]).await;
                watcher.send(&[0x70, 2, id[0], id[1]]).await;
            }
            _ => {}
        }
    }
    // MQTT-3.1.2-16 and -17: retained or not, as its flag says.
    for (flags, expected) in [(0x04, None), (0x24, Some(publish_v4(0x31, "will/d1", 0, "gone")))] {
        let mut raw = Octets::open(&site).await;
        raw.ask(&connect_v4("d1", CLEAN | flags, &will), b"\x20\x02\0\0").await;
        raw.lost().await;
        let mut late = Octets::clean(&site, "d3").await.subscribed("will/#", 0).await;
        match expected {
            Some(message) => late.expect(&message).await,
            None => late.expect_nothing().await,
        }
        late.leave().await;
    }
    site.close().await;
}

#[tokio::test]
async fn a_client_that_is_silent_for_one_and_a_half_times_its_keep_alive_is_closed_and_its_will_published() {
    let site = site().await;
    let mut watcher = Octets::clean(&site, "d2").await.subscribed("will/#", 0).await;
    let mut silent = Octets::open(&site).await;
    let connect = packet(
        0x10,
        &[&text("MQTT"), &[4, CLEAN | 0x04, 0, 1], &text("d1"), &text("will/d1"), &text("gone")],
    );
    let start = std::time::Instant::now();
    silent.ask(&connect, b"\x20\x02\0\0").await;
    silent.closed().await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    // The rest is for a loaded machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
    watcher.expect(&publish_v4(0x30, "will/d1", 0, "gone")).await;
    watcher.leave().await;
    site.close().await;
}

#[tokio::test]
async fn a_retained_message_is_kept_replaced_and_removed() {
    let site = site().await;
    let mut publisher = Octets::clean(&site, "d1").await;
    let mut live = Octets::clean(&site, "d2").await.subscribed("r/+", 1).await;
    // MQTT-3.3.1-9: an established subscription sees no retain flag.
    publisher.ask(&publish_v4(0x33, "r/1", 1, "one"), b"\x40\x02\0\x01").await;
    live.ask(b"\xc0\0", &publish_v4(0x32, "r/1", 1, "one")).await;
    live.expect(b"\xd0\0").await;
    live.send(b"\x40\x02\0\x01").await;
    // MQTT-3.3.1-12: what is not retained replaces nothing.
    publisher.ask(&publish_v4(0x32, "r/1", 2, "passing"), b"\x40\x02\0\x02").await;
    live.expect(&publish_v4(0x32, "r/1", 2, "passing")).await;
    live.send(b"\x40\x02\0\x02").await;
    live.leave().await;
    for (first, id, payload, expected) in [
        (0x33, 3, "one", Some("one")),
        (0x33, 4, "two", Some("two")),
        // MQTT-3.3.1-7: QoS 0 replaces too.
        (0x31, 0, "three", Some("three")),
        // MQTT-3.3.1-10 and -11: an empty one removes.
        (0x33, 5, "", None),
    ] {
        publisher.send(&publish_v4(first, "r/1", id, payload)).await;
        if id != 0 {
            publisher.expect(&[0x40, 2, 0, id as u8]).await;
        }
        publisher.expect_nothing().await;
        let mut late = Octets::clean(&site, "d3").await.subscribed("r/1", 0).await;
        match expected {
            Some(payload) => late.expect(&publish_v4(0x31, "r/1", 0, payload)).await,
            None => late.expect_nothing().await,
        }
        late.leave().await;
    }
    // MQTT-3.1.2-7: it is no part of the session of who published it.
    publisher.send(&publish_v4(0x31, "r/2", 0, "stays")).await;
    publisher.leave().await;
    Octets::clean(&site, "d1").await.leave().await;
    let mut late = Octets::clean(&site, "d3").await.subscribed("r/#", 0).await;
    late.expect(&publish_v4(0x31, "r/2", 0, "stays")).await;
    // MQTT-3.8.4-3: the same filter again sends it again.
    let (subscribe, suback) = subscribe("r/#", 0);
    late.ask(&subscribe, &suback).await;
    late.expect(&publish_v4(0x31, "r/2", 0, "stays")).await;
    late.leave().await;
    site.close().await;
}

#[tokio::test]
async fn a_message_goes_out_at_the_lower_qos_without_dup_and_once_for_overlapping_filters() {
    let site = site().await;
    let mut subscriber = Octets::clean(&site, "d2").await;
    let filters = packet(0x82, &[b"\0\x01", &text("a/#"), &[0], &text("a/+"), &[2], &text("b"), &[1]]);
    subscriber.ask(&filters, b"\x90\x05\0\x01\0\x02\x01").await;
    let mut publisher = Octets::clean(&site, "d1").await;
    publisher.send(&publish_v4(0x30, "a/1", 0, "zero")).await;
    subscriber.expect(&publish_v4(0x30, "a/1", 0, "zero")).await;
    // MQTT-3.3.1-3: the DUP of the publisher is its own.
    publisher.ask(&publish_v4(0x3a, "a/1", 1, "one"), b"\x40\x02\0\x01").await;
    subscriber.expect(&publish_v4(0x32, "a/1", 1, "one")).await;
    publisher.ask(&publish_v4(0x34, "a/1", 2, "two"), b"\x50\x02\0\x02").await;
    publisher.ask(b"\x62\x02\0\x02", b"\x70\x02\0\x02").await;
    subscriber.expect(&publish_v4(0x34, "a/1", 2, "two")).await;
    publisher.ask(&publish_v4(0x34, "b", 3, "lower"), b"\x50\x02\0\x03").await;
    publisher.ask(b"\x62\x02\0\x03", b"\x70\x02\0\x03").await;
    subscriber.expect(&publish_v4(0x32, "b", 3, "lower")).await;
    subscriber.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_qos_2_message_is_given_on_once_however_often_it_is_sent() {
    let site = site().await;
    let mut subscriber = Octets::clean(&site, "d2").await.subscribed("a", 0).await;
    let mut publisher = Octets::clean(&site, "d1").await;
    publisher.ask(&publish_v4(0x34, "a", 7, "once"), b"\x50\x02\0\x07").await;
    publisher.ask(&publish_v4(0x3c, "a", 7, "once"), b"\x50\x02\0\x07").await;
    publisher.ask(b"\x62\x02\0\x07", b"\x70\x02\0\x07").await;
    // A PUBREL that comes again is answered again.
    publisher.ask(b"\x62\x02\0\x07", b"\x70\x02\0\x07").await;
    // Then the id is free for another message.
    publisher.ask(&publish_v4(0x34, "a", 7, "another"), b"\x50\x02\0\x07").await;
    publisher.ask(b"\x62\x02\0\x07", b"\x70\x02\0\x07").await;
    subscriber.expect(&publish_v4(0x30, "a", 0, "once")).await;
    subscriber.expect(&publish_v4(0x30, "a", 0, "another")).await;
    subscriber.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn a_qos_1_message_that_comes_again_after_its_puback_is_another_one() {
    let site = site().await;
    let mut subscriber = Octets::clean(&site, "d2").await.subscribed("a", 0).await;
    let mut publisher = Octets::clean(&site, "d1").await;
    for _ in 0..2 {
        publisher.ask(&publish_v4(0x32, "a", 7, "x"), b"\x40\x02\0\x07").await;
        subscriber.expect(&publish_v4(0x30, "a", 0, "x")).await;
    }
    site.close().await;
}

#[tokio::test]
async fn subscriptions_are_answered_filter_by_filter_in_order_and_replaced() {
    let site = site().await;
    let mut raw = Octets::clean(&site, "d1").await;
    let subscribe = packet(
        0x82,
        &[
            b"\x12\x34",
            &text("a"),
            &[0],
            &text("b#"),
            &[0],
            &text("$reserved/x"),
            &[1],
            &text("c/#/d"),
            &[1],
            &text("e"),
            &[2],
        ],
    );
    raw.ask(&subscribe, b"\x90\x07\x12\x34\0\x80\x80\x80\x02").await;
    // MQTT-3.8.4-3: replaced, not added.
    raw.ask(&packet(0x82, &[b"\0\x02", &text("a"), &[1]]), b"\x90\x03\0\x02\x01").await;
    raw.ask(&publish_v4(0x32, "a", 5, "x"), b"\x40\x02\0\x05").await;
    raw.expect(&publish_v4(0x32, "a", 1, "x")).await;
    raw.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn an_unsubscribe_is_always_answered_and_ends_what_it_names() {
    let site = site().await;
    let mut raw = Octets::clean(&site, "d1").await;
    let filters = packet(0x82, &[b"\0\x01", &text("a"), &[1], &text("b"), &[0], &text("A"), &[0]]);
    raw.ask(&filters, b"\x90\x05\0\x01\x01\0\0").await;
    raw.ask(&publish_v4(0x32, "a", 5, "begun"), b"\x40\x02\0\x05").await;
    raw.expect(&publish_v4(0x32, "a", 1, "begun")).await;
    raw.ask(&packet(0xa2, &[b"\x12\x34", &text("a"), &text("b"), &text("never")]), b"\xb0\x02\x12\x34").await;
    // MQTT-3.10.4-3: what was begun is ended.
    raw.send(b"\x40\x02\0\x01").await;
    raw.send(&[publish_v4(0x30, "a", 0, "x"), publish_v4(0x30, "b", 0, "x")].concat()).await;
    raw.expect_nothing().await;
    // MQTT-3.10.4-1: compared letter by letter.
    raw.ask(&publish_v4(0x30, "A", 0, "still"), &publish_v4(0x30, "A", 0, "still")).await;
    site.close().await;
}

#[tokio::test]
async fn filters_match_level_by_level_and_topics_pass_unchanged() {
    let site = site().await;
    let mut raw = Octets::clean(&site, "d1").await;
    let filters =
        [("sport/+/one", "sport/tennis/one"), ("#", "a/b"), ("+", "a"), ("/+", "/a"), ("sport/#", "sport")];
    for (filter, topic) in filters {
        let mut subscriber = Octets::clean(&site, "d2").await.subscribed(filter, 0).await;
        raw.send(&publish_v4(0x30, topic, 0, "x")).await;
        subscriber.expect(&publish_v4(0x30, topic, 0, "x")).await;
        subscriber.leave().await;
    }
    // MQTT-1.5.3-3 and MQTT-4.7.3-4: nothing is stripped, folded or normalised.
    let mut subscriber = Octets::clean(&site, "d2").await.subscribed("t/#", 0).await;
    let longest = format!("t/{}", "x".repeat(65_533));
    for topic in ["t/\u{feff}bom", "t/e\u{301}", "t/\u{e9}", "t/ space /", "t//", &longest] {
        raw.send(&publish_v4(0x30, topic, 0, "x")).await;
        subscriber.expect(&publish_v4(0x30, topic, 0, "x")).await;
    }
    site.close().await;
}

#[tokio::test]
async fn topics_of_the_server_are_not_met_by_a_leading_wildcard() {
    let site = site().await;
    // `$iothub/twin/res/...` is sent to this client itself, and `#` and `+/...` must not see it.
    let mut raw = Octets::clean(&site, "d1").await;
    let filters = packet(
        0x82,
        &[b"\0\x01", &text("#"), &[0], &text("+/twin/res/#"), &[0], &text("$iothub/twin/res/#"), &[0]],
    );
    raw.ask(&filters, b"\x90\x05\0\x01\0\0\0").await;
    raw.send(&publish_v4(0x30, "$iothub/twin/GET/?$rid=1", 0, "")).await;
    let answer = raw.packet().await;
    assert!(answer.windows(11).any(|part| part == b"$iothub/twi"), "{answer:02x?}");
    raw.expect_nothing().await;
    site.close().await;
}

#[tokio::test]
async fn messages_of_a_topic_keep_their_order_in_each_qos() {
    let site = site().await;
    let mut subscriber = Octets::clean(&site, "d2").await.subscribed("o", 1).await;
    let mut publisher = Octets::clean(&site, "d1").await;
    for id in 1..=50u16 {
        publisher.send(&publish_v4(0x32, "o", id, &id.to_string())).await;
    }
    for id in 1..=50u8 {
        // MQTT-4.6.0-2: PUBACKs in the order of the messages.
        publisher.expect(&[0x40, 2, 0, id]).await;
    }
    for id in 1..=50u16 {
        subscriber.expect(&publish_v4(0x32, "o", id, &id.to_string())).await;
    }
    for id in 51..=60u16 {
        publisher.send(&publish_v4(0x34, "o", id, &id.to_string())).await;
    }
    for id in 51..=60u8 {
        publisher.expect(&[0x50, 2, 0, id]).await;
    }
    for id in 51..=60u8 {
        publisher.ask(&[0x62, 2, 0, id], &[0x70, 2, 0, id]).await;
    }
    for id in 51..=60u16 {
        subscriber.expect(&publish_v4(0x32, "o", id, &id.to_string())).await;
    }
    site.close().await;
}

#[tokio::test]
async fn a_ping_is_answered_and_a_disconnect_is_the_end() {
    let site = site().await;
    let mut raw = Octets::clean(&site, "d1").await;
    raw.ask(b"\xc0\0", b"\xd0\0").await;
    raw.send(&[&DISCONNECT[..], b"\xc0\0"].concat()).await;
    raw.closed().await;
    site.close().await;
}

#[tokio::test]
async fn a_publish_that_is_not_allowed_closes_the_connection_unacknowledged() {
    let site = site().await;
    let mut raw = Octets::clean(&site, "d1").await;
    raw.send(&publish_v4(0x32, "devices/other/messages/events/", 1, "x")).await;
    raw.closed().await;
    site.close().await;
}
