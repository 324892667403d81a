//! The one thread that writes: everything that arrived during the last sync goes to disk with the next one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::AppendError;
use crate::format::{
    CursorSlot, SEGMENT_HEADER, SLOT, SegmentHeader, UNFINISHED, encode_frame, frame_len, frame_seed,
    segment_name,
};
use crate::limits::Full;
use crate::losses::Cause;
use crate::state::{Pending, Segment, Shared};
use crate::storage::{File, Storage};

/// A moved cursor waits this long for company before it is written: a restart resends that much.
const CURSOR_LAG: Duration = Duration::from_secs(1);
/// Capacity that the write buffer keeps between batches.
const KEPT_CAPACITY: usize = 256 << 10;

/// The cursor file.
pub(crate) struct CursorFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) generation: u64,
}

impl CursorFile {
    pub(crate) fn write(&mut self, id: uuid::Uuid, cursor: u64) -> io::Result<()> {
        self.generation += 1;
        let slot = CursorSlot { id, generation: self.generation, cursor };
        self.file.write_all_at(&slot.encode(), self.generation % 2 * SLOT)?;
        self.file.sync_data()
    }
}

/// Makes an empty segment that is on disk, name and all, when this returns.
pub(crate) fn create_segment(storage: &dyn Storage, header: SegmentHeader) -> io::Result<Arc<dyn File>> {
    let name = segment_name(header.first);
    let unfinished = format!("{name}{UNFINISHED}");
    let file = storage.create(&unfinished)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    storage.rename(&unfinished, &name)?;
    storage.sync_dir()?;
    Ok(file)
}

/// The segment that is appended to.
struct Active {
    file: Arc<dyn File>,
    seed: u32,
    len: u64,
    /// A write or sync failed: what is behind `len` is unknown, so nothing more is written to this file.
    is_abandoned: bool,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    active: Active,
    cursor: CursorFile,
    cursor_due: Option<Instant>,
    /// Then it is tried when it is due, not whenever there is a segment to delete.
    cursor_failed: bool,
    next_sequence: u64,
    bytes: Vec<u8>,
}

