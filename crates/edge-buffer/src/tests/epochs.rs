//! A log whose directory went back in time: whatever it appends afterwards arrives, and is not taken for what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::{fill, options};
use crate::format::{SEGMENT_HEADER, SegmentHeader};
use crate::{Cause, Epoch, Log};

/// An upstream as central is: of each queue it keeps the highest sequence and takes nothing at or below it.
#[derive(Default)]
struct Upstream {
    highest: BTreeMap<(Uuid, Epoch), u64>,
    arrived: Vec<Bytes>,
    loss_watermarks: BTreeMap<(Uuid, Epoch), u64>,
    reported: u64,
}

impl Upstream {
    const STORE: Uuid = Uuid::from_u128(1);

    /// A connection over which at most `count` records go.
    async fn connect(&mut self, log: &Log, count: usize) {
        let has = |epoch| self.highest.get(&(log.id(), epoch)).copied();
        assert_eq!(log.reconcile(Self::STORE, has, true, 0), [], "upstream forgot nothing");
        log.advance_stored(has);
        for record in log.records().take(count) {
            let record = record.unwrap();
            if !log.is_pending(record.sequence) {
                continue;
            }
            let highest = self.highest.entry((log.id(), record.epoch)).or_default();
            if record.sequence > *highest {
                *highest = record.sequence;
                self.arrived.push(record.payload);
            }
            log.confirm(record.sequence, Some(record.sequence));
        }
    }

    async fn hear_losses(&mut self, log: &Log) {
        for loss in log.losses_to_report().await.unwrap() {
            let watermark = self.loss_watermarks.entry((log.id(), loss.epoch)).or_default();
            if loss.number > *watermark {
                *watermark = loss.number;
                self.reported += loss.count;
            }
            log.losses_reported(loss.number);
        }
    }
}

/// Numbers that look random, the same for each seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    let mut segments: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "segment"));
    segments.sort();
    segments.pop().unwrap()
}

/// What has been appended, and what of it must arrive.
#[derive(Default)]
struct Appended {
    count: u64,
    owed: BTreeSet<Bytes>,
}

impl Appended {
    async fn append(&mut self, log: &Log, count: u64) {
        for _ in 0..count {
            self.count += 1;
            let record = Bytes::from(format!("record {}", self.count));
            log.append(record.clone(), self.count).await.unwrap();
            self.owed.insert(record);
        }
    }

    /// The log was opened on a directory that went back: owed is what had arrived and what it still has.
    fn went_back(&mut self, log: &Log, upstream: &Upstream) {
        self.owed = upstream.arrived.iter().cloned().collect();
        self.owed.extend(log.records().map(|record| record.unwrap().payload));
    }
}

#[derive(Debug, Clone, Copy)]
enum Setback {
    /// The directory is replaced by a copy of an earlier moment, taken while the log was open.
    Restored,
    /// As it is, with the copy open beside it.
    Cloned,
    /// The last segment loses its end, and the ledger is of an earlier moment.
    TailCut,
    /// The ledger is of an earlier moment.
    LedgerOlder,
    /// The segments are of an earlier moment, and the ledger is not.
    LedgerNewer,
    /// There is no ledger any more.
    LedgerLost,
}

const SETBACKS: [Setback; 6] = [
    Setback::Restored,
    Setback::Cloned,
    Setback::TailCut,
    Setback::LedgerOlder,
    Setback::LedgerNewer,
    Setback::LedgerLost,
];

