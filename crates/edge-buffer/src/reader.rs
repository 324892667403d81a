//! Reads the records that are on disk, in order, a stretch at a time and never on the runtime's own threads.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::format::{LEDGER_FILE, Record, frame_seed, segment_name};
use crate::losses::Cause;
use crate::scan::{Scan, Step};
use crate::shared::{Published, Shared};

/// A fetch ends after this many bytes or records; a reader holds at most two fetches.
const FETCH_BYTES: usize = 256 << 10;
const FETCH_RECORDS: usize = 1024;

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Why there is no next record.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed. The reader has not moved: calling again tries again.
    #[error("queue {dir}: could not read {file}; check the disk and the system log")]
    Io {
        /// The log's directory.
        dir: PathBuf,
        /// The segment.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log was closed and everything committed was read.
    #[error("the queue is closed")]
    Closed,
}

/// Reads a log from its cursor on. Cheap to hold; several read independently.
pub struct Reader {
    /// Tells it from the other readers of the log.
    number: u64,
    shared: Arc<Shared>,
    published: watch::Receiver<Published>,
    /// The next sequence to be fetched.
    next: u64,
    fetched: VecDeque<Record>,
    place: Option<ReadPosition>,
    fetch: Option<JoinHandle<Fetched>>,
}

/// An open segment, read up to somewhere.
struct ReadPosition {
    segment: u64,
    scan: Scan,
}

struct Fetched {
    records: VecDeque<Record>,
    next: u64,
    place: Option<ReadPosition>,
    error: Option<ReadError>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let published = shared.published.subscribe();
        let next = shared.state().cursor + 1;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { number, shared, published, next, fetched: VecDeque::new(), place: None, fetch: None }
    }

    /// Waits for the next record that is on disk. `now_ms` gives the time, ms of Unix time: records that are expired then
    /// are passed over and counted. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self, now_ms: impl Fn() -> u64) -> Result<Record, ReadError> {
        loop {
            if let Some(record) = self.next_present(&now_ms).await? {
                return Ok(record);
            }
            self.more().await?;
        }
    }

    /// The next record that is on disk already, `None` when there is none: it waits for the disk, and for nobody else.
    /// Otherwise as [`Reader::next`].
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub async fn next_present(&mut self, now_ms: impl Fn() -> u64) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(record) = self.take_fetched(&now_ms) {
                // Whoever gets the record may tell how far it has the log, and what was lost before it must stand in the ledger
                // then, whatever dies: it would pass for something that arrived.
                if let Some(written) = self.shared.losses_written() {
                    self.unread(record);
                    self.shared.work.notify_one();
                    match written.await {
                        Ok(Ok(())) => continue,
                        Ok(Err(source)) => {
                            let (dir, file) = (self.shared.storage.path().to_owned(), LEDGER_FILE.to_owned());
                            return Err(ReadError::Io { dir, file, source });
                        }
                        Err(_) => return Err(ReadError::Closed),
                    }
                }
                if self.fetched.len() < FETCH_RECORDS / 2 {
                    self.fetch_ahead(&now_ms);
                }
                return Ok(Some(record));
            }
            self.fetch_ahead(&now_ms);
            let Some(fetch) = &mut self.fetch else { return Ok(None) };
            let fetched = match fetch.await {
                Ok(fetched) => fetched,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down.
                Err(_) => return Err(ReadError::Closed),
            };
            self.fetch = None;
            (self.fetched, self.next, self.place) = (fetched.records, fetched.next, fetched.place);
            if let Some(error) = fetched.error {
                return Err(error);
            }
        }
    }

    /// Waits until there is more on disk than was read.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn more(&mut self) -> Result<(), ReadError> {
        if self.fetch.is_some() || !self.fetched.is_empty() {
            return Ok(());
        }
        let next = self.next;
        let has_more = |published: &Published| published.next_sequence > next || published.has_ended;
        let published = *self.published.wait_for(has_more).await.map_err(|_| ReadError::Closed)?;
        if published.next_sequence <= next { Err(ReadError::Closed) } else { Ok(()) }
    }

    /// Gives back the record that was read last, to be read again: it is passed over when it is expired by then.
    pub fn unread(&mut self, record: Record) {
        self.shared.state().took_back(self.number, record.sequence - 1);
        self.fetched.push_front(record);
    }

    /// Goes back to the first record that is not done with, for example when a connection was lost with records in flight.
    pub fn rewind(&mut self) {
        self.fetched.clear();
        self.place = None;
        self.fetch = None;
        let mut state = self.shared.state();
        state.took_back(self.number, 0);
        self.next = state.cursor + 1;
    }

    fn take_fetched(&mut self, now_ms: &impl Fn() -> u64) -> Option<Record> {
        loop {
            let record = self.fetched.pop_front()?;
            let mut state = self.shared.state();
            // What was counted as lost stays so, whatever the clock says now.
            if !state.is_pending(record.sequence) {
                continue;
            }
            let gone_ms = self.shared.options.gone_ms(&record);
            let now_ms = if gone_ms == u64::MAX { 0 } else { now_ms() };
            if now_ms < gone_ms {
                state.gave_out(self.number, record.sequence);
                return Some(record);
            }
            let tag = self.shared.options.tag_of(&record.payload);
            state.now_ms = now_ms;
            state.pass(record.sequence, record.sequence, Cause::Expired, &tag);
            // And all that were read with it, so that the ledger is written once for them.
            let options = &self.shared.options;
            self.fetched.retain(|other| {
                let has_expired = options.gone_ms(other) <= now_ms;
                if has_expired {
                    let tag = options.tag_of(&other.payload);
                    state.pass(other.sequence, other.sequence, Cause::Expired, &tag);
                }
                !has_expired
            });
            if state.is_ledger_behind {
                self.shared.work.notify_one();
            }
        }
    }

    /// Starts a fetch when there is something to fetch and none under way.
    fn fetch_ahead(&mut self, now_ms: &impl Fn() -> u64) {
        if self.fetch.is_some() || self.published.borrow().next_sequence <= self.next {
            return;
        }
        self.shared.state().now_ms = now_ms();
        let (shared, next, place) = (self.shared.clone(), self.next, self.place.take());
        self.fetch = Some(tokio::task::spawn_blocking(move || fetch(&shared, next, place)));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state().took_back(self.number, 0);
    }
}

