//! Which reads have a row in the audit log lately: a page that follows a log reads it every few seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::people::caller::Caller;

/// A caller's further reads of one path within this time have no row of their own.
const ONE_ROW_FOR: Duration = Duration::from_secs(10 * 60);
/// Reads that are remembered; beyond it each one has its row.
const REMEMBERED_MAX: usize = 10_000;

/// The kind of a caller, its name, and the path.
type Read = (&'static str, String, String);

/// The reads that have a row. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct NotedReads(Arc<Mutex<HashMap<Read, Instant>>>);

impl NotedReads {
    /// Returns true if a read needs a row of its own, and remembers it.
    pub(super) fn note(&self, caller: &Caller, path: &str, now: Instant) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|_, at| now.saturating_duration_since(*at) < ONE_ROW_FOR);
        let read = of(caller, path);
        if noted.contains_key(&read) {
            return false;
        }
        if noted.len() < REMEMBERED_MAX {
            noted.insert(read, now);
        }
        true
    }

    /// Of a read that failed: the next one has its own row.
    pub(super) fn forget(&self, caller: &Caller, path: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&of(caller, path));
    }
}

fn of(caller: &Caller, path: &str) -> Read {
    (caller.kind(), caller.name().to_owned(), path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::caller::Who;
    use crate::token::Role;

    fn caller(name: &str) -> Caller {
        Caller { who: Who::Token(name.to_owned()), permissions: Role::Operator.permissions() }
    }

    #[test]
    fn a_read_has_one_row_for_ten_minutes_for_each_caller_and_path_and_one_that_failed_is_noted_again() {
        let (reads, begun) = (NotedReads::default(), Instant::now());
        assert!(reads.note(&caller("a"), "/x", begun));
        assert!(!reads.note(&caller("a"), "/x", begun + ONE_ROW_FOR / 2));
        assert!(reads.note(&caller("b"), "/x", begun) && reads.note(&caller("a"), "/y", begun));
        assert!(
            reads.note(&caller("a"), "/x", begun + ONE_ROW_FOR),
            "counted from the row, not from the last read"
        );
        reads.forget(&caller("b"), "/x");
        assert!(reads.note(&caller("b"), "/x", begun));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_beyond_it_each_read_has_a_row() {
        let (reads, now) = (NotedReads::default(), Instant::now());
        for n in 0..REMEMBERED_MAX {
            assert!(reads.note(&caller("a"), &n.to_string(), now));
        }
        assert!(reads.note(&caller("a"), "more", now) && reads.note(&caller("a"), "more", now));
        assert!(!reads.note(&caller("a"), "0", now));
        assert_eq!(reads.0.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
