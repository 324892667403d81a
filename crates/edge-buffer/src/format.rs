//! The files of a log, in prose first.
//!
//! A log is a directory. Numbers are little-endian; times are milliseconds of Unix time; checksums are CRC32C.
//!
//! ```text
//! lock                       empty; held with flock while the log is open
//! ledger                     how far the records are done with, and what was lost
//! 0000000000000001.segment   records, the first of which has sequence 1 (sixteen hexadecimal digits)
//! 00000000000004d2.segment   … the next segment; the last one is being appended to
//! *.new                      a segment that was not finished; removed at open
//! *.damaged                  a segment in which something was damaged, or what had one of these names and was no regular
//!                            file; set aside for analysis, never read
//! ```
//!
//! Sequences start at 1 and have no holes: record, segment and log agree on them, so a record that is missing is known
//! to be missing.
//!
//! **Epoch.** A directory can go back in time: restored from a backup, cloned, its last records lost by the disk. Its log
//! then gives sequences away a second time, which others know as those of earlier records. Each open therefore begins an
//! epoch, in a segment of its own: log id, epoch and sequence name one record for ever. The epoch is random, since what went
//! back cannot know which ones were used.
//!
//! **Segment**: a header of 64 bytes, then frames back to back, then zeros up to the end of the file: space that was
//! allocated ahead, so that a full disk fails an append before it is begun. The space ahead doubles with what the first
//! segment holds, so that a log of three records is small, and is a whole segment from the second one on. It is cut off
//! when the segment is full or the log is closed. The header is written to a `.new` file, synced and renamed before the
//! first frame, so a crash never leaves half of one.
//!
//! ```text
//!  0  8  "LSEGMENT"
//!  8  4  version, 2
//! 12 16  log id, a UUID: made when the log was created, the same in all its files
//! 28  8  first sequence, as in the file's name
//! 36  8  created, the enqueue time of the record that opened the segment
//! 44  8  epoch: a random number that is new at each open of the log; zero in a segment of version 1
//! 52  8  zero
//! 60  4  checksum of bytes 0..60
//! ```
//!
//! **Frame**: one record.
//!
//! ```text
//!  0  4  mark, b5 1e f7 a3: where to look for the next frame behind a damaged one (no valid UTF-8 text holds it)
//!  4  4  length of the payload
//!  8  4  checksum, begun with log id and first sequence of the segment, of bytes 4..8 and 12..36+length
//! 12  8  sequence
//! 20  8  enqueued
//! 28  8  expires; all ones when never
//! 36  …  payload
//! ```
//!
//! Because its checksum begins with the log id and the segment, bytes of another log or segment, such as a block that
//! the file system used before, never pass for a frame; and a damaged segment header costs no record, for both are
//! known from elsewhere (file name, other segments, cursor).
//!
//! **Reading.** A frame that does not check is followed by a search for the next mark with a frame that does and a
//! sequence that fits; the sequences between are lost and counted as damaged. In the last segment, when no frame follows
//! and neither ledger nor end record knows of one, it is the torn end of a batch that was never acknowledged, and is cut off at open. In an
//! earlier segment, frames at or above the first sequence of the next segment belong to a batch that failed, and do not
//! count. Sectors that the disk cannot read count as zeros. A segment in which something was missing is set aside as
//! `.damaged` once its other records are done with; one that holds nothing of this log is set aside at open.
//!
//! **Ledger**: two slots of 48 KiB, written in turn, so that one is always whole; the valid one with the higher
//! generation counts. Its place is allocated when the log is made: losses can be written down on a full disk. All records
//! up to and including the cursor are done with; one that was lost is in a loss record from the moment the cursor is behind it,
//! in the same write, so that a crash neither forgets nor doubles a loss.
//!
//! ```text
//!   0  8  "LSLEDGER"
//!   8  4  version, 2
//!  12 16  log id
//!  28  8  generation
//!  36  8  cursor
//!  44  8  next sequence: records below it were on disk when this was written
//!  52  8  number of the newest loss record
//!  60  8  loss records below this number are being reported upstream and do not grow
//!  68 40  records lost since the log was made: expired, evicted, damaged, refused, dropped
//! 108  2  count of loss records
//! 110  2  count of passed ranges
//! 112  4  length of all behind the checksum
//! 116  4  checksum of bytes 0..116 and of what is behind the checksum
//! 120  …  loss records: number, first and last sequence, count, time of the first and of the last loss (8 each), cause (1),
//!         length of the tag (1), the epoch in which it got its number (8), the tag
//!      …  passed ranges, first and last (8 each): sequences above the cursor that are lost already
//!      …  who confirms records, a UUID (16); records lost because it was restored (8)
//!      …  the newest epochs, up to the end: first sequence, epoch, highest sequence confirmed (8 each)
//! ```
//!
//! **End record**: behind the two slots, at 96 KiB. The sequence behind the last record that was acknowledged. It is written
//! after the sync of each batch, before its answers, and not synced: after a kill it is exact, since the page cache outlives the
//! program; after a power cut it is as old as the last write of a slot, at most about a second, or newer. It is how a
//! log knows that its end was cut off or its last segments are gone, and tells that from a batch that was torn.
//!
//! ```text
//!  0  8  "LSLOGEND"
//!  8 16  log id
//! 24  8  next sequence
//! 32  4  checksum of bytes 0..32
//! ```
//!
//! Version 1 has neither epochs nor the fields beside them: its records and loss records are of epoch 0.
//!
//! A newer version keeps magic, version and the meaning of the checksum: a program that is too old can tell a newer file
//! from a damaged one, and refuses it.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

