//! The clocks, read in one place.

mod file;

pub use edge_hub::age_clock::{corrected_ms, is_valid, save_soon, shown_ms, stamp_ms, steady_ms};
pub use edge_hub::clock::now_ms;

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use edge_core::clock::{ClockOffset, UpstreamTime};
use edge_core::error_chain::chain;
use edge_hub::age_clock::{self, Saving, since_boot_ms};
use tokio_util::sync::CancellationToken;

/// What central has said of its time.
static UPSTREAM: Mutex<UpstreamTime> = Mutex::new(UpstreamTime::new());

/// Notes that central is asked for its time now; gives the question's number.
pub fn upstream_requested() -> u64 {
    UPSTREAM.lock().unwrap_or_else(PoisonError::into_inner).ask(since_boot_ms())
}

pub fn upstream_answered(number: u64, upstream_ms: u64) {
    let mut upstream = UPSTREAM.lock().unwrap_or_else(PoisonError::into_inner);
    upstream.answered(number, upstream_ms, since_boot_ms());
}

/// The wall clock against central's; `None` before central has said its time.
pub fn upstream_offset() -> Option<ClockOffset> {
    UPSTREAM.lock().unwrap_or_else(PoisonError::into_inner).offset(now_ms(), since_boot_ms())
}

/// Set when the saved clock was found removed.
static REMOVED: OnceLock<&'static str> = OnceLock::new();

/// What became of the clock of ages when its file was removed; `None` when it was not.
pub fn removed() -> Option<&'static str> {
    REMOVED.get().copied()
}

/// Goes on with the clock of ages that the data directory keeps, before anything is stamped. Blocking. `has_run`: there was one.
pub fn resume(data_dir: &Path, has_run: bool) {
    if has_run && !file::is_there(data_dir) {
        note_removed(
            data_dir,
            "clock.json was missing at the start: the ages of messages that waited then may be wrong",
        );
    }
    age_clock::resume(file::read(data_dir));
    save(data_dir);
}

fn note_removed(data_dir: &Path, consequence: &'static str) {
    tracing::error!(dir = %data_dir.display(), "{consequence}");
    let _first = REMOVED.set(consequence);
}

fn save(data_dir: &Path) {
    if let Err(error) = file::write(data_dir, &age_clock::saved()) {
        tracing::warn!(error = %chain(&error), "the clock of ages was not saved; what waits may live longer after a reboot");
    }
}

/// Keeps the clock of ages in the data directory until `stop`.
pub async fn keep(data_dir: std::path::PathBuf, stop: CancellationToken) {
    let mut saving = Saving::default();
    while let Some(is_due) = saving.next(&stop).await {
        let is_gone = !file::is_there(&data_dir);
        if is_gone {
            note_removed(&data_dir, "clock.json was removed while the daemon ran, and was written again");
        }
        if is_gone || is_due {
            let dir = data_dir.clone();
            let _ended = tokio::task::spawn_blocking(move || save(&dir)).await;
        }
    }
    let _ended = tokio::task::spawn_blocking(move || save(&data_dir)).await;
}
