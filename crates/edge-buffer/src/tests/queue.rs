//! What the queue does while nothing goes wrong.

use super::*;
use crate::OpenError;

#[tokio::test]
async fn records_come_back_in_the_order_in_which_they_were_appended() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let appends: Vec<_> = (1..=500).map(|n| log.append(payload(n, 100), n)).collect();
    for (append, n) in appends.into_iter().zip(1..) {
        assert_eq!(append.await.unwrap(), n);
    }
    let records = close_and_read(&log).await;
    assert_eq!(sequences(&records), (1..=500).collect::<Vec<_>>());
    for record in records {
        assert_eq!((record.payload, record.enqueued_ms), (payload(record.sequence, 100), record.sequence));
    }
}

#[tokio::test]
async fn a_reopened_log_goes_on_with_its_id_and_sequence_behind_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let id = log.id();
    fill(&log, 100, 100).await;
    log.advance(60);
    log.close().await;

    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!((log.id(), log.stats().cursor, log.stats().records), (id, 60, 40));
    assert_eq!(log.stats().next_sequence, 101);
    fill(&log, 1, 100).await;
    assert_eq!(sequences(&close_and_read(&log).await), (61..=101).collect::<Vec<_>>());
    assert!(log.losses().is_empty());

    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_ne!(Log::open(dir.path(), options()).unwrap().id(), id);
}

#[tokio::test]
async fn what_is_done_with_is_counted_without_what_was_lost_and_not_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 20, 100).await;
    log.pass_damaged(3);
    log.advance(5);
    log.confirm(6, Some(6));
    log.advance(6);
    assert_eq!((log.stats().done, log.stats().damaged), (5, 1));
    log.advance(1_000);
    assert_eq!((log.stats().done, log.stats().records), (19, 0));
    log.close().await;
    assert_eq!(Log::open(dir.path(), options()).unwrap().stats().done, 0);
}

#[tokio::test]
async fn the_oldest_pending_record_is_as_old_after_a_restart_as_before() {
    for done in [0, 1, 7, 8, 9, 50, 99] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options()).unwrap();
        fill(&log, 100, 100).await;
        log.advance(done);
        log.close().await;
        // A second restart finds no more than the first.
        for _ in 0..2 {
            let log = Log::open(dir.path(), options()).unwrap();
            assert_eq!(log.stats().oldest_ms, Some(done + 1), "{done} records done with");
            fill(&log, 1, 100).await;
            assert_eq!(log.stats().oldest_ms, Some(done + 1), "{done} records done with, and more appended");
            log.close().await;
        }
    }
}

#[tokio::test]
async fn each_sync_of_records_is_counted_by_the_time_that_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 3, 100).await;
    let times = log.stats().sync_times;
    assert_eq!(times.counts.iter().sum::<u64>(), 3);
    assert!(!times.sum.is_zero());
    let mut times = crate::SyncTimes::default();
    for took in crate::SYNC_BOUNDS {
        times.add(took);
    }
    times.add(std::time::Duration::from_secs(60));
    assert_eq!(times.counts, [1; crate::SYNC_BOUNDS.len() + 1]);
}

#[tokio::test]
async fn segments_that_are_done_with_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 100, 100).await;
    let segments = || std::fs::read_dir(dir.path()).unwrap().count() - 2;
    assert!(segments() > 10);
    log.advance(100);
    log.close().await;
    assert_eq!(segments(), 1);
    assert_eq!((log.stats().records, log.stats().oldest_ms), (0, None));
}

#[tokio::test]
async fn a_reader_waits_for_what_is_appended_later_and_loses_nothing_when_it_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let mut reader = log.reader();
    assert!(poll_once(reader.next(|| 0)).is_none());
    fill(&log, 50, 100).await;
    for n in 1..=50 {
        // Most of these are dropped before they are ready; one that was ready counts.
        let early = poll_once(reader.next(|| 0));
        let record = match early {
            Some(record) => record.unwrap(),
            None => reader.next(|| 0).await.unwrap(),
        };
        assert_eq!(record.sequence, n);
    }
    assert!(poll_once(reader.next(|| 0)).is_none());
}

#[tokio::test]
async fn a_reader_that_rewinds_begins_behind_the_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 30, 100).await;
    let mut reader = log.reader();
    for n in 1..=20 {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, n);
    }
    log.advance(7);
    assert_eq!(log.stats().oldest_ms, Some(8));
    reader.rewind();
    for n in 8..=30 {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, n);
    }
}

#[tokio::test]
async fn the_cursor_never_goes_back_nor_beyond_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 10, 100).await;
    log.advance(5);
    log.advance(3);
    assert_eq!(log.stats().cursor, 5);
    log.advance(99);
    assert_eq!(log.stats().cursor, 10);
    fill(&log, 1, 100).await;
    assert_eq!(log.stats().records, 1);
}

#[tokio::test]
async fn closing_commits_what_was_submitted_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let appends: Vec<_> = (1..=100).map(|n| log.append(payload(n, 100), n)).collect();
    log.close().await;
    for append in appends {
        append.await.unwrap();
    }
    assert!(matches!(log.append(payload(1, 8), 1).await, Err(crate::AppendError::Closed)));
    assert_eq!(close_and_read(&log).await.len(), 100);
}

#[tokio::test]
async fn a_directory_is_open_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    assert!(matches!(Log::open(dir.path(), options()), Err(OpenError::InUse { .. })));
    log.close().await;
    Log::open(dir.path(), options()).unwrap();
}

#[tokio::test]
async fn a_record_longer_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 2, 100).await;
    fill(&log, 1, 300_000).await;
    fill(&log, 2, 100).await;
    let records = close_and_read(&log).await;
    assert_eq!(sequences(&records), [1, 2, 3, 4, 5]);
    assert_eq!(records[2].payload.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_up_with_appends_and_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let writer = tokio::spawn({
        let log = log.clone();
        async move { fill(&log, 2000, 100).await }
    });
    let mut reader = log.reader();
    for n in 1..=2000 {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, n);
        log.advance(n);
    }
    writer.await.unwrap();
    log.close().await;
    assert_eq!((log.stats().records, log.losses()), (0, Vec::new()));
}

/// A session that ends waits again for what it waited for; an append that was answered must not end the program for that.
#[tokio::test]
async fn an_append_that_was_answered_may_be_awaited_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let mut append = log.append(payload(1, 100), 1);
    assert_eq!((&mut append).await.unwrap(), 1);
    assert!((&mut append).await.is_err());
    log.close().await;
    let mut refused = log.append(payload(2, 100), 2);
    assert!((&mut refused).await.is_err());
    assert!((&mut refused).await.is_err());
}

#[tokio::test]
async fn a_cursor_that_moved_is_written_after_the_lag_by_itself() {
    let disk = super::disk::Disk::default();
    let lag = Duration::from_millis(50);
    let options = LogOptions { ledger_lag: lag, ..options() };
    let log = Log::open_on(std::sync::Arc::new(disk.clone()), options.clone()).unwrap();
    fill(&log, 5, 100).await;
    // No segment of them is done with, so that nothing but the lag has it written.
    log.advance(4);
    let written = async {
        while Log::open_on(std::sync::Arc::new(disk.after_kill()), options.clone()).unwrap().stats().cursor
            < 4
        {
            tokio::time::sleep(lag).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is written");
    log.close().await;
}
