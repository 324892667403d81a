//! Opens what is in the directory: finds the id, the cursor and the end of the log, and cuts off a torn tail.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::commit::{CursorFile, create_segment};
use crate::error::OpenError;
use crate::format::{
    BadHeader, CURSOR_FILE, CursorSlot, SEGMENT_HEADER, SLOT, SegmentHeader, UNFINISHED, VERSION, frame_len,
    frame_seed, segment_first, segment_name,
};
use crate::losses::Cause;
use crate::scan::{Scan, Step};
use crate::state::{Mark, Segment, State};
use crate::storage::{File, Storage};

pub(crate) struct Recovered {
    pub(crate) id: Uuid,
    pub(crate) state: State,
    /// The last segment's file.
    pub(crate) active: Arc<dyn File>,
    pub(crate) cursor: CursorFile,
}

/// A segment file as it was found.
struct Found {
    first: u64,
    file: Arc<dyn File>,
    len: u64,
    header: Option<SegmentHeader>,
}

pub(crate) fn recover(storage: &dyn Storage) -> Result<Recovered, OpenError> {
    let told = |doing: String| move |source| OpenError::Io { dir: storage.path().to_owned(), doing, source };
    let names = storage.names().map_err(told("list its files".into()))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        storage.remove(name).map_err(told(format!("remove {name}")))?;
    }
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_first(name)).collect();
    firsts.sort_unstable();
    let mut found = Vec::with_capacity(firsts.len());
    for first in firsts {
        found.push(look(storage, first)?);
    }
    let has_cursor = names.iter().any(|name| name == CURSOR_FILE);
    let slot =
        if has_cursor { read_cursor(storage).map_err(told(format!("read {CURSOR_FILE}")))? } else { None };

    let known = found.iter().find_map(|segment| segment.header.map(|header| header.id));
    let id = match (known, slot) {
        (Some(id), _) => id,
        // Without segments it is not known which sequences were given away: a new log, with a new id.
        (None, _) if found.is_empty() => Uuid::new_v4(),
        (None, Some(slot)) => slot.id,
        (None, None) => return Err(OpenError::Damaged { dir: storage.path().to_owned() }),
    };
    for segment in &found {
        if let Some(header) = segment.header.filter(|header| header.id != id) {
            let (dir, file) = (storage.path().to_owned(), segment_name(segment.first));
            return Err(OpenError::Foreign { dir, file, found: header.id });
        }
    }
    let slot = slot.filter(|slot| slot.id == id);
    let mut log = Recovering { storage, id, found, slot };
    let (state, active) = log.recover().map_err(|(doing, source)| told(doing)(source))?;
    let cursor = log.cursor_file(&state, has_cursor).map_err(told(format!("write {CURSOR_FILE}")))?;
    Ok(Recovered { id, state, active, cursor })
}

/// Reads the header of one segment.
fn look(storage: &dyn Storage, first: u64) -> Result<Found, OpenError> {
    let (dir, name) = (storage.path().to_owned(), segment_name(first));
    let read = || {
        let file = storage.open(&name)?;
        let len = file.len()?;
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let read = file.read_at(&mut bytes, 0)?;
        Ok((file, len, SegmentHeader::decode(&bytes[..read])))
    };
    match read() {
        Ok((file, len, Ok(header))) => Ok(Found { first, file, len, header: Some(header) }),
        Ok((file, len, Err(BadHeader::Damaged))) => {
            tracing::error!(dir = %dir.display(), segment = name, "a segment's header was found damaged; its records are kept");
            Ok(Found { first, file, len, header: None })
        }
        Ok((_, _, Err(BadHeader::Version(found)))) => {
            Err(OpenError::Version { dir, file: name, found, known: VERSION })
        }
        Err(source) => Err(OpenError::Io { dir, doing: format!("read {name}"), source }),
    }
}

fn read_cursor(storage: &dyn Storage) -> io::Result<Option<CursorSlot>> {
    let file = storage.open(CURSOR_FILE)?;
    let mut bytes = [0; 2 * SLOT as usize];
    let read = file.read_at(&mut bytes, 0)?;
    let slots = bytes[..read].chunks(SLOT as usize).filter_map(CursorSlot::decode);
    Ok(slots.max_by_key(|slot| slot.generation))
}