async fn go_back(setback: Setback, seed: u64) {
    let mut random = Random(seed);
    let (mut upstream, mut appended) = (Upstream::default(), Appended::default());
    let mut dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    appended.append(&log, random.below(60)).await;
    upstream.connect(&log, random.below(60) as usize).await;
    log.written().await.unwrap();
    let before = copy(dir.path());
    appended.append(&log, 1 + random.below(60)).await;
    upstream.connect(&log, random.below(60) as usize).await;
    let original = match setback {
        Setback::Cloned => Some(log),
        _ => {
            log.close().await;
            None
        }
    };
    let ledger = |of: &TempDir| of.path().join("ledger");
    match setback {
        Setback::Restored | Setback::Cloned => {}
        Setback::LedgerNewer => drop(std::fs::copy(ledger(&dir), ledger(&before)).unwrap()),
        Setback::LedgerOlder => drop(std::fs::copy(ledger(&before), ledger(&dir)).unwrap()),
        Setback::LedgerLost => std::fs::remove_file(ledger(&dir)).unwrap(),
        Setback::TailCut => {
            std::fs::copy(ledger(&before), ledger(&dir)).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(last_segment(dir.path())).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(SEGMENT_HEADER + random.below(len - SEGMENT_HEADER + 1)).unwrap();
        }
    }
    let original_dir = match setback {
        Setback::Restored | Setback::Cloned | Setback::LedgerNewer => std::mem::replace(&mut dir, before),
        Setback::TailCut | Setback::LedgerOlder | Setback::LedgerLost => before,
    };
    let mut log = Log::open(dir.path(), options()).unwrap();
    if original.is_none() {
        appended.went_back(&log, &upstream);
    }
    for _ in 0..3 {
        for log in [Some(&log), original.as_ref()].into_iter().flatten() {
            appended.append(log, random.below(40)).await;
            upstream.connect(log, random.below(80) as usize).await;
        }
        if random.below(2) == 0 {
            log.close().await;
            log = Log::open(dir.path(), options()).unwrap();
        }
    }
    for log in [Some(&log), original.as_ref()].into_iter().flatten() {
        upstream.connect(log, usize::MAX).await;
        log.close().await;
    }
    let arrived: BTreeSet<Bytes> = upstream.arrived.iter().cloned().collect();
    assert_eq!(arrived.len(), upstream.arrived.len(), "{setback:?}, seed {seed}: something arrived twice");
    let missing: Vec<_> = appended.owed.difference(&arrived).collect();
    assert!(missing.is_empty(), "{setback:?}, seed {seed}: {missing:?} did not arrive");
    drop(original_dir);
}

#[tokio::test]
async fn what_is_appended_after_the_log_went_back_arrives_however_it_went() {
    for setback in SETBACKS {
        for seed in 0..8 {
            go_back(setback, seed).await;
        }
    }
}

#[tokio::test]
async fn a_log_restored_from_a_copy_gives_no_record_the_name_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 5, 20).await;
    let restored = copy(dir.path());
    fill(&log, 5, 20).await;
    let name = |log: &Log| {
        let record = log.records().last().unwrap().unwrap();
        (record.sequence, record.epoch)
    };
    let lost = name(&log);
    log.close().await;
    let log = Log::open(restored.path(), options()).unwrap();
    fill(&log, 5, 20).await;
    let new = name(&log);
    assert_eq!(lost.0, new.0, "the sequence is given away a second time");
    assert_ne!(lost.1, new.1);
    log.close().await;
}

#[tokio::test]
async fn a_loss_after_a_restore_is_not_taken_for_an_earlier_one_and_an_earlier_one_is_reported_once() {
    for is_reported_before in [false, true] {
        let mut upstream = Upstream::default();
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options()).unwrap();
        fill(&log, 20, 20).await;
        assert!(log.give_up(1, "press-1", 1).await.unwrap());
        if is_reported_before {
            upstream.hear_losses(&log).await;
            log.written().await.unwrap();
        }
        let restored = copy(dir.path());
        assert!(log.give_up(2, "press-1", 1).await.unwrap());
        upstream.hear_losses(&log).await;
        log.close().await;
        assert_eq!(upstream.reported, 2);

        let log = Log::open(restored.path(), options()).unwrap();
        assert!(log.give_up(5, "press-1", 1).await.unwrap());
        assert!(log.give_up(6, "press-1", 1).await.unwrap());
        upstream.hear_losses(&log).await;
        assert_eq!(upstream.reported, 4, "told before the copy: {is_reported_before}");
        log.close().await;
    }
}

