//! Deployment manifests as operators stored them.

use std::collections::HashSet;

use rusqlite::{Connection, Row};
use schemas::names::DeviceId;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::columns::{json_column, unsigned};
use super::etag;
use super::filter::{Field, Kind};
use super::manifest_quotes;
use super::selection::{Listed, Selection};
use super::unreadable;
use crate::types::organizations::Organizations;

#[derive(Debug, Clone, PartialEq)]
pub struct StoredManifest {
    /// Chosen by the operator.
    pub id: String,
    pub display_name: String,
    /// The manifest itself, as it was given.
    pub data: Value,
    /// What it belongs to.
    pub organizations: Organizations,
    /// Another one after every change.
    pub revision: i64,
}

impl StoredManifest {
    /// Names the state of what is stored.
    pub fn etag(&self) -> String {
        etag::of_revision(self.revision)
    }
}

/// A manifest with its text as it is stored: read, it takes thirty times the memory.
#[derive(Debug, Clone)]
pub struct ManifestText {
    pub id: String,
    pub display_name: String,
    pub data: Box<RawValue>,
    pub organizations: Organizations,
    /// Another one after every change.
    pub revision: i64,
}

fn read_text(row: &Row<'_>) -> rusqlite::Result<ManifestText> {
    Ok(ManifestText {
        id: row.get("id")?,
        display_name: row.get("display_name")?,
        data: json_column(row, "data")?,
        organizations: unreadable::value("manifests", json_column(row, "organizations"))?.unwrap_or_default(),
        revision: row.get("revision")?,
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredManifest> {
    Ok(StoredManifest {
        id: row.get("id")?,
        display_name: row.get("display_name")?,
        data: json_column(row, "data")?,
        organizations: unreadable::value("manifests", json_column(row, "organizations"))?.unwrap_or_default(),
        revision: row.get("revision")?,
    })
}

/// Stores a manifest in place of the one with its id; gives its new revision.
pub fn put(connection: &Connection, manifest: &StoredManifest) -> rusqlite::Result<i64> {
    let revision = etag::next_revision(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO manifests (id, display_name, data, organizations, revision) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET display_name = ?2, data = ?3, organizations = ?4, revision = ?5",
        )?
        .execute((
            &manifest.id,
            &manifest.display_name,
            manifest.data.to_string(),
            serde_json::json!(manifest.organizations).to_string(),
            revision,
        ))?;
    Ok(revision)
}

/// Notes the manifest that a gateway was given, and what its reports may quote of it.
pub fn put_assigned(connection: &Connection, gateway: &DeviceId, data: &Value) -> rusqlite::Result<()> {
    let data = data.to_string();
    // That of the manifest before may be missing: a version that did not note it assigned it.
    let before: Option<Box<RawValue>> = assigned(connection, gateway)?;
    if let Some(before) = before.filter(|before| before.get() != data) {
        manifest_quotes::add(connection, gateway, before.get())?;
    }
    manifest_quotes::add(connection, gateway, &data)?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO assigned_manifests (device, data) VALUES (?1, ?2)")?
        .execute((gateway.as_str(), data))?;
    Ok(())
}

/// The manifest that a gateway was given last; none when it was given none, or by a version that did not note it.
pub fn assigned<T: DeserializeOwned>(
    connection: &Connection,
    gateway: &DeviceId,
) -> rusqlite::Result<Option<T>> {
    let mut statement = connection.prepare_cached("SELECT * FROM assigned_manifests WHERE device = ?1")?;
    let found = statement.query_row([gateway.as_str()], |row| json_column(row, "data"));
    unreadable::row("assigned_manifests", found)
}

/// Deletes the manifest that a gateway was given.
pub fn delete_assigned(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM assigned_manifests WHERE device = ?1")?
        .execute([gateway.as_str()])?;
    Ok(())
}

/// How many gateways a manifest is assigned to, and the first of them.
pub fn assignments(connection: &Connection, id: &str) -> rusqlite::Result<(u64, Option<String>)> {
    connection
        .prepare_cached("SELECT count(*), min(id) FROM devices WHERE manifest_id = ?1")?
        .query_row([id], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))
}

/// The gateways that were given another text than the manifest of this id has now.
///
/// # Errors
/// The database cannot be read.
pub fn out_of_date(connection: &Connection, id: &str) -> rusqlite::Result<HashSet<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT devices.id FROM devices
         LEFT JOIN manifests ON manifests.id = devices.manifest_id
         LEFT JOIN assigned_manifests ON assigned_manifests.device = devices.id
         WHERE devices.manifest_id = ?1 AND NOT ifnull(manifests.data = assigned_manifests.data, 0)",
    )?;
    statement.query_map([id], |row| row.get(0))?.collect()
}

/// The manifest with this id; none when it cannot be read.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<StoredManifest>> {
    let mut statement = connection.prepare_cached("SELECT * FROM manifests WHERE id = ?1")?;
    unreadable::row("manifests", statement.query_row([id], read))
}

/// As [`get`], with its text.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn text(connection: &Connection, id: &str) -> rusqlite::Result<Option<ManifestText>> {
    let mut statement = connection.prepare_cached("SELECT * FROM manifests WHERE id = ?1")?;
    unreadable::row("manifests", statement.query_row([id], read_text))
}

/// What a manifest is called.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn display_name(connection: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT display_name FROM manifests WHERE id = ?1")?;
    unreadable::row("manifests", statement.query_row([id], |row| row.get(0)))
}

/// What [`select`] gives.
pub const LISTED: Listed = Listed {
    table: "manifests",
    columns: "*",
    from: "manifests",
    id: "id",
    fields: &[
        Field { name: "id", sql: "id", kind: Kind::Id },
        Field { name: "displayName", sql: "display_name", kind: Kind::Text },
        Field { name: "organizations", sql: ORGANIZATION, kind: Kind::Text },
        // What IoT Central's pages call it in filters.
        Field { name: "scopes", sql: ORGANIZATION, kind: Kind::Text },
    ],
};
const ORGANIZATION: &str = "CASE WHEN json_valid(organizations) THEN json_extract(organizations, '$[0]') END";

/// The manifests that a list asks for, and where its next page begins.
pub fn select(
    connection: &Connection,
    selection: &Selection,
) -> rusqlite::Result<(Vec<ManifestText>, Option<String>)> {
    selection.rows(connection, &LISTED, read_text)
}

/// Deletes a manifest; false when there was none.
pub fn delete(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM manifests WHERE id = ?1")?.execute([id])? == 1)
}
