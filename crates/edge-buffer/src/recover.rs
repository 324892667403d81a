//! Opens what is in the directory: finds the id, the cursor and the end of the log, cuts off a torn tail, and sets aside
//! what is no segment of this log.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::commit::create_segment;
use crate::error::OpenError;
use crate::format::{
    BadHeader, DAMAGED, Epoch, LEDGER_FILE, SEGMENT_HEADER, SegmentHeader, UNFINISHED, VERSION, frame_len,
    frame_seed, segment_first, segment_name,
};
use crate::ledger::{LedgerFile, Slot};
use crate::limits::LogOptions;
use crate::losses::Cause;
use crate::mirror::Mirror;
use crate::scan::{Scan, Step, read_around_bad_sectors};
use crate::segment::{IndexEntry, Segment};
use crate::state::State;
use crate::storage::{File, Storage, is_unusable};

pub(crate) struct Recovered {
    pub(crate) id: Uuid,
    pub(crate) epoch: Epoch,
    pub(crate) state: State,
    /// The last segment's file.
    pub(crate) active: Arc<dyn File>,
    pub(crate) ledger: LedgerFile,
    pub(crate) mirror: Option<Mirror>,
}

/// A segment file as it was found.
struct Found {
    first: u64,
    len: u64,
    header: Option<SegmentHeader>,
}

pub(crate) fn recover(storage: &dyn Storage, options: &LogOptions) -> Result<Recovered, OpenError> {
    let io_error =
        |doing: String| move |source| OpenError::Io { dir: storage.path().to_owned(), doing, source };
    let names = storage.names().map_err(io_error("list its files".into()))?;
    let mut set_aside = names.iter().filter(|name| name.ends_with(DAMAGED)).count() as u64;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        if storage.remove(name).is_err() {
            set_foreign_aside(storage, name).map_err(io_error(format!("remove {name}")))?;
            set_aside += 1;
        }
    }
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_first(name)).collect();
    firsts.sort_unstable();
    let mut found = Vec::with_capacity(firsts.len());
    for first in firsts {
        found.push(inspect(storage, first, options.found_len_max())?);
    }
    let has_ledger = names.iter().any(|name| name == LEDGER_FILE);
    let (file, slot) = if has_ledger { open_ledger(storage)? } else { (None, None) };
    set_aside += u64::from(has_ledger && file.is_none());
    let (mut mirror, copy) = options
        .mirror
        .as_deref()
        .map(Mirror::open)
        .map_or((None, None), |(mirror, copy)| (Some(mirror), copy));
    if let Some(mirror) = mirror.as_ref().filter(|_| copy.is_none() && slot.is_some()) {
        tracing::warn!(dir = %storage.path().display(), file = %mirror.path().display(), "the copy of a queue's ledger is missing or damaged; it is made again");
    }
    let Chosen { slot, is_copy, orphaned } = choose(storage.path(), slot, copy, &found, mirror.as_ref());
    if slot.is_none() && (file.is_some() || !found.is_empty()) {
        tracing::error!(dir = %storage.path().display(), "a queue's ledger is damaged or missing: what was done with is read again");
    }
    // Most segments are of the log that the ledger or the first good header names.
    let of_header = found.iter().find_map(|segment| segment.header.map(|header| header.id));
    let id = slot.as_ref().map(|slot| slot.id).or(of_header).unwrap_or_else(Uuid::new_v4);
    let is_known = slot.is_some() || of_header.is_some();
    let ends = [file.as_ref().map(|file| file.end_of(id)), mirror.as_ref().map(|mirror| mirror.end_of(id))];
    let acknowledged_end = ends.into_iter().flatten().max().unwrap_or(0);
    let does_upstream_say = options.unsettled_max > 0;
    let mut recovering = Recovering {
        storage,
        id,
        epoch: Epoch::random(),
        found,
        slot,
        is_copy,
        acknowledged_end,
        set_aside,
        does_upstream_say,
        file_len_max: options.file_len_max(),
    };
    let strangers =
        recovering.set_strangers_aside(is_known).map_err(|(doing, source)| io_error(doing)(source))?;
    let (mut state, active) = recovering.recover().map_err(|(doing, source)| io_error(doing)(source))?;
    if let Some((first, last)) = strangers.filter(|_| !is_known) {
        // Not even their id is known; at least so many records were in them.
        state.ledger.lose(Cause::Damaged, "", first, last, last - first + 1, 0);
    }
    if orphaned > 0 {
        let next = state.next_sequence;
        state.lose(next, next, orphaned, Cause::Damaged, "");
    }
    state.set_aside = recovering.set_aside;
    let missing = state.stats().damaged + state.unproven_count();
    if missing > 0 {
        tracing::error!(dir = %storage.path().display(), missing, "acknowledged records of a log are missing: their segments were removed, cut off or damaged; check for a disk fault, or for another program that changed the files");
    }
    let ledger =
        recovering.ledger_file(&mut state, file).map_err(io_error(format!("write {LEDGER_FILE}")))?;
    if let Some(mirror) = &mut mirror {
        // What the ledger itself does not hold yet stays to be written.
        let is_loss_behind = state.is_loss_behind;
        mirror.begin(&ledger.image_of_now(id, state.ledger_now()), ledger.generation);
        state.is_loss_behind = is_loss_behind;
    }
    Ok(Recovered { id, epoch: recovering.epoch, state, active, ledger, mirror })
}

