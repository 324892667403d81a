//! What the overview reads of the store as a whole.

use rusqlite::Connection;

use super::columns::unsigned;
use super::unreadable;

/// Bytes of the store's file.
pub fn bytes_used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    Ok(unsigned(pragma("page_count")?.saturating_mul(pragma("page_size")?)))
}

/// A change that was asked for, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortChange {
    pub id: i64,
    pub at_ms: u64,
    pub who: String,
    pub kind: String,
    pub method: String,
    pub path: String,
    pub status: Option<i64>,
}

/// Rows of the audit log that are read to find those that are shown.
const READ_MAX: usize = 1000;

/// The newest changes that were requested and that `is_shown` lets through by their path, the newest first.
pub fn changes(
    connection: &Connection,
    limit: usize,
    is_shown: impl Fn(&str) -> bool,
) -> rusqlite::Result<Vec<ShortChange>> {
    let mut statement = connection
        .prepare_cached("SELECT id, at_ms, who, kind, method, path, status FROM audit ORDER BY id DESC")?;
    let rows = statement.query_map([], |row| {
        Ok(ShortChange {
            id: row.get("id")?,
            at_ms: unsigned(row.get("at_ms")?),
            who: row.get("who")?,
            kind: row.get("kind")?,
            method: row.get("method")?,
            path: row.get("path")?,
            status: row.get("status")?,
        })
    })?;
    let newest = unreadable::rows("audit", rows).take(READ_MAX);
    newest.filter(|row| row.as_ref().map_or(true, |row| is_shown(&row.path))).take(limit).collect()
}
