//! What is not charted, because its sender has as many series as it may, or its message has too many names.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};

use super::columns::{integer, unsigned};
use super::derived::columns;
use super::unreadable;
use crate::telemetry::message_values::entry;

/// Modules of a device of which it is counted one by one what is left out; of the others it is added to the device's own.
const REFUSED_MODULES_MAX: usize = 100;

/// Points of a sender that are not charted.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut {
    pub(super) points: u64,
    /// Name of the value of the last one left out.
    name: String,
    at_ms: u64,
}

impl LeftOut {
    pub(super) fn add(&mut self, points: u64, name: &str, at_ms: u64) {
        *self = Self { points: self.points + points, name: name.to_owned(), at_ms };
    }
}

/// Adds up what is left out of modules of a device that has many such: they may be made up.
pub(super) fn together(left_out: HashMap<Identity, LeftOut>) -> BTreeMap<Identity, LeftOut> {
    let mut modules: HashMap<DeviceId, usize> = HashMap::new();
    for from in left_out.keys() {
        *entry(&mut modules, &from.device) += 1;
    }
    let mut sums: BTreeMap<Identity, LeftOut> = BTreeMap::new();
    for (from, LeftOut { points, name, at_ms }) in left_out {
        let from =
            if modules[&from.device] > REFUSED_MODULES_MAX { Identity::device(from.device) } else { from };
        sums.entry(from).or_default().add(points, &name, at_ms);
    }
    sums
}

/// Counts what is not charted of a sender.
pub(super) fn refuse(connection: &Connection, from: &Identity, left_out: &LeftOut) -> rusqlite::Result<()> {
    let (device, module) = columns(from);
    let is_known = connection
        .prepare_cached("SELECT 1 FROM series_refused WHERE device = ?1 AND module = ?2")?
        .exists((device, module))?;
    let modules: i64 = connection
        .prepare_cached("SELECT count(*) FROM series_refused WHERE device = ?1")?
        .query_row([device], |row| row.get(0))?;
    let has_space = is_known || unsigned(modules) < REFUSED_MODULES_MAX as u64;
    // A name as long as it may be is a row as long as it may be.
    connection
        .prepare_cached(
            "INSERT INTO series_refused (device, module, points, name, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET points = points + excluded.points, name = excluded.name, at_ms = excluded.at_ms",
        )?
        .execute((
            device,
            if has_space { module } else { "" },
            integer(left_out.points),
            &left_out.name,
            integer(left_out.at_ms),
        ))?;
    Ok(())
}

/// Numbers of a device or module that are not charted, because it sends too many names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The module; `None` for the device itself.
    pub module: Option<String>,
    /// How many points were left out.
    pub points: u64,
    /// The last name that was.
    pub name: String,
}

/// What was left out of the series of a device and its modules.
pub fn refused(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Vec<Refused>> {
    let mut statement = connection
        .prepare_cached("SELECT device, module, points, name FROM series_refused WHERE device = ?1")?;
    let rows = statement.query_map([device.as_str()], |row| {
        let module: String = row.get("module")?;
        let points = unsigned(row.get("points")?);
        Ok(Refused {
            module: Some(module).filter(|module| !module.is_empty()),
            points,
            name: row.get("name")?,
        })
    })?;
    unreadable::rows("series_refused", rows).collect()
}
