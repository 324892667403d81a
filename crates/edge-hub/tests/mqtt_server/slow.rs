//! Subscribers that take nothing: they are closed, and nobody who publishes is refused, closed or held up for long.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_hub::settings::MqttServerSettings;

use crate::octets::{CLEAN, DISCONNECT, Octets, packet, publish_v4, publish_v5, text};
use crate::site::{PATIENCE, Site};

/// 260 of these are more than the soft bound of 1 MiB.
const PAYLOAD_BYTES: usize = 4_096;
const MESSAGES: u16 = 600;
/// Published together.
const BATCH: usize = 150;
/// What an absent session keeps here.
const KEPT: usize = 50;

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn settings(publishers_wait: Duration) -> MqttServerSettings {
    MqttServerSettings {
        publishers_wait,
        session_messages_max: KEPT,
        session_bytes_max: 256 << 10,
        // What the server says at the end waits until the test reads it.
        finish_timeout: PATIENCE,
        ..MqttServerSettings::default()
    }
}

fn payload(id: u16) -> String {
    format!("{id:05}{}", "x".repeat(PAYLOAD_BYTES))
}

/// How the subscriber that takes nothing subscribes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slow {
    Clean,
    Durable,
    Version5,
    SharedClean,
    SharedDurable,
}

impl Slow {
    fn is_durable(self) -> bool {
        matches!(self, Self::Durable | Self::SharedDurable)
    }

    async fn subscribe(self, site: &Site) -> Octets {
        let mut client = match self {
            Self::Clean | Self::SharedClean => Octets::clean(site, "slow").await,
            Self::Durable | Self::SharedDurable => Octets::v4(site, "slow", 0).await.0,
            Self::Version5 => Octets::clean_v5(site, "slow").await,
        };
        let filter = match self {
            Self::SharedClean | Self::SharedDurable => "$share/g/line/+",
            _ => "line/#",
        };
        let (properties, answer): (&[u8], &[u8]) = match self {
            Self::Version5 => (&[0], b"\x90\x04\0\x01\0\x02"),
            _ => (&[], b"\x90\x03\0\x01\x02"),
        };
        client.ask(&packet(0x82, &[b"\0\x01", properties, &text(filter), &[2]]), answer).await;
        client
    }
}

/// How the publisher publishes.
#[derive(Debug, Clone, Copy)]
enum Publisher {
    V4(u8),
    V5(u8),
}

impl Publisher {
    async fn connect(self, site: &Site) -> Octets {
        match self {
            Self::V4(_) => Octets::clean(site, "publisher").await,
            Self::V5(_) => Octets::clean_v5(site, "publisher").await,
        }
    }

    /// Publishes these and is answered as if there were no slow subscriber.
    async fn publish(self, client: &mut Octets, ids: RangeInclusive<u16>) {
        let packet = |id| match self {
            Self::V4(qos) => publish_v4(0x30 | qos << 1, "line/a", id, &payload(id)),
            Self::V5(qos) => publish_v5(0x30 | qos << 1, "line/a", id, b"", &payload(id)),
        };
        let acks = |first| ids.clone().map(move |id| [first, 2, (id >> 8) as u8, id as u8]);
        client.send(&ids.clone().flat_map(packet).collect::<Vec<u8>>()).await;
        let (Self::V4(qos) | Self::V5(qos)) = self;
        if qos == 2 {
            for ack in acks(0x50) {
                client.expect(&ack).await;
            }
            client.send(&acks(0x62).flatten().collect::<Vec<u8>>()).await;
        }
        for ack in acks(if qos == 2 { 0x70 } else { 0x40 }) {
            client.expect(&ack).await;
        }
    }
}

