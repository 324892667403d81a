//! A small disk that others fill to the last byte and free again: telemetry is dropped in the stated order, state goes on,
//! and everything recovers by itself.

use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use edge_agent::state::{Namespace, State};
use edge_buffer::{AppendError, Full, Log, LogOptions};

use crate::loop_disk::{Disk, rounds};

fn record(n: u64) -> Bytes {
    format!("{n:0>1000}").into()
}

/// Another program writes until there is no byte left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    file.sync_all().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_refuses_telemetry_keeps_state_and_recovers_by_itself() {
    let Some(disk) = Disk::new(64) else { return };
    let (dir, hog) = (disk.path(), disk.path().join("hog"));
    let options = LogOptions { keep_free_bytes: 4 << 20, full: Full::Refuse, ..LogOptions::default() };
    let log = Log::open(&dir.join("queue"), options.clone()).unwrap();
    let state = State::open(&dir.join("state")).unwrap();
    let (mut acknowledged, mut refused, mut saved) = (0_u64, 0_u64, 0_u64);
    for round in 0..rounds(2, 10) {
        for _ in 0..500 {
            acknowledged += 1;
            assert_eq!(log.append(record(acknowledged), 0).await.unwrap(), acknowledged, "round {round}");
        }
        fill(&hog);
        // Space that was allocated ahead may still be used; then there is an end.
        for _ in 0..40_000 {
            match log.append(record(acknowledged + 1), 0).await {
                Ok(_) => acknowledged += 1,
                Err(AppendError::Full { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            if refused > 10 * (round as u64 + 1) {
                break;
            }
        }
        assert!(refused > 10 * round as u64, "a full disk took everything");
        for n in 0..200 {
            saved += 1;
            state.put(Namespace::Commands, &n.to_string(), &saved).durable().await.unwrap();
        }
        // Done with on a full disk, it goes.
        log.advance(acknowledged - 100);
        std::fs::remove_file(&hog).unwrap();
    }
    log.close().await;
    state.close().await;
    let log = Log::open(&dir.join("queue"), options).unwrap();
    let found: Vec<u64> = log
        .records()
        .map(|r| r.unwrap())
        .map(|r| {
            assert_eq!(r.payload, record(r.sequence));
            r.sequence
        })
        .collect();
    assert_eq!(found, (acknowledged - 99..=acknowledged).collect::<Vec<_>>());
    assert_eq!((log.stats().lost.refused, log.stats().lost.damaged), (refused, 0));
    let state = State::open(&dir.join("state")).unwrap();
    let commands = state.load::<u64>(Namespace::Commands);
    assert_eq!(commands.iter().map(|(_, n)| *n).max(), Some(saved));
    println!(
        "acknowledged {acknowledged}, arrived {acknowledged}, lost 0, twice 0, refused {refused}; saved {saved} while it was full"
    );
    log.close().await;
    state.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_small_disk_the_oldest_are_evicted_and_each_is_reported() {
    let Some(disk) = Disk::new(64) else { return };
    let options = LogOptions { keep_free_bytes: 4 << 20, segment_bytes: 4 << 20, ..LogOptions::default() };
    let log = Log::open(&disk.path().join("queue"), options.clone()).unwrap();
    let total = 120_000;
    let mut appends = std::collections::VecDeque::new();
    for n in 1..=total {
        appends.push_back(log.append(record(n), 0));
        if appends.len() > 500 {
            appends.pop_front().unwrap().await.unwrap();
        }
    }
    for append in appends {
        append.await.unwrap();
    }
    log.close().await;
    let log = Log::open(&disk.path().join("queue"), options).unwrap();
    let found = log.records().map(|r| r.unwrap()).filter(|r| r.payload == record(r.sequence)).count() as u64;
    let loss_records = log.loss_records();
    let reported: u64 = loss_records.iter().map(|loss| loss.count).sum();
    assert!(found > 30_000, "{found}");
    assert_eq!(found + reported, total, "{loss_records:?}");
    println!("acknowledged {total}, arrived {found}, told as evicted {reported}, lost 0, twice 0");
    log.close().await;
}