/// Which ledger says what was there.
struct Chosen {
    slot: Option<Slot>,
    /// It is the copy: that of the directory is gone, damaged or older.
    is_copy: bool,
    /// Records that were pending in another log, of which the copy is and nothing else is left.
    orphaned: u64,
}

fn choose(
    dir: &Path,
    slot: Option<Slot>,
    copy: Option<Slot>,
    found: &[Found],
    mirror: Option<&Mirror>,
) -> Chosen {
    let Some(copy) = copy else { return Chosen { slot, is_copy: false, orphaned: 0 } };
    let of_headers = |id| {
        let mut ids = found.iter().filter_map(|segment| segment.header.map(|header| header.id)).peekable();
        ids.peek().is_none() || ids.any(|of| of == id)
    };
    let is_same_log = slot.as_ref().map_or_else(|| of_headers(copy.id), |slot| slot.id == copy.id);
    if !is_same_log {
        let end = copy.ledger.next_sequence.max(mirror.map_or(0, |mirror| mirror.end_of(copy.id)));
        let (first, last) = (copy.ledger.cursor + 1, end.saturating_sub(1));
        let orphaned =
            if first > last { 0 } else { last - first + 1 - copy.ledger.passed.count(first, last) };
        tracing::error!(dir = %dir.display(), orphaned, "the directory holds another queue than the one that was here");
        return Chosen { slot, is_copy: false, orphaned };
    }
    if slot.as_ref().is_some_and(|slot| slot.generation >= copy.generation) {
        return Chosen { slot, is_copy: false, orphaned: 0 };
    }
    tracing::error!(dir = %dir.display(), "a queue's ledger is missing, damaged or older than its copy: the copy is used");
    Chosen { slot: Some(copy), is_copy: true, orphaned: 0 }
}

/// The ledger and the slot that counts; neither when what has its name is no file, and was set aside.
fn open_ledger(storage: &dyn Storage) -> Result<(Option<LedgerFile>, Option<Slot>), OpenError> {
    let dir = storage.path().to_owned();
    let io_error = |doing: &str, source| OpenError::Io {
        dir: storage.path().to_owned(),
        doing: format!("{doing} {LEDGER_FILE}"),
        source,
    };
    match LedgerFile::open(storage) {
        Ok(Ok((file, slot))) => Ok((Some(file), slot)),
        Ok(Err(found)) => {
            Err(OpenError::Version { dir, file: LEDGER_FILE.to_owned(), found, known: VERSION })
        }
        Err(error) if is_unusable(&error) => {
            set_foreign_aside(storage, LEDGER_FILE).map_err(|source| io_error("set aside", source))?;
            Ok((None, None))
        }
        Err(source) => Err(io_error("read", source)),
    }
}

