//! A life of the log, ended at every single write, sync, rename and delete: by a kill, and by a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::disk::Disk;
use super::power::random;
use super::*;
use crate::Cause;

/// What was seen of a life before it ended.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<u64, Bytes>,
    /// Read and advanced over.
    arrived: BTreeSet<u64>,
}

fn limits() -> LogOptions {
    LogOptions { bytes_max: 6000, ..options() }
}

/// Two lives on one disk: segments fill and are done with, others are evicted and expire. Batches are written by the
/// commit thread; with `is_led`, most records by who waits for them.
async fn live(disk: &Disk, seen: &mut Seen, is_led: bool) {
    for life in 0..2_u64 {
        let Ok(log) = Log::open_on(Arc::new(disk.clone()), limits()) else { return };
        let mut reader = log.reader();
        for round in 0..12_u64 {
            let appends = (0..5).map(|n| {
                let record = payload(life * 1000 + round * 10 + n, 120);
                let mut append = log.append_awaited(record.clone(), 0, (n == 3).then_some(10));
                if !is_led {
                    append.detach();
                }
                (record, append)
            });
            let mut acknowledged = |record, answer| {
                if let Ok(sequence) = answer {
                    let before = seen.acknowledged.insert(sequence, record);
                    assert!(before.is_none(), "sequence {sequence} was given twice");
                }
            };
            if is_led {
                for (record, append) in appends {
                    acknowledged(record, append.await);
                }
            } else {
                for (record, append) in appends.collect::<Vec<_>>() {
                    acknowledged(record, append.await);
                }
            }
            // It falls behind in the middle, so that records are evicted.
            let reads = if (4..9).contains(&round) { 0 } else { 6 };
            for _ in 0..reads.min(log.stats().records) {
                let Ok(Ok(record)) =
                    tokio::time::timeout(std::time::Duration::from_millis(5), reader.next(|| 20)).await
                else {
                    break;
                };
                log.advance(record.sequence);
                seen.arrived.insert(record.sequence);
            }
        }
        log.close().await;
    }
}

/// (acknowledged, arrived, told as lost, twice) of one life and what came after.
async fn check(disk: &Disk, seen: &Seen, what: &str) -> [u64; 4] {
    let log = Log::open_on(Arc::new(disk.clone()), limits()).unwrap();
    let read: BTreeMap<u64, Bytes> =
        close_and_read(&log).await.into_iter().map(|record| (record.sequence, record.payload)).collect();
    let end = log.stats().next_sequence;
    for (sequence, record) in &seen.acknowledged {
        assert!(*sequence < end, "{what}: acknowledged {sequence} is behind the end");
        assert!(read.get(sequence).is_none_or(|read| read == record), "{what}: {sequence} names two records");
    }
    let missing = (1..end).filter(|n| !read.contains_key(n) && !seen.arrived.contains(n)).count() as u64;
    let loss_records: u64 = log.loss_records().iter().map(|loss| loss.count).sum();
    // A batch that was never acknowledged may be on disk with holes in it: told, for nobody can know.
    for loss in log.loss_records().iter().filter(|loss| loss.cause == Cause::Damaged) {
        assert_eq!(seen.acknowledged.range(loss.first..=loss.last).count(), 0, "{what}: {loss:?}");
    }
    assert_eq!(
        missing,
        loss_records,
        "{what}: every record that is gone is told once: {:?}",
        log.loss_records()
    );
    let twice = seen.arrived.iter().filter(|n| read.contains_key(n)).count() as u64;
    [seen.acknowledged.len() as u64, (seen.arrived.len() + read.len()) as u64 - twice, loss_records, twice]
}

#[tokio::test]
async fn killed_or_cut_at_every_step_nothing_acknowledged_is_lost_unreported() {
    end_at_every_step(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_when_who_waits_for_a_record_writes_it() {
    end_at_every_step(true).await;
}

async fn end_at_every_step(is_led: bool) {
    let seeds = if std::env::var_os("LINESIDE_FAULTS").is_some() { 20 } else { 2 };
    let (mut cuts, mut sum) = (0, [0; 4]);
    for steps in 0.. {
        let (disk, mut seen) = (Disk::default(), Seen::default());
        disk.cut_power_after(steps);
        live(&disk, &mut seen, is_led).await;
        let has_ended_well = disk.steps() < steps;
        let killed = std::iter::once(disk.after_kill());
        let cut = (0..seeds).map(|seed| disk.after_power_cut(random(steps * 1000 + seed)));
        for (how, disk) in killed.chain(cut).enumerate() {
            let counts = check(&disk, &seen, &format!("step {steps}, end {how}")).await;
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            cuts += 1;
        }
        if has_ended_well {
            assert!(steps > 80, "{steps} steps");
            break;
        }
    }
    let [acknowledged, arrived, reported, twice] = sum;
    println!(
        "{cuts} ends: acknowledged {acknowledged}, arrived {arrived}, lost 0, told as evicted or expired {reported}, read twice {twice}"
    );
}
