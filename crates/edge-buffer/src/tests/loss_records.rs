//! The ledger: what was lost is told by cause and sender, exactly once, whatever dies in between.

use std::sync::Arc;

use super::disk::Disk;
use super::*;
use crate::{AppendError, Cause, LossRecord};

/// The sender is what stands before the first `:`.
fn sender(record: &[u8]) -> Option<String> {
    let end = record.iter().position(|byte| *byte == b':')?;
    String::from_utf8(record[..end].to_vec()).ok()
}

fn tagged(options: LogOptions) -> LogOptions {
    LogOptions { tag: Some(sender), ..options }
}

fn of(who: &str) -> Bytes {
    format!("{who}:{}", "x".repeat(90)).into()
}

fn short(loss_records: &[LossRecord]) -> Vec<(Cause, &str, u64, u64, u64)> {
    loss_records
        .iter()
        .map(|loss| (loss.cause, loss.tag.as_str(), loss.first, loss.last, loss.count))
        .collect()
}

#[tokio::test]
async fn losses_are_reported_by_cause_and_sender_and_survive_restarts() {
    let disk = Disk::default();
    let options = tagged(LogOptions { bytes_max: 3000, ..options() });
    let log = Log::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
    // Sequences 1 to 10 in turn; press-2's are wanted until 100 only.
    for n in 1..=10 {
        match n % 2 {
            0 => log.append_expiring(of("press-2"), 0, 100).await.unwrap(),
            _ => log.append(of("press-1"), 0).await.unwrap(),
        };
    }
    let mut reader = log.reader();
    assert_eq!(reader.next(|| 50).await.unwrap().sequence, 1);
    log.advance(1);
    for expected in [3, 5] {
        assert_eq!(reader.next(|| 200).await.unwrap().sequence, expected);
    }
    let too_long = log.append(Bytes::from(vec![b'x'; 4000]), 200).await;
    assert!(matches!(too_long, Err(AppendError::TooLong { .. })));
    // Everything gives way to these.
    for _ in 0..40 {
        log.append(of("press-3"), 200).await.unwrap();
    }
    log.close().await;
    let log = Log::open_on(Arc::new(disk), options).unwrap();
    let loss_records = log.loss_records();
    let lost = log.stats().lost;
    let find = |cause, tag: &str| {
        loss_records
            .iter()
            .filter(|loss| loss.cause == cause && loss.tag == tag)
            .map(|loss| loss.count)
            .sum::<u64>()
    };
    assert_eq!(find(Cause::Expired, "press-2"), 5, "{:?}", short(&loss_records));
    assert_eq!(find(Cause::Evicted, "press-1"), 4, "{:?}", short(&loss_records));
    assert_eq!(find(Cause::Refused, ""), 1);
    assert_eq!(lost.expired + lost.evicted + log.stats().records, 49);
    assert_eq!((lost.refused, lost.damaged), (1, 0));
}

#[tokio::test]
async fn what_upstream_acknowledged_is_forgotten_and_what_was_lost_since_is_not() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), tagged(options())).unwrap();
    assert_eq!(log.losses_to_report().await.unwrap(), []);
    let refuse = || log.append(format!("press-1:{}", "x".repeat(2 << 20)).into(), 0);
    for _ in 0..3 {
        assert!(refuse().await.is_err());
    }
    let first = log.losses_to_report().await.unwrap();
    assert_eq!(short(&first), [(Cause::Refused, "press-1", 1, 1, 3)]);
    assert!(refuse().await.is_err());

    // Killed before upstream had answered: the same loss record has the same number.
    let log = Log::open_on(Arc::new(disk.after_kill()), tagged(options())).unwrap();
    assert_eq!(log.losses_to_report().await.unwrap(), first);
    assert!(log.append(format!("press-1:{}", "x".repeat(2 << 20)).into(), 0).await.is_err());
    log.losses_reported(first[0].number);
    let second = log.losses_to_report().await.unwrap();
    assert_eq!(short(&second), [(Cause::Refused, "press-1", 1, 1, 1)]);
    assert!(second[0].number > first[0].number);
    log.losses_reported(second[0].number);
    assert_eq!(log.loss_records(), []);
    log.close().await;
    assert!(matches!(log.losses_to_report().await, Err(AppendError::Closed)));
}

