//! The log as its users see it: open, append, read, advance, close.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::commit::Committer;
use crate::format::{SEGMENT_HEADER, frame_len};
use crate::losses::Loss;
use crate::reader::Reader;
use crate::recover::recover;
use crate::state::{Pending, Shared, Stats};
use crate::storage::{Directory, Storage};

/// The longest record. Sixteen times the largest telemetry message of the dialect (256 KiB).
pub const RECORD_BYTES_MAX: u64 = 4 << 20;

/// The limits of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed before it grows over this. Space is given back in segments, so it is never taken larger than
    /// a quarter of `bytes_max`; a longer record gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes of all segments together.
    pub bytes_max: u64,
    /// Records older than this are expired, in ms.
    pub age_max_ms: Option<u64>,
    /// Bytes that the log leaves free on its file system.
    pub keep_free_bytes: u64,
    /// What gives way when a limit is met.
    pub full: Full,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            bytes_max: 1 << 30,
            age_max_ms: None,
            keep_free_bytes: 64 << 20,
            full: Full::DropOldest,
        }
    }
}

impl LogOptions {
    /// The size at which a segment is closed.
    pub(crate) fn segment_len_max(&self) -> u64 {
        self.segment_bytes.min(self.bytes_max / 4)
    }

    /// The longest record that these limits leave room for.
    fn record_bytes_max(&self) -> u64 {
        RECORD_BYTES_MAX.min(self.bytes_max.saturating_sub(SEGMENT_HEADER + frame_len(0)))
    }
}

