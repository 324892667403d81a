//! The clocks, read in one place.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

pub use edge_hub::clock::now_ms;

use edge_core::clock::{ClockOffset, UpstreamTime, WallHistory};
use rustix::time::{ClockId, clock_gettime};

/// How the wall clock was set since the program started.
static HISTORY: Mutex<WallHistory> = Mutex::new(WallHistory::new());

/// What central has said of its time.
static UPSTREAM: Mutex<UpstreamTime> = Mutex::new(UpstreamTime::new());

/// Notes that central is asked for its time now; gives the question's number.
pub fn upstream_asked() -> u64 {
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

/// Milliseconds since the Unix epoch, for a time that is kept and told later by [`corrected_ms`].
pub fn stamp_ms() -> u64 {
    let wall = now_ms();
    HISTORY.lock().unwrap_or_else(PoisonError::into_inner).note(wall, since_boot_ms());
    wall
}

/// The time to tell for one that [`stamp_ms`] gave, now or in an earlier run; `None` when it is impossible and nobody knows
/// the right one.
pub fn corrected_ms(stamp_ms: u64) -> Option<u64> {
    let mut history = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let steady = since_boot_ms();
    history.note(now_ms(), steady);
    history.corrected(stamp_ms, steady)
}

/// Milliseconds since the machine started, those in which it slept included.
fn since_boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or_default()
}

/// Milliseconds since the Unix epoch as the wall clock had them at the first call, counted on by a clock that never jumps: what
/// times to live are measured with. A gateway without a battery starts in some year and is set right later; what waits in its
/// queues must not be too old at that moment.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<(u64, Instant)> = LazyLock::new(|| (now_ms(), Instant::now()));
    let (began_ms, began) = *BEGAN;
    began_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}
