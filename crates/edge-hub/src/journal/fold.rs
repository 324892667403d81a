//! Reads a journal from the disk: its records become the state that they make.

use bytes::Bytes;
use edge_buffer::{Log, ReadError};
use tracing::{error, warn};

use super::event::Event;
use super::record::{self, Record};
use super::state::State;
use crate::clock::now_ms;

/// Unreadable records that are logged one by one.
const LOGGED_MAX: u64 = 10;

/// A journal that is being read.
#[derive(Default)]
pub(super) struct Fold {
    state: State,
    /// A snapshot that has not ended yet, and what went on meanwhile.
    snapshot: Option<(State, Vec<Event>)>,
    skipped: u64,
}

impl Fold {
    /// Takes the next record.
    pub(super) fn take(&mut self, record: &Bytes) {
        match record::decode(record) {
            Ok(Record::Event(event)) => {
                self.state.apply(&event);
                if let Some((_, meanwhile)) = &mut self.snapshot {
                    meanwhile.push(event);
                }
            }
            Ok(Record::Part(event)) => {
                // Without a beginning it is the rest of a snapshot whose beginning was damaged.
                if let Some((snapshot, _)) = &mut self.snapshot {
                    snapshot.apply(&event);
                }
            }
            Ok(Record::SnapshotBegun) => self.snapshot = Some((State::default(), Vec::new())),
            Ok(Record::SnapshotEnded) => {
                if let Some((snapshot, meanwhile)) = self.snapshot.take() {
                    self.state = snapshot;
                    meanwhile.iter().for_each(|event| self.state.apply(event));
                }
            }
            Ok(Record::Opened) => {}
            Err(why) => {
                self.skipped += 1;
                if self.skipped <= LOGGED_MAX {
                    warn!("a record of the MQTT journal was skipped: {why}");
                }
            }
        }
    }

    /// What is true, and how many records were skipped.
    pub(super) fn end(self) -> (State, u64) {
        (self.state, self.skipped)
    }
}

/// Reads everything that is in a log now.
pub(super) async fn read(log: &Log) -> (State, u64) {
    let mut fold = Fold::default();
    // The reader waits for what is not there yet, so the end is marked. A disk that takes no mark is read as far as it
    // says that there is something.
    let last = match log.append(record::OPENED, now_ms()).await {
        Ok(sequence) => sequence,
        Err(why) => {
            error!("MQTT journal cannot be written: {why}");
            log.stats().next_sequence - 1
        }
    };
    let mut reader = log.reader();
    while last > log.stats().cursor {
        match reader.next(now_ms).await {
            Ok(record) => {
                fold.take(&record.payload);
                if record.sequence >= last {
                    break;
                }
            }
            Err(why @ ReadError::Io { .. }) => {
                error!("MQTT journal was read in part: {why}");
                break;
            }
            Err(ReadError::Closed) => break,
        }
    }
    let damaged: u64 = log.losses().iter().map(|loss| loss.count).sum();
    let (state, skipped) = fold.end();
    (state, skipped + damaged)
}