/// What gives way when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The oldest segment goes and is counted as evicted. When another program has filled the disk so far that
    /// dropping everything would not help, nothing is dropped and the append is refused.
    DropOldest,
    /// The append ends with [`AppendError::Full`].
    Refuse,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk said no.
    #[error(
        "queue {dir}: could not {doing}; check that the directory is on a working disk and belongs to this user"
    )]
    Io {
        /// The log's directory.
        dir: PathBuf,
        /// What was being done, for example "read 0000000000000001.segment".
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another log of this one, has it open.
    #[error("queue {dir}: is open elsewhere; stop the other program that uses this directory")]
    InUse {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The files are of a newer program.
    #[error(
        "queue {dir}: {file} has format version {found}, this program reads up to {known}; update the program"
    )]
    Version {
        /// The log's directory.
        dir: PathBuf,
        /// The file in it.
        file: String,
        /// Its version.
        found: u32,
        /// The latest version known here.
        known: u32,
    },
    /// Segments of two logs lie in one directory.
    #[error("queue {dir}: {file} belongs to another queue ({found}); move it away")]
    Foreign {
        /// The log's directory.
        dir: PathBuf,
        /// The file in it.
        file: String,
        /// The id of the log that it belongs to.
        found: Uuid,
    },
    /// No header of any segment and no slot of the cursor is readable.
    #[error("queue {dir}: every file header is damaged; move the directory away to begin an empty queue")]
    Damaged {
        /// The log's directory.
        dir: PathBuf,
    },
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// More is being handed in than the disk takes. Try again later.
    #[error("the queue's disk does not keep up; send slower or again later")]
    Busy,
    /// A limit is met and nothing may give way. Try again when records were read or space was freed.
    #[error("queue {dir}: its limits of bytes or free disk space are reached; free space or raise them")]
    Full {
        /// The log's directory.
        dir: PathBuf,
    },
    /// It would never fit.
    #[error("the record has {bytes} bytes, the queue takes at most {max}; send smaller messages")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The disk failed. The record is not promised to be there; the next append tries the disk again.
    #[error("queue {dir}: could not {doing}; look at the disk and the system's log")]
    Write {
        /// The log's directory.
        dir: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The log was closed.
    #[error("the queue is closed")]
    Closed,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    fn stop(&self) {
        self.shared.state().is_closing = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An open log. Cheap to clone; the commit thread ends when it is closed or the last clone is dropped.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

impl Log {
    /// Opens the log in `dir`, or makes it there. Blocking: scans the last segment, cuts off a torn tail, and starts the
    /// commit thread.
    ///
    /// # Errors
    /// [`OpenError`]. Damage inside of segments is not one: it is told by [`Log::losses`] when it is found.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, OpenError> {
        let storage = Directory::open(dir).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
            _ => OpenError::Io { dir: dir.to_owned(), doing: "make and lock it".into(), source },
        })?;
        Self::open_on(Arc::new(storage), options)
    }

    pub(crate) fn open_on(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Self, OpenError> {
        let recovered = recover(&*storage)?;
        let dir = storage.path().to_owned();
        let shared = Arc::new(Shared::new(storage, recovered.id, options, recovered.state));
        let committer = Committer::new(shared.clone(), recovered.active, recovered.cursor);
        std::thread::Builder::new()
            .name("queue-commit".into())
            .spawn(move || committer.run())
            .map_err(|source| OpenError::Io { dir, doing: "start its thread".into(), source })?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Appends a record that does not expire by itself. `now_ms` is the time, ms of Unix time.
    ///
    /// Its place in the log, behind all that was handed in before, is fixed when this returns; the future ends when it is
    /// on disk. Dropping the future does not take the record back.
    pub fn append(&self, record: Bytes, now_ms: u64) -> Append {
        self.hand_in(record, now_ms, None)
    }

    /// As [`Log::append`], for a record that nobody wants from `expires_ms` on, ms of Unix time.
    pub fn append_expiring(&self, record: Bytes, now_ms: u64, expires_ms: u64) -> Append {
        self.hand_in(record, now_ms, Some(expires_ms))
    }

    fn hand_in(&self, record: Bytes, enqueued_ms: u64, expires_ms: Option<u64>) -> Append {
        let (bytes, max) = (record.len() as u64, self.shared().options.record_bytes_max());
        let mut state = self.shared().state();
        if bytes > max {
            state.refuse();
            return Append(Waiting::Refused(Some(AppendError::TooLong { bytes, max })));
        }
        let (reply, answer) = oneshot::channel();
        match state.hand_in(Pending { record, enqueued_ms, expires_ms, reply }) {
            Ok(()) => {
                drop(state);
                self.shared().work.notify_one();
                Append(Waiting::Answer(answer))
            }
            Err(error) => Append(Waiting::Refused(Some(error))),
        }
    }

    /// A reader that begins behind the cursor. Several readers each see every record.
    pub fn reader(&self) -> Reader {
        Reader::new(self.handle.shared.clone())
    }

    /// Everything up to and including `sequence` is done with; segments that hold nothing else are deleted. Goes forward
    /// only. The cursor reaches the disk within about a second, never ahead of this.
    pub fn advance(&self, sequence: u64) {
        let mut state = self.shared().state();
        state.advance(sequence);
        let has_moved = state.cursor_moved;
        drop(state);
        if has_moved {
            self.shared().work.notify_one();
        }
    }

    /// Made once when the log was created. With it, a sequence names one record for ever.
    pub fn id(&self) -> Uuid {
        self.shared().id
    }

    /// The numbers of the log at this moment.
    pub fn stats(&self) -> Stats {
        self.shared().state().stats()
    }

    /// What was lost since this was last called, or since open.
    pub fn losses(&self) -> Vec<Loss> {
        self.shared().state().take_losses()
    }

    /// Takes nothing more in, commits what was handed in, persists the cursor and ends the commit thread.
    pub async fn close(&self) {
        self.handle.stop();
        let mut published = self.shared().published.subscribe();
        // The sender lives in what this handle holds.
        let _ended = published.wait_for(|published| published.has_ended).await;
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared().storage.path()).field("id", &self.id()).finish()
    }
}

/// Ends with the record's sequence when it is on disk.
#[derive(Debug)]
#[must_use = "only the answer says that the record is on disk"]
pub struct Append(Waiting);

#[derive(Debug)]
enum Waiting {
    Refused(Option<AppendError>),
    Answer(oneshot::Receiver<Result<u64, AppendError>>),
}

impl Future for Append {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(AppendError::Closed))),
            Waiting::Answer(answer) => {
                Pin::new(answer).poll(context).map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}
