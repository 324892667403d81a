//! Whether the store is still whole, and where the next start reads it.
//!
//! A store whose files were deleted, replaced, cut or damaged while central runs must take nothing more: what it confirmed would be gone
//! with the next start. The first sign of it, from whatever statement, ends writing until central is started again, which checks
//! the whole file and says how to go on.
//!
//! SQLite also says that the file is damaged when the disk could not read it once (`IOERR_CORRUPTFS` becomes `CORRUPT`). So central
//! ends by itself after such a sign: its next start finds the store whole and goes on, or refuses it. When only the log is not in its
//! place, central first moves what it has open of it into the store's file. While the store's file is gone central stays, and shows what
//! it still has open.

use std::cell::RefCell;
use std::sync::OnceLock;

use rusqlite::ErrorCode;

thread_local! {
    /// What SQLite said of damage to the work that this thread does now.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns true if SQLite says that the file itself is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Notes an error of a statement if it says that the file itself is damaged.
pub(super) fn note(error: &rusqlite::Error) {
    if is_damage(error) {
        SEEN.with_borrow_mut(|seen| {
            seen.get_or_insert_with(|| error.to_string());
        });
    }
}

/// What was noted on this thread since the last call.
fn noted() -> Option<String> {
    SEEN.with_borrow_mut(Option::take)
}

/// The first sign of damage; it holds until central ends.
#[derive(Debug, Default)]
pub(super) struct Damage {
    found: OnceLock<Found>,
}

#[derive(Debug)]
struct Found {
    what: String,
    sign: Sign,
}

/// Where damage was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// SQLite said so of a statement. Only a check of the whole file tells whether it is so.
    Statement,
    /// A file is shorter than it was, or an older copy was written over it. Only a check of the whole file says what is left.
    Cut,
    /// The log or its index is not in its place any more; what the log holds is still open.
    LogGone,
    /// The store's file is not in its place any more.
    Gone,
}

impl Damage {
    /// What was found; `None` when nothing was.
    pub(super) fn found(&self) -> Option<&str> {
        self.found.get().map(|found| found.what.as_str())
    }

    /// Returns true when only a new start can tell whether the store is whole.
    pub(super) fn wants_check(&self) -> bool {
        self.found.get().is_some_and(|found| matches!(found.sign, Sign::Statement | Sign::Cut))
    }

    /// Returns true when the log, which is open, may be moved into the store's file, so that the next start finds all of it.
    pub(super) fn wants_log_moved(&self) -> bool {
        self.found.get().is_some_and(|found| found.sign == Sign::LogGone)
    }

    /// Keeps the first sign and logs it.
    pub(super) fn report(&self, what: String, sign: Sign) {
        let mut is_first = false;
        self.found.get_or_init(|| {
            is_first = true;
            Found { what, sign }
        });
        if is_first {
            tracing::error!(
                found = self.found(),
                "the store is damaged; nothing more is stored until central is started again, which checks it"
            );
        }
    }

    /// Does a work of the store and keeps what its statements said of damage.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        // Of a work that panicked.
        let _former = noted();
        let done = work();
        if let Some(found) = noted() {
            self.report(found, Sign::Statement);
        }
        done
    }
}
