//! Appends that are written by who waits for them.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::*;
use crate::AppendError;

/// Other tests of this process may have a leader, and one at a time is allowed: so long it is tried.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(disk: &Disk) -> Log {
    Log::open_on(Arc::new(disk.clone()), LogOptions { segment_bytes: 1 << 18, ..options() }).unwrap()
}

fn here() -> Option<ThreadId> {
    Some(std::thread::current().id())
}

/// Awaits an append and tells whether it was written on this thread.
async fn is_led(disk: &Disk, log: &Log) -> bool {
    let append = log.append_awaited(payload(0, 100), 0, None);
    let here = here();
    append.await.unwrap();
    disk.synced_by() == here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_comes_alone_is_written_by_who_waits_for_it() {
    let disk = Disk::default();
    let log = open(&disk);
    let (since, mut tries) = (Instant::now(), 0);
    while !is_led(&disk, &log).await {
        tries += 1;
        log.advance(tries);
        assert!(since.elapsed() < PATIENCE);
    }
    log.close().await;
    assert!(matches!(log.append_awaited(payload(0, 100), 0, None).await, Err(AppendError::Closed)));
    assert_eq!(sequences(&close_and_read(&log).await), [tries + 1]);
}

#[tokio::test]
async fn a_runtime_of_one_thread_never_waits_for_the_disk() {
    let disk = Disk::default();
    let log = open(&disk);
    for _ in 0..100 {
        assert!(!is_led(&disk, &log).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_is_waited_for_by_the_thread_that_has_nothing_else_to_do() {
    let disk = Disk::default();
    let log = open(&disk);
    for _ in 0..3 {
        disk.hold_syncs();
        let slow = tokio::spawn(log.append_awaited(payload(0, 100), 0, None));
        disk.sync_waits();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        disk.release_syncs();
        slow.await.unwrap().unwrap();
        assert!(!is_led(&disk, &log).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_while_one_writes_is_written_with_the_next_sync() {
    let since = Instant::now();
    loop {
        let disk = Disk::default();
        let log = open(&disk);
        fill(&log, 2, 100).await;
        disk.hold_syncs();
        let before = disk.syncs();
        let first = tokio::spawn(log.append_awaited(payload(3, 100), 0, None));
        disk.sync_waits();
        let mut rest: Vec<_> = (4..=50).map(|n| log.append_awaited(payload(n, 100), 0, None)).collect();
        for append in &mut rest {
            assert!(poll_once(append).is_none());
        }
        disk.release_syncs();
        assert_eq!(first.await.unwrap().unwrap(), 3);
        let leader = disk.synced_by();
        for (append, n) in rest.into_iter().zip(4..) {
            assert_eq!(append.await.unwrap(), n);
        }
        assert_eq!(disk.syncs() - before, 2);
        if leader != disk.synced_by() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "it was always the thread");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_written_all_the_same() {
    let disk = Disk::default();
    let log = open(&disk);
    fill(&log, 2, 100).await;
    drop(log.append_awaited(payload(3, 100), 0, None));
    let mut detached = log.append_awaited(payload(4, 100), 0, None);
    detached.detach();
    let mut reader = log.reader();
    for n in 1..=4 {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, n);
    }
    // The cursor reaches the disk without another append.
    log.advance(4);
    log.close().await;
    assert_eq!(open(&disk.after_power_cut(|| 0)).stats().cursor, 4);
}

#[test]
fn a_thread_of_its_own_writes_itself() {
    let disk = Disk::default();
    let log = open(&disk);
    // The log's own thread may not have begun yet, and would take what it finds.
    while !log.shared().state().is_asleep {
        std::thread::yield_now();
    }
    log.append_awaited(payload(1, 100), 0, None).wait().unwrap();
    assert_eq!(disk.synced_by(), here());
    log.close_blocking();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_are_answered_once_each_in_the_order_of_their_sequences() {
    const EACH: u64 = 300;
    let disk = Disk::default();
    let log = open(&disk);
    let tasks = (0..8).map(|sender| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for n in 0..EACH {
                let sequence = log.append_awaited(payload(sender * EACH + n, 100), 0, None).await.unwrap();
                assert!(sequence > last);
                last = sequence;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let records = close_and_read(&log).await;
    assert_eq!(sequences(&records), (1..=8 * EACH).collect::<Vec<_>>());
    let mut senders = [0; 8];
    for record in &records {
        let n = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
        let sent = &mut senders[(n / EACH) as usize];
        assert_eq!(n % EACH, *sent, "out of order");
        *sent += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_panics_ends_the_log_and_leaves_nobody_waiting() {
    let disk = Disk::default();
    let log = open(&disk);
    fill(&log, 2, 100).await;
    disk.panic_at_sync();
    // A leader's panic is its caller's; the thread's answers what waits for it.
    let ended = tokio::spawn(log.append_awaited(payload(3, 100), 0, None)).await;
    assert!(ended.is_err() || matches!(ended, Ok(Err(AppendError::Closed))));
    loop {
        match log.append(payload(3, 100), 0).await {
            Err(AppendError::Closed) => break,
            // The leader has told the thread, and that may not have come to it yet.
            other => assert!(other.is_err(), "{other:?}"),
        }
    }
    log.close().await;
}
