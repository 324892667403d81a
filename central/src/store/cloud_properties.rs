//! Cloud properties: what central keeps of a device and never sends to it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use schemas::names::DeviceId;
use serde_json::{Map, Value};

use super::columns::{json_column, unsigned};
use super::unreadable;

/// A value, and when it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudProperty {
    pub value: Value,
    pub changed_ms: u64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<(String, CloudProperty)> {
    let changed_ms = unsigned(row.get("changed_ms")?);
    Ok((row.get("name")?, CloudProperty { value: json_column(row, "value")?, changed_ms }))
}

/// Those of a device, by name.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn list(c: &Connection, device: &DeviceId) -> rusqlite::Result<BTreeMap<String, CloudProperty>> {
    let mut statement = c.prepare_cached("SELECT * FROM cloud_properties WHERE device = ?1")?;
    unreadable::rows("cloud_properties", statement.query_map([device.as_str()], read)?).collect()
}

/// Writes some; `null` deletes one, and with `is_whole` those that are not named are deleted too.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn write(
    c: &Connection,
    device: &DeviceId,
    properties: &Map<String, Value>,
    is_whole: bool,
    now_ms: u64,
) -> rusqlite::Result<()> {
    let mut delete = c.prepare_cached("DELETE FROM cloud_properties WHERE device = ?1 AND name = ?2")?;
    if is_whole {
        for name in list(c, device)?.keys().filter(|name| !properties.contains_key(*name)) {
            delete.execute((device.as_str(), name))?;
        }
    }
    let mut put = c.prepare_cached(
        "INSERT INTO cloud_properties (device, name, value, changed_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (device, name) DO UPDATE SET value = ?3, changed_ms = ?4",
    )?;
    for (name, value) in properties {
        if value.is_null() {
            delete.execute((device.as_str(), name))?;
        } else {
            put.execute((device.as_str(), name, value.to_string(), now_ms.cast_signed()))?;
        }
    }
    Ok(())
}
