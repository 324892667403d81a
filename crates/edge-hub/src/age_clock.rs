//! The clock of ages of this process: what waits is stamped by it, and ends by it. See [`edge_core::clock::ages`].
//!
//! A program reads what it saved of the clock before anything is stamped ([`resume`]), and saves it again while it runs
//! ([`Saving`], [`saved`]). One that does neither has a clock that begins with the wall clock.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_core::clock::ages::{AgeClock, Machine, SavedClock};
use edge_core::clock::lifetime::{Lifetime, LifetimeState};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;

/// How often the clock is to be saved: so much of its time a power cut costs, which makes what waits live longer.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How soon it is noted that the wall clock was set.
const NOTE_EVERY: Duration = Duration::from_secs(1);

static AGES: LazyLock<Mutex<AgeClock>> =
    LazyLock::new(|| Mutex::new(AgeClock::start(None, &machine(), now_ms())));

/// How often the wall clock was found set.
static SETTINGS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Notified when the clock is to be saved at once.
static SAVE: Notify = Notify::const_new();

fn ages() -> MutexGuard<'static, AgeClock> {
    AGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes on with the clock that was saved. To be called before anything is stamped.
pub fn resume(saved: Option<SavedClock>) {
    *ages() = AgeClock::start(saved, &machine(), now_ms());
}

/// Has the clock saved at once: what was stamped now must be older than the next boot, or the time without power would not count
/// for it.
pub fn save_soon() {
    SAVE.notify_one();
}

/// What to save of the clock.
pub fn saved() -> SavedClock {
    ages().saved(since_boot_ms())
}

/// Receives a change each time when the wall clock was found set: what was held may be valid now.
pub fn settings() -> watch::Receiver<u64> {
    SETTINGS.subscribe()
}

/// When a program saves the clock.
#[derive(Debug)]
pub struct Saving {
    saved_ms: u64,
    settings: watch::Receiver<u64>,
}

impl Default for Saving {
    fn default() -> Self {
        Self { saved_ms: steady_ms(), settings: settings() }
    }
}

impl Saving {
    /// Compares the wall clock after a second, or when a save is requested. Returns true when the clock of ages is to be saved, and `None` at the stop.
    pub async fn next(&mut self, stop: &CancellationToken) -> Option<bool> {
        let mut is_requested = false;
        tokio::select! {
            () = tokio::time::sleep(NOTE_EVERY) => {}
            () = SAVE.notified() => is_requested = true,
            () = stop.cancelled() => return None,
        }
        let now_ms = stamp_ms();
        let is_set = self.settings.has_changed().unwrap_or_default();
        let is_due = is_requested
            || is_set
            || Duration::from_millis(now_ms.saturating_sub(self.saved_ms)) >= SAVE_EVERY;
        if is_due {
            self.settings.mark_unchanged();
            self.saved_ms = now_ms;
        }
        Some(is_due)
    }
}

/// What ages and times to live are measured with: milliseconds by a clock that never jumps and goes on over restarts. A machine
/// without a battery starts in some year and is set right later; what waits must not be too old at that moment.
pub fn steady_ms() -> u64 {
    ages().at(since_boot_ms())
}

/// [`steady_ms`], for a stamp that is stored and converted later by [`corrected_ms`].
pub fn stamp_ms() -> u64 {
    noted(|ages, since_boot_ms| ages.at(since_boot_ms))
}

/// As [`stamp_ms`], for a wall time of this moment or of a while ago.
pub fn stamp_of(wall_ms: u64) -> u64 {
    noted(|ages, _| ages.stamp_of(wall_ms))
}

/// The wall time for what [`stamp_ms`] gave, now or in an earlier run; `None` when it is impossible and nobody knows the right one.
pub fn corrected_ms(stamp_ms: u64) -> Option<u64> {
    noted(|ages, since_boot_ms| ages.wall_of(stamp_ms, since_boot_ms))
}

/// As [`corrected_ms`], for people: the time of the answer stands for one that nobody knows.
pub fn shown_ms(stamp_ms: u64) -> u64 {
    corrected_ms(stamp_ms).unwrap_or_else(now_ms)
}

/// What is known of the end of something that waits.
pub fn state_of(lifetime: Lifetime) -> LifetimeState {
    noted(|ages, since_boot_ms| ages.state(lifetime, since_boot_ms))
}

/// Whether something that waits may be given out.
pub fn is_valid(lifetime: Lifetime) -> bool {
    state_of(lifetime) == LifetimeState::Valid
}

/// The wall time that may delete what is kept for days; `None` before the wall clock lasted for an hour.
pub fn settled_wall_ms() -> Option<u64> {
    noted(|ages, since_boot_ms| ages.settled_wall_ms(since_boot_ms))
}

/// Reads the clock once the wall clock was compared with it.
fn noted<T>(read: impl FnOnce(&AgeClock, u64) -> T) -> T {
    let (wall_ms, since_boot_ms) = (now_ms(), since_boot_ms());
    let mut ages = ages();
    let before = ages.jumps();
    ages.note(wall_ms, since_boot_ms);
    if ages.jumps() > before {
        SETTINGS.send_modify(|settings| *settings += 1);
    }
    read(&ages, since_boot_ms)
}

fn machine() -> Machine {
    // Where there is none, each start is another boot: its time away counts for nothing.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot = boot.map_or_else(|_| uuid::Uuid::new_v4().to_string(), |boot| boot.trim().to_owned());
    Machine { boot, since_boot_ms: since_boot_ms() }
}

/// Milliseconds since the machine started, those in which it slept included.
pub fn since_boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or_default()
}
