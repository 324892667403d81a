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
const STEP: Duration = Duration::from_secs(180);
/// How long a gateway that was refused waits.
const WAIT: Duration = Duration::from_millis(10);
/// Messages that are on their way at once.
const BURST: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum FileSystem {
    Tmpfs,
    /// It keeps what it had reserved when the disk was full.
    Ext4,
}

/// A small disk; unmounted when this is dropped.
struct Disk {
    mounted: tempfile::TempDir,
    /// What a disk that is no memory is a file of.
    _image: tempfile::TempDir,
}

impl Disk {
    fn new(of: FileSystem, mib: u64) -> Self {
        let (mounted, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        match of {
            FileSystem::Tmpfs => {
                let size = format!("size={mib}m");
                run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(mounted.path()));
            }
            FileSystem::Ext4 => {
                let file = image.path().join("disk");
                std::fs::File::create(&file).unwrap().set_len(mib << 20).unwrap();
                run(Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal", "-m", "0"]).arg(&file));
                run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(mounted.path()));
            }
        }
        Self { mounted, _image: image }
    }

    fn path(&self) -> &Path {
        self.mounted.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("--lazy").arg(self.mounted.path()).status();
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

fn sender(sequence: u64, senders: u64) -> String {
    format!("press-{}", sequence % senders)
}

fn message(sequence: u64, Load { body, senders }: Load) -> NewMessage {
    let number = format!("{{\"temperature\":{sequence},\"padding\":\"");
    NewMessage {
        from: sender(sequence, senders).parse().unwrap(),
        enqueued_ms: sequence,
        received_ms: 0,
        bag: schemas::bag::PropertyBag::new(),
        body: format!("{number}{}\"}}", "x".repeat(body.saturating_sub(number.len() + 2))).into_bytes(),
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
        generation: None,
    }
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// Bytes of each message.
    body: usize,
    /// Devices that send in turn: the rows of one are in many pages.
    senders: u64,
}

/// A gateway with more to send than the disk holds.
struct Gateway {
    ingest: Ingest,
    load: Load,
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
            .map(|sequence| self.ingest.put(message(sequence, self.load), Some(connection.clone())))
            .collect();
        for stored in burst {
            if stored.await.is_err() {
                self.refused += 1;
                self.connection += 1;
                tokio::time::sleep(WAIT).await;
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

/// Brings half as much again as a disk of so many MiB holds.
async fn fill(of: FileSystem, mib: u64, keep_free: Option<u64>, load: Load) {
    let what = format!("{mib} MiB of {of:?}, {keep_free:?} to stay free, {load:?}");
    let disk = Disk::new(of, mib);
    let quotas = Quotas { device_bytes: u64::MAX, free_bytes: keep_free, ..Quotas::default() };
    let store = store::open_with(disk.path(), KEEP, quotas).unwrap();
    register(&store, "gw").await.unwrap();
    let ingest = Ingest::new(store.clone());
    let mut gateway = Gateway { ingest, load, connection: 1, acknowledged: 0, refused: 0 };
    // A message takes some bytes more than its body.
    let messages = 3 * (mib << 20) / 2 / (load.body as u64 + 200);
    let mut last = (gateway.acknowledged, Instant::now());
    while gateway.acknowledged < messages {
        gateway.send().await;
        if gateway.acknowledged > last.0 {
            last = (gateway.acknowledged, Instant::now());
        }
        assert!(last.1.elapsed() < STEP, "{what}: telemetry is refused for good: {:?}", store.failure());
    }
    goes_on(&store, &mut gateway, &what).await;
    let (acknowledged, refused) = (gateway.acknowledged, gateway.refused);
    store.close().await;
    drop((store, gateway));
    // All that is kept is beyond the quota now, and does not fit into the log.
    let few = Keep { messages: BURST, ..KEEP };
    let store = store::open_with(disk.path(), few, quotas).unwrap();
    let newest = sender(acknowledged, load.senders);
    let read = store
        .read(move |c| Ok::<_, StoreError>(telemetry_reading::newest(c, &newest.parse().unwrap(), 0, 1)?));
    let last = read.await.unwrap().first().map(|message| message.enqueued_ms);
    assert_eq!(last, Some(acknowledged), "{what}: the last message that was acknowledged");
    let ingest = Ingest::new(store.clone());
    let mut gateway = Gateway { ingest, load, connection: 1, acknowledged, refused };
    goes_on(&store, &mut gateway, &format!("{what}, of which {BURST} are to be kept")).await;
    println!("{what}: {} acknowledged, {} bursts refused", gateway.acknowledged, gateway.refused);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_central_that_fills_its_own_disk_goes_on() {
    if !test_needs::has(&[Need::Root]) {
        return;
    }
    let one = |body| Load { body, senders: 1 };
    let cases = [
        (FileSystem::Tmpfs, 24, Load { body: 800, senders: 50 }),
        (FileSystem::Tmpfs, 24, one(60_000)),
        (FileSystem::Tmpfs, 64, one(4_000)),
        (FileSystem::Ext4, 24, one(4_000)),
    ];
    for (of, mib, load) in cases {
        for keep_free in [None, Some(0)] {
            fill(of, mib, keep_free, load).await;
        }
    }
}
