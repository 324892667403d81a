//! Walks the frames of one segment, and over damaged ones.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::chain;
use crate::format::{Epoch, FRAME_HEADER, FRAME_MAGIC, Record, decode_frame, frame_header, frame_len};
use crate::storage::File;

/// Bytes read at once: many small records per system call, little memory per reader.
const CHUNK: u64 = 256 << 10;

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    Record(Record),
    /// Sequences that should stand here and do not.
    Hole {
        first: u64,
        last: u64,
    },
    /// Nothing valid follows.
    End,
}

/// A place in a segment, and the bytes around it.
pub(crate) struct Scan {
    file: Arc<dyn File>,
    seed: u32,
    epoch: Epoch,
    /// Where the next frame should begin.
    pub(crate) offset: u64,
    /// The sequence that it should have.
    pub(crate) expected: u64,
    /// Where frames end.
    pub(crate) end: u64,
    /// Frames of this sequence or above do not count.
    pub(crate) until: u64,
    chunk: Bytes,
    chunk_at: u64,
    /// The position is behind a hole that has been counted.
    found: Option<Record>,
}

impl Scan {
    pub(crate) fn new(
        file: Arc<dyn File>,
        seed: u32,
        epoch: Epoch,
        offset: u64,
        expected: u64,
        end: u64,
        until: u64,
    ) -> Self {
        Self {
            file,
            seed,
            epoch,
            offset,
            expected,
            end,
            until,
            chunk: Bytes::new(),
            chunk_at: 0,
            found: None,
        }
    }

    /// # Errors
    /// When the disk cannot be read; the same step can be tried again.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if let Some(record) = self.found.take() {
            return Ok(self.take(record));
        }
        if let Some(record) = self.frame_at(self.offset, self.expected)?
            && record.sequence == self.expected
        {
            return Ok(self.take(record));
        }
        let mut at = self.offset;
        while let Some(found_at) = self.find_magic(at)? {
            if let Some(record) = self.frame_at(found_at, self.expected)? {
                self.offset = found_at;
                let first = std::mem::replace(&mut self.expected, record.sequence);
                if first == record.sequence {
                    return Ok(self.take(record));
                }
                let last = record.sequence - 1;
                self.found = Some(record);
                return Ok(Step::Hole { first, last });
            }
            at = found_at + 1;
        }
        Ok(Step::End)
    }

    fn take(&mut self, record: Record) -> Step {
        self.offset += frame_len(record.payload.len());
        self.expected = record.sequence + 1;
        Step::Record(record)
    }

    /// A whole and valid frame that begins at `offset` and has a sequence that can stand here.
    fn frame_at(&mut self, offset: u64, at_least: u64) -> io::Result<Option<Record>> {
        let Some(bytes) = self.bytes(offset, FRAME_HEADER as u64)? else { return Ok(None) };
        let Some(header) = frame_header(&bytes) else { return Ok(None) };
        // Not more records than fit: keeps a search in hostile bytes from checking many long false frames.
        let at_most = at_least.saturating_add((offset - self.offset) / FRAME_HEADER as u64);
        if header.sequence < at_least || header.sequence > at_most || header.sequence >= self.until {
            return Ok(None);
        }
        let frame = self.bytes(offset, frame_len(header.length as usize))?;
        Ok(frame.and_then(|frame| decode_frame(self.seed, self.epoch, &frame)))
    }

    /// Offset of the next mark, from `from` on.
    fn find_magic(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        while from + FRAME_HEADER as u64 <= self.end {
            let len = CHUNK.min(self.end - from);
            let Some(bytes) = self.bytes(from, len)? else { return Ok(None) };
            let mut at = 0;
            while let Some(found) = bytes[at..].iter().position(|byte| *byte == FRAME_MAGIC[0]) {
                at += found;
                if bytes[at..].starts_with(&FRAME_MAGIC) {
                    return Ok(Some(from + at as u64));
                }
                at += 1;
            }
            from += bytes.len() as u64 - (FRAME_MAGIC.len() as u64 - 1);
        }
        Ok(None)
    }

    /// `len` bytes at `offset`; `None` when the segment ends before.
    fn bytes(&mut self, offset: u64, len: u64) -> io::Result<Option<Bytes>> {
        if offset + len > self.end {
            return Ok(None);
        }
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if !(held.contains(&offset) && offset + len <= held.end) {
            let mut chunk = vec![0; len.max(CHUNK.min(self.end - offset)) as usize];
            let read = read_around_bad_sectors(&*self.file, &mut chunk, offset)?;
            chunk.truncate(read);
            (self.chunk, self.chunk_at) = (chunk.into(), offset);
            if (read as u64) < len {
                return Ok(None);
            }
        }
        let start = (offset - self.chunk_at) as usize;
        Ok(Some(self.chunk.slice(start..start + len as usize)))
    }
}

/// Reads like the file does, with zeros in place of what the disk cannot read (`EIO`): a bad sector costs the records in
/// it, not the queue.
pub(crate) fn read_around_bad_sectors(file: &dyn File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    const EIO: i32 = 5;
    let is_bad = |error: &io::Error| error.raw_os_error() == Some(EIO);
    match file.read_at(into, offset) {
        Err(error) if is_bad(&error) => {
            tracing::error!(offset, error = chain(&error), "a part of a queue's file cannot be read")
        }
        read => return read,
    }
    // The kernel reads a whole page or none of it.
    const PAGE: u64 = 4096;
    let mut read = 0;
    while read < into.len() {
        let at = offset + read as u64;
        let end = into.len().min(read + (PAGE - at % PAGE) as usize);
        match file.read_at(&mut into[read..end], at) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if is_bad(&error) => {
                into[read..end].fill(0);
                read = end;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
