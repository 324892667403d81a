//! Twins: a desired and a reported section for each device and module, each with its version.

use std::collections::{BTreeMap, BTreeSet};

use edge_core::twin::difference;
use rusqlite::{Connection, OptionalExtension as _};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::{Section, Twin};
use serde_json::Map;

use crate::types::component::{ComponentName, is_component};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::unreadable;

/// Which half of a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Desired,
    /// Written by the device or module.
    Reported,
}

impl Half {
    fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Reported => "reported",
        }
    }
}

/// When each property at the top, and of a component, last changed: milliseconds since the Unix epoch, and the section's version then.
pub type Touched = BTreeMap<String, (u64, u64)>;

/// A section with the times of its properties.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredSection {
    pub section: Section,
    /// When each of its properties last changed.
    pub touched: Touched,
    /// Its properties cannot be read: they are empty here, and are not those that were written.
    pub is_unreadable: bool,
}

fn module_column(identity: &Identity) -> &str {
    identity.module.as_ref().map_or("", ModuleId::as_str)
}

/// One section; empty at version 0 when nothing was ever written.
pub fn section(connection: &Connection, of: &Identity, half: Half) -> rusqlite::Result<StoredSection> {
    let found = connection
        .prepare_cached(
            "SELECT device, version, properties, touched FROM twins WHERE device = ?1 AND module = ?2 AND section = ?3",
        )?
        .query_row([of.device.as_str(), module_column(of), half.as_str()], |row| {
            let properties = unreadable::value("twins", json_column(row, "properties"))?;
            let touched: Touched =
                unreadable::value("twins", json_column(row, "touched"))?.unwrap_or_default();
            let version = unreadable::value("twins", row.get("version"))?.map(unsigned);
            let is_unreadable = properties.is_none() || version.is_none();
            // The properties know the versions in which they changed.
            let version = version.or_else(|| touched.values().map(|(_, version)| *version).max()).unwrap_or(1);
            let section = Section { version, properties: properties.unwrap_or_default() };
            Ok(StoredSection { section, touched, is_unreadable })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Both sections.
pub fn twin(connection: &Connection, of: &Identity) -> rusqlite::Result<Twin> {
    Ok(Twin {
        desired: section(connection, of, Half::Desired)?.section,
        reported: section(connection, of, Half::Reported)?.section,
    })
}

/// Writes a section in place of the stored one, and notes which properties changed.
pub fn write(
    connection: &Connection,
    of: &Identity,
    half: Half,
    new: &Section,
    now_ms: u64,
) -> rusqlite::Result<()> {
    let old = section(connection, of, half)?;
    let touched = touched(&old, new, now_ms);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO twins (device, module, section, version, properties, touched)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            of.device.as_str(),
            module_column(of),
            half.as_str(),
            integer(new.version),
            serde_json::Value::Object(new.properties.clone()).to_string(),
            serde_json::json!(touched).to_string(),
        ))?;
    Ok(())
}

/// When each property of `new` changed, those of components under [`ComponentName::touched_key`] too.
fn touched(old: &StoredSection, new: &Section, now_ms: u64) -> Touched {
    let mut touched = old.touched.clone();
    for (key, change) in difference(&old.section.properties, &new.properties) {
        touched.insert(key.clone(), (now_ms, new.version));
        let is_component = new.properties.get(&key).is_some_and(is_component);
        for property in change.as_object().filter(|_| is_component).into_iter().flat_map(Map::keys) {
            touched.insert(ComponentName::touched_key(&key, property), (now_ms, new.version));
        }
    }
    // Keys of twins have no dots, so a dot is that of a component's key.
    touched.retain(|key, _| match key.split_once('.') {
        None => new.properties.contains_key(key),
        Some((component, property)) => {
            new.properties.get(component).is_some_and(|value| value.get(property).is_some())
        }
    });
    touched
}

/// The components that the twin of a device or module has, in either section.
pub fn components(connection: &Connection, of: &Identity) -> rusqlite::Result<BTreeSet<ComponentName>> {
    let twin = twin(connection, of)?;
    let all = twin.desired.properties.iter().chain(&twin.reported.properties);
    Ok(all.filter(|(_, value)| is_component(value)).filter_map(|(name, _)| name.parse().ok()).collect())
}

/// Deletes both sections.
pub fn delete(connection: &Connection, of: &Identity) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM twins WHERE device = ?1 AND module = ?2")?
        .execute([of.device.as_str(), module_column(of)])?;
    Ok(())
}

/// The modules of a device that have a section.
pub fn modules(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Vec<ModuleId>> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT module FROM twins WHERE device = ?1 AND module <> '' ORDER BY module",
    )?;
    let named = statement.query_map([device.as_str()], |row| parsed_column(row, "module"))?;
    unreadable::rows("twins", named).collect()
}
