//! Bytes, age, expiry and free disk space.

use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Disk;
use super::*;
use crate::{AppendError, Cause, Loss};

fn evicted(losses: &[Loss]) -> u64 {
    losses.iter().filter(|loss| loss.cause == Cause::Evicted).map(|loss| loss.count).sum()
}

#[tokio::test]
async fn the_oldest_are_evicted_when_the_bytes_are_used_up_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogOptions { bytes_max: 10_000, ..options() }).unwrap();
    fill(&log, 1000, 100).await;
    let stats = log.stats();
    assert!(stats.bytes <= 10_000 && stats.bytes > 8000, "{stats:?}");
    assert_eq!(stats.records + stats.evicted, 1000);
    let losses = log.losses();
    assert_eq!(losses, [Loss { first: 1, last: stats.evicted, count: stats.evicted, cause: Cause::Evicted }]);
    let kept = sequences(&close_and_read(&log).await);
    assert_eq!(kept, (stats.evicted + 1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_single_segment_is_evicted_too() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogOptions { bytes_max: 1000, segment_bytes: 1 << 20, ..options() };
    let log = Log::open(dir.path(), limits).unwrap();
    fill(&log, 20, 700).await;
    assert_eq!(log.stats().evicted, 19);
    assert_eq!(sequences(&close_and_read(&log).await), [20]);
}

#[tokio::test]
async fn a_log_that_refuses_takes_records_again_when_others_are_done_with() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogOptions { bytes_max: 5000, full: Full::Refuse, ..options() };
    let log = Log::open(dir.path(), limits).unwrap();
    let mut taken = 0;
    while let Ok(sequence) = log.append(payload(taken, 100), 0).await {
        taken = sequence;
    }
    assert!(matches!(log.append(payload(0, 100), 0).await, Err(AppendError::Full { .. })));
    assert_eq!((log.stats().records, log.stats().refused, log.stats().evicted), (taken, 2, 0));
    log.advance(taken / 2);
    assert_eq!(log.append(payload(0, 100), 0).await.unwrap(), taken + 1);
    assert!(log.losses().is_empty());
}

#[tokio::test]
async fn a_record_that_can_never_fit_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let refused = log.append(payload(0, 2 << 20), 0).await;
    assert!(matches!(refused, Err(AppendError::TooLong { bytes: 2_097_152, max: 1_048_476 })), "{refused:?}");
    assert_eq!(log.stats().refused, 1);
}

#[tokio::test]
async fn what_expires_in_a_log_that_nobody_reads_is_counted_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    for n in 1..=40 {
        log.append_expiring(payload(n, 100), 1000, 1000 + n * 10).await.unwrap();
    }
    assert_eq!(log.expire(1009).unwrap(), 0);
    assert_eq!(log.expire(1200).unwrap(), 20);
    assert_eq!((log.stats().expired, log.stats().cursor, log.stats().records), (20, 20, 20));
    assert_eq!(log.expire(1200).unwrap(), 0, "counted once");
    // It is told, and known after a restart, though nobody has read a record.
    assert_eq!(log.losses_to_report().await.unwrap()[0].count, 20);
    log.close().await;
    drop(log);
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.expire(1400).unwrap(), 20);
    let lost: u64 =
        log.loss_records().iter().filter(|loss| loss.cause == Cause::Expired).map(|loss| loss.count).sum();
    assert_eq!((lost, log.stats().records), (40, 0));
}

#[tokio::test]
async fn a_record_that_is_in_flight_does_not_expire_until_its_reader_gives_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    for n in 1..=4 {
        log.append_expiring(payload(n, 100), 1000, 2000).await.unwrap();
    }
    let mut reader = log.reader();
    for sequence in 1..=2 {
        assert_eq!(reader.next(|| 1000).await.unwrap().sequence, sequence);
    }
    assert_eq!(log.expire(2000).unwrap(), 2, "the third and the fourth");
    log.advance(1);
    assert_eq!(log.expire(2000).unwrap(), 0);
    reader.rewind();
    assert_eq!(log.expire(2000).unwrap(), 1);
    assert_eq!((log.stats().expired, log.stats().records), (3, 0));
    // A reader that is gone has nothing on its way either.
    log.append_expiring(payload(5, 100), 1000, 2000).await.unwrap();
    assert_eq!(reader.next(|| 1000).await.unwrap().sequence, 5);
    drop(reader);
    assert_eq!(log.expire(2000).unwrap(), 1);
}