/// Renames what has a name of ours and cannot be opened.
fn set_foreign_aside(storage: &dyn Storage, name: &str) -> io::Result<()> {
    let aside = storage.set_aside(name)?;
    tracing::error!(dir = %storage.path().display(), file = name, aside, "what had the name of a file of a queue and was none was set aside");
    Ok(())
}

/// Reads the header of one segment. What is behind `len_max` was never written by a log, and is not read.
fn inspect(storage: &dyn Storage, first: u64, len_max: u64) -> Result<Found, OpenError> {
    let (dir, name) = (storage.path().to_owned(), segment_name(first));
    let read = || {
        let file = storage.open_at_start(&name)?;
        let len = file.len()?;
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let read = read_around_bad_sectors(&*file, &mut bytes, 0)?;
        Ok((len, SegmentHeader::decode(&bytes[..read])))
    };
    let read = read().map(|(len, header)| {
        if len > len_max {
            tracing::error!(dir = %dir.display(), segment = name, len, len_max, "a segment is longer than any that a queue writes; what is behind that is not read");
        }
        (len.min(len_max), header)
    });
    match read {
        Ok((len, Ok(header))) => Ok(Found { first, len, header: Some(header) }),
        Ok((len, Err(BadHeader::Damaged))) => {
            tracing::error!(dir = %dir.display(), segment = name, "a segment's header was found damaged; its records are kept");
            Ok(Found { first, len, header: None })
        }
        Ok((_, Err(BadHeader::Version(found)))) => {
            Err(OpenError::Version { dir, file: name, found, known: VERSION })
        }
        // It holds nothing that can be read, as one of another log does.
        Err(error) if is_unusable(&error) => Ok(Found { first, len: 0, header: None }),
        Err(source) => Err(OpenError::Io { dir, doing: format!("read {name}"), source }),
    }
}

struct Recovering<'a> {
    storage: &'a dyn Storage,
    id: Uuid,
    epoch: Epoch,
    found: Vec<Found>,
    slot: Option<Slot>,
    /// The slot is not that of the file.
    is_copy: bool,
    /// Records below it were acknowledged, by the end record; 0 when it is not known.
    acknowledged_end: u64,
    set_aside: u64,
    /// Upstream says how far it has the log: what is missing here may have arrived, and counts as lost after that only.
    does_upstream_say: bool,
    /// The longest file of a segment: what is more of one was not written by a log, and must not evict records.
    file_len_max: u64,
}

/// What was being done when the disk said no.
type Failed = (String, io::Error);

