//! Parts of the data directory that somebody removed while the daemon did not run.
//!
//! A part whose directory is gone is noticed by the copy of its ledger in `ledgers/`. When that is gone too, the order tells in which a
//! start makes the parts: one that is not there while a later one is was not left out by a first start that was cut off.

use std::io;
use std::path::Path;

/// Copies of the ledgers, below the data directory.
pub const LEDGERS: &str = "ledgers";

/// What a start makes of each part, in this order, below the data directory: its directory, and what is below `ledgers/`.
const ORDER: [(&str, &str); 4] = [
    ("mqtt", "mqtt.ledger"),
    ("state/journal", "state.ledger"),
    ("quarantine", "quarantine"),
    ("buffer", "buffer"),
];

/// Parts that are gone with the copies of their ledgers. Of the others, what is missing is known by those who keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovedParts {
    /// Sessions, retained messages and wills.
    pub sessions: bool,
    /// The journal of the state.
    pub state: bool,
}

impl RemovedParts {
    /// Compares what is there, before a start makes anything. Blocking.
    pub fn find(data_dir: &Path) -> Self {
        let ledgers = data_dir.join(LEDGERS);
        let is_there = |(dir, copy): (&str, &str)| !is_gone(&data_dir.join(dir), &ledgers.join(copy));
        let is_removed = |at: usize| {
            let (later, (dir, copy)) = (&ORDER[at + 1..], ORDER[at]);
            is_gone(&data_dir.join(dir), &ledgers.join(copy)) && later.iter().copied().any(is_there)
        };
        Self { sessions: is_removed(0), state: is_removed(1) }
    }
}

/// Whether neither the directory of a log, nor the copy of its ledger, says anything of it. What cannot be read is not gone.
pub fn is_gone(dir: &Path, copy: &Path) -> bool {
    let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    let is_empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock")),
        Err(error) => is_missing(error),
    };
    is_empty && std::fs::metadata(copy).is_err_and(is_missing)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Every set of what may be there.
    #[test]
    fn a_part_counts_as_removed_when_a_later_one_is_there_and_nothing_of_it() {
        let files = [
            "mqtt/1.segment",
            "ledgers/mqtt.ledger",
            "state/journal/1.segment",
            "ledgers/state.ledger",
            "quarantine/upstream/1.segment",
            "buffer/upstream/1.segment",
            "ledgers/buffer/upstream.ledger",
        ];
        for set in 0_u32..1 << files.len() {
            let has = |at: usize| set >> at & 1 == 1;
            let dir = tempfile::tempdir().unwrap();
            // Left by each start, and no evidence of anything.
            fs::create_dir(dir.path().join("mqtt")).unwrap();
            fs::write(dir.path().join("mqtt/lock"), b"").unwrap();
            for (_, file) in files.iter().enumerate().filter(|(at, _)| has(*at)) {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, b"x").unwrap();
            }
            let is_later = has(4) || has(5) || has(6);
            let expected = RemovedParts {
                sessions: !has(0) && !has(1) && (has(2) || has(3) || is_later),
                state: !has(2) && !has(3) && is_later,
            };
            assert_eq!(RemovedParts::find(dir.path()), expected, "{set:b}");
        }
    }
}