/// Tells the readers and `close` that nothing follows, also when the thread panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.storage.release();
        self.0.published.send_modify(|published| published.has_ended = true);
    }
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, active: Arc<dyn File>, cursor: CursorFile) -> Self {
        let mut state = shared.state();
        let (len, first, next_sequence) = (state.active().len, state.active().first, state.next_sequence);
        drop(state);
        let active = Active { file: active, seed: frame_seed(shared.id, first), len, is_abandoned: false };
        Self {
            shared,
            active,
            cursor,
            cursor_due: None,
            cursor_failed: false,
            next_sequence,
            bytes: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let ending = Ending(self.shared.clone());
        let mut batch = VecDeque::new();
        loop {
            let is_closing = self.wait(&mut batch);
            self.commit(&mut batch);
            self.expire_segments();
            self.persist_cursor(is_closing);
            if is_closing {
                break;
            }
        }
        drop(self);
        drop(ending);
    }

    /// Sleeps until there is something to do; takes all appends that wait. True when they are the last ones.
    fn wait(&mut self, batch: &mut VecDeque<Pending>) -> bool {
        let shared = self.shared.clone();
        let mut state = shared.state();
        loop {
            if state.cursor_moved && self.cursor_due.is_none() {
                self.cursor_due = Some(Instant::now() + CURSOR_LAG);
            }
            let has_done_segment = !self.cursor_failed && state.has_done_segment();
            let left = self.cursor_due.map(|due| due.saturating_duration_since(Instant::now()));
            if !state.queue.is_empty()
                || state.is_closing
                || has_done_segment
                || left.is_some_and(|left| left.is_zero())
            {
                std::mem::swap(&mut state.queue, batch);
                state.queue_bytes = 0;
                return state.is_closing;
            }
            let unpoisoned = "no step on the state panics";
            state = match left {
                None => shared.work.wait(state).expect(unpoisoned),
                Some(left) => shared.work.wait_timeout(state, left).expect(unpoisoned).0,
            };
        }
    }

    /// Writes a batch: one write and one sync per segment that it touches.
    fn commit(&mut self, batch: &mut VecDeque<Pending>) {
        while let Some(first) = batch.front() {
            let (need, now_ms) = (frame_len(first.record.len()), first.enqueued_ms);
            let written = self.make_room(need, now_ms).and_then(|room| {
                let is_over = self.active.len + need > self.shared.options.segment_len_max();
                if self.active.is_abandoned || (is_over && self.active.len > SEGMENT_HEADER) {
                    self.roll(now_ms)?;
                }
                self.write_run(batch, room)
            });
            match written {
                Ok(()) => {}
                Err(full @ AppendError::Full { .. }) => {
                    self.shared.state().refuse();
                    if let Some(refused) = batch.pop_front() {
                        let _gone = refused.reply.send(Err(full));
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        appends = batch.len(),
                        "a batch was not written"
                    );
                    for pending in batch.drain(..) {
                        let _gone = pending.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes as many of the batch as fit into the segment and the room, syncs, and answers them.
    fn write_run(&mut self, batch: &mut VecDeque<Pending>, room: u64) -> Result<(), AppendError> {
        let left = self.shared.options.segment_len_max().saturating_sub(self.active.len).min(room);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY);
        let mut count = 0;
        for pending in batch.iter() {
            if count > 0 && self.bytes.len() as u64 + frame_len(pending.record.len()) > left {
                break;
            }
            let sequence = self.next_sequence + count as u64;
            let Pending { record, enqueued_ms, expires_ms, .. } = pending;
            encode_frame(&mut self.bytes, self.active.seed, sequence, *enqueued_ms, *expires_ms, record);
            count += 1;
        }
        let Active { file, len, .. } = &self.active;
        let written = file
            .write_all_at(&self.bytes, *len)
            .map_err(|source| ("write records", source))
            .and_then(|()| file.sync_data().map_err(|source| ("sync records to the disk", source)));
        if let Err((doing, source)) = written {
            // After a failed sync the kernel may have forgotten the pages and would report the next one as good: this
            // file is never written again. Cutting it keeps a reopened log from finding what was not acknowledged.
            self.active.is_abandoned = true;
            if let Err(error) = self.active.file.set_len(self.active.len) {
                tracing::warn!(%error, "the failed part of a segment was not cut off");
            }
            return Err(self.failed(doing, source));
        }
        self.active.len += self.bytes.len() as u64;
        let mut state = self.shared.state();
        state.committed(batch.iter().take(count).map(|p| (frame_len(p.record.len()), p.enqueued_ms)));
        let next_sequence = state.next_sequence;
        drop(state);
        for (pending, sequence) in batch.drain(..count).zip(self.next_sequence..) {
            let _gone = pending.reply.send(Ok(sequence));
        }
        self.next_sequence = next_sequence;
        self.shared.published.send_modify(|published| published.next_sequence = next_sequence);
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> AppendError {
        AppendError::Write { dir: self.shared.storage.path().to_owned(), doing, source: Arc::new(source) }
    }

    /// Begins a new segment.
    fn roll(&mut self, now_ms: u64) -> Result<(), AppendError> {
        let (id, first) = (self.shared.id, self.next_sequence);
        let header = SegmentHeader { id, first, created_ms: now_ms };
        let file = create_segment(&*self.shared.storage, header)
            .map_err(|source| self.failed("begin a segment", source))?;
        let mut state = self.shared.state();
        if state.active().first == first {
            // It held no record, and the new file has taken its name.
            state.segments.pop_back();
        }
        state.segments.push_back(Segment::new(first, SEGMENT_HEADER, now_ms));
        drop(state);
        self.active = Active { file, seed: frame_seed(id, first), len: SEGMENT_HEADER, is_abandoned: false };
        Ok(())
    }

    /// Bytes that may be written now, at least `need`; the oldest segments give way when the options say so.
    fn make_room(&mut self, need: u64, now_ms: u64) -> Result<u64, AppendError> {
        let options = self.shared.options.clone();
        let free = self.shared.storage.free_bytes().map_err(|e| self.failed("ask for free space", e))?;
        // A reader may still have a dropped file open, so the disk's own figure can come late.
        let mut dropped = 0;
        loop {
            let mut state = self.shared.state();
            let (total, segments, is_empty) =
                (state.bytes(), state.segments.len(), state.active().is_empty());
            let has_one_done = state.has_done_segment();
            drop(state);
            let by_bytes = options.bytes_max.saturating_sub(total);
            let by_disk = (free + dropped).saturating_sub(options.keep_free_bytes);
            let room = by_bytes.min(by_disk);
            if room >= need {
                return Ok(room);
            }
            let is_out_of_reach =
                options.keep_free_bytes.saturating_add(need + SEGMENT_HEADER) > free + dropped + total;
            let may_drop = has_one_done || (options.full == Full::DropOldest && !is_out_of_reach);
            if !may_drop || (segments == 1 && is_empty) {
                return Err(AppendError::Full { dir: self.shared.storage.path().to_owned() });
            }
            if segments == 1 {
                self.roll(now_ms)?;
            }
            dropped += self.drop_oldest(Cause::Evicted);
        }
    }

    /// Segments of which the newest record is over the age limit go as a whole.
    fn expire_segments(&mut self) {
        let Some(age_max_ms) = self.shared.options.age_max_ms else { return };
        loop {
            let state = self.shared.state();
            let newest =
                state.segments.back().and_then(|active| active.marks.last()).map(|mark| mark.enqueued_ms);
            let oldest_end = state.segments.get(1).map(|next| next.created_ms);
            drop(state);
            match (newest, oldest_end) {
                (Some(newest), Some(end)) if end.saturating_add(age_max_ms) <= newest => {
                    self.drop_oldest(Cause::Expired);
                }
                _ => return,
            }
        }
    }

    /// Bytes given back.
    fn drop_oldest(&mut self, cause: Cause) -> u64 {
        let mut state = self.shared.state();
        let before = state.stats();
        let Some(segment) = state.drop_oldest(cause) else { return 0 };
        let records = before.records - state.stats().records;
        drop(state);
        if records > 0 {
            tracing::warn!(
                segment = segment.first,
                records,
                ?cause,
                "the oldest records of a queue were dropped"
            );
        }
        self.remove(&[segment.first]);
        segment.len
    }

    fn remove(&self, segments: &[u64]) {
        if segments.is_empty() {
            return;
        }
        let storage = &self.shared.storage;
        let removed = segments.iter().try_for_each(|first| storage.remove(&segment_name(*first)));
        if let Err(error) = removed.and_then(|()| storage.sync_dir()) {
            // It is below the cursor: the next open removes it.
            tracing::warn!(dir = %storage.path().display(), %error, "a segment was not removed");
        }
    }

    /// Writes the cursor when it is due, and then deletes the segments below it, in this order: a gap between cursor and
    /// first segment at open is then a loss and not an advance that was forgotten.
    fn persist_cursor(&mut self, is_closing: bool) {
        let is_due = self.cursor_due.is_some_and(|due| due <= Instant::now());
        let mut state = self.shared.state();
        let cursor = state.cursor;
        let is_wanted = state.cursor_moved && (is_closing || is_due);
        if !is_wanted && (self.cursor_failed || !state.has_done_segment()) {
            return;
        }
        state.cursor_moved = false;
        drop(state);
        let written = self.cursor.write(self.shared.id, cursor);
        self.cursor_failed = written.is_err();
        self.cursor_due = None;
        let mut state = self.shared.state();
        if let Err(error) = written {
            state.cursor_moved = true;
            drop(state);
            tracing::warn!(dir = %self.shared.storage.path().display(), %error, cursor, "a queue's cursor was not written");
            return;
        }
        let done = state.drop_done(cursor);
        drop(state);
        self.remove(&done);
    }
}
