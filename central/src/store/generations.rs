//! Numbers that the store gives once.

use rusqlite::{Connection, OptionalExtension as _};

use crate::clock::now_ms;

/// A number that nothing had before: no registration, no stay behind a gateway, no state of what has an etag. It follows the clock,
/// so that a store that was restored from a backup does not give numbers again that gateways and clients have seen.
pub(super) fn next_generation(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<String> = connection
        .prepare_cached("SELECT value FROM settings WHERE name = 'generation'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let last: u64 = last.and_then(|text| text.parse().ok()).unwrap_or(0);
    let next = now_ms().max(last + 1);
    connection
        .prepare_cached("INSERT OR REPLACE INTO settings (name, value) VALUES ('generation', ?1)")?
        .execute([next.to_string()])?;
    Ok(next)
}
