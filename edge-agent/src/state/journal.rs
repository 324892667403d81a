//! The journal: every change of the state, in order, on disk before a change counts as saved.

use std::path::Path;

use bytes::Bytes;
use edge_buffer::{AppendError, Full, Log, LogOptions, OpenError, RECORD_BYTES_MAX};

use super::line;
use super::position::Position;
use super::values::{Change, Values};
use crate::clock::now_ms;

const SEGMENT_BYTES: u64 = 1 << 20;
/// Far more than lies between two exports. Beyond it, with sled and exports failing, changes are refused.
const BYTES_MAX: u64 = 256 << 20;
/// What a record begins with: a whole change, or the first, a further or the last part of a long one.
const WHOLE: u8 = b'.';
const FIRST: u8 = b'(';
const FURTHER: u8 = b'+';
const LAST: u8 = b')';
const PART_BYTES: usize = RECORD_BYTES_MAX as usize / 2;
/// Bytes handed to the log before its answers are waited for: half of what it holds in memory.
const SUBMITTED_MAX: usize = 4 << 20;

pub(super) struct Journal {
    log: Log,
}

impl Journal {
    pub(super) fn open(dir: &Path, ledger_copy: Option<&Path>) -> Result<Self, OpenError> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            bytes_max: BYTES_MAX,
            age_max_ms: None,
            // Everybody else keeps space free for this.
            keep_free_bytes: 0,
            full: Full::Refuse,
            pool: None,
            rank: 0,
            tag: None,
            mirror: ledger_copy.map(Path::to_owned),
            ..LogOptions::default()
        };
        Ok(Self { log: Log::open(&dir.join("journal"), options)? })
    }

    /// Writes changes, with one sync unless they are large; the answer to each.
    pub(super) fn append(&self, changes: &[Change]) -> Vec<Result<(), AppendError>> {
        let mut answers = vec![Ok(()); changes.len()];
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let settle = |waiting: &mut Vec<(usize, edge_buffer::Append)>,
                      answers: &mut [Result<(), AppendError>]| {
            for (at, append) in waiting.drain(..) {
                if let Err(error) = append.wait() {
                    answers[at] = Err(error);
                }
            }
        };
        for (at, change) in changes.iter().enumerate() {
            let line = line::write(change.namespace, &change.key, change.value.as_deref());
            let parts = line.as_bytes().chunks(PART_BYTES);
            let last = parts.len() - 1;
            for (number, part) in parts.enumerate() {
                if bytes + part.len() > SUBMITTED_MAX {
                    settle(&mut waiting, &mut answers);
                    bytes = 0;
                }
                let kind = match number {
                    0 if last == 0 => WHOLE,
                    0 => FIRST,
                    _ if number == last => LAST,
                    _ => FURTHER,
                };
                bytes += part.len();
                waiting.push((
                    at,
                    self.log.append_awaited(Bytes::from([&[kind], part].concat()), now_ms(), None),
                ));
            }
        }
        settle(&mut waiting, &mut answers);
        answers
    }

    /// Checks whether somebody removed its files; how many records were found missing since it was opened.
    pub(super) fn check_files(&self) -> u64 {
        self.log.check_files();
        self.log.stats().damaged
    }

    /// The log, for its numbers.
    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// How far the journal reaches.
    pub(super) fn position(&self) -> Position {
        Position {
            journal: self.log.id(),
            sequence: self.log.stats().next_sequence - 1,
            epochs: self.log.epochs(),
        }
    }

    /// Everything that was ever written is still in here.
    pub(super) fn is_complete(&self) -> bool {
        self.log.stats().cursor == 0
    }

    /// Returns true when a copy at this position and what is in here make the state: nothing between them was forgotten.
    pub(super) fn follows(&self, copied: &Position) -> bool {
        let forgotten = self.log.stats().cursor;
        // Of another journal, one that was lost: what was forgotten here may be in no copy.
        forgotten == 0 || copied.holds(self.log.id(), self.log.epoch_of(forgotten), forgotten)
    }

    /// Bytes of the changes since the daemon started.
    pub(super) fn written(&self) -> u64 {
        self.log.stats().payload_bytes
    }

    /// Applies what is beyond a copy of the state to it.
    pub(super) fn apply_to(
        &self,
        values: &mut Values,
        copied: Option<&Position>,
    ) -> Result<(), edge_buffer::ReadError> {
        let id = self.log.id();
        let (mut line, mut expected, mut is_broken) = (Vec::new(), 0, false);
        for record in self.log.records() {
            let record = record?;
            let Some((kind, part)) = record.payload.split_first() else { continue };
            // A change of which a part is damaged, or was never written, must not be mixed with another.
            let begins = matches!(*kind, WHOLE | FIRST);
            if begins || record.sequence != expected {
                line.clear();
                is_broken = !begins;
            }
            expected = record.sequence + 1;
            line.extend_from_slice(part);
            if is_broken || !matches!(*kind, WHOLE | LAST) {
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut line)).unwrap_or_default();
            // Of another journal, one that was lost, nothing is in here: then all of this one came later.
            if copied.is_some_and(|copied| copied.holds(id, Some(record.epoch), record.sequence)) {
                continue;
            }
            match line::parse(&text) {
                Some(Change { namespace, key, value: Some(value) }) => {
                    values.insert((namespace, key), value);
                }
                Some(Change { namespace, key, value: None }) => {
                    values.remove(&(namespace, key));
                }
                None => tracing::error!(
                    sequence = record.sequence,
                    "a change of the state is damaged or of a newer program"
                ),
            }
        }
        let stats = self.log.stats();
        let (lost, earlier) = (stats.damaged, stats.lost.damaged.saturating_sub(stats.damaged));
        if lost > 0 {
            tracing::error!(lost, "changes of the state in its journal were damaged");
        }
        if earlier > 0 {
            tracing::info!(earlier, "changes of the state had been damaged at earlier starts");
        }
        Ok(())
    }

    /// Forgets what copies of the state hold.
    pub(super) fn forget(&self, copied: &Position) {
        self.log.advance(copied.holds_up_to(self.log.id(), &self.log.epochs()));
    }

    /// Ends the thread of the log; the directory is free for another one.
    pub(super) fn close(self) {
        self.log.close_blocking();
    }
}
