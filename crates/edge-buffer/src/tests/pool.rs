//! Logs that share a disk: the least important is dropped first, its oldest records first.

use std::sync::Arc;

use super::disk::Disk;
use super::*;
use crate::{Cause, Headroom, Pool};

fn open(disk: &Disk, pool: &Pool, rank: u32, full: Full) -> Log {
    let options = LogOptions { pool: Some(pool.clone()), rank, full, bytes_max: 1 << 20, ..options() };
    Log::open_on(Arc::new(disk.clone()), options).unwrap()
}

fn pending(log: &Log) -> u64 {
    log.stats().records
}

#[tokio::test]
async fn the_least_important_log_is_evicted_first_and_never_for_one_that_matters_less() {
    let (pool, disks) = (Pool::new(60_000), [Disk::default(), Disk::default(), Disk::default()]);
    let alarms = open(&disks[0], &pool, 0, Full::DropOldest);
    let readings = open(&disks[1], &pool, 5, Full::DropOldest);
    let debug = open(&disks[2], &pool, 9, Full::DropOldest);
    fill(&alarms, 100, 100).await;
    fill(&readings, 100, 100).await;
    fill(&debug, 100, 100).await;
    assert_eq!([&alarms, &readings, &debug].map(pending), [100, 100, 100]);
    fill(&alarms, 200, 100).await;
    assert_eq!((pending(&alarms), pending(&readings)), (300, 100), "only debug gave way");
    assert!(pending(&debug) < 50, "{:?}", debug.stats());
    assert_eq!(debug.loss_records()[0].cause, Cause::Evicted);
    assert_eq!(pending(&debug) + debug.loss_records()[0].count, 100);
    fill(&alarms, 90, 100).await;
    assert!(pending(&alarms) == 390 && pending(&readings) < 30 && pending(&debug) == 0);
    assert_eq!(alarms.stats().headroom, Headroom::Evicting);

    // Nothing that matters less is left: the alarms' own oldest go.
    fill(&alarms, 60, 100).await;
    assert!(alarms.stats().evicted > 0 && pending(&readings) == 0);
    let before = pending(&alarms);
    fill(&debug, 100, 100).await;
    assert_eq!(pending(&alarms), before, "debug makes room at its own cost");
}

#[tokio::test]
async fn among_equals_the_oldest_go_first_and_what_refuses_is_kept() {
    let (pool, disks) = (Pool::new(40_000), [Disk::default(), Disk::default(), Disk::default()]);
    let first = open(&disks[0], &pool, 3, Full::DropOldest);
    let kept = open(&disks[1], &pool, 9, Full::Refuse);
    let second = open(&disks[2], &pool, 3, Full::DropOldest);
    let at = |log: &Log, now_ms: u64| log.append(payload(now_ms, 100), now_ms);
    for n in 0..90 {
        at(&first, n).await.unwrap();
        at(&kept, n).await.unwrap();
        at(&second, 1_000 + n).await.unwrap();
    }
    for n in 0..80 {
        at(&second, 2_000 + n).await.unwrap();
    }
    assert_eq!((pending(&kept), second.stats().evicted), (90, 0));
    assert!(first.stats().evicted > 0);
    // Nothing gives way to what matters less than all others.
    let evicted = first.stats().evicted;
    let taken = {
        let mut taken = 0;
        while at(&kept, 3_000).await.is_ok() {
            taken += 1;
        }
        taken
    };
    assert_eq!((pending(&kept), second.stats().evicted, first.stats().evicted), (90 + taken, 0, evicted));
    assert_eq!(kept.stats().headroom, Headroom::Refusing);
    first.advance(u64::MAX);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while at(&kept, 3_001).await.is_err() {
        // The other log deletes what is done with on its own thread.
        assert!(std::time::Instant::now() < deadline, "it does not take again");
        tokio::task::yield_now().await;
    }
    assert_eq!(kept.stats().headroom, Headroom::Enough, "it takes again by itself");
}

#[tokio::test]
async fn what_has_expired_is_evicted_before_anything_that_is_kept() {
    let (pool, disks) = (Pool::new(40_000), [Disk::default(), Disk::default()]);
    let alarms = open(&disks[0], &pool, 0, Full::Refuse);
    let readings = open(&disks[1], &pool, 9, Full::DropOldest);
    for n in 0..100 {
        alarms.append_expiring(payload(n, 100), 0, 50).await.unwrap();
    }
    fill(&readings, 100, 100).await;
    for n in 0..90 {
        readings.append(payload(n, 100), 60).await.unwrap();
    }
    assert!(alarms.stats().expired > 0 && alarms.stats().evicted == 0);
    assert_eq!(pending(&readings), 190);
}

#[tokio::test]
async fn a_full_disk_takes_from_the_least_important_too() {
    let disk = Disk::default();
    let pool = Pool::new(u64::MAX);
    let options = |rank| LogOptions { pool: Some(pool.clone()), rank, keep_free_bytes: 10_000, ..options() };
    let other = Disk::default();
    let readings = Log::open_on(Arc::new(other), options(9)).unwrap();
    fill(&readings, 300, 100).await;
    let alarms = Log::open_on(Arc::new(disk.clone()), options(0)).unwrap();
    fill(&alarms, 10, 100).await;
    // The simulated disk is the alarms' own; what the others give back is credited to it.
    disk.set_capacity(disk.used() + 11_000);
    fill(&alarms, 20, 100).await;
    assert_eq!((pending(&alarms), alarms.stats().evicted), (30, 0));
    assert!(readings.stats().evicted > 0);
}

#[tokio::test]
async fn a_log_that_is_given_up_counts_whose_records_they_were() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk), options()).unwrap();
    fill(&log, 50, 100).await;
    log.advance(10);
    log.give_up_all(9);
    assert_eq!((pending(&log), log.stats().lost.dropped), (0, 40));
    fill(&log, 1, 100).await;
    assert_eq!(pending(&log), 1, "it goes on");
}
