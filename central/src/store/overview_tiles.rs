//! What the overview of a template's devices shows, as operators arranged it. It is no part of the template, whose form is IoT Central's.

use rusqlite::Connection;

use super::columns::json_column;
use super::unreadable;
use crate::types::overview_tile::OverviewTile;

/// The tiles of a template; none when none were arranged, or when they cannot be read.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn get(c: &Connection, template: &str) -> rusqlite::Result<Option<Vec<OverviewTile>>> {
    let mut statement = c.prepare_cached("SELECT * FROM overview_tiles WHERE template = ?1")?;
    unreadable::row("overview_tiles", statement.query_row([template], |row| json_column(row, "tiles")))
}

/// Stores the tiles of a template; an empty list takes them away.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn put(c: &Connection, template: &str, tiles: &[OverviewTile]) -> rusqlite::Result<()> {
    if tiles.is_empty() {
        return delete(c, template);
    }
    c.prepare_cached("INSERT OR REPLACE INTO overview_tiles (template, tiles) VALUES (?1, ?2)")?
        .execute((template, serde_json::json!(tiles).to_string()))?;
    Ok(())
}

/// Takes the tiles of a template away.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn delete(c: &Connection, template: &str) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM overview_tiles WHERE template = ?1")?.execute([template])?;
    Ok(())
}
