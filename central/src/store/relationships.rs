//! Relationships: which device is behind which gateway.

use rusqlite::{Connection, Row};
use schemas::names::DeviceId;

use super::columns::{integer, parsed_column};
use super::generations::next_generation;
use super::unreadable;

/// A leaf device's place behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relationship {
    /// Unique at the gateway.
    pub id: String,
    pub name: String,
    pub source: DeviceId,
    pub target: DeviceId,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Relationship> {
    Ok(Relationship {
        id: row.get("id")?,
        name: row.get("name")?,
        source: parsed_column(row, "source")?,
        target: parsed_column(row, "target")?,
    })
}

/// The relationships of a gateway by id.
pub fn list(connection: &Connection, source: &DeviceId) -> rusqlite::Result<Vec<Relationship>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM relationships WHERE source = ?1 ORDER BY id")?;
    unreadable::rows("relationships", statement.query_map([source.as_str()], read)?).collect()
}

/// One relationship of a gateway.
pub fn get(connection: &Connection, source: &DeviceId, id: &str) -> rusqlite::Result<Option<Relationship>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM relationships WHERE source = ?1 AND id = ?2")?;
    unreadable::row("relationships", statement.query_row([source.as_str(), id], read))
}

/// Up to `limit` relationships that a device has at either end, whose ids come after `after`.
pub fn list_at(
    connection: &Connection,
    device: &DeviceId,
    after: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Relationship>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM relationships WHERE (source = ?1 OR target = ?1) AND id > ?2 ORDER BY id",
    )?;
    let found = statement.query_map([device.as_str(), after], read)?;
    unreadable::rows("relationships", found).take(limit as usize).collect()
}

/// One relationship that a device has at either end.
pub fn get_at(
    connection: &Connection,
    device: &DeviceId,
    id: &str,
) -> rusqlite::Result<Option<Relationship>> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM relationships WHERE (source = ?1 OR target = ?1) AND id = ?2")?;
    unreadable::row("relationships", statement.query_row([device.as_str(), id], read))
}

/// Puts a device behind a gateway, in place of the relationship with this id.
///
/// # Errors
/// SQLite's; a constraint when the device is behind a gateway already.
pub fn put(connection: &Connection, relationship: &Relationship) -> rusqlite::Result<()> {
    // Only another device gets a new number: to rename a relationship does not begin a new attachment (decision 0024).
    let generation = next_generation(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO relationships (source, id, name, target, generation) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (source, id) DO UPDATE SET name = ?3,
                 generation = CASE target WHEN ?4 THEN generation ELSE ?5 END, target = ?4",
        )?
        .execute((
            relationship.source.as_str(),
            &relationship.id,
            &relationship.name,
            relationship.target.as_str(),
            integer(generation),
        ))?;
    Ok(())
}

/// Takes a device from behind its gateway; false when the gateway has no such relationship.
pub fn delete(connection: &Connection, source: &DeviceId, id: &str) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached("DELETE FROM relationships WHERE source = ?1 AND id = ?2")?
        .execute([source.as_str(), id])?;
    Ok(deleted == 1)
}
