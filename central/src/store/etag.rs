//! Etags of stored objects.
//!
//! A state has a number that the store gave to no other one: an object that is made in place of a deleted one has none of its etags.
//! Objects of stores from before decision 0112 keep their small numbers until they change.

use rusqlite::Connection;

use super::columns::integer;
use super::generations::next_generation;

/// Returns the etag of a numbered revision.
pub(crate) fn of_revision(revision: i64) -> String {
    format!("\"{revision:x}\"")
}

/// The number of a state that is about to be written.
pub(super) fn next_revision(connection: &Connection) -> rusqlite::Result<i64> {
    Ok(integer(next_generation(connection)?))
}