struct Recovering<'a> {
    storage: &'a dyn Storage,
    id: Uuid,
    found: Vec<Found>,
    slot: Option<CursorSlot>,
}

/// What was being done when the disk said no.
type Failed = (String, io::Error);

impl Recovering<'_> {
    fn recover(&mut self) -> Result<(State, Arc<dyn File>), Failed> {
        let cursor = self.slot.map_or(0, |slot| slot.cursor);
        let mut segments: VecDeque<Segment> = VecDeque::with_capacity(self.found.len() + 1);
        for found in &self.found {
            let created_ms = found.header.map_or(0, |header| header.created_ms);
            segments.push_back(Segment::new(found.first, found.len, created_ms));
        }
        let mut holes = Vec::new();
        let mut last = None;
        if let (Some(found), Some(segment)) = (self.found.last(), segments.back_mut()) {
            let name = segment_name(found.first);
            let next = self.end(found, segment, &mut holes).map_err(|e| (format!("recover {name}"), e))?;
            last = Some((found.file.clone(), next));
        }
        // The tail behind the cursor can be gone only through damage; its sequences are never given away again.
        let next_sequence = last.as_ref().map_or(0, |(_, next)| *next).max(cursor + 1);
        let active = match last {
            Some((file, next)) if next == next_sequence => file,
            _ => {
                let header = SegmentHeader { id: self.id, first: next_sequence, created_ms: 0 };
                let name = segment_name(next_sequence);
                let file = create_segment(self.storage, header).map_err(|e| (format!("make {name}"), e))?;
                segments.push_back(Segment::new(next_sequence, SEGMENT_HEADER, 0));
                file
            }
        };
        let oldest = segments.front().map_or(next_sequence, |segment| segment.first);
        let mut state = State::new(segments, next_sequence, cursor);
        match self.slot {
            Some(_) => state.pass(cursor + 1, oldest - 1, Cause::Evicted),
            // Nobody knows what became of them: the cursor is gone.
            None => state.advance(oldest - 1),
        }
        for (first, last) in holes {
            state.pass(first, last, Cause::Damaged);
        }
        Ok((state, active))
    }

    /// Finds where the last segment ends and cuts off what is behind; the next sequence.
    fn end(&self, found: &Found, segment: &mut Segment, holes: &mut Vec<(u64, u64)>) -> io::Result<u64> {
        let file = &found.file;
        if found.header.is_none() {
            let header = SegmentHeader { id: self.id, first: found.first, created_ms: 0 };
            file.write_all_at(&header.encode(), 0)?;
        }
        let seed = frame_seed(self.id, found.first);
        let mut scan = Scan::new(file.clone(), seed, SEGMENT_HEADER, found.first, found.len, u64::MAX);
        loop {
            match scan.step()? {
                Step::Record(record) => {
                    let offset = scan.offset - frame_len(record.payload.len());
                    segment.mark(Mark { sequence: record.sequence, offset, enqueued_ms: record.enqueued_ms });
                }
                Step::Hole { first, last } => holes.push((first, last)),
                Step::End => break,
            }
        }
        segment.len = scan.offset;
        if found.len > scan.offset {
            let torn = found.len - scan.offset;
            tracing::warn!(segment = found.first, torn_bytes = torn, "the torn tail of a queue was cut off");
        }
        if found.len != scan.offset {
            file.set_len(scan.offset)?;
        }
        // After a kill the records may be in the page cache only; they are given to readers as being on disk.
        file.sync_data()?;
        Ok(scan.expected)
    }

    fn cursor_file(&self, state: &State, exists: bool) -> io::Result<CursorFile> {
        let file = if exists { self.storage.open(CURSOR_FILE)? } else { self.storage.create(CURSOR_FILE)? };
        let mut cursor = CursorFile { file, generation: self.slot.map_or(0, |slot| slot.generation) };
        if self.slot.is_none() {
            // Both slots: one of a log that was here before must not win.
            cursor.write(self.id, state.cursor)?;
            cursor.write(self.id, state.cursor)?;
            self.storage.sync_dir()?;
        }
        Ok(cursor)
    }
}