#[tokio::test]
async fn what_may_have_arrived_does_not_expire_before_upstream_has_said_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { unsettled_max: 2, segment_bytes: 1_000, ..options() };
    let log = Log::open(dir.path(), options.clone()).unwrap();
    for n in 1..=5 {
        log.append_expiring(payload(n, 100), 1000, 2000).await.unwrap();
    }
    let mut reader = log.reader();
    for sequence in 1..=2 {
        assert_eq!(reader.next(|| 1000).await.unwrap().sequence, sequence);
    }
    // The connection ends with two on their way, of which the first arrived.
    drop(reader);
    assert_eq!(log.expire(2000).unwrap(), 3, "those that nobody gave out");
    log.advance(1);
    log.settle();
    assert_eq!(log.expire(2000).unwrap(), 1, "the second did not arrive");
    // An earlier run may have given out the first two of what a log opens with.
    for n in 6..=9 {
        log.append_expiring(payload(n, 100), 2000, 3000).await.unwrap();
    }
    log.close().await;
    drop(log);
    let log = Log::open(dir.path(), options).unwrap();
    assert_eq!(log.expire(3000).unwrap(), 2);
    log.settle();
    assert_eq!((log.expire(3000).unwrap(), log.stats().records), (2, 0));
}

#[tokio::test]
async fn segments_that_may_have_arrived_do_not_expire_for_their_age_before_upstream_has_said_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        LogOptions { unsettled_max: 100, segment_bytes: 1_000, age_max_ms: Some(1_000), ..options() };
    let log = Log::open(dir.path(), options.clone()).unwrap();
    fill(&log, 40, 100).await;
    log.close().await;
    drop(log);
    // An earlier run may have given out all of them. New records come, and upstream is away.
    let log = Log::open(dir.path(), options).unwrap();
    for n in 41..=60 {
        log.append(payload(n, 100), 10_000).await.unwrap();
    }
    assert_eq!((log.stats().records, log.stats().expired), (60, 0));
    // It had them.
    log.advance(40);
    log.settle();
    log.append(payload(61, 100), 10_000).await.unwrap();
    assert_eq!((log.stats().records, log.stats().expired), (21, 0));
}

/// What happens to a log whose upstream tells at each new connection how far it has it.
#[derive(Debug, Clone)]
enum Away {
    Append(u64),
    /// Milliseconds pass, and what has expired is looked for.
    Pass(u64),
    /// One more record is sent; it arrives, and its acknowledgement is lost.
    Send,
    Disconnect,
    Connect,
    Restart,
}

fn away() -> impl Strategy<Value = Away> {
    prop_oneof![
        6 => (1u64..300).prop_map(Away::Append),
        3 => (1u64..100).prop_map(Away::Pass),
        4 => Just(Away::Send),
        1 => Just(Away::Disconnect),
        2 => Just(Away::Connect),
        1 => Just(Away::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_record_that_arrived_is_reported_as_expired(
        steps in prop::collection::vec(away(), 1..100), bytes_max in prop_oneof![Just(1u64 << 20), Just(8_000)],
        age_max_ms in prop_oneof![Just(None), (20u64..200).prop_map(Some)],
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let limits =
                LogOptions { segment_bytes: 1_000, unsettled_max: 100, bytes_max, age_max_ms, ..options() };
            let mut log = Log::open(dir.path(), limits.clone()).unwrap();
            let mut reader = None;
            let (mut now, mut all) = (1_000, 0);
            let mut arrived = std::collections::BTreeSet::new();
            for step in steps.into_iter().chain([Away::Disconnect, Away::Pass(1_000), Away::Connect, Away::Pass(1)]) {
                match step {
                    Away::Append(lives_ms) => {
                        log.append_awaited(payload(all, 100), now, Some(now + lives_ms)).await.unwrap();
                        all += 1;
                    }
                    Away::Pass(ms) => {
                        now += ms;
                        for _ in 0..=all {
                            log.expire(now).unwrap();
                        }
                    }
                    Away::Send => {
                        let Some(reader): &mut Option<crate::Reader> = &mut reader else { continue };
                        if let Some(record) = reader.next_present(|| now).await.unwrap() {
                            arrived.insert(record.sequence);
                        }
                    }
                    Away::Disconnect => reader = None,
                    Away::Connect => {
                        drop(reader.take());
                        log.advance(arrived.last().copied().unwrap_or(0));
                        log.settle();
                        reader = Some(log.reader());
                    }
                    Away::Restart => {
                        log.close().await;
                        drop((reader.take(), log));
                        log = Log::open(dir.path(), limits.clone()).unwrap();
                    }
                }
            }
            let lost = log.stats().lost;
            // What gives way to new records may have arrived: it is told all the same, since nothing else is left of it.
            drop(reader);
            let accounted = arrived.len() as u64 + lost.expired + lost.evicted + log.stats().records;
            assert!(
                (all..=all + lost.evicted).contains(&accounted),
                "{lost:?}, {} arrived, {} of {all}",
                arrived.len(),
                log.stats().records
            );
        });
    }
}

