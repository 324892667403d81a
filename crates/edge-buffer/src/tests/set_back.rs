//! Files of a log that are replaced by those of an earlier moment: what upstream has is not reported as lost, and all else is read
//! or reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;

use super::{options, payload};
use crate::{Epoch, Log, LogOptions};

/// An upstream as central is: of each epoch it keeps the highest sequence, and takes nothing at or below it.
#[derive(Clone, Default)]
struct Upstream {
    highest: BTreeMap<Epoch, u64>,
    loss_numbers: BTreeMap<Epoch, u64>,
    arrived: Vec<u64>,
    reported: u64,
}

impl Upstream {
    /// A connection over which at most `count` records go, and all losses.
    async fn connect(&mut self, log: &Log, count: usize) {
        let has = |epoch| self.highest.get(&epoch).copied();
        assert_eq!(log.reconcile(Uuid::from_u128(1), has, true, 0), [], "upstream forgot nothing");
        log.advance_stored(has);
        log.settle();
        for record in log.records().take(count) {
            let record = record.unwrap();
            if !log.is_pending(record.sequence) {
                continue;
            }
            let highest = self.highest.entry(record.epoch).or_default();
            if record.sequence > *highest {
                *highest = record.sequence;
                self.arrived.push(u64::from_le_bytes(record.payload[..8].try_into().unwrap()));
            }
            log.confirm(record.sequence, Some(record.sequence));
        }
        for loss in log.losses_to_report().await.unwrap() {
            let number = self.loss_numbers.entry(loss.epoch).or_default();
            if loss.number > *number {
                *number = loss.number;
                self.reported += loss.count;
            }
            log.losses_reported(loss.number);
        }
    }
}

/// A queue's directory and the copy of its ledger.
struct Site(TempDir);

impl Site {
    fn open(&self) -> Log {
        let mirror = Some(self.0.path().join("copy.ledger"));
        // Four records of 100 bytes to a segment.
        let options = LogOptions { mirror, unsettled_max: 1_000, segment_bytes: 600, ..options() };
        Log::open(&self.0.path().join("queue"), options).unwrap()
    }

    /// As a killed program leaves it.
    fn copied(&self) -> Self {
        let to = tempfile::tempdir().unwrap();
        for file in self.files() {
            let path = to.path().join(&file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(self.0.path().join(&file), path).unwrap();
        }
        Self(to)
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let names = |dir: &str| -> Vec<PathBuf> {
            let entries = fs::read_dir(self.0.path().join(dir)).unwrap().map(|entry| entry.unwrap());
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            files.map(|entry| Path::new(dir).join(entry.file_name())).collect()
        };
        names("").into_iter().chain(names("queue")).filter(|file| !file.ends_with("lock")).collect()
    }

    /// Replaces one file by what it was; one that was not there is removed.
    fn set_back(&self, file: &Path, earlier: &Self) {
        let path = self.0.path().join(file);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        let before = earlier.0.path().join(file);
        if before.exists() {
            fs::copy(before, path).unwrap();
        }
    }
}

async fn append(log: &Log, acknowledged: &mut u64, count: u64) {
    for _ in 0..count {
        *acknowledged += 1;
        log.append(payload(*acknowledged, 100), *acknowledged).await.unwrap();
    }
}

/// What happens between the earlier moment and the one at which files are set back.
#[derive(Clone, Copy, Debug)]
struct Between {
    /// Records that arrive.
    arrived: usize,
    is_restarted: bool,
    is_killed: bool,
    /// A record is given up before others arrive.
    is_given_up: bool,
}

/// The site at an earlier moment and at a later one, with what had been acknowledged and what upstream had.
async fn history(between: Between) -> (Site, Site, u64, Upstream) {
    let (site, mut upstream, mut acknowledged) = (Site(tempfile::tempdir().unwrap()), Upstream::default(), 0);
    let mut log = site.open();
    append(&log, &mut acknowledged, 14).await;
    upstream.connect(&log, 6).await;
    log.written().await.unwrap();
    let earlier = site.copied();
    append(&log, &mut acknowledged, 6).await;
    if between.is_given_up {
        assert!(log.give_up(9, "press-1", 1).await.unwrap());
    }
    upstream.connect(&log, between.arrived / 2).await;
    if between.is_restarted {
        log.close().await;
        log = site.open();
    }
    append(&log, &mut acknowledged, 6).await;
    upstream.connect(&log, between.arrived.div_ceil(2)).await;
    let later = if between.is_killed {
        let later = site.copied();
        log.close().await;
        later
    } else {
        log.close().await;
        site
    };
    (earlier, later, acknowledged, upstream)
}

/// Sets files back, and lets everything arrive that is left.
async fn set_back(chosen: &BTreeSet<PathBuf>, case: &str, history: &(Site, Site, u64, Upstream)) {
    let (earlier, later, mut acknowledged, mut upstream) =
        (&history.0, history.1.copied(), history.2, history.3.clone());
    for file in chosen {
        later.set_back(file, earlier);
    }
    // Twice: what is not proven yet survives a restart.
    for _ in 0..2 {
        let log = later.open();
        append(&log, &mut acknowledged, 3).await;
        log.check_files();
        log.close().await;
    }
    let log = later.open();
    for count in [2, usize::MAX] {
        upstream.connect(&log, count).await;
    }
    assert_eq!((log.stats().records, log.stats().unproven), (0, 0), "{case}");
    log.close().await;
    let distinct: BTreeSet<u64> = upstream.arrived.iter().copied().collect();
    assert_eq!(distinct.len(), upstream.arrived.len(), "{case}: something arrived twice");
    let accounted = distinct.len() as u64 + upstream.reported;
    assert_eq!(acknowledged, accounted, "{case}: {} arrived, {} reported", distinct.len(), upstream.reported);
}

#[tokio::test]
async fn each_file_and_each_pair_set_back_leaves_acknowledged_equal_to_arrived_and_reported() {
    for (number, arrived) in [0, 8, 16, 20, 0, 9, 15, 20].into_iter().enumerate() {
        let is_given_up = arrived > 0 && number % 2 == 1;
        let between = Between { arrived, is_restarted: number >= 4, is_killed: number % 4 >= 2, is_given_up };
        let history = history(between).await;
        let files: BTreeSet<PathBuf> = history.0.files().union(&history.1.files()).cloned().collect();
        assert!(files.len() > 4, "{files:?}");
        for one in &files {
            // With itself: the file alone.
            for other in files.range(one.clone()..) {
                let chosen = BTreeSet::from([one.clone(), other.clone()]);
                set_back(&chosen, &format!("{between:?}, set back: {chosen:?}"), &history).await;
            }
        }
    }
}

#[tokio::test]
async fn messages_that_arrived_are_not_reported_as_damaged_when_both_ledgers_are_old() {
    let between = Between { arrived: 20, is_restarted: true, is_killed: false, is_given_up: false };
    let (earlier, later, acknowledged, mut upstream) = history(between).await;
    for ledger in ["copy.ledger", "queue/ledger"] {
        later.set_back(Path::new(ledger), &earlier);
    }
    let log = later.open();
    assert_eq!((log.stats().damaged, log.loss_records()), (0, Vec::new()));
    assert!(log.stats().unproven > 8, "{:?}", log.stats());
    upstream.connect(&log, usize::MAX).await;
    assert_eq!((upstream.arrived.len() as u64, upstream.reported), (acknowledged, 0));
    log.close().await;
}
