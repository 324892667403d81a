//! Bytes and disk space: no device takes the store from others, and a full disk costs nothing that was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::path::Path;
use std::time::Duration;

use central::error::ServiceError;
use central::store::telemetry::{self, NewMessage, Place};
use central::store::{self, Keep, Quotas, Store, StoreError, devices};
use central::store::{telemetry_reading, telemetry_retention};
use central::telemetry::fences::GatewayConnection;
use central::telemetry::ingest::Ingest;
use serde_json::json;

const KEEP: Keep = Keep { messages: 1_000_000, commands: 100 };
const SMALL: Quotas = Quotas {
    device_bytes: 200_000,
    total_bytes: Some(10_000_000),
    free_bytes: Some(0),
    series_bytes: None,
    series_days: None,
};

async fn site(dir: &Path, quotas: Quotas) -> (Store, Ingest) {
    let store = store::open_with(dir, KEEP, quotas).unwrap();
    let register = store.submit(|c| {
        let device =
            devices::Device { is_gateway: true, revision: 1, ..devices::Device::new("gw".parse().unwrap()) };
        Ok::<_, StoreError>(devices::put(c, &device)?)
    });
    register.await.unwrap();
    (store.clone(), Ingest::new(store))
}

fn message(from: &str, sequence: u64, bytes: usize) -> NewMessage {
    NewMessage {
        from: from.parse().unwrap(),
        enqueued_ms: sequence,
        received_ms: 0,
        bag: schemas::bag::PropertyBag::new(),
        body: vec![b'x'; bytes],
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
        generation: None,
    }
}

fn serving_gateway(connection: u64) -> GatewayConnection {
    GatewayConnection { gateway: "gw".parse().unwrap(), connection }
}

async fn count(store: &Store, device: &'static str) -> usize {
    let read = store.read(move |c| {
        Ok::<_, StoreError>(telemetry_reading::page(c, &device.parse().unwrap(), 0, 1_000_000)?.len())
    });
    read.await.unwrap()
}

#[tokio::test]
async fn a_device_that_floods_keeps_to_its_bytes_and_pushes_out_nobody_elses_messages() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path(), SMALL).await;
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        sequence
    };
    let quiet: Vec<_> =
        (0..50).map(|_| ingest.put(message("quiet", next(), 100), Some(serving_gateway(1)))).collect();
    for stored in quiet {
        stored.await.unwrap();
    }
    // 40 MB, two hundred times what one device may have.
    for _ in 0..100 {
        let all: Vec<_> =
            (0..100).map(|_| ingest.put(message("loud", next(), 4_000), Some(serving_gateway(1)))).collect();
        for stored in all {
            stored.await.unwrap();
        }
    }
    // What came since the last look at the quotas goes at the next one.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while store.read(|c| Ok::<_, StoreError>(telemetry_retention::bytes(c)?)).await.unwrap() > 220_000 {
        assert!(tokio::time::Instant::now() < deadline);
        store.submit(|_| Ok::<_, StoreError>(())).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&store, "quiet").await, 50);
    let loud = count(&store, "loud").await;
    assert!((40..=50).contains(&loud), "{loud}");
    // Messages that gave way are not asked for again.
    let again = ingest.put(message("loud", 60, 4_000), Some(serving_gateway(2)));
    again.await.unwrap();
    assert_eq!(count(&store, "loud").await, loud);
}

#[tokio::test]
async fn telemetry_is_refused_while_the_disk_is_nearly_full_and_taken_without_a_hole_later() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path(), SMALL).await;
    ingest.put(message("press", 1, 10), Some(serving_gateway(1))).await.unwrap();
    store.close().await;
    drop((store, ingest));
    let (store, ingest) = site(dir.path(), Quotas { free_bytes: Some(u64::MAX), ..SMALL }).await;
    for sequence in 2..5 {
        let refused = ingest.put(message("press", sequence, 10), Some(serving_gateway(1))).await.unwrap_err();
        assert!(matches!(
            refused,
            ServiceError::Store(StoreError::DiskLow { .. } | StoreError::NotCommitted)
        ));
    }
    // Everything else goes on.
    store.submit(|_| Ok::<_, StoreError>(())).await.unwrap();
    assert_eq!(count(&store, "press").await, 1, "nothing that was acknowledged gave way");
    store.close().await;
    drop((store, ingest));
    let (store, ingest) = site(dir.path(), SMALL).await;
    let far = store.read(|c| Ok::<_, StoreError>(telemetry::stored(c, &"gw".parse().unwrap())?));
    assert_eq!(far.await.unwrap().queues["q"], 1, "the gateway sends again what was refused");
    for sequence in 2..5 {
        ingest.put(message("press", sequence, 10), Some(serving_gateway(2))).await.unwrap();
    }
    assert_eq!(count(&store, "press").await, 4);
}

#[tokio::test]
async fn health_shows_the_disk_and_the_queue_and_writes_once_for_any_number_of_requests() {
    let dir = tempfile::tempdir().unwrap();
    let central = common::start(dir.path()).await;
    let health = async || {
        let answer = central.http.get(central.url("/api/ext/health")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    // A work of central's own may wait just now.
    let body =
        central.until("/api/ext/health", |body| (body["writer"]["works"] == 0).then(|| body.clone())).await;
    assert!(body["diskFreeBytes"].as_u64().unwrap() > 0, "{body}");
    assert_eq!((&body["messagesWaiting"], &body["lostCommits"]), (&json!(0), &json!([])));
    let store = central.started.store().clone();
    let commits = async || {
        let read = store.read(|c| {
            Ok::<_, StoreError>(c.query_row("SELECT count FROM commits", [], |row| row.get::<_, i64>(0))?)
        });
        read.await.unwrap()
    };
    let before = commits().await;
    let since = std::time::Instant::now();
    // Fewer at once than `connections_per_address`, which are all open on a slow machine.
    for answer in futures_util::future::join_all((0..100).map(|_| health())).await {
        assert_eq!(answer.0, 200);
    }
    // One look in 2 s, a checkpoint in 5 s, and the clock of ages, each of which may be due just now; and the use of a token.
    let (made, seconds) = (commits().await - before, since.elapsed().as_secs().cast_signed());
    assert!(made <= 4 + seconds, "{made} commits in {seconds} s");
    central.end().await;
}

#[tokio::test]
async fn health_fails_with_the_reason_while_the_disk_is_nearly_full() {
    let dir = tempfile::tempdir().unwrap();
    let central = common::start_with(dir.path(), |config| config.keep.free_bytes = Some(u64::MAX)).await;
    let answer = central.http.get(central.url("/api/ext/health")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = answer.json().await.unwrap();
    let findings = body["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding.to_string().contains("keep.free_bytes")), "{body}");
    central.end().await;
}
