//! Numbers that devices and modules have sent, as series of points by device, module, component and name.
//!
//! ```text
//! messages ──read_tail, write_tail──> chunks of level 0 ──compact──> chunks of level 1, by time, with roll-ups
//! ```
//! A message is stored with all that is in it, and its points are taken from it behind its commit (see `derived.rs`):
//! [`write_tail`] writes a chunk for each series. So a point is taken once, also after a kill, and no message waits for it. Who
//! reads a series gets the chunks and the messages that are not in them yet.
//!
//! A later chunk has a higher id, and corrects what earlier ones have of the same time.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};
use schemas::body::decode;
use schemas::names::{DeviceId, Identity};

use super::columns::{integer, unsigned};
use super::derived::{ALL_MODULES, Derived, StoredMessage, Tail, columns};
use super::unreadable;
use crate::series::chunk;
use crate::series::point::Point;
use crate::series::rollup;
use crate::telemetry::message_values::{entry, members};

/// Series of one device or module. Names beyond are not charted; their values stand in the messages.
pub const NAMES_MAX: usize = 1000;
/// Names of one message that are looked at, the first ones.
const MESSAGE_NAMES_MAX: usize = 1000;
/// How far the chunks go.
pub(super) const SERIES: Derived =
    Derived { state_table: "series_state", floors_table: "series_floors", messages_max: 10_000 };
/// A chunk as it came.
pub(super) const LOOSE: i64 = 0;
/// A chunk that was compacted. Those of a series share no times.
pub(super) const COMPACT: i64 = 1;
/// What a chunk takes beside its blobs: its row and its entries in indexes.
pub(super) const ROW_BYTES: u64 = 64;

/// Points of a sender, by component and name, in the order of their messages.
pub(super) type Points = HashMap<String, HashMap<String, Vec<Point>>>;

/// Adds the numbers of a message under names that `wants` wants, if its body is a JSON object.
pub(super) fn add_points(
    senders: &mut HashMap<Identity, Points>,
    message: &StoredMessage,
    wants: impl Fn(&str, &str) -> bool,
) {
    let stamp = message.stamp();
    let Some(text) = decode(stamp.encoding, &message.body) else { return };
    let Some(members) = members(&text) else { return };
    let (order, is_stated) = stamp.order_and_stated();
    let component = stamp.component.unwrap_or_default();
    let found = members.into_iter().take(MESSAGE_NAMES_MAX);
    for (name, value) in found.filter(|(name, _)| wants(component, name)) {
        let points: &mut Vec<Point> = entry(entry(entry(senders, &message.from), component), name.as_ref());
        let enqueued_ms = message.enqueued_ms;
        points.push(Point { at_ms: order.at_ms, enqueued_ms, is_stated, value: number(value) });
    }
}

/// The number that a JSON value is.
fn number(value: &str) -> Option<f64> {
    if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Points of messages that are not in the chunks yet.
pub(super) struct SeriesTail {
    senders: HashMap<Identity, Points>,
    tail: Tail,
}

impl SeriesTail {
    /// How many messages there are behind these.
    pub(super) fn left(&self) -> u64 {
        self.tail.left
    }
}

/// Reads some messages that are not in the chunks yet, oldest first; `None` when there are none.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<SeriesTail>> {
    let mut senders = HashMap::new();
    let tail = SERIES.read_tail(connection, |message| add_points(&mut senders, message, |_, _| true))?;
    Ok(tail.map(|tail| SeriesTail { senders, tail }))
}

/// Points that were added to a series as one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) series: i64,
    pub(super) points: usize,
}

/// Writes a chunk for each series of a tail, unless a sender was deleted or somebody else wrote it since it was read; what is missing is
/// read again then.
pub(super) fn write_tail(connection: &Connection, tail: &SeriesTail) -> rusqlite::Result<Vec<Added>> {
    let SeriesTail { senders, tail } = tail;
    if !SERIES.is_current(connection, tail)? {
        return Ok(Vec::new());
    }
    let mut added = Vec::new();
    for (from, components) in senders {
        let (mut bytes, mut count) = (0, 0);
        for (component, names) in components {
            for (name, points) in names {
                let Some(series) = series_for(connection, from, component, name, points)? else { continue };
                let mut points = points.clone();
                points.sort_by_key(|point| point.at_ms);
                bytes += insert(connection, series, LOOSE, &points)?;
                count += points.len() as u64;
                added.push(Added { series, points: points.len() });
            }
        }
        account(connection, from.device.as_str(), bytes.cast_signed(), count.cast_signed())?;
    }
    SERIES.advance(connection, tail)?;
    Ok(added)
}

