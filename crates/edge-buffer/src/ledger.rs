//! The cursor and the losses of a log, as stored on disk.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::epochs::{EPOCH_BYTES, EPOCHS_WRITTEN_MAX, Epochs};
use crate::error::chain;
use crate::format::{Epoch, LEDGER_FILE, VERSION, VERSION_WITHOUT_EPOCHS, u32_at, u64_at, uuid_at};
use crate::losses::{Cause, PASSED_WRITTEN_MAX, Passed};
use crate::scan::read_around_bad_sectors;
use crate::storage::{File, Storage};

pub(crate) const SLOT: u64 = 48 << 10;
/// Offset of the end record, behind both slots: in a sector of its own, so that no write of a slot touches it.
const END_AT: u64 = 2 * SLOT;
const FILE_BYTES: u64 = END_AT + SECTOR as u64;
const END_MAGIC: &[u8; 8] = b"LSLOGEND";
const END_BYTES: usize = 36;
const MAGIC: &[u8; 8] = b"LSLEDGER";
const HEADER: usize = 120;
/// What a disk writes at once.
const SECTOR: usize = 512;
const LOSS_BYTES: usize = 58;
const LOSS_BYTES_WITHOUT_EPOCH: usize = 50;
/// Who confirms, and how much was lost because it was restored.
const RECEIVER_BYTES: usize = 24;
const PASSED_BYTES: usize = 16;
/// Longer tags are cut. A device id of IoT Hub has up to 128 characters, and so has a module's.
pub(crate) const TAG_BYTES_MAX: usize = 255;
/// What loss records may take of a slot: some 300 with names as they are in plants, 70 of the longest.
const LOSSES_BYTES_MAX: usize = SLOT as usize
    - HEADER
    - PASSED_WRITTEN_MAX * PASSED_BYTES
    - RECEIVER_BYTES
    - EPOCHS_WRITTEN_MAX * EPOCH_BYTES
    - SPARE_BYTES;
/// One more loss record for each cause, without a tag: one that is being reported and one that grows.
const SPARE_BYTES: usize = 2 * Cause::ALL.len() * LOSS_BYTES;

/// Records that were lost for one cause, of one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossRecord {
    /// Names the loss record in its log and epoch for ever; ascends.
    pub number: u64,
    /// In which it got its number; its records may be of earlier ones.
    pub epoch: Epoch,
    /// Why.
    pub cause: Cause,
    /// Whose they were, as [`LogOptions::tag`](crate::LogOptions::tag) says; empty when that is not known, or when more
    /// senders lost records than are kept apart.
    pub tag: String,
    /// Sequence of the first one. For refused ones, the sequence that it would have got.
    pub first: u64,
    /// Sequence of the last one, likewise.
    pub last: u64,
    /// How many in that range; the others in between were not lost, or are in other loss records.
    pub count: u64,
    /// When the first of them was lost, ms of Unix time, by the time that the log was given last.
    pub from_ms: u64,
    /// When the last of them was lost, likewise.
    pub until_ms: u64,
}

impl LossRecord {
    fn bytes(&self) -> usize {
        LOSS_BYTES + self.tag.len()
    }
}

/// Records lost since the log was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Over their expiry or the log's age limit.
    pub expired: u64,
    /// Gave way to newer ones.
    pub evicted: u64,
    /// Not on disk any more as they were written.
    pub damaged: u64,
    /// Never taken: no space, queue full, or too long.
    pub refused: u64,
    /// Given up because somebody said so.
    pub dropped: u64,
    /// Confirmed by an upstream that was restored from a backup without them.
    pub restored: u64,
}

impl Lost {
    fn of(&mut self, cause: Cause) -> &mut u64 {
        match cause {
            Cause::Expired => &mut self.expired,
            Cause::Evicted => &mut self.evicted,
            Cause::Damaged => &mut self.damaged,
            Cause::Refused => &mut self.refused,
            Cause::Dropped => &mut self.dropped,
            Cause::Restored => &mut self.restored,
        }
    }
}

