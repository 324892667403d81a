//! The bounds of what a server keeps: what is refused or is dropped beyond each, how it is told, and that it recovers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_hub::settings::MqttServerSettings;

use crate::disk::Disk;
use crate::octets::{CLEAN, Octets, packet, publish_v4, publish_v5, text};
use crate::site::Site;

/// Session expiry: for an hour.
const AN_HOUR: [u8; 5] = [0x11, 0, 0, 0x0e, 0x10];

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[b"\0\x01", &text(filter), &[1]])
}

/// A session that is away with a filter.
async fn away(site: &Site, client_id: &str, filter: &str) {
    let mut raw = Octets::v4(site, client_id, 0).await.0;
    raw.ask(&subscribe(filter), b"\x90\x03\0\x01\x01").await;
    raw.leave().await;
}

/// The payloads that wait for a session.
async fn waiting(site: &Site, client_id: &str) -> Vec<String> {
    let (mut raw, was_present) = Octets::v4(site, client_id, 0).await;
    assert!(was_present);
    raw.send(b"\xc0\0\xc0\0").await;
    let (mut payloads, mut pongs) = (Vec::new(), 0);
    while pongs < 2 {
        let packet = raw.packet().await;
        match packet[0] {
            0xd0 => pongs += 1,
            _ => payloads.push(String::from_utf8_lossy(&packet[packet.len() - 3..]).into_owned()),
        }
    }
    raw.leave().await;
    payloads
}

#[tokio::test]
async fn the_absent_session_with_the_most_is_evicted_when_all_hold_too_much_together() {
    let site =
        Site::open(MqttServerSettings { queued_bytes_max: 64 * 1024, ..MqttServerSettings::default() }).await;
    away(&site, "much", "much").await;
    away(&site, "little", "little").await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    publisher.ask(&publish_v4(0x32, "little", 1, "one"), b"\x40\x02\0\x01").await;
    let large = "x".repeat(1_000);
    for n in 0..80u8 {
        publisher.ask(&publish_v4(0x32, "much", 2, &format!("{large}{n:03}")), b"\x40\x02\0\x02").await;
    }
    assert_eq!(waiting(&site, "little").await, ["one"], "who has little keeps it");
    let much = waiting(&site, "much").await;
    let dropped = read(&site.server.counts().messages_dropped_away);
    assert!(
        (20..80).contains(&much.len()) && much.len() as u64 + dropped == 80,
        "{} of 80, {dropped}",
        much.len()
    );
    assert_eq!(much.last().unwrap(), "079", "the newest are kept");
    site.close().await;
}

#[tokio::test]
async fn a_session_beyond_the_bound_ends_with_its_connection_and_one_that_ends_makes_space() {
    let site = Site::open(MqttServerSettings { sessions_max: 1, ..MqttServerSettings::default() }).await;
    let (first, connack) = Octets::v5(&site, "first", 0, &AN_HOUR).await;
    assert!(!connack.windows(5).any(|part| part == [0x11, 0, 0, 0, 0]), "{connack:02x?}");
    // One too many is told that its session does not stay, with MQTT 5.
    let (second, connack) = Octets::v5(&site, "second", 0, &AN_HOUR).await;
    assert!(connack.windows(5).any(|part| part == [0x11, 0, 0, 0, 0]), "{connack:02x?}");
    second.leave().await;
    Octets::v4(&site, "third", 0).await.0.leave().await;
    assert_eq!(read(&site.server.counts().sessions_refused), 2);
    assert!(!Octets::v4(&site, "second", CLEAN).await.1 && !Octets::v4(&site, "third", CLEAN).await.1);
    first.leave().await;
    // The first one goes, and there is room.
    Octets::clean(&site, "first").await.leave().await;
    Octets::v4(&site, "second", 0).await.0.leave().await;
    assert!(Octets::v4(&site, "second", 0).await.1);
    site.close().await;
}

#[tokio::test]
async fn what_is_not_retained_is_given_and_reported_and_deletions_make_space() {
    let by_number = MqttServerSettings { retained_messages_max: 2, ..MqttServerSettings::default() };
    let by_bytes = MqttServerSettings { retained_bytes_max: 1_000, ..MqttServerSettings::default() };
    for settings in [by_number, by_bytes] {
        let site = Site::open(settings).await;
        let mut watcher = Octets::clean(&site, "watcher").await;
        watcher.ask(&subscribe("#"), b"\x90\x03\0\x01\x01").await;
        let mut publisher = Octets::clean_v5(&site, "publisher").await;
        let payload = "x".repeat(200);
        for topic in ["a", "b"] {
            publisher.ask(&publish_v5(0x33, topic, 1, b"", &payload), b"\x40\x02\0\x01").await;
            let given = watcher.packet().await;
            assert!(
                given.windows(3).any(|part| part == [&[0, 1], topic.as_bytes()].concat()),
                "{given:02x?}"
            );
        }
        publisher.send(&publish_v5(0x33, "c", 2, b"", &"x".repeat(500))).await;
        let puback = publisher.packet().await;
        assert_eq!((puback[0], puback[4]), (0x40, 0x97), "quota exceeded: {puback:02x?}");
        let given = watcher.packet().await;
        assert!(given.windows(3).any(|part| part == b"\0\x01c"), "its subscribers have it all the same");
        // What is retained may be replaced, and what is taken away makes room.
        publisher.ask(&publish_v5(0x33, "a", 3, b"", "new"), b"\x40\x02\0\x03").await;
        publisher.ask(&publish_v5(0x33, "b", 4, b"", ""), b"\x40\x02\0\x04").await;
        publisher.ask(&publish_v5(0x33, "c", 5, b"", "kept"), b"\x40\x02\0\x05").await;
        assert_eq!(read(&site.server.counts().not_retained), 1);
        let mut later = Octets::clean(&site, "later").await;
        later.ask(&subscribe("c"), b"\x90\x03\0\x01\x01").await;
        assert!(later.packet().await.ends_with(b"kept"));
        site.close().await;
    }
}

