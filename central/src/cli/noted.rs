//! What commands write into the audit log, in the turn of the store's writer that does it.

use central::audit::entry::{AuditLimits, ChangeOutcome, Entry, EntryKind};
use central::store::audit;
use rusqlite::Connection;

/// The states of what a command changed, as JSON: before and after.
pub(super) type States = (Option<String>, Option<String>);

/// Writes down what a command did about `path`.
pub(super) fn note(
    c: &Connection,
    limits: &AuditLimits,
    command: &str,
    kind: EntryKind,
    path: String,
    (before, after): States,
) -> rusqlite::Result<()> {
    let outcome = ChangeOutcome { status: 200, kind, is_own: false, before, after };
    audit::add(c, &Entry::of_command(command, kind, path), &outcome, limits)
}