/// All that a slot holds beside the log's id and its generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) cursor: u64,
    pub(crate) next_sequence: u64,
    pub(crate) lost: Lost,
    pub(crate) passed: Passed,
    /// The epochs of the log's sequences.
    pub(crate) epochs: Epochs,
    /// By number.
    loss_records: Vec<LossRecord>,
    last_loss: u64,
    reporting_below: u64,
}

impl Ledger {
    pub(crate) fn lose(&mut self, cause: Cause, tag: &str, first: u64, last: u64, count: u64, now_ms: u64) {
        *self.lost.of(cause) += count;
        let tag = cut(tag);
        let taken: usize = self.loss_records.iter().map(LossRecord::bytes).sum();
        let is_full = taken + LOSS_BYTES + tag.len() > LOSSES_BYTES_MAX;
        let (reporting_below, epoch) = (self.reporting_below, self.epochs.current());
        let growing = |loss: &LossRecord| loss.number >= reporting_below && loss.cause == cause;
        // With too many senders, those that come late share one loss record for their cause.
        let is_same =
            |loss: &LossRecord| growing(loss) && (loss.tag == tag || (is_full && loss.tag.is_empty()));
        // One that an earlier open began may have been reported already, by a copy of this log: it does not grow.
        let same = self.loss_records.iter().position(|loss| is_same(loss) && loss.epoch == epoch);
        // If there is no space for another one, it gets a new number: its losses may be counted twice then, and none is missing.
        let renumbered = || self.loss_records.iter().position(|loss| is_full && is_same(loss));
        let same = same.or_else(renumbered);
        if let Some(at) = same {
            let mut loss = self.loss_records.remove(at);
            let is_of_now = loss.epoch == epoch;
            if !is_of_now {
                self.last_loss += 1;
                (loss.number, loss.epoch) = (self.last_loss, epoch);
            }
            loss.first = loss.first.min(first);
            loss.last = loss.last.max(last);
            loss.count += count;
            loss.until_ms = now_ms;
            self.loss_records.insert(if is_of_now { at } else { self.loss_records.len() }, loss);
            return;
        }
        let tag = if is_full { String::new() } else { tag.to_owned() };
        self.last_loss += 1;
        let (number, from_ms, until_ms) = (self.last_loss, now_ms, now_ms);
        self.loss_records.push(LossRecord {
            number,
            epoch,
            cause,
            tag,
            first,
            last,
            count,
            from_ms,
            until_ms,
        });
    }

    pub(crate) fn loss_records(&self) -> &[LossRecord] {
        &self.loss_records
    }

    /// Loss records that do not grow any more.
    pub(crate) fn reporting(&self) -> Vec<LossRecord> {
        self.loss_records.iter().filter(|loss| loss.number < self.reporting_below).cloned().collect()
    }

    /// What was lost up to now will not grow any more, as far as there is space. Returns true if it grew since.
    pub(crate) fn freeze(&mut self) -> bool {
        // The others have space for as many bytes.
        let mut bytes = 0;
        let beyond = self.loss_records.iter().find(|loss| {
            bytes += loss.bytes();
            bytes > LOSSES_BYTES_MAX / 2
        });
        let below = beyond.map_or(self.last_loss + 1, |loss| loss.number);
        let has_grown = below > self.reporting_below
            && self.loss_records.iter().any(|loss| loss.number >= self.reporting_below);
        self.reporting_below = self.reporting_below.max(below);
        has_grown
    }

    /// Forgets the loss records up to `number` that were reported. Returns true if there were any.
    pub(crate) fn reported(&mut self, number: u64) -> bool {
        let before = self.loss_records.len();
        self.loss_records.retain(|loss| loss.number > number || loss.number >= self.reporting_below);
        self.loss_records.len() < before
    }