/// Names the records that were appended between one open of a log and the next. Together with the log's id and a sequence
/// it names one record for ever, also when the log's directory went back in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// Of the records of a log that had no epochs yet.
    pub const NONE: Self = Self(0);

    /// A new one. Its 64 bits come from the system's random numbers.
    pub(crate) fn random() -> Self {
        loop {
            // Each half has bits that are the same in every UUID, at places where the other half's are random.
            let (high, low) = Uuid::new_v4().as_u64_pair();
            if high ^ low != 0 {
                return Self(high ^ low);
            }
        }
    }

    /// Counted from 0 in the order in which segments are made.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The epoch of a number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log, from 1 on.
    pub sequence: u64,
    /// The epoch of that sequence.
    pub epoch: Epoch,
    /// When it was appended, ms of Unix time.
    pub enqueued_ms: u64,
    /// From when on nobody wants it, ms of Unix time.
    pub expires_ms: Option<u64>,
    /// The bytes.
    pub payload: Bytes,
}

pub(crate) const VERSION: u32 = 2;
/// Without epochs; read, and not written any more.
pub(crate) const VERSION_WITHOUT_EPOCHS: u32 = 1;
pub(crate) const SEGMENT_HEADER: u64 = 64;
pub(crate) const FRAME_HEADER: usize = 36;
pub(crate) const LEDGER_FILE: &str = "ledger";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const UNFINISHED: &str = ".new";
/// Behind the name of a segment that was set aside.
pub(crate) const DAMAGED: &str = ".damaged";
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xb5, 0x1e, 0xf7, 0xa3];
const SEGMENT_MAGIC: &[u8; 8] = b"LSEGMENT";
const SUFFIX: &str = ".segment";
const NEVER: u64 = u64::MAX;

/// The file of the segment that begins with `first`.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:016x}{SUFFIX}")
}

/// The first sequence of the segment in the file `name`; `None` when it is no segment.
pub(crate) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(first) == name && first > 0).then_some(first)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

pub(crate) fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes were sliced"))
}

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: Uuid,
    pub(crate) epoch: Epoch,
    pub(crate) first: u64,
    pub(crate) created_ms: u64,
}

/// Why the start of a file is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    /// Whole, but written by a program that is newer than this one.
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(self.id.as_bytes());
        bytes[28..36].copy_from_slice(&self.first.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.epoch.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        if bytes.len() < SEGMENT_HEADER as usize
            || &bytes[..8] != SEGMENT_MAGIC
            || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60])
        {
            return Err(BadHeader::Damaged);
        }
        match u32_at(bytes, 8) {
            // The epoch's place is zero without epochs.
            VERSION | VERSION_WITHOUT_EPOCHS => Ok(Self {
                id: uuid_at(bytes, 12),
                epoch: Epoch(u64_at(bytes, 44)),
                first: u64_at(bytes, 28),
                created_ms: u64_at(bytes, 36),
            }),
            version => Err(BadHeader::Version(version)),
        }
    }
}

/// What the checksums of a segment's frames begin with.
pub(crate) fn frame_seed(id: Uuid, first: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), &first.to_le_bytes())
}

/// Bytes that a payload of this length takes on disk.
pub(crate) fn frame_len(payload: usize) -> u64 {
    (FRAME_HEADER + payload) as u64
}

/// Adds one frame to `out`. The caller has checked that the payload's length fits 32 bits.
pub(crate) fn encode_frame(
    out: &mut Vec<u8>,
    seed: u32,
    sequence: u64,
    enqueued_ms: u64,
    expires_ms: Option<u64>,
    payload: &[u8],
) {
    let length = u32::try_from(payload.len()).expect("append refuses longer payloads").to_le_bytes();
    let mut stamps = [0; 24];
    stamps[..8].copy_from_slice(&sequence.to_le_bytes());
    stamps[8..16].copy_from_slice(&enqueued_ms.to_le_bytes());
    stamps[16..].copy_from_slice(&expires_ms.unwrap_or(NEVER).to_le_bytes());
    let mut checksum = crc32c::crc32c_append(seed, &length);
    checksum = crc32c::crc32c_append(checksum, &stamps);
    checksum = crc32c::crc32c_append(checksum, payload);
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&stamps);
    out.extend_from_slice(payload);
}

/// What a frame's first 36 bytes say, before its checksum says whether to believe them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) sequence: u64,
}

/// The header of a frame; `None` when there is no mark. `bytes` holds at least 36.
pub(crate) fn frame_header(bytes: &[u8]) -> Option<FrameHeader> {
    (bytes[..4] == FRAME_MAGIC).then(|| FrameHeader { length: u32_at(bytes, 4), sequence: u64_at(bytes, 12) })
}

/// The record in a whole frame of a segment's; `None` when its checksum is wrong.
pub(crate) fn decode_frame(seed: u32, epoch: Epoch, frame: &Bytes) -> Option<Record> {
    let mut checksum = crc32c::crc32c_append(seed, &frame[4..8]);
    checksum = crc32c::crc32c_append(checksum, &frame[12..]);
    (checksum == u32_at(frame, 8)).then(|| Record {
        sequence: u64_at(frame, 12),
        epoch,
        enqueued_ms: u64_at(frame, 20),
        expires_ms: Some(u64_at(frame, 28)).filter(|at| *at != NEVER),
        payload: frame.slice(FRAME_HEADER..),
    })
}