/// The numbers of the messages that a session has, each acknowledged, up to the newest.
async fn taken(client: &mut Octets) -> Vec<u16> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&MESSAGES) {
        let packet = client.packet().await;
        if packet[0] >> 4 == 6 {
            client.send(&[0x70, 2, packet[2], packet[3]]).await;
            continue;
        }
        let id_at = packet.len() - PAYLOAD_BYTES - 5 - 2;
        let number = std::str::from_utf8(&packet[id_at + 2..id_at + 7]).unwrap().parse().unwrap();
        numbers.push(number);
        let answer = if packet[0] & 6 == 2 { 0x40 } else { 0x50 };
        client.send(&[answer, 2, packet[id_at], packet[id_at + 1]]).await;
    }
    numbers
}

#[tokio::test]
async fn no_subscriber_that_takes_nothing_gets_a_publisher_refused_or_closed_and_nothing_is_lost_unreported()
{
    for slow in [Slow::Clean, Slow::Durable, Slow::Version5, Slow::SharedClean, Slow::SharedDurable] {
        for publisher in [Publisher::V4(1), Publisher::V4(2), Publisher::V5(1), Publisher::V5(2)] {
            let site = Site::open(settings(Duration::from_millis(100))).await;
            let stuck = slow.subscribe(&site).await;
            let mut client = publisher.connect(&site).await;
            for first in (1..=MESSAGES).step_by(BATCH) {
                publisher.publish(&mut client, first..=first + BATCH as u16 - 1).await;
            }
            let case = format!("{slow:?} and {publisher:?}");
            let said = stuck.rest().await;
            assert_eq!(read(&site.server.counts().subscribers_closed), 1, "{case}");
            if slow == Slow::Version5 {
                let at = said.len() - usize::from(*said.last().unwrap() == 0);
                assert!(
                    said[..at].windows(3).any(|part| part[0] == 0xe0 && part[2] == 0x97),
                    "no DISCONNECT 0x97"
                );
            }
            if slow.is_durable() {
                let (mut back, was_present) = Octets::v4(&site, "slow", 0).await;
                assert!(was_present, "{case}");
                let mut arrived = taken(&mut back).await;
                let dropped = read(&site.server.counts().messages_dropped_away);
                arrived.sort_unstable();
                arrived.dedup();
                assert_eq!(arrived.len() as u64 + dropped, u64::from(MESSAGES), "{case}");
                assert!(arrived.len() >= KEPT, "{case}: {}", arrived.len());
                back.send(&DISCONNECT).await;
                back.rest().await;
            }
            publisher.publish(&mut client, 1..=1).await;
            client.leave().await;
            site.close().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_comes_back_and_stalls_again_does_not_hold_up_publishers_again() {
    let wait = Duration::from_secs(5);
    let site = Site::open(settings(wait)).await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let stuck = Slow::Clean.subscribe(&site).await;
        let since = Instant::now();
        Publisher::V4(1).publish(&mut publisher, 1..=400).await;
        took.push(since.elapsed());
        stuck.rest().await;
    }
    assert_eq!(read(&site.server.counts().subscribers_closed), 5);
    assert!(took[0] >= wait, "a subscriber that lags for a moment is waited for");
    // Each of them would take as long; a machine that stands still makes some of them.
    assert!(took[1..].iter().any(|took| *took < wait), "{took:?}");
    site.close().await;
}

#[tokio::test]
async fn retained_messages_that_a_subscriber_requested_and_does_not_take_hold_up_nobody() {
    let site = Site::open(settings(Duration::from_secs(600))).await;
    let mut publisher = Octets::clean(&site, "publisher").await;
    for id in 1..=3_000 {
        publisher.send(&publish_v4(0x33, &format!("line/{id}"), id, "x")).await;
    }
    for _ in 1..=3_000 {
        assert_eq!(publisher.packet().await[0], 0x40);
    }
    let (_stuck, _kept) = (Slow::Clean.subscribe(&site).await, Octets::v4(&site, "kept", CLEAN).await);
    // More than the soft bound waits for it, and what is published meanwhile is acknowledged at once.
    for id in 1..=100 {
        publisher.ask(&publish_v4(0x32, "line/live", id, "x"), &[0x40, 2, (id >> 8) as u8, id as u8]).await;
    }
    assert_eq!(read(&site.server.counts().subscribers_closed), 0);
    site.close().await;
}