/// What happens to a log whose records live for different times.
#[derive(Debug, Clone)]
enum Happens {
    Append {
        lives_ms: Option<u64>,
    },
    /// Milliseconds pass, and what has expired is looked for.
    Pass(u64),
    Read,
    /// What was given out arrived.
    Arrive,
    Rewind,
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => prop::option::of(1u64..300).prop_map(|lives_ms| Happens::Append { lives_ms }),
        3 => (1u64..100).prop_map(Happens::Pass),
        3 => Just(Happens::Read),
        1 => Just(Happens::Arrive),
        1 => Just(Happens::Rewind),
        1 => Just(Happens::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_record_expires_in_time_or_arrives_and_is_counted_once(
        steps in prop::collection::vec(happens(), 1..80), age_max_ms in prop::option::of(50u64..400),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let limits = LogOptions { age_max_ms, segment_bytes: 1_000, ..options() };
            let mut log = Log::open(dir.path(), limits.clone()).unwrap();
            let mut reader = log.reader();
            let mut now = 1_000;
            let mut gone: Vec<u64> = Vec::new();
            let (mut given, mut arrived) = (0, 0);
            for step in steps {
                match step {
                    Happens::Append { lives_ms } => {
                        let expires = lives_ms.map(|lives| now + lives);
                        let append = log.append_awaited(payload(gone.len() as u64, 100), now, expires);
                        append.await.unwrap();
                        let too_old = age_max_ms.map_or(u64::MAX, |max| now + max);
                        gone.push(expires.unwrap_or(u64::MAX).min(too_old));
                    }
                    Happens::Pass(ms) => {
                        now += ms;
                        // One segment without news ends a look.
                        for _ in 0..=gone.len() {
                            log.expire(now).unwrap();
                        }
                        // Nothing that is at rest is left that should be gone.
                        for (n, gone_ms) in gone.iter().enumerate() {
                            let sequence = n as u64 + 1;
                            if *gone_ms <= now && sequence > given {
                                assert!(!log.is_pending(sequence), "{sequence} of {gone:?} at {now}, given {given}");
                            }
                        }
                    }
                    Happens::Read => {
                        if let Some(record) = reader.next_present(|| now).await.unwrap() {
                            assert!(gone[record.sequence as usize - 1] > now, "{record:?} at {now}");
                            given = record.sequence;
                        }
                    }
                    Happens::Arrive => {
                        let before = log.stats().records;
                        log.advance(given);
                        arrived += before - log.stats().records;
                    }
                    Happens::Rewind => {
                        reader.rewind();
                        given = 0;
                    }
                    Happens::Restart => {
                        log.close().await;
                        drop((reader, log));
                        log = Log::open(dir.path(), limits.clone()).unwrap();
                        reader = log.reader();
                        given = 0;
                    }
                }
            }
            // As its ledger has it since the log was made: what expires while the log closes is counted too.
            let lost = log.stats().lost.expired;
            let all = gone.len() as u64;
            assert_eq!(arrived + lost + log.stats().records, all);
            let reported: u64 = log.loss_records().iter().map(|loss| loss.count).sum();
            assert_eq!(reported, lost);
        });
    }
}

#[tokio::test]
async fn what_is_expired_is_passed_over_counted_once_and_done_with() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    for n in 1..=4 {
        log.append_expiring(payload(n, 100), 1000, 1000 + n * 10).await.unwrap();
    }
    log.append(payload(5, 100), 1000).await.unwrap();
    let mut reader = log.reader();
    for _ in 0..3 {
        assert_eq!(reader.next(|| 1020).await.unwrap().sequence, 3);
        reader.rewind();
    }
    // Nobody has to advance over what was never given out.
    assert_eq!((log.stats().expired, log.stats().cursor, log.stats().records), (2, 2, 3));
    assert_eq!(reader.next(|| 2000).await.unwrap().sequence, 5);
    assert_eq!((log.stats().expired, log.stats().cursor), (4, 4));
    assert_eq!(log.losses(), [Loss { first: 1, last: 4, count: 4, cause: Cause::Expired }]);
}

