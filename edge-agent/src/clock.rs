//! The clocks, read in one place.

mod file;

pub use edge_hub::clock::now_ms;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use edge_core::clock::ages::{AgeClock, Machine};
use edge_core::clock::{ClockOffset, UpstreamTime};
use edge_core::error_chain::chain;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// How often the clock of ages is saved: so much of its time a power cut costs, which makes what waits live longer.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How soon it is saved after the wall clock was set.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Ages of what this gateway holds. A program that opens no data directory has one that begins with it.
static AGES: OnceLock<Mutex<AgeClock>> = OnceLock::new();

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

fn ages() -> MutexGuard<'static, AgeClock> {
    let ages = AGES.get_or_init(|| Mutex::new(AgeClock::start(None, &machine(), now_ms())));
    ages.lock().unwrap_or_else(PoisonError::into_inner)
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
    edge_hub::clock::measure_ages_with(steady_ms);
    let clock = AgeClock::start(file::read(data_dir), &machine(), now_ms());
    if AGES.set(Mutex::new(clock)).is_err() {
        tracing::error!(
            "the clock of ages was read before it was resumed; the ages of queued messages may be wrong"
        );
    }
    save(data_dir);
}

fn note_removed(data_dir: &Path, consequence: &'static str) {
    tracing::error!(dir = %data_dir.display(), "{consequence}");
    let _first = REMOVED.set(consequence);
}

fn save(data_dir: &Path) {
    let saved = ages().saved(since_boot_ms());
    if let Err(error) = file::write(data_dir, &saved) {
        tracing::warn!(error = %chain(&error), "the clock of ages was not saved; what waits may live longer after a reboot");
    }
}

/// Keeps the clock of ages in the data directory until `stop`.
pub async fn keep(data_dir: std::path::PathBuf, stop: CancellationToken) {
    let (mut saved_ms, mut saved_jumps) = (steady_ms(), 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(NOTE_EVERY) => {}
            () = stop.cancelled() => break,
        }
        let now_ms = stamp_ms();
        let jumps = ages().jumps();
        let is_gone = !file::is_there(&data_dir);
        if is_gone {
            note_removed(&data_dir, "clock.json was removed while the daemon ran, and was written again");
        }
        if is_gone
            || jumps > saved_jumps
            || Duration::from_millis(now_ms.saturating_sub(saved_ms)) >= SAVE_EVERY
        {
            (saved_ms, saved_jumps) = (now_ms, jumps);
            let dir = data_dir.clone();
            let _ended = tokio::task::spawn_blocking(move || save(&dir)).await;
        }
    }
    let _ended = tokio::task::spawn_blocking(move || save(&data_dir)).await;
}

/// What ages and times to live are measured with: milliseconds by a clock that never jumps and goes on over restarts. A gateway
/// without a battery starts in some year and is set right later; what waits in its queues must not be too old at that moment.
pub fn steady_ms() -> u64 {
    ages().at(since_boot_ms())
}

/// [`steady_ms`], for a stamp that is stored and converted later by [`corrected_ms`].
pub fn stamp_ms() -> u64 {
    let (wall_ms, since_boot_ms) = (now_ms(), since_boot_ms());
    let mut ages = ages();
    ages.note(wall_ms, since_boot_ms);
    ages.at(since_boot_ms)
}

/// The wall time to tell for what [`stamp_ms`] gave, now or in an earlier run; `None` when it is impossible and nobody knows
/// the right one.
pub fn corrected_ms(stamp_ms: u64) -> Option<u64> {
    let (wall_ms, since_boot_ms) = (now_ms(), since_boot_ms());
    let mut ages = ages();
    ages.note(wall_ms, since_boot_ms);
    ages.wall_of(stamp_ms, since_boot_ms)
}

/// As [`corrected_ms`], for people: the time of the answer stands for one that nobody knows.
pub fn shown_ms(stamp_ms: u64) -> u64 {
    corrected_ms(stamp_ms).unwrap_or_else(now_ms)
}

fn machine() -> Machine {
    // Where there is none, each start is another boot: its time away counts for nothing.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot = boot.map_or_else(|_| uuid::Uuid::new_v4().to_string(), |boot| boot.trim().to_owned());
    Machine { boot, since_boot_ms: since_boot_ms() }
}

/// Milliseconds since the machine started, those in which it slept included.
fn since_boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or_default()
}
