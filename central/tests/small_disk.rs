//! central alone on a small disk, which telemetry fills: its own log must not keep it from ever writing again. Needs root, for a disk of its own.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use central::store::telemetry::{NewMessage, Place};
use central::store::{self, Keep, Quotas, Store, StoreError, devices, telemetry_reading};
use central::telemetry::fences::GatewayConnection;
use central::telemetry::ingest::Ingest;
use test_needs::Need;
use tokio::time::Instant;

const KEEP: Keep = Keep { messages: 1_000_000, commands: 100 };
const STEP: Duration = Duration::from_secs(60);
/// Messages that are on their way at once.
const BURST: u64 = 100;

/// A disk in memory; unmounted when this is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(done.unwrap().success());
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

async fn register(store: &Store, device: &'static str) -> Result<(), StoreError> {
    let put = store.submit(move |c| {
        let device = devices::Device {
            is_gateway: true,
            revision: 1,
            ..devices::Device::new(device.parse().unwrap())
        };
        Ok::<_, StoreError>(devices::put(c, &device)?)
    });
    put.await.map(drop)
}

fn message(sequence: u64, body: usize) -> NewMessage {
    let number = format!("{{\"temperature\":{sequence},\"padding\":\"");
    NewMessage {
        from: "press".parse().unwrap(),
        enqueued_ms: sequence,
        received_ms: 0,
        bag: schemas::bag::PropertyBag::new(),
        body: format!("{number}{}\"}}", "x".repeat(body.saturating_sub(number.len() + 2))).into_bytes(),
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
        generation: None,
    }
}

/// A gateway with more to send than the disk holds.
struct Gateway {
    ingest: Ingest,
    body: usize,
    connection: u64,
    acknowledged: u64,
    refused: u64,
}

impl Gateway {
    /// Sends a burst of messages, in order; what is refused is sent again by the next call, on a new connection.
    async fn send(&mut self) {
        let connection = GatewayConnection { gateway: "gw".parse().unwrap(), connection: self.connection };
        let first = self.acknowledged + 1;
        let burst: Vec<_> = (first..first + BURST)
            .map(|sequence| self.ingest.put(message(sequence, self.body), Some(connection.clone())))
            .collect();
        for stored in burst {
            if stored.await.is_err() {
                self.refused += 1;
                self.connection += 1;
                // What is refused at once must not keep the store's own tasks from their work.
                tokio::task::yield_now().await;
                return;
            }
            self.acknowledged += 1;
        }
    }
}

/// Telemetry and other works are possible again, as often as one likes: oldest history gives way.
async fn goes_on(store: &Store, gateway: &mut Gateway, what: &str) {
    for _ in 0..5 {
        let (deadline, before) = (Instant::now() + STEP, gateway.acknowledged);
        while gateway.acknowledged < before + BURST {
            gateway.send().await;
            assert!(
                Instant::now() < deadline,
                "{what}: telemetry is refused for good: {:?}",
                store.failure()
            );
        }
        while let Err(error) = register(store, "other").await {
            assert!(Instant::now() < deadline, "{what}: {error}");
        }
    }
}

/// Fills a disk of so many MiB twice over with messages of so many bytes.
async fn fill(mib: u64, keep_free: Option<u64>, body: usize) {
    let what = format!("{mib} MiB, {keep_free:?} to stay free, messages of {body} bytes");
    let disk = Disk::new(mib);
    let quotas = Quotas { device_bytes: u64::MAX, free_bytes: keep_free, ..Quotas::default() };
    let store = store::open_with(disk.path(), KEEP, quotas).unwrap();
    register(&store, "gw").await.unwrap();
    let ingest = Ingest::new(store.clone());
    let mut gateway = Gateway { ingest, body, connection: 1, acknowledged: 0, refused: 0 };
    // A message takes some bytes more than its body.
    let bursts = 2 * (mib << 20) / (BURST * (body as u64 + 200));
    for _ in 0..bursts {
        gateway.send().await;
    }
    goes_on(&store, &mut gateway, &what).await;
    let (acknowledged, refused) = (gateway.acknowledged, gateway.refused);
    store.close().await;
    drop((store, gateway));
    // All that is kept is beyond the quota now, and does not fit into the log.
    let few = Keep { messages: BURST, ..KEEP };
    let store = store::open_with(disk.path(), few, quotas).unwrap();
    let read = store
        .read(move |c| Ok::<_, StoreError>(telemetry_reading::newest(c, &"press".parse().unwrap(), 0, 1)?));
    let last = read.await.unwrap().first().map(|message| message.enqueued_ms);
    assert_eq!(last, Some(acknowledged), "{what}: the last message that was acknowledged");
    let ingest = Ingest::new(store.clone());
    let mut gateway = Gateway { ingest, body, connection: 1, acknowledged, refused };
    goes_on(&store, &mut gateway, &format!("{what}, of which {BURST} are to be kept")).await;
    println!("{what}: {} acknowledged, {} bursts refused", gateway.acknowledged, gateway.refused);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_central_that_fills_its_own_disk_goes_on() {
    if !test_needs::has(&[Need::Root]) {
        return;
    }
    for (mib, body) in [(24, 1_000), (24, 4_000), (24, 60_000), (64, 4_000)] {
        for keep_free in [None, Some(0)] {
            fill(mib, keep_free, body).await;
        }
    }
}