#[tokio::test]
async fn records_over_the_age_limit_expire_and_their_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogOptions { age_max_ms: Some(100), ..options() }).unwrap();
    fill(&log, 200, 100).await; // Record n is of the time n.
    let mut reader = log.reader();
    assert_eq!(reader.next(|| 250).await.unwrap().sequence, 151);
    assert_eq!((log.stats().expired, log.stats().cursor, log.stats().records), (150, 150, 50));
    log.close().await;
    assert!(log.stats().bytes < 10_000);
}

#[tokio::test]
async fn the_disk_reserve_is_kept_by_dropping_the_oldest() {
    let disk = Disk::default();
    let limits = LogOptions { keep_free_bytes: 50_000, ..options() };
    let log = Log::open_on(Arc::new(disk.clone()), limits).unwrap();
    disk.set_capacity(180_000);
    fill(&log, 500, 100).await;
    assert!(disk.used() <= 130_000, "{} bytes", disk.used());
    let (stats, losses) = (log.stats(), log.losses());
    assert_eq!(evicted(&losses), stats.evicted);
    assert_eq!(stats.records + stats.evicted, 500);
    assert!(stats.records > 40);
}

#[tokio::test]
async fn nothing_is_dropped_when_another_program_has_filled_the_disk() {
    let disk = Disk::default();
    let limits = LogOptions { keep_free_bytes: 50_000, ..options() };
    let log = Log::open_on(Arc::new(disk.clone()), limits).unwrap();
    fill(&log, 100, 100).await;
    disk.set_capacity(disk.used() + 10_000);
    assert!(matches!(log.append(payload(0, 100), 0).await, Err(AppendError::Full { .. })));
    assert_eq!((log.stats().records, log.stats().evicted), (100, 0));
    disk.set_capacity(1 << 30);
    fill(&log, 1, 100).await;
}

#[tokio::test]
async fn a_log_that_refuses_fills_a_disk_to_the_last_byte_and_goes_on_when_there_is_space() {
    let disk = Disk::default();
    let limits = LogOptions { full: Full::Refuse, ..options() };
    let log = Log::open_on(Arc::new(disk.clone()), limits.clone()).unwrap();
    disk.set_capacity(disk.used() + 5000);
    let mut taken = 0;
    while let Ok(sequence) = log.append(payload(taken + 1, 100), 0).await {
        taken = sequence;
    }
    assert!(taken >= 30, "{taken}");
    let refused = log.append(payload(0, 100), 0).await;
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    // Done with on a full disk: the ledger has its space, and the segments go.
    log.advance(taken);
    while log.stats().bytes > 2000 {
        tokio::task::yield_now().await;
    }
    fill(&log, 10, 100).await;
    log.close().await;
    let log = Log::open_on(Arc::new(disk.after_kill()), limits).unwrap();
    assert_eq!(sequences(&close_and_read(&log).await), (taken + 1..=taken + 10).collect::<Vec<_>>());
    assert_eq!(log.stats().lost.refused, 2);
}

#[tokio::test]
async fn the_queue_in_memory_is_bounded() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), LogOptions { bytes_max: 1 << 30, ..options() }).unwrap();
    disk.hold_syncs();
    let first = log.append(payload(0, 100), 0);
    disk.sync_waits();
    let waiting: Vec<_> = (0..10).map(|n| log.append(payload(n, 1 << 20), 0)).collect();
    // Who asks before is told to wait, and when the wait is over.
    assert!(log.waiting_bytes() > 7 << 20, "{} bytes", log.waiting_bytes());
    let mut space = std::pin::pin!(log.until_waiting(1 << 20));
    assert!(tokio::time::timeout(std::time::Duration::ZERO, space.as_mut()).await.is_err());
    disk.release_syncs();
    space.await;
    assert_eq!(log.waiting_bytes(), 0);
    first.await.unwrap();
    let mut busy = 0;
    for append in waiting {
        match append.await {
            Ok(_) => {}
            Err(AppendError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((busy, log.stats().refused, log.stats().records), (3, 3, 8));
}