/// The series of a name, which is made when it is new and has a number; `None` when it has none, or its sender has as many as it may.
fn series_for(
    connection: &Connection,
    from: &Identity,
    component: &str,
    name: &str,
    points: &[Point],
) -> rusqlite::Result<Option<i64>> {
    let known = find(connection, from, component, name)?;
    if known.is_some() || points.iter().all(|point| point.value.is_none()) {
        return Ok(known);
    }
    let (device, module) = columns(from);
    let names: i64 = connection
        .prepare_cached("SELECT count(*) FROM series WHERE device = ?1 AND module = ?2")?
        .query_row((device, module), |row| row.get(0))?;
    if unsigned(names) >= NAMES_MAX as u64 {
        // A name as long as it may be is a row as long as it may be.
        connection
            .prepare_cached(
                "INSERT INTO series_refused (device, module, points, name, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET points = points + excluded.points, name = excluded.name, at_ms = excluded.at_ms",
            )?
            .execute((
                device,
                module,
                integer(points.len() as u64),
                name,
                integer(points.last().map_or(0, |point| point.at_ms)),
            ))?;
        return Ok(None);
    }
    connection
        .prepare_cached("INSERT INTO series (device, module, component, name) VALUES (?1, ?2, ?3, ?4)")?
        .execute((device, module, component, name))?;
    Ok(Some(connection.last_insert_rowid()))
}

pub(super) fn find(
    connection: &Connection,
    of: &Identity,
    component: &str,
    name: &str,
) -> rusqlite::Result<Option<i64>> {
    let (device, module) = columns(of);
    connection
        .prepare_cached(
            "SELECT id FROM series WHERE device = ?1 AND module = ?2 AND component = ?3 AND name = ?4",
        )?
        .query_row((device, module, component, name), |row| row.get(0))
        .optional()
}

/// Writes a chunk of points, which are sorted by time, and gives what it takes.
pub(super) fn insert(
    connection: &Connection,
    series: i64,
    level: i64,
    points: &[Point],
) -> rusqlite::Result<u64> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(0) };
    let data = chunk::encode(points);
    let rollup = if level == COMPACT { rollup::encode(points) } else { Vec::new() };
    let bytes = (data.len() + rollup.len()) as u64 + ROW_BYTES;
    connection
        .prepare_cached(
            "INSERT INTO series_chunks (series, level, first_ms, last_ms, points, bytes, rollup, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            series,
            level,
            integer(first.at_ms),
            integer(last.at_ms),
            integer(points.len() as u64),
            integer(bytes),
            rollup,
            data,
        ))?;
    Ok(bytes)
}

/// Adds to what the series of a device take.
pub(super) fn account(
    connection: &Connection,
    device: &str,
    bytes: i64,
    points: i64,
) -> rusqlite::Result<()> {
    if (bytes, points) == (0, 0) {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO series_usage (device, bytes, points) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, points = points + excluded.points",
        )?
        .execute((device, bytes, points))?;
    Ok(())
}

/// Bytes and points of the series of all devices.
pub fn usage(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached("SELECT ifnull(sum(bytes), 0), ifnull(sum(points), 0) FROM series_usage")?
        .query_row([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
}

/// Brings the chunks to a message that is about to be deleted.
pub(super) fn reach(connection: &Connection, message: i64) -> rusqlite::Result<()> {
    while SERIES.state(connection)?.up_to < message
        && let Some(tail) = read_tail(connection)?
    {
        write_tail(connection, &tail)?;
    }
    Ok(())
}

/// Deletes the series of a device and its modules.
pub fn delete_device(connection: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    let device = device.as_str();
    connection
        .prepare_cached(
            "DELETE FROM series_chunks WHERE series IN (SELECT id FROM series WHERE device = ?1)",
        )?
        .execute([device])?;
    for table in ["series", "series_refused", "series_usage"] {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE device = ?1"))?.execute([device])?;
    }
    SERIES.set_floor(connection, device, ALL_MODULES)
}

/// Deletes the series of a module, or of a device without its modules.
pub fn delete(connection: &Connection, of: &Identity) -> rusqlite::Result<()> {
    let (device, module) = columns(of);
    let (bytes, points): (i64, i64) = connection
        .prepare_cached(
            "SELECT ifnull(sum(bytes), 0), ifnull(sum(points), 0) FROM series_chunks
             WHERE series IN (SELECT id FROM series WHERE device = ?1 AND module = ?2)",
        )?
        .query_row((device, module), |row| Ok((row.get(0)?, row.get(1)?)))?;
    connection
        .prepare_cached(
            "DELETE FROM series_chunks WHERE series IN (SELECT id FROM series WHERE device = ?1 AND module = ?2)",
        )?
        .execute((device, module))?;
    for table in ["series", "series_refused"] {
        let delete = format!("DELETE FROM {table} WHERE device = ?1 AND module = ?2");
        connection.prepare_cached(&delete)?.execute((device, module))?;
    }
    account(connection, device, -bytes, -points)?;
    SERIES.set_floor(connection, device, module)
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

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
