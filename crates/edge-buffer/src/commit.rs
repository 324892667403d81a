//! What a writer does: puts a batch into the last segment with one write and one sync, begins new segments, and keeps the
//! ledger's file.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::answers::Answers;
use crate::error::AppendError;
use crate::error::chain;
use crate::fence::Fence;
use crate::format::{
    SEGMENT_HEADER, SegmentHeader, UNFINISHED, encode_frame, frame_len, frame_seed, segment_name,
};
use crate::ledger::LedgerFile;
use crate::mirror::Mirror;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::state::Pending;
use crate::stats::Headroom;
use crate::storage::{File, Storage};

/// Capacity that the write buffer keeps between batches.
const KEPT_CAPACITY: usize = 256 << 10;
/// What a segment allocates ahead at first.
const AHEAD_MIN: u64 = 64 << 10;

/// Makes an empty segment that is on disk, name and all, when this returns.
pub(crate) fn create_segment(storage: &dyn Storage, header: SegmentHeader) -> io::Result<Arc<dyn File>> {
    let name = segment_name(header.first);
    let unfinished = format!("{name}{UNFINISHED}");
    // Under another name until its header is on disk: a segment that has its name has a header that can be read.
    let file = storage.create(&unfinished)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    if let Err(error) = storage.rename(&unfinished, &name) {
        if error.kind() != io::ErrorKind::IsADirectory {
            return Err(error);
        }
        storage.set_aside(&name)?;
        storage.rename(&unfinished, &name)?;
    }
    // Before the first record in it is acknowledged: a power cut would otherwise lose the name, and the records with it.
    storage.sync_dir()?;
    Ok(file)
}

