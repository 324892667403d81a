//! A durable queue of bytes: what was appended is on disk before it is acknowledged, and stays until it is done with.
//!
//! ```text
//! append ─> queue in memory ─> writer ─> one write + one fdatasync per batch ─> the appends end
//!           (bounded, FIFO)                  │
//!                                      segment files ─> reader ─> whoever sends it on ─> advance ─> cursor
//! ```
//!
//! # Guarantees
//! - An append that ended well is read back after a kill or a power cut, in the order in which `append` was called.
//! - A reader is only given what is on disk, so a sequence and its epoch that have left the gateway never name another
//!   record later, also when the directory is restored from a backup or cloned.
//! - Whatever else becomes of an acknowledged record (expired, evicted, damaged) is counted, by cause, sender and range of
//!   sequences, exactly once, in a ledger on disk: [`Log::loss_records`].
//! - Files that somebody removes, the whole directory among them, are a loss that is counted: at the next open by a copy of the
//!   ledger in another place ([`LogOptions::mirror`]), and within about a second while records are appended. Where upstream says
//!   how far it has the log ([`LogOptions::unsettled_max`]), what arrived of them is no loss: also when both ledgers are old ones.
//! - Damage costs the records that it hits: the log opens, and the segment is set aside for analysis.
//! - Logs of one [`Pool`] keep to its bytes together, and the least important is dropped first.
//! - A full or failing disk fails the appends that it hits; the log goes on by itself when the disk does. After a failure it takes
//!   nothing further of the same producer ([`Fence`]), so that records that are handed in again keep their order.
//!
//! # Assumptions
//! - The disk keeps what it confirmed (`fdatasync`), and one process has the directory: a second open is refused.
//! - A record may be read twice: the cursor on disk lags behind what was advanced by up to a second.
//!
//! The files are described in the module `format`. The log knows nothing of what the bytes mean and has no clock: the
//! time is an argument.
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod answers;
mod commit;
mod confirmed;
mod epochs;
mod error;
mod expire;
mod failures;
mod fence;
mod format;
mod given_out;
mod headroom;
mod ledger;
mod limits;
mod log;
mod losses;
mod mirror;
mod page_cache;
mod pool;
mod reader;
mod recover;
mod scan;
mod segment;
mod segments;
mod shared;
mod snapshot;
mod state;
mod stats;
mod storage;
#[cfg(test)]
mod tests;
pub mod threads;
mod watch;
mod writer;

pub use error::{AppendError, OpenError};
pub use fence::Fence;
pub use format::{Epoch, Record};
pub use ledger::{LossRecord, Lost};
pub use limits::{Full, LogOptions, RECORD_BYTES_MAX, Tag};
pub use log::{Append, Log};
pub use losses::{Cause, Loss};
pub use page_cache::forget_cached;
pub use pool::Pool;
pub use reader::{ReadError, Reader, Records};
pub use stats::{Failing, Headroom, SYNC_BOUNDS, Stats, SyncTimes};