#[tokio::test]
async fn a_loss_record_says_when_and_one_behind_a_lost_ledger_is_not_taken_for_one_that_was_reported() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), tagged(options())).unwrap();
    for sequence in 1..=3 {
        assert_eq!(log.append(of("press-1"), 1_000).await.unwrap(), sequence);
    }
    assert!(log.give_up(1, "press-1", 5_000).await.unwrap());
    assert!(log.give_up(2, "press-1", 7_000).await.unwrap());
    let reported_losses = log.losses_to_report().await.unwrap();
    let [loss] = &reported_losses[..] else { panic!("{reported_losses:?}") };
    assert_eq!((loss.cause, loss.count, loss.from_ms, loss.until_ms), (Cause::Dropped, 2, 5_000, 7_000));
    log.close().await;
    let damaged = disk.with("ledger", vec![0; 2 * crate::ledger::SLOT as usize]);
    let log = Log::open_on(Arc::new(damaged), tagged(options())).unwrap();
    assert!(log.give_up(3, "press-1", 9_000).await.unwrap());
    let again = log.losses_to_report().await.unwrap();
    assert_ne!(again[0].epoch, loss.epoch, "{again:?}");
    assert_eq!(again[0].until_ms, 9_000);
}

#[tokio::test]
async fn a_record_passed_over_while_others_are_in_flight_is_not_counted_again_after_a_restart() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), tagged(options())).unwrap();
    log.append(of("press-1"), 0).await.unwrap();
    for _ in 0..5 {
        log.append_expiring(of("press-2"), 0, 10).await.unwrap();
    }
    log.append(of("press-1"), 0).await.unwrap();
    let mut reader = log.reader();
    for expected in [1, 7] {
        assert_eq!(reader.next(|| 20).await.unwrap().sequence, expected);
    }
    assert_eq!((log.stats().cursor, log.stats().expired), (0, 5));
    log.close().await;
    let log = Log::open_on(Arc::new(disk), tagged(options())).unwrap();
    let mut reader = log.reader();
    for expected in [1, 7] {
        assert_eq!(reader.next(|| 20).await.unwrap().sequence, expected);
    }
    assert_eq!((log.stats().lost.expired, log.stats().records), (5, 2));
    assert_eq!(short(&log.loss_records()), [(Cause::Expired, "press-2", 2, 6, 5)]);
}

#[tokio::test]
async fn what_wears_the_flash_is_counted() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk), options()).unwrap();
    fill(&log, 7, 100).await;
    let stats = log.stats();
    assert_eq!((stats.payload_bytes, stats.written_bytes, stats.syncs), (700, 7 * 136, 7));
}

#[tokio::test]
async fn what_expired_before_a_record_is_in_the_ledger_when_that_record_is_given_out() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), tagged(options())).unwrap();
    for n in 0..40 {
        match n % 2 {
            0 => log.append_expiring(of("press-2"), 0, 10).await.unwrap(),
            _ => log.append(of("press-1"), 0).await.unwrap(),
        };
    }
    let mut reader = log.reader();
    for expected in [2, 4, 6] {
        assert_eq!(reader.next(|| 20).await.unwrap().sequence, expected);
    }
    // Upstream has 6 and says so; the gateway was killed meanwhile.
    let log = Log::open_on(Arc::new(disk.after_kill()), tagged(options())).unwrap();
    log.advance(6);
    let mut reader = log.reader();
    let mut arrived = 3;
    while log.stats().records > 0 {
        log.advance(reader.next(|| 20).await.unwrap().sequence);
        arrived += 1;
    }
    assert_eq!((arrived, log.stats().lost.expired), (20, 20), "each is counted once");
}

