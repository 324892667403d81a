//! What gateways may quote in their reports of the manifests that they were given: of the present one and of some before it, because a
//! gateway reports on a manifest after it was replaced, and on one that it rolled back.

use std::collections::BTreeSet;

use edge_core::redact::fragments;
use rusqlite::Connection;
use schemas::names::DeviceId;

use super::columns::{json_column, parsed_column};
use super::unreadable;

/// Manifests of a gateway: the present one, and those before it.
const MANIFESTS_MAX: u32 = 9;

/// Notes what may be quoted of a manifest, as the newest of its gateway.
pub(super) fn add(connection: &Connection, gateway: &DeviceId, manifest: &str) -> rusqlite::Result<()> {
    let texts = serde_json::json!(fragments(manifest)).to_string();
    connection
        .prepare_cached("DELETE FROM manifest_quotes WHERE device = ?1 AND texts = ?2")?
        .execute((gateway.as_str(), &texts))?;
    connection
        .prepare_cached("INSERT INTO manifest_quotes (device, texts) VALUES (?1, ?2)")?
        .execute((gateway.as_str(), &texts))?;
    connection
        .prepare_cached(
            "DELETE FROM manifest_quotes WHERE device = ?1 AND id NOT IN
                 (SELECT id FROM manifest_quotes WHERE device = ?1 ORDER BY id DESC LIMIT ?2)",
        )?
        .execute((gateway.as_str(), MANIFESTS_MAX))?;
    Ok(())
}

/// Changes with each change of the rows: the id of the newest one, and how many there are.
pub fn state(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached(
            "SELECT ifnull((SELECT max(id) FROM manifest_quotes), 0), (SELECT count(*) FROM manifest_quotes)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The rows of all gateways, without their texts.
pub fn rows(connection: &Connection) -> rusqlite::Result<Vec<(i64, DeviceId)>> {
    let mut statement = connection.prepare_cached("SELECT id, device FROM manifest_quotes")?;
    let rows = statement.query_map([], |row| Ok((row.get("id")?, parsed_column(row, "device")?)))?;
    unreadable::rows("manifest_quotes", rows).collect()
}

/// The texts of a row; none when it cannot be read.
pub fn texts(connection: &Connection, id: i64) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare_cached("SELECT * FROM manifest_quotes WHERE id = ?1")?;
    let found = statement.query_row([id], |row| json_column(row, "texts"));
    Ok(unreadable::row("manifest_quotes", found)?.unwrap_or_default())
}

/// The gateways whose manifest was assigned by a version that did not note what may be quoted of it.
pub fn missing(connection: &Connection) -> rusqlite::Result<Vec<DeviceId>> {
    let mut statement = connection.prepare_cached(
        "SELECT device FROM assigned_manifests WHERE device NOT IN (SELECT device FROM manifest_quotes)",
    )?;
    let rows = statement.query_map([], |row| parsed_column(row, "device"))?;
    unreadable::rows("assigned_manifests", rows).collect()
}