#[tokio::test]
async fn retained_messages_that_a_client_requests_again_and_again_without_reading_end_its_connection() {
    let settings = MqttServerSettings { retained_messages_max: 4_000, ..MqttServerSettings::default() };
    let site = Site::open(settings).await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    for n in 0..4_000u16 {
        publisher.send(&publish_v4(0x33, &format!("r/{n}"), n + 1, "x")).await;
    }
    for _ in 0..4_000 {
        assert_eq!(publisher.packet().await[0], 0x40);
    }
    // Once and twice is what it may ask for.
    let mut greedy = Octets::clean(&site, "greedy").await;
    // In one write: the server may close before it has them all.
    greedy.send(&subscribe("r/#").repeat(20)).await;
    // It acknowledges nothing, so that its window is full and the rest waits.
    greedy.rest().await;
    let mut modest = Octets::clean(&site, "modest").await;
    modest.ask(&subscribe("r/7"), b"\x90\x03\0\x01\x01").await;
    assert!(modest.packet().await.ends_with(b"x"));
    site.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_makes_publishers_wait_and_closes_nobody() {
    const PUBLISHERS: usize = 8;
    const EACH: u16 = 60;
    let Some(disk) = Disk::new(256) else { return };
    let site = Site::open_in(disk.path(), MqttServerSettings::default()).await;
    away(&site, "away", "big/#").await;
    let payload = "x".repeat(60_000);
    let mut sending = Vec::new();
    let frozen = disk.freeze();
    for n in 0..PUBLISHERS {
        let mut raw = Octets::clean(&site, &format!("publisher-{n}")).await;
        // All of them together send 29 MB, several times what may wait for the disk.
        let packets: Vec<u8> = (1..=EACH).flat_map(|id| publish_v4(0x32, "big/x", id, &payload)).collect();
        sending.push(tokio::spawn(async move {
            raw.send(&packets).await;
            for id in 1..=EACH {
                raw.expect(&[0x40, 2, 0, id as u8]).await;
            }
            raw.leave().await;
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sending.iter().all(|publisher| !publisher.is_finished()), "acknowledged, and not on disk");
    drop(frozen);
    for publisher in sending {
        publisher.await.unwrap();
    }
    assert!(!waiting(&site, "away").await.is_empty());
    site.close().await;
}

#[tokio::test]
async fn with_a_full_disk_nothing_is_acknowledged_that_is_not_kept_and_the_rest_goes_on_and_it_recovers() {
    let Some(disk) = Disk::new(32) else { return };
    let dir = disk.path().join("server");
    std::fs::create_dir(&dir).unwrap();
    let settings = MqttServerSettings { keep_free_bytes: 4 << 20, ..MqttServerSettings::default() };
    let site = Site::open_in(&dir, settings.clone()).await;
    away(&site, "away", "kept").await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    publisher.ask(&publish_v4(0x32, "kept", 1, "one"), b"\x40\x02\0\x01").await;
    // Others fill the disk.
    let filler = disk.path().join("filler");
    let _ = std::fs::write(&filler, vec![0; 64 << 20]);
    publisher.send(&publish_v4(0x32, "kept", 2, "two")).await;
    publisher.closed().await;
    // What needs no disk goes on.
    let mut watcher = Octets::clean(&site, "watcher").await;
    watcher.ask(&subscribe("live"), b"\x90\x03\0\x01\x01").await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    publisher.ask(&publish_v4(0x32, "live", 3, "now"), b"\x40\x02\0\x03").await;
    assert!(watcher.packet().await.ends_with(b"now"));
    // And the rest as soon as there is room.
    std::fs::remove_file(&filler).unwrap();
    publisher.ask(&publish_v4(0x32, "kept", 4, "fou"), b"\x40\x02\0\x04").await;
    assert_eq!(waiting(&site, "away").await.last().unwrap(), "fou");
    site.close().await;
    let site = Site::open_in(&dir, settings).await;
    let kept = waiting(&site, "away").await;
    assert!(kept.contains(&"one".to_owned()) && kept.contains(&"fou".to_owned()), "{kept:?}");
    site.close().await;
}