impl Recovering<'_> {
    /// Renames what holds nothing of this log: segments of another one, and those too short for a record. With no id
    /// known, that is all of them. Their range of first sequences.
    fn set_strangers_aside(&mut self, is_known: bool) -> Result<Option<(u64, u64)>, Failed> {
        let (mut range, mut kept) = (None, Vec::with_capacity(self.found.len()));
        for found in std::mem::take(&mut self.found) {
            let is_stranger = match found.header {
                Some(header) => header.id != self.id || header.first != found.first,
                None => !is_known || found.len <= SEGMENT_HEADER,
            };
            if !is_stranger {
                kept.push(found);
                continue;
            }
            let name = segment_name(found.first);
            let aside =
                self.storage.set_aside(&name).map_err(|error| (format!("set {name} aside"), error))?;
            tracing::error!(dir = %self.storage.path().display(), segment = name, aside, "a file that holds no records of this queue was set aside");
            self.set_aside += 1;
            let (first, last) = range.get_or_insert((found.first, found.first));
            (*first, *last) = ((*first).min(found.first), (*last).max(found.first));
        }
        self.found = kept;
        Ok(range)
    }

    fn recover(&mut self) -> Result<(State, Arc<dyn File>), Failed> {
        let mut ledger = self.slot.as_ref().map(|slot| slot.ledger.clone()).unwrap_or_default();
        let (cursor, known_end) = (ledger.cursor, ledger.next_sequence.max(self.acknowledged_end));
        let mut segments: VecDeque<Segment> = VecDeque::with_capacity(self.found.len() + 1);
        for found in &self.found {
            let created_ms = found.header.map_or(0, |header| header.created_ms);
            // Known from neither place, its records are sent under a new epoch, and perhaps twice.
            let known = found.header.map(|header| header.epoch).or_else(|| ledger.epochs.of(found.first));
            let epoch = known.unwrap_or_else(Epoch::random);
            let segment = Segment::new(found.first, epoch, found.len, created_ms);
            // What its records expire at is not known before they are read.
            segments.push_back(Segment {
                is_damaged: found.header.is_none(),
                expires_ms: u64::MAX,
                first_gone_ms: 0,
                allocated: found.len.min(self.file_len_max),
                ..segment
            });
        }
        let mut holes = Vec::new();
        let (mut last, mut latest_ms) = (None, 0);
        if let (Some(found), Some(segment)) = (self.found.last(), segments.back_mut()) {
            let name = segment_name(found.first);
            let end = self.end(found, segment, known_end, &mut holes);
            let (file, next, newest_ms) = end.map_err(|error| (format!("recover {name}"), error))?;
            (last, latest_ms) = (Some((file, next)), newest_ms);
        }
        // What is behind the last record that can be read was there when the ledger was written: its sequences are
        // never given away again.
        let end = last.as_ref().map_or(0, |(_, next)| *next);
        let next_sequence = end.max(cursor + 1).max(known_end);
        let active = match last {
            Some((file, next)) if next == next_sequence => file,
            _ => {
                let header =
                    SegmentHeader { id: self.id, epoch: self.epoch, first: next_sequence, created_ms: 0 };
                let name = segment_name(next_sequence);
                let file = create_segment(self.storage, header).map_err(|e| (format!("make {name}"), e))?;
                segments.push_back(Segment::new(next_sequence, self.epoch, SEGMENT_HEADER, 0));
                holes.push((end.max(1), next_sequence - 1));
                file
            }
        };
        let oldest = segments.front().map_or(next_sequence, |segment| segment.first);
        let has_ledger = self.slot.is_some();
        let latest_ms = segments.iter().map(|segment| segment.created_ms).fold(latest_ms, u64::max);
        ledger.epochs.follow(&segments, end, self.epoch, next_sequence);
        if has_ledger {
            // A segment is deleted after the ledger says why; this one went otherwise, or the ledger was set back.
            holes.push((cursor + 1, oldest - 1));
            if self.does_upstream_say && cursor + 1 < oldest {
                let epoch = ledger.epochs.of(cursor + 1).unwrap_or(Epoch::NONE);
                segments.push_front(Segment::missing(cursor + 1, epoch));
            }
        }
        let mut state = State::new(segments, next_sequence, ledger);
        state.now_ms = latest_ms;
        if !has_ledger {
            // Nobody knows what became of those before: the cursor is gone.
            state.advance(oldest - 1);
        }
        if self.does_upstream_say {
            state.unproven = holes;
        } else {
            for (first, last) in holes {
                state.pass(first, last, Cause::Damaged, "");
            }
        }
        self.see_oldest(&mut state);
        Ok((state, active))
    }

    /// Reads when the oldest pending record was enqueued: without a reader nothing else would tell before the cursor moves.
    /// Reads one segment at most, if its records are whole.
    fn see_oldest(&self, state: &mut State) {
        let oldest = state.cursor + 1;
        let behind = state.segments.partition_point(|segment| segment.first <= oldest);
        for segment in state.segments.range(behind.saturating_sub(1)..) {
            let entry = segment.entry_before(oldest);
            let Ok(file) = self.storage.open(&segment_name(segment.first)) else { continue };
            let seed = frame_seed(self.id, segment.first);
            let mut scan =
                Scan::new(file, seed, segment.epoch, entry.offset, entry.sequence, segment.len, u64::MAX);
            // What cannot be read here is found, and counted, by the reader.
            while let Ok(step) = scan.step() {
                match step {
                    Step::Record(record) if record.sequence >= oldest => {
                        return state.see(record.sequence, record.enqueued_ms);
                    }
                    Step::Record(_) | Step::Hole { .. } => {}
                    Step::End => break,
                }
            }
        }
    }

    /// Finds where the last segment ends and cuts off what is behind; its file, the next sequence, and when the last record
    /// was enqueued.
    fn end(
        &self,
        found: &Found,
        segment: &mut Segment,
        known_end: u64,
        holes: &mut Vec<(u64, u64)>,
    ) -> io::Result<(Arc<dyn File>, u64, u64)> {
        let file = self.storage.open(&segment_name(found.first))?;
        if found.header.is_none() {
            let header =
                SegmentHeader { id: self.id, epoch: segment.epoch, first: found.first, created_ms: 0 };
            file.write_all_at(&header.encode(), 0)?;
        }
        let seed = frame_seed(self.id, found.first);
        let mut scan =
            Scan::new(file.clone(), seed, segment.epoch, SEGMENT_HEADER, found.first, found.len, u64::MAX);
        segment.expires_ms = 0;
        let mut newest_ms = 0;
        loop {
            match scan.step()? {
                Step::Record(record) => {
                    newest_ms = record.enqueued_ms;
                    let offset = scan.offset - frame_len(record.payload.len());
                    segment.expires_ms = segment.expires_ms.max(record.expires_ms.unwrap_or(u64::MAX));
                    segment.add_entry(IndexEntry {
                        sequence: record.sequence,
                        offset,
                        enqueued_ms: record.enqueued_ms,
                    });
                }
                Step::Hole { first, last } => holes.push((first, last)),
                Step::End => break,
            }
        }
        let (end, next) = (scan.offset, scan.expected);
        if next < known_end {
            // Not torn: it was whole once. Nothing is written to this file again, and it is set aside later as it is.
            segment.len = found.len;
        } else {
            if found.len > end && !is_zero(&*file, end, found.len)? {
                let torn_bytes = found.len - end;
                tracing::warn!(segment = found.first, torn_bytes, "the torn tail of a queue was cut off");
            }
            if found.len != end {
                file.set_len(end)?;
            }
            segment.len = end;
        }
        segment.allocated = segment.len.min(self.file_len_max);
        // After a kill the records may be in the page cache only; they are given to readers as being on disk.
        file.sync_data()?;
        Ok((file, next, newest_ms))
    }

    fn ledger_file(&self, state: &mut State, file: Option<LedgerFile>) -> io::Result<LedgerFile> {
        let mut file = match file {
            Some(file) => file,
            None => LedgerFile::create(self.storage)?,
        };
        if let Some(slot) = self.slot.as_ref().filter(|_| self.is_copy) {
            file.generation = file.generation.max(slot.generation);
        }
        if self.slot.is_none() || self.is_copy {
            // Both slots: one of a log that was here before must not win.
            for _ in 0..2 {
                let image = file.image(self.id, state.ledger_now());
                file.write(&image)?;
            }
            self.storage.sync_dir()?;
        }
        Ok(file)
    }
}

/// Space that was allocated ahead, and nothing else.
fn is_zero(file: &dyn File, mut from: u64, to: u64) -> io::Result<bool> {
    let mut bytes = vec![0; 64 << 10];
    while from < to {
        let len = bytes.len().min((to - from) as usize);
        let read = file.read_at(&mut bytes[..len], from)?;
        if read == 0 || bytes[..read].iter().any(|byte| *byte != 0) {
            return Ok(read == 0);
        }
        from += read as u64;
    }
    Ok(true)
}