#[tokio::test]
async fn what_upstream_confirmed_and_has_no_more_is_a_loss_that_is_counted_once() {
    let store = Upstream::STORE;
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let mut upstream = Upstream::default();
    upstream.connect(&log, 0).await;
    fill(&log, 10, 20).await;
    upstream.connect(&log, 10).await;
    let backup = upstream.highest.clone();
    let has = |of: &BTreeMap<(Uuid, Epoch), u64>, log: &Log, epoch| of.get(&(log.id(), epoch)).copied();
    log.close().await;
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 10, 20).await;
    upstream.connect(&log, 7).await;
    log.close().await;

    // Upstream was restored: it knows the first epoch only, and not all of it.
    let log = Log::open(dir.path(), options()).unwrap();
    let restored: BTreeMap<_, _> = backup.into_iter().map(|(of, highest)| (of, highest - 4)).collect();
    let lost = log.reconcile(store, |epoch| has(&restored, &log, epoch), false, 5);
    assert_eq!(lost, [(7, 10), (11, 17)]);
    let loss_records = log.losses_to_report().await.unwrap();
    assert_eq!(
        (loss_records[0].cause, loss_records[0].first, loss_records[0].last, loss_records[0].count),
        (Cause::Restored, 7, 17, 11)
    );
    assert_eq!(log.stats().lost.restored, 11);
    log.close().await;
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.reconcile(store, |epoch| has(&restored, &log, epoch), false, 6), []);
    assert_eq!(log.loss_records().len(), 1);

    // Another store owes nothing, and one that forgets old epochs is not accused of losing them.
    log.confirm(18, None);
    assert_eq!(log.reconcile(store, |_| None, false, 7), []);
    assert_eq!(log.reconcile(Uuid::from_u128(2), |_| None, true, 7), []);
    log.close().await;
}

/// Upstream keeps a bounded number of epochs and forgets those that moved longest ago, and of several that moved in one
/// commit any.
#[tokio::test]
async fn epochs_that_upstream_forgot_are_no_loss_whichever_it_forgot_while_it_knows_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::default();
    let mut epochs = Vec::new();
    for _ in 0..6 {
        let log = Log::open(dir.path(), options()).unwrap();
        fill(&log, 3, 20).await;
        epochs.push(log.epoch_of(log.stats().next_sequence - 1).unwrap());
        log.close().await;
    }
    let log = Log::open(dir.path(), options()).unwrap();
    upstream.connect(&log, 0).await;
    upstream.connect(&log, 18).await;
    log.close().await;
    for kept in 1..64_u32 {
        let is_kept = |at: usize| kept & (1 << at) != 0;
        let has = |epoch| {
            let at = epochs.iter().position(|known| *known == epoch)?;
            is_kept(at).then(|| upstream.highest[&(log.id(), epoch)])
        };
        // What it knows of ends with the newest epoch that it knows: it cannot have the ones after it.
        let restored = copy(dir.path());
        let log = Log::open(restored.path(), options()).unwrap();
        let newest = (0..6).rposition(is_kept).unwrap();
        let lost: u64 =
            log.reconcile(Upstream::STORE, has, true, 1).iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(lost, 3 * (5 - newest as u64), "kept {kept:06b}");
        log.close().await;
    }
}

#[tokio::test]
async fn upstreams_answer_for_one_epoch_moves_the_cursor_over_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 10, 20).await;
    let first = log.epoch_of(1).unwrap();
    log.close().await;
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 10, 20).await;
    let second = log.epoch_of(11).unwrap();
    assert_eq!((log.epoch_of(10), log.last_of(first)), (Some(first), Some(10)));
    // Upstream has more of the first one: the directory was restored.
    log.advance_stored(|epoch| (epoch == second).then_some(15));
    assert_eq!(log.stats().cursor, 0);
    log.advance_stored(|epoch| (epoch == first).then_some(99));
    assert_eq!(log.stats().cursor, 10);
    log.advance_stored(|epoch| Some(if epoch == first { 99 } else { 15 }));
    assert_eq!(log.stats().cursor, 15);
    log.close().await;
}

#[tokio::test]
async fn a_directory_of_a_version_without_epochs_opens_and_its_records_are_of_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 3, 20).await;
    log.close().await;
    // The header as that version wrote it, and a ledger as it is lost.
    let path = last_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 1;
    bytes[44..52].fill(0);
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    assert!(SegmentHeader::decode(&bytes).is_ok());
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(dir.path().join("ledger")).unwrap();

    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 1, 20).await;
    let epochs: Vec<_> = log.records().map(|record| record.unwrap().epoch).collect();
    assert_eq!(epochs[..3], [Epoch::NONE; 3]);
    assert_ne!(epochs[3], Epoch::NONE);
    assert_eq!(log.epoch_of(1), Some(Epoch::NONE));
    log.close().await;
}
