//! Disk space that state keeps for itself: a file that is deleted when everybody else has filled the disk.

use edge_core::error_chain::chain;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the journal, sled and an export of a busy gateway write in a day of changes, several times over.
const RESERVE_BYTES: u64 = 8 << 20;
/// It is made only while so much more is free: it must not be what fills the disk.
const FREE_BYTES_MIN: u64 = 4 * RESERVE_BYTES;

pub(super) struct Reserve {
    path: PathBuf,
    /// The last try to make it failed, which was logged.
    is_failing: AtomicBool,
}

/// Only a full disk may cost the reserve: it belongs to whoever has the directory, and that may be another process.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Reserve {
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join("reserve"), is_failing: AtomicBool::new(false) }
    }

    /// Whether there is space in reserve.
    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Makes the file where it is missing and there is space.
    pub(super) fn restore(&self) {
        if self.is_there() {
            return;
        }
        let Some(dir) = self.path.parent() else { return };
        let made = rustix::fs::statvfs(dir).map_err(std::io::Error::from).and_then(|stat| {
            if stat.f_bavail.saturating_mul(stat.f_frsize) < FREE_BYTES_MIN {
                return Ok(());
            }
            let file = File::create(&self.path)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
            file.sync_all()
        });
        let was_failing = self.is_failing.swap(made.is_err(), Ordering::Relaxed);
        if let Err(error) = made {
            let _incomplete = std::fs::remove_file(&self.path);
            if was_failing {
                return;
            }
            tracing::warn!(error = %chain(&error), "no disk space could be reserved for state");
        }
    }

    /// Gives the space away, for state. True when there was some.
    pub(super) fn release(&self) -> bool {
        let is_released = std::fs::remove_file(&self.path).is_ok();
        if is_released {
            tracing::warn!(
                bytes = RESERVE_BYTES,
                "the disk is full: state is written to the space reserved for it"
            );
        }
        is_released
    }
}
