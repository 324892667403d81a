//! The one thread that writes: everything that arrived during the last sync goes to disk with the next one.
//!
//! How long it waits for company follows the load. One producer that waits for its answers is written at once, with one
//! sync for each append. When the batch before had many, their producers are on the way back with their next records: it
//! waits for as many again, but never longer than a fraction of what a sync takes here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::AppendError;
use crate::format::{
    SEGMENT_HEADER, SegmentHeader, UNFINISHED, encode_frame, frame_len, frame_seed, segment_name,
};
use crate::ledger::LedgerFile;
use crate::state::{Pending, Segment, Shared};
use crate::storage::{File, Storage};

/// A moved cursor waits this long for company before it is written: a restart resends that much.
const LEDGER_LAG: Duration = Duration::from_secs(1);
/// Capacity that the write buffer keeps between batches.
const KEPT_CAPACITY: usize = 256 << 10;
/// Of the last sync's time, how much a busy log waits for company: one in so many.
const PATIENCE: u32 = 4;
/// And never more: a card that takes a second for a sync must not cost a quarter more.
const PATIENCE_MAX: Duration = Duration::from_millis(2);
/// What a segment allocates ahead at first.
const AHEAD_MIN: u64 = 64 << 10;

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
pub(crate) struct Active {
    file: Arc<dyn File>,
    seed: u32,
    pub(crate) len: u64,
    pub(crate) allocated: u64,
    /// It follows one that was filled: its space is allocated at once.
    is_one_of_many: bool,
    /// A write or sync failed: what is behind `len` is unknown, so nothing more is written to this file.
    is_abandoned: bool,
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) active: Active,
    ledger: LedgerFile,
    ledger_due: Option<Instant>,
    /// Then it is tried when it is due, not whenever there is a segment to delete.
    ledger_failed: bool,
    /// The file system can allocate ahead.
    can_allocate: bool,
    next_sequence: u64,
    last_batch: usize,
    last_sync: Duration,
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
    pub(crate) fn new(shared: Arc<Shared>, active: Arc<dyn File>, ledger: LedgerFile) -> Self {
        let mut state = shared.state();
        let is_one_of_many = state.segments.len() > 1;
        let (len, first, next_sequence) = (state.active().len, state.active().first, state.next_sequence);
        drop(state);
        let seed = frame_seed(shared.id, first);
        let active = Active { file: active, seed, len, allocated: len, is_one_of_many, is_abandoned: false };
        Self {
            shared,
            active,
            ledger,
            ledger_due: None,
            ledger_failed: false,
            can_allocate: true,
            next_sequence,
            last_batch: 0,
            last_sync: Duration::ZERO,
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
            self.persist(is_closing);
            if is_closing {
                break;
            }
        }
        self.seal();
        drop(self);
        drop(ending);
    }

    /// Sleeps until there is something to do; takes all appends that wait. True when they are the last ones.
    fn wait(&mut self, batch: &mut VecDeque<Pending>) -> bool {
        let unpoisoned = "no step on the state panics";
        let shared = self.shared.clone();
        let mut state = shared.state();
        loop {
            if state.is_ledger_behind && self.ledger_due.is_none() {
                self.ledger_due = Some(Instant::now() + LEDGER_LAG);
            }
            let has_done_segment = !self.ledger_failed && state.has_done_segment();
            let left = self.ledger_due.map(|due| due.saturating_duration_since(Instant::now()));
            if !state.queue.is_empty()
                || state.is_closing
                || has_done_segment
                || !state.telling.is_empty()
                || left.is_some_and(|left| left.is_zero())
            {
                break;
            }
            state = match left {
                None => shared.work.wait(state).expect(unpoisoned),
                Some(left) => shared.work.wait_timeout(state, left).expect(unpoisoned).0,
            };
        }
        let company = self.last_batch;
        if (1..company).contains(&state.queue.len()) {
            let patience = (self.last_sync / PATIENCE).min(PATIENCE_MAX);
            state.wanted = company;
            let is_alone = |state: &mut crate::state::State| state.queue.len() < company && !state.is_closing;
            state = shared.work.wait_timeout_while(state, patience, is_alone).expect(unpoisoned).0;
            state.wanted = 1;
        }
        std::mem::swap(&mut state.queue, batch);
        state.queue_bytes = 0;
        shared.waiting_bytes.store(0, Ordering::Relaxed);
        shared.taken.notify_waiters();
        if !batch.is_empty() {
            self.last_batch = batch.len();
        }
        state.is_closing
    }

    /// Writes a batch: one write and one sync per segment that it touches.
    fn commit(&mut self, batch: &mut VecDeque<Pending>) {
        while let Some(first) = batch.front() {
            let (need, now_ms) = (frame_len(first.record.len()), first.enqueued_ms);
            let header = if self.must_roll(need) { SEGMENT_HEADER } else { 0 };
            let written = self.make_room(need + header, now_ms).and_then(|room| {
                if self.must_roll(need) {
                    self.roll(now_ms)?;
                }
                self.write_run(batch, room - header)
            });
            match written {
                Ok(()) => {}
                Err(full @ AppendError::Full { .. }) => {
                    if let Some(refused) = batch.pop_front() {
                        self.shared.state().refuse(&self.shared.options.tag_of(&refused.record));
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

    /// The last segment is full, or its file not to be written any more.
    fn must_roll(&self, need: u64) -> bool {
        let is_over = self.active.len + need > self.shared.options.segment_len_max();
        self.active.is_abandoned || (is_over && self.active.len > SEGMENT_HEADER)
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
        self.allocate(room)?;
        let begun = Instant::now();
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
        self.last_sync = begun.elapsed();
        self.active.len += self.bytes.len() as u64;
        self.active.allocated = self.active.allocated.max(self.active.len);
        let mut state = self.shared.state();
        state.committed(batch.iter().take(count));
        state.wrote(self.bytes.len() as u64);
        let next_sequence = state.next_sequence;
        drop(state);
        for (pending, sequence) in batch.drain(..count).zip(self.next_sequence..) {
            let _gone = pending.reply.send(Ok(sequence));
        }
        self.next_sequence = next_sequence;
        self.shared.published.send_modify(|published| published.next_sequence = next_sequence);
        Ok(())
    }

    /// Makes sure that what is about to be written finds its space, and some ahead of it within `room`.
    fn allocate(&mut self, room: u64) -> Result<(), AppendError> {
        let Active { file, len, allocated, is_one_of_many, .. } = &self.active;
        let end = len + self.bytes.len() as u64;
        if end <= *allocated || !self.can_allocate {
            return Ok(());
        }
        let whole = self.shared.options.segment_len_max();
        let ahead = if *is_one_of_many { whole } else { allocated.max(len).saturating_mul(2).max(AHEAD_MIN) };
        let ahead = ahead.min(whole).min(len.saturating_add(room)).max(end);
        let is_full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        let allocated = match file.allocate(ahead) {
            // What a full disk gave of it stays with the file until it is sealed.
            Err(error) if is_full(&error) => file.allocate(end).map(|()| end),
            allocated => allocated.map(|()| ahead),
        };
        match allocated {
            Ok(allocated) => {
                self.active.allocated = allocated;
                self.shared.state().active().allocated = allocated;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.can_allocate = false;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                Err(AppendError::Full { dir: self.shared.storage.path().to_owned() })
            }
            Err(error) => Err(self.failed("allocate space", error)),
        }
    }

    pub(crate) fn failed(&self, doing: &'static str, source: io::Error) -> AppendError {
        AppendError::Write { dir: self.shared.storage.path().to_owned(), doing, source: Arc::new(source) }
    }

    /// Gives back what the last segment has allocated ahead. It is not worth a sync: what is behind its frames is not read.
    fn seal(&mut self) {
        if self.active.allocated > self.active.len
            && let Err(error) = self.active.file.set_len(self.active.len)
        {
            tracing::warn!(dir = %self.shared.storage.path().display(), %error, "space allocated ahead was not given back");
            return;
        }
        self.active.allocated = self.active.len;
        self.shared.state().active().seal();
    }

    /// Begins a new segment.
    pub(crate) fn roll(&mut self, now_ms: u64) -> Result<(), AppendError> {
        self.seal();
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
        state.wrote(SEGMENT_HEADER);
        drop(state);
        self.active = Active {
            file,
            seed: frame_seed(id, first),
            len: SEGMENT_HEADER,
            allocated: SEGMENT_HEADER,
            is_one_of_many: !self.active.is_abandoned,
            is_abandoned: false,
        };
        Ok(())
    }

    /// Writes the ledger when it is due, and then deletes the segments below its cursor, in this order: a segment that is
    /// missing at open is then a loss and not an advance that was forgotten.
    fn persist(&mut self, is_closing: bool) {
        let is_due = self.ledger_due.is_some_and(|due| due <= Instant::now());
        let mut state = self.shared.state();
        let telling = std::mem::take(&mut state.telling);
        if !telling.is_empty() && state.ledger.tell() {
            state.is_ledger_behind = true;
        }
        let has_done_segment = !self.ledger_failed && state.has_done_segment();
        let is_wanted = state.is_ledger_behind && (is_closing || is_due || !telling.is_empty());
        drop(state);
        let written = if is_wanted || has_done_segment { self.write_ledger() } else { Ok(()) };
        let answer = match written {
            Ok(()) => Ok(self.shared.state().ledger.telling()),
            Err(error) => Err(self.failed("write the ledger", error)),
        };
        for waiting in telling {
            let _gone = waiting.send(answer.clone());
        }
    }

    pub(crate) fn write_ledger(&mut self) -> io::Result<()> {
        let mut state = self.shared.state();
        let image = self.ledger.image(self.shared.id, state.ledger_now());
        let cursor = state.cursor;
        state.is_ledger_behind = false;
        drop(state);
        self.ledger_due = None;
        let written = self.ledger.write(&image);
        self.ledger_failed = written.is_err();
        let mut state = self.shared.state();
        state.wrote(image.len() as u64);
        if let Err(error) = written {
            state.is_ledger_behind = true;
            drop(state);
            tracing::warn!(dir = %self.shared.storage.path().display(), %error, cursor, "a queue's ledger was not written");
            return Err(error);
        }
        let done = state.drop_done(cursor);
        drop(state);
        self.remove(&done);
        Ok(())
    }
}