/// The records that were on disk when it was made, for a start that reads them all before anything else. Blocking.
pub struct Records {
    shared: Arc<Shared>,
    next: u64,
    end: u64,
    fetched: VecDeque<Record>,
    place: Option<ReadPosition>,
}

impl Records {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let state = shared.state();
        let (next, end) = (state.cursor + 1, state.next_sequence);
        drop(state);
        Self { shared, next, end, fetched: VecDeque::new(), place: None }
    }
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fetched.is_empty() && self.next < self.end {
            let fetched = fetch(&self.shared, self.next, self.place.take());
            (self.fetched, self.next, self.place) = (fetched.records, fetched.next, fetched.place);
            if let Some(error) = fetched.error {
                return Some(Err(error));
            }
        }
        self.fetched.pop_front().filter(|record| record.sequence < self.end).map(Ok)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).field("fetched", &self.fetched.len()).finish()
    }
}

/// Reads from `next` on until it has something or nothing is left. Blocking.
fn fetch(shared: &Shared, next: u64, place: Option<ReadPosition>) -> Fetched {
    let mut fetched = Fetched { records: VecDeque::new(), next, place, error: None };
    while fetched.records.is_empty() {
        let state = shared.state();
        fetched.next = fetched.next.max(state.cursor + 1);
        let Some(stretch) = state.stretch(fetched.next) else { break };
        drop(state);
        let held = fetched.place.take();
        let held = held.filter(|held| held.segment == stretch.segment && held.scan.expected == fetched.next);
        let mut place = match held {
            Some(held) => held,
            None => match shared.storage.open(&segment_name(stretch.segment)) {
                Ok(file) => {
                    let seed = frame_seed(shared.id, stretch.segment);
                    let (offset, expected) = (stretch.start.offset, stretch.start.sequence);
                    let scan =
                        Scan::new(file, seed, stretch.epoch, offset, expected, stretch.end, stretch.until);
                    ReadPosition { segment: stretch.segment, scan }
                }
                // It was dropped or deleted a moment ago: the cursor is behind it now.
                Err(_) if shared.state().cursor + 1 > fetched.next => continue,
                // Somebody else took it away: what it held is lost, and the queue goes on.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    shared.state().pass(fetched.next, stretch.until - 1, Cause::Damaged, "");
                    fetched.next = stretch.until;
                    continue;
                }
                Err(source) => {
                    fetched.error = Some(read_error(shared, stretch.segment, source));
                    break;
                }
            },
        };
        place.scan.end = stretch.end;
        place.scan.until = stretch.until;
        if let Err(source) = read_on(shared, &mut place.scan, &mut fetched) {
            fetched.error = Some(read_error(shared, stretch.segment, source));
            break;
        }
        fetched.place = Some(place);
    }
    let mut state = shared.state();
    for record in &fetched.records {
        state.see(record.sequence, record.enqueued_ms);
    }
    drop(state);
    fetched
}

fn read_on(shared: &Shared, scan: &mut Scan, fetched: &mut Fetched) -> io::Result<()> {
    let mut bytes = 0;
    while bytes < FETCH_BYTES && fetched.records.len() < FETCH_RECORDS && scan.expected < scan.until {
        match scan.step()? {
            Step::Record(record) if record.sequence < fetched.next => {}
            Step::Record(record) => {
                fetched.next = record.sequence + 1;
                bytes += record.payload.len();
                fetched.records.push_back(record);
            }
            Step::Hole { first, last } => {
                shared.state().pass(first, last, Cause::Damaged, "");
                fetched.next = fetched.next.max(last + 1);
            }
            Step::End => {
                shared.state().pass(scan.expected, scan.until - 1, Cause::Damaged, "");
                fetched.next = fetched.next.max(scan.until);
                scan.expected = scan.until;
            }
        }
    }
    Ok(())
}

fn read_error(shared: &Shared, segment: u64, source: io::Error) -> ReadError {
    ReadError::Io { dir: shared.storage.path().to_owned(), file: segment_name(segment), source }
}