/// The segment that is appended to.
pub(crate) struct Active {
    pub(crate) file: Arc<dyn File>,
    seed: u32,
    pub(crate) len: u64,
    pub(crate) allocated: u64,
    /// It follows one that was filled: its space is allocated at once.
    is_one_of_many: bool,
    /// Nothing more is written to this file: a write or sync failed, so that what is behind `len` is unknown, or it may not be
    /// longer, or the log was opened since, so that its epoch is over.
    pub(crate) is_abandoned: bool,
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) active: Active,
    pub(crate) ledger: LedgerFile,
    pub(crate) mirror: Option<Mirror>,
    /// The last check of the files failed, which was logged.
    pub(crate) is_watch_failing: bool,
    /// The file system can allocate ahead.
    can_allocate: bool,
    /// Records of one write: fewer when the process may write no file that takes more.
    run_max: usize,
    next_sequence: u64,
    bytes: Vec<u8>,
    /// As in the state, without a lock.
    pub(crate) headroom: Headroom,
    pub(crate) answers: Answers,
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        active: Arc<dyn File>,
        ledger: LedgerFile,
        mirror: Option<Mirror>,
    ) -> Self {
        let mut state = shared.state();
        let is_one_of_many = state.segments.len() > 1;
        let (len, first, next_sequence) = (state.active().len, state.active().first, state.next_sequence);
        // Not at open, which a full disk must not keep from reading: at the first append.
        let is_abandoned = state.active().epoch != shared.epoch;
        drop(state);
        let seed = frame_seed(shared.id, first);
        let active = Active { file: active, seed, len, allocated: len, is_one_of_many, is_abandoned };
        Self {
            shared,
            active,
            ledger,
            mirror,
            is_watch_failing: false,
            can_allocate: true,
            next_sequence,
            bytes: Vec::new(),
            headroom: Headroom::Enough,
            answers: Answers::default(),
            run_max: usize::MAX,
        }
    }

    /// Writes a batch: one write and one sync per segment that it touches.
    pub(crate) fn commit(&mut self, batch: &mut VecDeque<Pending>) {
        self.run_max = usize::MAX;
        while let Some(first) = batch.front() {
            let (need, now_ms) = (frame_len(first.record.len()), first.enqueued_ms);
            let header = if self.must_roll(need) { SEGMENT_HEADER } else { 0 };
            // Space before anything is written: a full disk refuses this record and damages nothing.
            let written = self.make_space(need + header, now_ms).and_then(|headroom| {
                if self.must_roll(need) {
                    self.roll(now_ms)?;
                }
                self.write_run(batch, headroom - header)
            });
            match written {
                Ok(()) => {}
                Err(full @ AppendError::Full { .. }) => {
                    self.note_headroom(Headroom::Refusing);
                    // This record alone: a shorter one behind it may fit.
                    if let Some(refused) = batch.pop_front() {
                        let tag = self.shared.options.refused_tag(&refused.record);
                        self.shared.state().refuse(tag.as_deref());
                        let _gone = refused.reply.send(Err(full));
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        appends = batch.len(),
                        "a batch was not written"
                    );
                    // What waits behind it, too: a client that sends these again first would find them stored before.
                    let mut state = self.shared.state();
                    state.failing.failed(&error);
                    batch.extend(std::mem::take(&mut state.queue));
                    state.queue_bytes = 0;
                    // Before anybody can hand in the next one, which needs the lock of the state.
                    batch.iter().filter_map(|pending| pending.fence.as_ref()).for_each(Fence::set);
                    drop(state);
                    self.shared.has_taken(0);
                    for pending in batch.drain(..) {
                        let _gone = pending.reply.send(Err(error.clone()));
                    }
                }
            }
        }
        let mut state = self.shared.state();
        state.failing.busy_since = None;
        // Held only while another batch waits, whose sync they can overlap with.
        state.are_answers_held = state.has_company() && self.answers.are_held();
        if !state.are_answers_held {
            drop(state);
            self.answers.give_held();
        }
    }

    /// The last segment is full, or its file not to be written any more.
    fn must_roll(&self, need: u64) -> bool {
        let is_over = self.active.len + need > self.shared.options.segment_len_max();
        self.active.is_abandoned || (is_over && self.active.len > SEGMENT_HEADER)
    }

    /// Writes as many of the batch as fit into the segment and the free space, syncs, and answers them.
    fn write_run(&mut self, batch: &mut VecDeque<Pending>, headroom: u64) -> Result<(), AppendError> {
        let left = self.shared.options.segment_len_max().saturating_sub(self.active.len).min(headroom);
        // One large batch must not keep its memory for as long as the log is open.
        let kept = KEPT_CAPACITY.max(self.bytes.len());
        if self.bytes.capacity() > 4 * kept {
            self.bytes.shrink_to(kept);
        }
        self.bytes.clear();
        let mut count = 0;
        for pending in batch.iter() {
            // At least one: a record that is longer than a segment gets a segment of its own.
            let is_over = self.bytes.len() as u64 + frame_len(pending.record.len()) > left;
            if count > 0 && (is_over || count >= self.run_max) {
                break;
            }
            let sequence = self.next_sequence + count as u64;
            let Pending { record, enqueued_ms, expires_ms, .. } = pending;
            encode_frame(&mut self.bytes, self.active.seed, sequence, *enqueued_ms, *expires_ms, record);
            count += 1;
        }
        // Before the write: what `allocate` was granted, the write cannot be refused for want of space.
        if !self.allocate(headroom, count)? {
            return Ok(());
        }
        let begun = Instant::now();
        let Active { file, len, .. } = &self.active;
        let written =
            file.write_all_at(&self.bytes, *len).map_err(|source| ("write records", source)).and_then(|()| {
                // Only now: the disk is busy, and the thread of the answers takes the core from nobody.
                self.answers.give_held();
                file.sync_data().map_err(|source| ("sync records to the disk", source))
            });
        if let Err((doing, source)) = written {
            // After a failed sync the kernel may have forgotten the pages and would report the next one as good: this
            // file is never written again. Cutting it keeps a reopened log from finding what was not acknowledged.
            self.active.is_abandoned = true;
            if let Err(error) = self.active.file.set_len(self.active.len) {
                tracing::warn!(error = chain(&error), "the failed part of a segment was not cut off");
            }
            return Err(self.failed(doing, source));
        }
        let took = begun.elapsed();
        let end = self.next_sequence + count as u64;
        // After the sync, so that it never names a record that is not on disk. Not synced itself: after a power cut it may be a
        // second old, and a loss behind it is then counted too low (docs/decisions/0051).
        self.ledger.write_end(self.shared.id, end);
        if let Some(mirror) = &mut self.mirror {
            mirror.write_end(self.shared.id, end);
        }
        self.active.len += self.bytes.len() as u64;
        self.active.allocated = self.active.allocated.max(self.active.len);
        let mut state = self.shared.state();
        state.committed(batch.iter().take(count), self.shared.options.age_max_ms);
        state.wrote(self.bytes.len() as u64);
        state.synced(took);
        let next_sequence = state.next_sequence;
        drop(state);
        // Readers first: who has heard that its record is on disk finds it there.
        self.shared.published.send_modify(|published| published.next_sequence = next_sequence);
        self.answers.give(batch.drain(..count), self.next_sequence);
        self.next_sequence = next_sequence;
        Ok(())
    }

    /// Makes sure that what is about to be written, so many records, finds its space, and some ahead of it within `headroom`. False
    /// when the process may not write a file of that length (`RLIMIT_FSIZE`): the file ends here and the next one takes them, or takes half of
    /// them if this one is new.
    fn allocate(&mut self, headroom: u64, count: usize) -> Result<bool, AppendError> {
        // Ahead, so that most batches change no metadata: fdatasync then writes the data alone.
        let Active { file, len, allocated, is_one_of_many, .. } = &self.active;
        let end = len + self.bytes.len() as u64;
        if end <= *allocated || !self.can_allocate {
            return Ok(true);
        }
        let whole = self.shared.options.segment_len_max();
        let ahead = if *is_one_of_many { whole } else { allocated.max(len).saturating_mul(2).max(AHEAD_MIN) };
        let ahead = ahead.min(whole).min(len.saturating_add(headroom)).max(end);
        let is_full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        let is_too_large = |error: &io::Error| error.kind() == io::ErrorKind::FileTooLarge;
        let allocated = match file.allocate(ahead) {
            // What a full disk gave of it stays with the file until it is sealed.
            Err(error) if is_full(&error) || is_too_large(&error) => file.allocate(end).map(|()| end),
            allocated => allocated.map(|()| ahead),
        };
        match allocated {
            Ok(allocated) => {
                self.active.allocated = allocated;
                self.shared.state().active().allocated = allocated;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // Tried once: such a file system refuses it always.
                self.can_allocate = false;
                Ok(true)
            }
            Err(error) if is_too_large(&error) && self.active.len > SEGMENT_HEADER => {
                self.active.is_abandoned = true;
                Ok(false)
            }
            Err(error) if is_too_large(&error) && count > 1 => {
                self.run_max = count / 2;
                Ok(false)
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
    pub(crate) fn seal(&mut self) {
        if self.active.allocated > self.active.len
            && let Err(error) = self.active.file.set_len(self.active.len)
        {
            tracing::warn!(dir = %self.shared.storage.path().display(), error = chain(&error), "space allocated ahead was not given back");
            return;
        }
        self.active.allocated = self.active.len;
        self.shared.state().active().seal();
    }

    /// Begins a new segment.
    pub(crate) fn roll(&mut self, now_ms: u64) -> Result<(), AppendError> {
        self.answers.give_held();
        self.seal();
        let (id, epoch, first) = (self.shared.id, self.shared.epoch, self.next_sequence);
        let header = SegmentHeader { id, epoch, first, created_ms: now_ms };
        let file = create_segment(&*self.shared.storage, header)
            .map_err(|source| self.failed("begin a segment", source))?;
        let mut state = self.shared.state();
        if state.active().first == first {
            // It held no record, and the new file has taken its name.
            state.segments.pop_back();
        }
        state.segments.push_back(Segment::new(first, epoch, SEGMENT_HEADER, now_ms));
        state.wrote(SEGMENT_HEADER);
        drop(state);
        if let Some(mirror) = &self.mirror {
            // Once for each segment, since syncing it with every batch would double the syncs.
            mirror.sync();
        }
        self.active = Active {
            file,
            seed: frame_seed(id, first),
            len: SEGMENT_HEADER,
            allocated: SEGMENT_HEADER,
            // A file that was given up after an error says nothing about the load.
            is_one_of_many: !self.active.is_abandoned,
            is_abandoned: false,
        };
        Ok(())
    }

    /// Writes the ledger when it is due, and then deletes the segments below its cursor, in this order: a segment that is
    /// missing at open is then a loss and not an advance that was forgotten.
    pub(crate) fn persist(&mut self, is_closing: bool) {
        let mut state = self.shared.state();
        let is_due = state.ledger_due.is_some_and(|due| due <= Instant::now());
        let reporting = std::mem::take(&mut state.reporting);
        let ledger_waits = std::mem::take(&mut state.ledger_waits);
        if !reporting.is_empty() && state.ledger.freeze() {
            state.is_ledger_behind = true;
        }
        let has_done_segment = state.failing.ledger.is_none() && state.has_done_segment();
        let is_ledger_due = state.is_ledger_behind
            && (is_closing || is_due || !reporting.is_empty() || !ledger_waits.is_empty());
        drop(state);
        if is_due {
            self.check_files();
        }
        let written = if is_ledger_due || has_done_segment { self.write_ledger() } else { Ok(()) };
        for waiting in ledger_waits {
            let again =
                written.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()));
            let _gone = waiting.send(again);
        }
        let answer = match written {
            Ok(()) => Ok(self.shared.state().ledger.reporting()),
            Err(error) => Err(self.failed("write the ledger", error)),
        };
        for waiting in reporting {
            let _gone = waiting.send(answer.clone());
        }
    }

    pub(crate) fn write_ledger(&mut self) -> io::Result<()> {
        self.answers.give_held();
        let mut state = self.shared.state();
        let image = self.ledger.image(self.shared.id, state.ledger_now());
        let cursor = state.cursor;
        state.is_ledger_behind = false;
        state.ledger_due = None;
        drop(state);
        let written = self.ledger.write(&image);
        let mut state = self.shared.state();
        state.failing.ledger_ended(written.as_ref().err());
        state.wrote(image.len() as u64);
        if let Err(error) = written {
            state.has_not_written();
            drop(state);
            tracing::warn!(dir = %self.shared.storage.path().display(), error = chain(&error), cursor, "a queue's ledger was not written");
            return Err(error);
        }
        // Only below the cursor that was written: with a newer one a crash now would count what is between as lost.
        let done = state.segments.drop_below(cursor);
        drop(state);
        if let Some(mirror) = &mut self.mirror {
            mirror.write(&image);
        }
        self.remove(&done);
        Ok(())
    }
}