#[tokio::test]
async fn a_record_that_was_taken_out_is_gone_after_a_restart_and_is_no_loss_when_its_segment_is_evicted() {
    let disk = Disk::default();
    let options = tagged(LogOptions { bytes_max: 3000, ..options() });
    let log = Log::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
    for _ in 1..=8 {
        log.append(of("press-1"), 0).await.unwrap();
    }
    assert!(log.take_out(3).await.unwrap());
    assert!(!log.take_out(3).await.unwrap(), "it is gone");
    assert!(!log.take_out(9).await.unwrap(), "it never was");
    let mut reader = log.reader();
    for expected in [1, 2, 4] {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, expected);
    }
    drop((reader, log));
    let log = Log::open_on(Arc::new(disk), options).unwrap();
    assert!(!log.is_pending(3) && log.is_pending(2));
    assert!(log.take_out(1).await.unwrap());
    assert_eq!((log.stats().records, log.stats().cursor), (6, 1));
    assert!(log.take_out(2).await.unwrap());
    assert_eq!(log.stats().cursor, 3, "what is behind the cursor without a loss record is forgotten");
    assert!(log.take_out(5).await.unwrap());
    for _ in 0..40 {
        log.append(of("press-3"), 0).await.unwrap();
    }
    let evicted: u64 =
        log.loss_records().iter().filter(|loss| loss.tag == "press-1").map(|loss| loss.count).sum();
    assert_eq!(evicted, 4, "four of eight were taken out");
    log.close().await;
}

#[tokio::test]
async fn what_is_given_up_is_taken_out_and_counted_in_one_write_and_grows_one_loss_record() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), tagged(options())).unwrap();
    for _ in 1..=5 {
        log.append(of("press-1"), 0).await.unwrap();
    }
    assert!(log.take_out(1).await.unwrap());
    for sequence in [4, 2] {
        let syncs = log.stats().syncs;
        assert!(log.give_up(sequence, "press-1", 7).await.unwrap());
        assert!(!log.give_up(sequence, "press-1", 8).await.unwrap(), "it is gone");
        assert_eq!(log.stats().syncs - syncs, 1);
        let killed = Log::open_on(Arc::new(disk.after_kill()), tagged(options())).unwrap();
        assert!(!killed.is_pending(sequence));
        assert_eq!(killed.stats().lost.dropped + killed.stats().records, 4, "counted once");
    }
    assert_eq!(short(&log.loss_records()), [(Cause::Dropped, "press-1", 2, 4, 2)]);
    log.close().await;
}

#[tokio::test]
async fn a_refusal_is_no_loss_where_whoever_appends_keeps_the_record() {
    let disk = Disk::default();
    let options = LogOptions { is_refused_lost: false, ..tagged(options()) };
    let log = Log::open_on(Arc::new(disk), options).unwrap();
    assert!(log.append(Bytes::from(vec![b'x'; 2 << 20]), 0).await.is_err());
    assert_eq!((log.stats().refused, log.stats().lost.refused, log.loss_records()), (1, 0, vec![]));
    log.close().await;
}

#[tokio::test]
async fn no_record_is_taken_out_that_a_restart_would_bring_back() {
    let disk = Disk::default();
    let large = LogOptions { segment_bytes: 1 << 20, ..options() };
    let log = Log::open_on(Arc::new(disk.clone()), large).unwrap();
    fill(&log, 2600, 8).await;
    let mut taken = 0;
    for sequence in (2..=2600).step_by(2) {
        taken += u64::from(log.take_out(sequence).await.unwrap());
    }
    assert!((1000..1200).contains(&taken), "{taken}");
    drop(log);
    let log = Log::open_on(Arc::new(disk), options()).unwrap();
    assert_eq!(log.stats().records, 2600 - taken);
    log.close().await;
}
