//! Power cuts and kills on a real file system: what the queue and the state acknowledged is there afterwards.
//!
//! A process of its own (the ignored test `writer`) appends, puts and tells on its standard output what was acknowledged;
//! it is killed at a random moment, the disk is cut, and what comes back is compared. As a control the same process runs
//! with `fdatasync` made a lie (libeatmydata): then the comparison must find losses.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_agent::state::{Namespace, State};
use edge_buffer::{Log, LogOptions};
use test_needs::Need;

use crate::loop_disk::{Disk, rounds};

const WHERE: &str = "LINESIDE_WRITER_DIR";
const LIFE: &str = "LINESIDE_WRITER_LIFE";
const PRODUCERS: u64 = 20;
const TWINS: u64 = 200;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1 << 20, bytes_max: 64 << 20, keep_free_bytes: 0, ..LogOptions::default() }
}

/// Not of one size, and so large that sled and exports have to follow within a second.
fn twin(number: u64) -> String {
    format!("{number} {}", "x".repeat(500 + (number as usize * 37) % 3000))
}

fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    // The one who reads may be gone already.
    let _gone = writeln!(out, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that is killed; the other tests start it"]
async fn writer() {
    let Some(dir) = std::env::var_os(WHERE) else { return };
    let dir = Path::new(&dir);
    let life: u64 = std::env::var(LIFE).unwrap().parse().unwrap();
    let log = Log::open(&dir.join("queue"), options()).unwrap();
    let state = State::open(&dir.join("state")).unwrap();
    let number = Arc::new(AtomicU64::new(life * 1_000_000_000));
    for _ in 0..PRODUCERS {
        let (log, number) = (log.clone(), number.clone());
        tokio::spawn(async move {
            loop {
                let n = number.fetch_add(1, Ordering::Relaxed);
                let sequence = log.append(n.to_string().into(), 0).await.unwrap();
                report(&format!("queued {sequence} {n}"));
            }
        });
    }
    let mut reader = log.reader();
    let forwarder = log.clone();
    tokio::spawn(async move {
        loop {
            let record = reader.next(|| 0).await.unwrap();
            // A third stays.
            if record.sequence % 3000 < 2000 {
                report(&format!("done {}", record.sequence));
                forwarder.advance(record.sequence);
            }
        }
    });
    for n in life * 1_000_000_000.. {
        let key = format!("device-{}", n % TWINS);
        state.put(Namespace::Twins, &key, &twin(n)).durable().await.unwrap();
        report(&format!("saved {key} {n}"));
    }
}

/// What a writer was told.
#[derive(Default)]
struct Claims {
    queued: BTreeMap<u64, Bytes>,
    done: u64,
    saved: BTreeMap<String, u64>,
}

impl Claims {
    /// Starts a writer and kills it after a while.
    fn of_a_life(&mut self, dir: &Path, life: usize, for_ms: u64, preload: Option<&Path>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "power_cut::writer", "--ignored", "--nocapture", "--quiet"]);
        command.env(WHERE, dir).env(LIFE, life.to_string()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some(preload) = preload {
            command.env("LD_PRELOAD", preload);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let (started, starts) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            // From the first word on, so that each life has one.
            let _ended = starts.recv();
            std::thread::sleep(Duration::from_millis(for_ms));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in lines.map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["queued", sequence, n] => {
                    let (Ok(sequence), Ok(n)) = (sequence.parse(), n.parse::<u64>()) else { continue };
                    self.queued.insert(sequence, n.to_string().into());
                }
                ["done", sequence] => {
                    self.done = sequence.parse().map_or(self.done, |s: u64| self.done.max(s))
                }
                ["saved", key, n] => {
                    if let Ok(n) = n.parse() {
                        self.saved.insert(key.to_owned(), n);
                    }
                }
                _ => continue,
            }
            let _started = started.send(());
        }
        drop(started);
        killer.join().unwrap();
    }

    /// (lost of the queue, lost of the state, read twice), and the records that came back.
    async fn compare(&self, dir: &Path) -> Result<(u64, u64, u64), String> {
        let log = Log::open(&dir.join("queue"), options()).map_err(|error| error.to_string())?;
        let found: BTreeMap<u64, Bytes> =
            log.records().map(|record| record.map(|r| (r.sequence, r.payload)).unwrap()).collect();
        log.close().await;
        let beyond = self.queued.range(self.done + 1..);
        let lost = beyond.filter(|(sequence, record)| found.get(sequence) != Some(record)).count() as u64;
        let twice = found.range(..=self.done).count() as u64;
        let damaged = log.loss_records();
        if lost == 0 && damaged.iter().any(|loss| self.queued.range(loss.first..=loss.last).count() > 0) {
            return Err(format!("acknowledged records are told as lost: {damaged:?}"));
        }
        let state = State::open(&dir.join("state")).map_err(|error| error.to_string())?;
        let twins: BTreeMap<String, String> = state.load(Namespace::Twins).into_iter().collect();
        state.close().await;
        let has = |key: &str, n: u64| {
            let value = twins.get(key)?;
            let found: u64 = value.split(' ').next()?.parse().ok()?;
            // A later one was saved and not told any more.
            (found >= n && *value == twin(found)).then_some(())
        };
        let forgotten = self.saved.iter().filter(|(key, n)| has(key, **n).is_none()).count() as u64;
        Ok((lost, forgotten, twice))
    }
}

fn random_ms(round: usize) -> u64 {
    let seed = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
    100 + (seed >> 33) % 900
}

async fn lives(dir: &Path, count: usize, mut end: impl FnMut()) {
    let mut claims = Claims::default();
    let mut twice = 0;
    for life in 0..count {
        claims.of_a_life(dir, life, random_ms(life), None);
        end();
        let (lost, forgotten, again) = claims.compare(dir).await.unwrap();
        assert_eq!((lost, forgotten), (0, 0), "after life {life}");
        twice += again;
    }
    println!(
        "{count} ends: acknowledged {0} of the queue and {1} twins, arrived {0} and {1}, lost 0, read twice {twice}",
        claims.queued.len(),
        claims.saved.len()
    );
}

#[tokio::test]
async fn power_cuts_lose_nothing_that_queue_and_state_acknowledged() {
    let Some(disk) = Disk::new(256) else { return };
    let dir = disk.path();
    let mut disk = disk;
    lives(&dir, rounds(3, 50), || disk.cut()).await;
}

#[tokio::test]
async fn kills_lose_nothing_that_queue_and_state_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    lives(dir.path(), rounds(3, 50), || {}).await;
}

#[tokio::test]
async fn the_power_cuts_see_a_missing_sync() {
    const PRELOAD: &str = "/usr/lib/x86_64-linux-gnu/libeatmydata.so";
    if !test_needs::has(&[Need::Root, Need::File(PRELOAD)]) {
        return;
    }
    let preload = Path::new(PRELOAD);
    let Some(mut disk) = Disk::new(256) else { return };
    let mut claims = Claims::default();
    claims.of_a_life(&disk.path(), 0, 1000, Some(preload));
    disk.cut();
    let seen = claims.compare(&disk.path()).await;
    assert!(!matches!(seen, Ok((0, 0, _))), "nothing was missing of what was never synced: {seen:?}");
    println!(
        "control without syncs: {seen:?} of {} queued and {} saved",
        claims.queued.len(),
        claims.saved.len()
    );
}
