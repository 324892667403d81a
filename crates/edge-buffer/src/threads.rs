//! The threads of a log, by name. A log ends when one of them panics, and takes nothing any more.

#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// Writes batches, the ledger, and deletes segments.
pub const COMMIT: &str = "queue-commit";
/// Answers the appends of a batch while the next one is written.
pub const ANSWERS: &str = "queue-answers";

#[cfg(debug_assertions)]
static ON_TURN: OnceLock<fn(&'static str)> = OnceLock::new();

/// Has `on_turn` called on each of these threads at each of its turns, with the thread's name: by it a test has one of them panic. Debug
/// builds only. The first call counts.
#[cfg(debug_assertions)]
pub fn on_turn(on_turn: fn(&'static str)) {
    let _is_first = ON_TURN.set(on_turn);
}

/// A thread begins a turn.
#[inline]
pub(crate) fn turn(name: &'static str) {
    #[cfg(debug_assertions)]
    if let Some(on_turn) = ON_TURN.get() {
        on_turn(name);
    }
    let _ = name;
}
