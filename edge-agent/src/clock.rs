//! The clocks, read in one place.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 on a gateway whose clock stands before it.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch as the wall clock had them at the first call, counted on by a clock that never jumps: what
/// times to live are measured with. A gateway without a battery starts in some year and is set right later; what waits in its
/// queues must not be too old at that moment.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<(u64, Instant)> = LazyLock::new(|| (now_ms(), Instant::now()));
    let (began_ms, began) = *BEGAN;
    began_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}
