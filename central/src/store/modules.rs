//! Which of the modules of a name a gateway's manifest means: a module that leaves the manifest and comes back is another one.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};
use schemas::names::{DeviceId, Identity, ModuleId};

use super::columns::{integer, parsed_column, unsigned};
use super::generations::next_generation;
use super::{last_values, series, unreadable};

/// Registers a module that a manifest adds. Telemetry stored before is not shown as its own.
pub fn add(c: &Connection, gateway: &DeviceId, module: &ModuleId) -> rusqlite::Result<()> {
    let generation = next_generation(c)?;
    c.prepare_cached(
        "INSERT OR REPLACE INTO modules (device, module, generation, telemetry_after)
         VALUES (?1, ?2, ?3, (SELECT coalesce(max(id), 0) FROM telemetry))",
    )?
    .execute((gateway.as_str(), module.as_str(), integer(generation)))?;
    let of = Identity::module(gateway.clone(), module.clone());
    last_values::delete(c, &of)?;
    series::delete(c, &of)
}

/// Deletes a module that left its manifest, with its last values and series.
pub fn delete(c: &Connection, gateway: &DeviceId, module: &ModuleId) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM modules WHERE device = ?1 AND module = ?2")?
        .execute([gateway.as_str(), module.as_str()])?;
    let of = Identity::module(gateway.clone(), module.clone());
    last_values::delete(c, &of)?;
    series::delete(c, &of)
}

/// Returns the generation of a module; 0 of one that no manifest added since generations are kept.
pub fn generation(c: &Connection, gateway: &DeviceId, module: &ModuleId) -> rusqlite::Result<u64> {
    let found: Option<i64> = c
        .prepare_cached("SELECT generation FROM modules WHERE device = ?1 AND module = ?2")?
        .query_row([gateway.as_str(), module.as_str()], |row| row.get(0))
        .optional()?;
    Ok(found.map_or(0, unsigned))
}

/// Returns the generations of a gateway's modules, of those that have one.
pub fn generations(c: &Connection, gateway: &DeviceId) -> rusqlite::Result<BTreeMap<ModuleId, u64>> {
    let mut statement = c.prepare_cached("SELECT module, generation FROM modules WHERE device = ?1")?;
    let rows = statement.query_map([gateway.as_str()], |row| {
        Ok((parsed_column(row, "module")?, unsigned(row.get("generation")?)))
    })?;
    unreadable::rows("modules", rows).collect()
}
