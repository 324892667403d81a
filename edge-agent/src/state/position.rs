//! How far a copy of the state follows the journal.
//!
//! A directory can go back in time, whole or in single files: then the journal gives sequences away a second time, or a copy is
//! older than the journal's beginning. Each open of the journal begins an epoch, so a copy names the last sequence that it has of
//! each epoch. With it:
//!
//! | Found | Means |
//! |---|---|
//! | a record of an epoch that the copy does not name, or behind its last sequence there | it came later, and is applied |
//! | the journal has forgotten a record that the copy does not hold | the copy is too old: another one must be used |

use edge_buffer::Epoch;
use uuid::Uuid;

/// How far into which journal a copy of the state reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) journal: Uuid,
    pub(super) sequence: u64,
    /// The journal's epochs, ascending, each with the last sequence of it that the copy holds. Empty in a copy that a version
    /// without epochs wrote: then `sequence` alone counts.
    pub(super) epochs: Vec<(Epoch, u64)>,
}

impl Position {
    /// Returns true when a record of `journal` is in the copy. `epoch` is `None` when it is older than all that are known.
    pub(super) fn holds(&self, journal: Uuid, epoch: Option<Epoch>, sequence: u64) -> bool {
        if self.journal != journal {
            return false;
        }
        match (epoch, self.epochs.first()) {
            (Some(epoch), Some(_)) => self.last_of(epoch).is_some_and(|last| sequence <= last),
            (None, _) | (_, None) => sequence <= self.sequence,
        }
    }

    fn last_of(&self, epoch: Epoch) -> Option<u64> {
        self.epochs.iter().find(|(of, _)| *of == epoch).map(|(_, last)| *last)
    }

    /// The last sequence of a journal up to which the copy holds all records; `epochs` are the journal's.
    pub(super) fn holds_up_to(&self, journal: Uuid, epochs: &[(Epoch, u64)]) -> u64 {
        let mut up_to = 0;
        for (epoch, last) in epochs {
            if self.holds(journal, Some(*epoch), *last) {
                up_to = *last;
                continue;
            }
            let held = if self.epochs.is_empty() { self.sequence } else { self.last_of(*epoch).unwrap_or(0) };
            return if self.journal == journal { up_to.max(held.min(*last)) } else { 0 };
        }
        up_to
    }

    /// Returns true when the other copy holds all that this one holds, and more.
    pub(super) fn is_behind(&self, other: &Self) -> bool {
        let last = |position: &Self| position.epochs.last().copied().unzip();
        let holds =
            |one: &Self, of: &Self| one.holds(of.journal, last(of).0, last(of).1.unwrap_or(of.sequence));
        holds(other, self) && !holds(self, other)
    }

    /// As written in an export: ` epoch:sequence` for each.
    pub(super) fn epochs_text(&self) -> String {
        self.epochs.iter().map(|(epoch, last)| format!(" {:x}:{last}", epoch.number())).collect()
    }

    pub(super) fn parse_epochs<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<(Epoch, u64)>> {
        let parse = |word: &str| {
            let (epoch, last) = word.split_once(':')?;
            Some((Epoch::from_number(u64::from_str_radix(epoch, 16).ok()?), last.parse().ok()?))
        };
        words.map(parse).collect()
    }

    /// As stored in sled's stamp: 16 bytes for each.
    pub(super) fn epochs_bytes(&self) -> Vec<u8> {
        let numbers = self.epochs.iter().flat_map(|(epoch, last)| [epoch.number(), *last]);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// `None` when the bytes are no whole list.
    pub(super) fn epochs_from_bytes(bytes: &[u8]) -> Option<Vec<(Epoch, u64)>> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let (pairs, odd) = numbers.as_chunks::<2>();
        let pairs = pairs
            .iter()
            .map(|[epoch, last]| (Epoch::from_number(u64::from_le_bytes(*epoch)), u64::from_le_bytes(*last)));
        (rest.is_empty() && odd.is_empty()).then(|| pairs.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use bytes::Bytes;
    use edge_buffer::{Log, LogOptions};
    use tempfile::TempDir;

    use super::*;

    fn copy(from: &Path) -> TempDir {
        let to = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
        to
    }

    fn open(dir: &TempDir) -> Log {
        Log::open(dir.path(), LogOptions::default()).unwrap()
    }

    fn position(log: &Log) -> Position {
        Position { journal: log.id(), sequence: log.stats().next_sequence - 1, epochs: log.epochs() }
    }

    fn records(log: &Log) -> Vec<(Epoch, u64, Bytes)> {
        log.records()
            .map(Result::unwrap)
            .map(|record| (record.epoch, record.sequence, record.payload))
            .collect()
    }

    /// Copies of a journal that goes on, is opened again, and goes back to what it was at any earlier moment.
    #[tokio::test]
    async fn a_copy_knows_what_it_holds_of_a_journal_that_went_back_any_number_of_times() {
        let mut seed = 11_u64;
        let mut below = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % bound
        };
        let mut dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir);
        let (mut backups, mut copies, mut count) = (Vec::new(), Vec::new(), 0_u64);
        for _ in 0..150 {
            match below(6) {
                0 => {
                    log.close().await;
                    log = open(&dir);
                }
                1 => backups.push(copy(dir.path())),
                2 if !backups.is_empty() => {
                    log.close().await;
                    dir = copy(backups[below(backups.len())].path());
                    log = open(&dir);
                }
                3 => {
                    let held: BTreeSet<Bytes> = records(&log).into_iter().map(|record| record.2).collect();
                    copies.push((position(&log), held));
                }
                _ => {
                    for _ in 0..below(4) {
                        count += 1;
                        log.append(Bytes::from(count.to_string()), count).await.unwrap();
                    }
                }
            }
            let (epochs, now) = (log.epochs(), records(&log));
            for (copied, held) in &copies {
                for (epoch, sequence, payload) in &now {
                    let holds = copied.holds(log.id(), Some(*epoch), *sequence);
                    assert_eq!(holds, held.contains(payload), "{sequence} of {epochs:?} in {copied:?}");
                }
                let up_to = now.iter().take_while(|record| held.contains(&record.2)).last();
                assert_eq!(copied.holds_up_to(log.id(), &epochs), up_to.map_or(0, |record| record.1));
                let bytes = Position::epochs_from_bytes(&copied.epochs_bytes()).unwrap();
                let text = copied.epochs_text();
                let text = Position::parse_epochs(text.split_whitespace()).unwrap();
                assert_eq!((&bytes, &text), (&copied.epochs, &copied.epochs));
            }
            for ((one, of_one), (other, of_other)) in copies.iter().zip(copies.iter().skip(1)) {
                let is_less = of_one.is_subset(of_other) && of_one != of_other;
                assert_eq!(one.is_behind(other), is_less);
            }
        }
        assert!(copies.len() > 10 && backups.len() > 10);
        log.close().await;
    }
}
