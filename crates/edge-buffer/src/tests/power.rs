//! Power cuts at any moment, against a model: what was acknowledged is there, in order, and nothing else.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::disk::Disk;
use super::*;
use crate::AppendError;

/// One life of the log, which ends in a power cut.
#[derive(Clone, Debug)]
struct Life {
    /// Lengths of the records of each burst; the records of a burst are handed in at once.
    bursts: Vec<Vec<usize>>,
    /// After which of them a write or a sync fails.
    failing_write: Option<usize>,
    failing_sync: Option<usize>,
    /// How many records are read and advanced over after each burst.
    reads: usize,
    /// Steps of the disk until the power goes; many lives end before.
    steps: u64,
    seed: u64,
}

fn life() -> impl Strategy<Value = Life> {
    let bursts = prop::collection::vec(prop::collection::vec(8..700_usize, 1..12), 1..8);
    let fault = || prop::option::weighted(0.3, 0..8_usize);
    (bursts, fault(), fault(), 0..6_usize, 0..60_u64, any::<u64>()).prop_map(
        |(bursts, failing_write, failing_sync, reads, steps, seed)| Life {
            bursts,
            failing_write,
            failing_sync,
            reads,
            steps,
            seed,
        },
    )
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    /// Acknowledged, or given to a reader: the sequence has this payload for ever.
    known: BTreeMap<u64, Bytes>,
    submitted: Vec<Bytes>,
    advanced: u64,
}

impl Model {
    async fn live(&mut self, disk: &Disk, life: &Life) -> Result<(), TestCaseError> {
        // The power may go while the log is opened, too.
        disk.cut_power_after(life.steps);
        let Ok(log) = Log::open_on(Arc::new(disk.clone()), options()) else { return Ok(()) };
        let mut reader = log.reader();
        for (at, burst) in life.bursts.iter().enumerate() {
            disk.fail_writes(u32::from(life.failing_write == Some(at)));
            disk.fail_syncs(u32::from(life.failing_sync == Some(at)));
            let appends: Vec<_> = burst
                .iter()
                .map(|len| {
                    let record = payload(self.submitted.len() as u64, *len);
                    self.submitted.push(record.clone());
                    (record.clone(), log.append(record, 0))
                })
                .collect();
            for (record, append) in appends {
                match append.await {
                    Ok(sequence) => self.learn(sequence, &record)?,
                    Err(AppendError::Write { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for _ in 0..life.reads.min(log.stats().records as usize) {
                // With a loss before it that the failing disk does not take, a record is not given out.
                let Ok(record) = reader.next(|| 0).await else { break };
                self.learn(record.sequence, &record.payload)?;
                self.advanced = record.sequence;
                log.advance(record.sequence);
            }
        }
        log.close().await;
        Ok(())
    }

    fn learn(&mut self, sequence: u64, record: &Bytes) -> Result<(), TestCaseError> {
        let known = self.known.entry(sequence).or_insert_with(|| record.clone());
        prop_assert_eq!(known, record, "sequence {} names two records", sequence);
        Ok(())
    }

    /// What a log on this disk has; all that must be there is.
    async fn check(&mut self, disk: &Disk) -> Result<Vec<u64>, TestCaseError> {
        let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
        prop_assert!(log.stats().cursor <= self.advanced.max(log.stats().next_sequence - 1));
        let records = close_and_read(&log).await;
        prop_assert!(records.is_sorted_by(|a, b| a.sequence < b.sequence));
        let mut orders = Vec::new();
        for record in &records {
            let order = self.submitted.iter().position(|submitted| *submitted == record.payload);
            prop_assert!(order.is_some(), "record {} was invented", record.sequence);
            orders.push(order);
            self.learn(record.sequence, &record.payload)?;
        }
        prop_assert!(orders.is_sorted_by(|a, b| a < b), "records changed places");
        let read = sequences(&records);
        for sequence in self.known.range(self.advanced + 1..).map(|(sequence, _)| *sequence) {
            prop_assert!(read.binary_search(&sequence).is_ok(), "acknowledged record {} is gone", sequence);
        }
        for loss in log.losses() {
            let of_known =
                self.known.range(loss.first.max(self.advanced + 1)..=loss.last.max(self.advanced + 1));
            prop_assert!(
                loss.last <= self.advanced || of_known.count() == 0,
                "{:?} is told of acknowledged ones",
                loss
            );
        }
        Ok(read)
    }
}

/// SplitMix64: a seed is enough to see a failure again.
pub(super) fn random(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// (acknowledged or given to a reader, arrived, read twice) of all of them.
fn run(lives: &[Life], lies: bool) -> Result<[usize; 3], TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut model, mut disk) = (Model::default(), Disk::default());
        let (mut arrived, mut twice) = (0, 0);
        if lies {
            disk.lie();
        }
        for life in lives {
            model.live(&disk, life).await?;
            disk = disk.after_power_cut(random(life.seed));
            let read = model.check(&disk).await?;
            let again = read.iter().filter(|sequence| **sequence <= model.advanced).count();
            arrived = model.known.range(..=model.advanced).count() + read.len() - again;
            twice += again;
        }
        Ok([model.known.len(), arrived, twice])
    })
}

/// How many series of lives: in `make test`, and in `make faults`.
fn cases() -> u32 {
    if std::env::var_os("LINESIDE_FAULTS").is_some() { 5_000 } else { 512 }
}

#[test]
fn every_acknowledged_record_survives_power_cuts_and_failing_writes() {
    let (cuts, sum) = (Cell::new(0), Cell::new([0; 3]));
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(lives in prop::collection::vec(life(), 1..5))| {
        let counts = run(&lives, false)?;
        cuts.set(cuts.get() + lives.len());
        sum.set(std::array::from_fn(|at| sum.get()[at] + counts[at]));
    });
    let [acknowledged, arrived, twice] = sum.get();
    println!(
        "{} power cuts: acknowledged {acknowledged}, arrived {arrived}, lost {}, read twice {twice}",
        cuts.get(),
        acknowledged - arrived
    );
}

#[test]
fn the_model_sees_a_disk_that_does_not_sync() {
    let bursts = vec![vec![100; 10]; 5];
    let seen = (0..20).any(|seed| {
        let life = Life {
            bursts: bursts.clone(),
            failing_write: None,
            failing_sync: None,
            reads: 0,
            steps: 50,
            seed,
        };
        run(&[life], true).is_err()
    });
    assert!(seen);
}