    fn encode(&self, id: Uuid, generation: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for loss in &self.loss_records {
            for number in [loss.number, loss.first, loss.last, loss.count, loss.from_ms, loss.until_ms] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&[loss.cause.code(), loss.tag.len() as u8]);
            bytes.extend_from_slice(&loss.epoch.number().to_le_bytes());
            bytes.extend_from_slice(loss.tag.as_bytes());
        }
        let mut ranges = 0_u16;
        for (first, last) in self.passed.ranges().take(PASSED_WRITTEN_MAX) {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&last.to_le_bytes());
            ranges += 1;
        }
        let Lost { expired, evicted, damaged, refused, dropped, restored } = self.lost;
        bytes.extend_from_slice(self.epochs.receiver.as_bytes());
        bytes.extend_from_slice(&restored.to_le_bytes());
        self.epochs.encode(&mut bytes);
        let length = (bytes.len() - HEADER) as u32;
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(id.as_bytes());
        let numbers = [generation, self.cursor, self.next_sequence, self.last_loss, self.reporting_below];
        let lost = [expired, evicted, damaged, refused, dropped];
        for (at, number) in numbers.into_iter().chain(lost).enumerate() {
            bytes[28 + at * 8..36 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[108..110].copy_from_slice(&(self.loss_records.len() as u16).to_le_bytes());
        bytes[110..112].copy_from_slice(&ranges.to_le_bytes());
        bytes[112..116].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..116]), &bytes[HEADER..]);
        bytes[116..120].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes
    }
}

/// The longest start of a tag that is kept.
fn cut(tag: &str) -> &str {
    let end = (0..=TAG_BYTES_MAX.min(tag.len())).rev().find(|end| tag.is_char_boundary(*end));
    &tag[..end.unwrap_or(0)]
}

/// One slot, when it is whole.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: Uuid,
    pub(crate) generation: u64,
    pub(crate) ledger: Ledger,
}

/// `None` when the slot is damaged or was never written; the version when it is not known here.
fn decode(bytes: &[u8]) -> Option<Result<Slot, u32>> {
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return None;
    }
    let length = u32_at(bytes, 112) as usize;
    let body = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    if u32_at(bytes, 116) != crc32c::crc32c_append(crc32c::crc32c(&bytes[..116]), body) {
        return None;
    }
    let version = u32_at(bytes, 8);
    let has_epochs = match version {
        VERSION => true,
        VERSION_WITHOUT_EPOCHS => false,
        _ => return Some(Err(version)),
    };
    let count = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let mut ledger = Ledger {
        cursor: u64_at(bytes, 36),
        next_sequence: u64_at(bytes, 44),
        last_loss: u64_at(bytes, 52),
        reporting_below: u64_at(bytes, 60),
        lost: Lost {
            expired: u64_at(bytes, 68),
            evicted: u64_at(bytes, 76),
            damaged: u64_at(bytes, 84),
            refused: u64_at(bytes, 92),
            dropped: u64_at(bytes, 100),
            restored: 0,
        },
        ..Ledger::default()
    };
    let mut rest = body;
    for _ in 0..count(108) {
        let (head, behind) =
            rest.split_at_checked(if has_epochs { LOSS_BYTES } else { LOSS_BYTES_WITHOUT_EPOCH })?;
        let (tag, behind) = behind.split_at_checked(usize::from(head[49]))?;
        rest = behind;
        ledger.loss_records.push(LossRecord {
            number: u64_at(head, 0),
            epoch: if has_epochs { Epoch::from_number(u64_at(head, 50)) } else { Epoch::NONE },
            first: u64_at(head, 8),
            last: u64_at(head, 16),
            count: u64_at(head, 24),
            from_ms: u64_at(head, 32),
            until_ms: u64_at(head, 40),
            cause: Cause::from_code(head[48])?,
            tag: std::str::from_utf8(tag).ok()?.to_owned(),
        });
    }
    for _ in 0..count(110) {
        let (range, behind) = rest.split_at_checked(PASSED_BYTES)?;
        rest = behind;
        ledger.passed.add(u64_at(range, 0), u64_at(range, 8));
    }
    if has_epochs {
        let (receiver, epochs) = rest.split_at_checked(RECEIVER_BYTES)?;
        ledger.epochs = Epochs::decode(uuid_at(receiver, 0), epochs)?;
        ledger.lost.restored = u64_at(receiver, 16);
    }
    Some(Ok(Slot { id: uuid_at(bytes, 12), generation: u64_at(bytes, 28), ledger }))
}

