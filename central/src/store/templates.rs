//! Device templates: what devices of one kind send, take and do.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::columns::{json_column, unsigned};
use super::etag;
use super::filter::{Field, Kind};
use super::selection::{Listed, Selection};
use super::unreadable;

/// The parts of a template that operators write, as they wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateDocument {
    #[serde(rename = "@type")]
    pub types: Vec<String>,
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    pub display_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub capability_model: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeviceTemplate {
    /// A DTMI, chosen by the operator.
    pub id: String,
    pub document: TemplateDocument,
    /// Another one after every change.
    pub revision: i64,
}

impl DeviceTemplate {
    /// Names the state of what is stored.
    pub fn etag(&self) -> String {
        etag::of_revision(self.revision)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeviceTemplate> {
    Ok(DeviceTemplate {
        id: row.get("id")?,
        document: json_column(row, "document")?,
        revision: row.get("revision")?,
    })
}

/// A document as [`put`] stores it.
pub fn text(document: &TemplateDocument) -> String {
    serde_json::json!(document).to_string()
}

/// Stores a template in place of the one with its id; gives its new revision.
pub fn put(connection: &Connection, id: &str, display_name: &str, text: &str) -> rusqlite::Result<i64> {
    let revision = etag::next_revision(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO device_templates (id, display_name, document, revision) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET display_name = ?2, document = ?3, revision = ?4",
        )?
        .execute((id, display_name, text, revision))?;
    Ok(revision)
}

/// The revision of a template, also of one that cannot be read; `None` when none is stored.
pub fn revision(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT revision FROM device_templates WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

/// The template with this id; none when it cannot be read.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<DeviceTemplate>> {
    let mut statement = connection.prepare_cached("SELECT * FROM device_templates WHERE id = ?1")?;
    unreadable::row("device_templates", statement.query_row([id], read))
}

pub fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM device_templates")?;
    statement.query_row([], |row| row.get(0)).map(unsigned)
}

/// Whether the id is taken, also by a template that cannot be read.
pub fn exists(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM device_templates WHERE id = ?1")?.exists([id])
}

/// How many devices a template is assigned to, and the first of them.
pub fn assignments(connection: &Connection, id: &str) -> rusqlite::Result<(u64, Option<String>)> {
    connection
        .prepare_cached("SELECT count(*), min(id) FROM devices WHERE template = ?1")?
        .query_row([id], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))
}

/// A template without its document, and how many devices have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSummary {
    pub id: String,
    pub display_name: String,
    pub organization: String,
    pub devices: u64,
}

const SUMMARIES: &str = "SELECT id, display_name, organization, coalesce(devices, 0) AS devices
    FROM device_templates LEFT JOIN
        (SELECT template, count(*) AS devices FROM devices WHERE template IS NOT NULL GROUP BY template) ON template = id";

fn summary(row: &Row<'_>) -> rusqlite::Result<TemplateSummary> {
    Ok(TemplateSummary {
        id: row.get("id")?,
        display_name: row.get("display_name")?,
        organization: row.get("organization")?,
        devices: unsigned(row.get("devices")?),
    })
}

/// The templates with this text in their id or name, whatever the case, by name.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn summaries(connection: &Connection, search: &str) -> rusqlite::Result<Vec<TemplateSummary>> {
    let sql = format!(
        "{SUMMARIES} WHERE instr(lower(id), lower(?1)) > 0 OR instr(lower(display_name), lower(?1)) > 0
         ORDER BY display_name COLLATE NOCASE, id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    unreadable::rows("device_templates", statement.query_map([search], summary)?).collect()
}

/// The stored templates whose ids differ from this one in their version only, this one included.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn versions(connection: &Connection, id: &str) -> rusqlite::Result<Vec<TemplateSummary>> {
    let Some((path, _)) = id.split_once(';') else { return Ok(Vec::new()) };
    // `<` is the character behind `;`.
    // A longer id has a higher version: they are sorted as numbers.
    let sql = format!("{SUMMARIES} WHERE id >= ?1 AND id < ?2 ORDER BY length(id), id");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map([format!("{path};"), format!("{path}<")], summary)?;
    unreadable::rows("device_templates", found).collect()
}

/// How many devices have no template.
///
/// # Errors
/// The database cannot be read.
pub fn unassigned(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM devices WHERE template IS NULL")?;
    statement.query_row([], |row| row.get(0)).map(unsigned)
}

/// Templates that devices name and that are not stored, with the number of those devices, at most `limit`.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn not_stored(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT template, count(*) FROM devices WHERE template IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM device_templates WHERE id = template)
         GROUP BY template ORDER BY count(*) DESC, template LIMIT ?1",
    )?;
    let found = statement.query_map([limit], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    unreadable::rows("devices", found).collect()
}

/// What [`select`] gives.
pub const LISTED: Listed = Listed {
    table: "device_templates",
    columns: "*",
    from: "device_templates",
    id: "id",
    fields: &[
        Field { name: "id", sql: "id", kind: Kind::Id },
        // As written in a template.
        Field { name: "@id", sql: "id", kind: Kind::Id },
        Field { name: "displayName", sql: "display_name", kind: Kind::Text },
    ],
};

/// The templates that a list asks for, and where its next page begins.
pub fn select(
    connection: &Connection,
    selection: &Selection,
) -> rusqlite::Result<(Vec<DeviceTemplate>, Option<String>)> {
    selection.rows(connection, &LISTED, read)
}

/// Forgets a template; false when there was none.
pub fn delete(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM device_templates WHERE id = ?1")?.execute([id])? == 1)
}
