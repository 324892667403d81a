//! Why a log could not be opened, or a record not be taken.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// More is being handed in than the disk takes. Try again later.
    #[error("the queue's disk does not keep up; send slower or again later")]
    Busy,
    /// A limit is met and nothing may be dropped. Try again when records were read or space was freed.
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
    #[error("queue {dir}: could not {doing}; check the disk and the system log")]
    Write {
        /// The log's directory.
        dir: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk failed an earlier record of the same producer ([`crate::Fence`]).
    #[error("an earlier message of the same sender was not written; send again from that one on")]
    Fenced,
    /// The log was closed.
    #[error("the queue is closed")]
    Closed,
}

/// An error with all its causes in one line, for the log. As `edge_core::error_chain`, which this crate does not know.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
