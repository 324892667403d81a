//! Writes and syncs that fail, and what a sync is worth.

use std::sync::Arc;

use super::disk::Disk;
use super::*;
use crate::AppendError;

#[tokio::test]
async fn one_sync_acknowledges_all_that_arrived_during_the_last_one() {
    let disk = Disk::default();
    let log =
        Log::open_on(Arc::new(disk.clone()), LogOptions { segment_bytes: 1 << 18, ..options() }).unwrap();
    disk.hold_syncs();
    let before = disk.syncs();
    let first = log.append(payload(1, 100), 0);
    disk.sync_waits();
    let rest: Vec<_> = (2..=50).map(|n| log.append(payload(n, 100), 0)).collect();
    disk.release_syncs();
    first.await.unwrap();
    for append in rest {
        append.await.unwrap();
    }
    assert_eq!(disk.syncs() - before, 2);
}

#[tokio::test]
async fn a_reader_is_not_given_what_is_not_on_disk() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    let mut reader = log.reader();
    disk.hold_syncs();
    let append = log.append(payload(1, 100), 0);
    disk.sync_waits();
    assert!(poll_once(reader.next(|| 0)).is_none());
    assert_eq!(log.stats().records, 0);
    disk.release_syncs();
    assert_eq!(append.await.unwrap(), 1);
    assert_eq!(reader.next(|| 0).await.unwrap().sequence, 1);
}

#[tokio::test]
async fn a_full_disk_fails_the_append_and_the_log_goes_on_when_there_is_space() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 10, 100).await;
    disk.fail_writes(1);
    assert!(matches!(log.append(payload(0, 100), 0).await, Err(AppendError::Write { .. })));
    fill(&log, 10, 100).await;
    log.close().await;
    let log = Log::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(sequences(&close_and_read(&log).await), (1..=20).collect::<Vec<_>>());
    assert!(log.losses().is_empty());
}

/// At any limit a record that fits into a file is taken; one that does not costs itself alone.
#[tokio::test]
async fn a_limit_on_the_length_of_files_ends_files_and_no_log() {
    // Above the length of a ledger, which has a fixed one.
    for limit in (140_000..240_000).step_by(9_973) {
        let disk = Disk::default();
        disk.limit_files(limit);
        let log = Log::open_on(
            Arc::new(disk.clone()),
            LogOptions { segment_bytes: 1 << 20, bytes_max: 4 << 20, ..options() },
        )
        .unwrap();
        fill(&log, 200, 2_000).await;
        let too_long = log.append(payload(0, 250_000), 0).await;
        assert!(matches!(too_long, Err(AppendError::Write { .. })), "{limit}: {too_long:?}");
        fill(&log, 200, 2_000).await;
        // More in one batch than any file may hold.
        disk.hold_syncs();
        let first = log.append(payload(401, 2_000), 401);
        disk.sync_waits();
        let batch: Vec<_> = (402..=800).map(|n| log.append(payload(n, 2_000), n)).collect();
        disk.release_syncs();
        assert_eq!(first.await.unwrap(), 401, "{limit}");
        for (n, append) in (402..).zip(batch) {
            assert_eq!(append.await.unwrap(), n, "{limit}");
        }
        log.close().await;
        let log = Log::open_on(Arc::new(disk), options()).unwrap();
        assert_eq!(sequences(&close_and_read(&log).await), (1..=800).collect::<Vec<_>>(), "{limit}");
        assert!(log.losses().is_empty(), "{limit}");
    }
}

#[tokio::test]
async fn what_waits_behind_a_failed_write_fails_with_it_so_that_first_arrivals_keep_their_order() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 1, 100).await;
    disk.hold_syncs();
    let first = log.append(payload(2, 100), 0);
    disk.sync_waits();
    let behind: Vec<_> = (3..=10).map(|n| log.append(payload(n, 100), 0)).collect();
    disk.fail_syncs(1);
    assert_eq!(log.stats().failing, None);
    disk.release_syncs();
    assert!(matches!(first.await, Err(AppendError::Write { .. })));
    for append in behind {
        assert!(matches!(append.await, Err(AppendError::Write { .. })));
    }
    assert_eq!(log.stats().failing.unwrap().doing, "sync records to the disk");
    fill(&log, 1, 100).await;
    assert_eq!(log.stats().failing, None, "a good write ends it");
    assert_eq!(sequences(&close_and_read(&log).await), [1, 2]);
}

#[tokio::test]
async fn after_a_failed_sync_the_file_is_never_written_again() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 10, 100).await;
    for _ in 0..3 {
        disk.fail_syncs(1);
        assert!(matches!(log.append(payload(0, 100), 0).await, Err(AppendError::Write { .. })));
    }
    fill(&log, 10, 100).await;
    assert_eq!(disk.writes_after_failed_sync(), 0);
    log.close().await;
    let log = Log::open_on(Arc::new(disk.after_power_cut(|| 0)), options()).unwrap();
    let records = close_and_read(&log).await;
    assert_eq!(sequences(&records), (1..=20).collect::<Vec<_>>());
    assert!(records.iter().all(|record| record.payload == payload(record.sequence, 100)));
    assert!(log.losses().is_empty());
}

#[tokio::test]
async fn many_that_wait_are_written_in_two_halves_and_each_half_is_answered_by_its_own_sync() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), LogOptions { ledger_lag: NEVER, ..LogOptions::default() })
        .unwrap();
    disk.hold_syncs();
    let first = log.append(payload(1, 100), 0);
    disk.sync_waits();
    let appends: Vec<_> = (2..=1001).map(|n| log.append(payload(n, 100), 0)).collect();
    // That of the first record and that of the first half go well.
    disk.fail_syncs_after(2, 1);
    disk.release_syncs();
    assert_eq!(first.await.unwrap(), 1);
    let mut answers = Vec::new();
    for append in appends {
        answers.push(append.await);
    }
    for (answer, n) in answers[..500].iter().zip(2..) {
        assert_eq!(answer.as_ref().unwrap(), &n);
    }
    assert!(answers[500..].iter().all(|answer| matches!(answer, Err(AppendError::Write { .. }))));
    assert_eq!(sequences(&close_and_read(&log).await), (1..=501).collect::<Vec<_>>());
}
