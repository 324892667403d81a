//! Deployment manifests as operators stored them.

use rusqlite::{Connection, Row};
use serde_json::Value;

use super::{json_column, unreadable};

/// A stored manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredManifest {
    /// Chosen by the operator.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// The manifest itself, as it was given.
    pub data: Value,
    /// Grows with every change.
    pub revision: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredManifest> {
    Ok(StoredManifest {
        id: row.get("id")?,
        display_name: row.get("display_name")?,
        data: json_column(row, "data")?,
        revision: row.get("revision")?,
    })
}

/// Stores a manifest in place of the one with its id; gives its revision.
///
/// # Errors
/// SQLite's.
pub fn put(connection: &Connection, id: &str, display_name: &str, data: &Value) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO manifests (id, display_name, data, revision) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT (id) DO UPDATE SET display_name = ?2, data = ?3, revision = revision + 1
             RETURNING revision",
        )?
        .query_row((id, display_name, data.to_string()), |row| row.get(0))
}

/// The manifest with this id; none when it cannot be read.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<StoredManifest>> {
    let mut statement = connection.prepare_cached("SELECT * FROM manifests WHERE id = ?1")?;
    unreadable::row("manifests", statement.query_row([id], read))
}

/// Up to `limit` manifests whose ids come after `after`.
///
/// # Errors
/// SQLite's.
pub fn list(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<StoredManifest>> {
    let mut statement = connection.prepare_cached("SELECT * FROM manifests WHERE id > ?1 ORDER BY id")?;
    unreadable::rows("manifests", statement.query_map([after], read)?).take(limit as usize).collect()
}

/// Forgets a manifest; false when there was none. Gateways that have it keep it.
///
/// # Errors
/// SQLite's.
pub fn delete(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM manifests WHERE id = ?1")?.execute([id])? == 1)
}