/// The sequence behind the last acknowledged record. Written after the sync of each batch and before its answers, and not
/// synced itself: the page cache keeps it over a kill, and the next write of a slot syncs it. It never says more than what was
/// synced in the segments, so a power cut alone never makes it look like a loss.
fn encode_end(id: Uuid, next_sequence: u64) -> [u8; END_BYTES] {
    let mut bytes = [0; END_BYTES];
    bytes[..8].copy_from_slice(END_MAGIC);
    bytes[8..24].copy_from_slice(id.as_bytes());
    bytes[24..32].copy_from_slice(&next_sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..32]);
    bytes[32..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The log's id and the end; `None` when it is damaged or was never written.
fn decode_end(bytes: &[u8]) -> Option<(Uuid, u64)> {
    let is_whole = bytes.len() == END_BYTES
        && &bytes[..8] == END_MAGIC
        && u32_at(bytes, 32) == crc32c::crc32c(&bytes[..32]);
    is_whole.then(|| (uuid_at(bytes, 8), u64_at(bytes, 24)))
}

/// The file, open.
pub(crate) struct LedgerFile {
    file: Arc<dyn File>,
    pub(crate) generation: u64,
    /// The end record as it was found at open.
    end_found: Option<(Uuid, u64)>,
    /// The last write of the end record failed.
    is_end_behind: bool,
}

impl LedgerFile {
    /// A ledger of nothing, with its space, on disk when this returns.
    pub(crate) fn create(storage: &dyn Storage) -> io::Result<Self> {
        let file = storage.create(LEDGER_FILE)?;
        match file.allocate(FILE_BYTES) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        file.sync_data()?;
        storage.sync_dir()?;
        Ok(Self { file, generation: 0, end_found: None, is_end_behind: false })
    }

    /// Opens the file and reads the slot that counts.
    ///
    /// # Errors
    /// The disk's, or in the inner result the version of a newer program.
    pub(crate) fn open(storage: &dyn Storage) -> io::Result<Result<(Self, Option<Slot>), u32>> {
        Ok(Self::read(storage.open_at_start(LEDGER_FILE)?)?.map_err(|(_, version)| version))
    }

    /// As [`LedgerFile::open`], of a file that is open; the file also where a newer program wrote it.
    #[expect(clippy::type_complexity, reason = "read in two places, named in neither")]
    pub(crate) fn read(file: Arc<dyn File>) -> io::Result<Result<(Self, Option<Slot>), (Self, u32)>> {
        // After a kill it may be in the page cache only, and segments are deleted by what it says.
        file.sync_data()?;
        let mut newest: Option<Slot> = None;
        for at in [0, SLOT] {
            let mut bytes = vec![0; SLOT as usize];
            let read = read_around_bad_sectors(&*file, &mut bytes, at)?;
            match decode(&bytes[..read]) {
                Some(Err(version)) => {
                    return Ok(Err((
                        Self { file, generation: 0, end_found: None, is_end_behind: false },
                        version,
                    )));
                }
                Some(Ok(slot)) if newest.as_ref().is_none_or(|other| other.generation < slot.generation) => {
                    newest = Some(slot);
                }
                _ => {}
            }
        }
        let generation = newest.as_ref().map_or(0, |slot| slot.generation);
        let mut bytes = [0; END_BYTES];
        let read = read_around_bad_sectors(&*file, &mut bytes, END_AT)?;
        let end_found = decode_end(&bytes[..read]);
        if file.len()? < FILE_BYTES
            && let Err(error) = file.allocate(FILE_BYTES)
        {
            // A full disk: the end record is then written as far as there is space.
            tracing::debug!(error = chain(&error), "no space was allocated for the end record of a queue");
        }
        Ok(Ok((Self { file, generation, end_found, is_end_behind: false }, newest)))
    }

    /// The sequence behind the last record that was acknowledged before open, by the end record; 0 when it is not known.
    pub(crate) fn end_of(&self, id: Uuid) -> u64 {
        self.end_found.filter(|(of, _)| *of == id).map_or(0, |(_, next_sequence)| next_sequence)
    }

    /// Writes the end record, without a sync. What cannot be written makes a later loss less exact, and fails nothing.
    pub(crate) fn write_end(&mut self, id: Uuid, next_sequence: u64) {
        let written = self.file.write_all_at(&encode_end(id, next_sequence), END_AT);
        let was_behind = std::mem::replace(&mut self.is_end_behind, written.is_err());
        if let Err(error) = written
            && !was_behind
        {
            tracing::warn!(error = chain(&error), "a queue's end record was not written");
        }
    }

    /// Device and number of its file.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.identity()
    }

    /// Goes on in a new file, which holds nothing yet.
    pub(crate) fn remake(&mut self, storage: &dyn Storage) -> io::Result<()> {
        let generation = self.generation;
        *self = Self { generation, ..Self::create(storage)? };
        Ok(())
    }

    /// What [`LedgerFile::write`] writes.
    pub(crate) fn image(&self, id: Uuid, ledger: &Ledger) -> Vec<u8> {
        ledger.encode(id, self.generation + 1)
    }

    /// The image of what the file holds already, or should.
    pub(crate) fn image_of_now(&self, id: Uuid, ledger: &Ledger) -> Vec<u8> {
        ledger.encode(id, self.generation)
    }

    /// On disk when it returns well. After an error the same slot is written again: the other one is whole.
    pub(crate) fn write(&mut self, image: &[u8]) -> io::Result<()> {
        self.file.write_all_at(image, (self.generation + 1) % 2 * SLOT)?;
        self.file.sync_data()?;
        self.generation += 1;
        Ok(())
    }

    /// As [`LedgerFile::write`], for what may be lost with the power.
    pub(crate) fn write_unsynced(&mut self, image: &[u8]) -> io::Result<()> {
        self.file.write_all_at(image, (self.generation + 1) % 2 * SLOT)?;
        self.generation += 1;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_as_full_as_can_be_fits_its_slot_and_reads_back() {
        let mut ledger = Ledger { cursor: 7, next_sequence: 1 << 60, ..Ledger::default() };
        for round in 0..3 {
            for n in 0..1000_u64 {
                let tag = format!("{n:é>150}");
                ledger.lose(Cause::ALL[n as usize % 5], &tag, n, n, 1, n);
            }
            ledger.freeze();
            assert_eq!(ledger.lost.expired, (round + 1) * 200);
        }
        for n in 0..2000 {
            ledger.passed.add(n * 2, n * 2);
        }
        assert_eq!(
            ledger.loss_records.iter().map(|loss| loss.count).sum::<u64>(),
            3000,
            "no loss goes uncounted"
        );
        let bytes = ledger.encode(Uuid::nil(), 1);
        assert!(bytes.len() as u64 <= SLOT, "{}", bytes.len());
        let read = decode(&bytes).unwrap().unwrap().ledger;
        assert_eq!((&read.loss_records, read.lost, read.cursor), (&ledger.loss_records, ledger.lost, 7));
        assert_eq!(read.passed.ranges().count(), PASSED_WRITTEN_MAX);
    }

    #[test]
    fn a_loss_record_that_is_being_reported_does_not_grow_and_is_forgotten_once_reported() {
        let mut ledger = Ledger::default();
        ledger.lose(Cause::Expired, "press-1", 1, 2, 2, 10);
        assert!(ledger.freeze());
        assert!(!ledger.freeze());
        ledger.lose(Cause::Expired, "press-1", 3, 3, 1, 20);
        ledger.lose(Cause::Expired, "press-1", 5, 5, 1, 30);
        let reported = ledger.reporting();
        assert_eq!((reported.len(), reported[0].count), (1, 2));
        assert!(!ledger.reported(reported[0].number - 1));
        assert!(ledger.reported(u64::MAX));
        let left: Vec<_> =
            ledger.loss_records().iter().map(|loss| (loss.first, loss.last, loss.count)).collect();
        assert_eq!(left, [(3, 5, 2)]);
        assert_eq!((ledger.loss_records()[0].from_ms, ledger.loss_records()[0].until_ms), (20, 30));
    }
}
