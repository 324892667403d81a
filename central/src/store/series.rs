//! Numbers that devices and modules have sent, as series of points by device, module, component and name.
//!
//! ```text
//! messages ──read_tail, write_tail──> chunks of level 0 ──compact──> chunks of level 1, by time, with roll-ups
//! ```
//! A message is stored with all that is in it, and its points are taken from it behind its commit, as last values are (see
//! `last_values.rs`): [`read_tail`] reads messages on a connection of its own, [`write_tail`] writes a chunk for each series together
//! with how far they went, in one commit. So a point is taken once, also after a kill, and no message waits for it. Who reads a series
//! gets the chunks and the messages that are not in them yet, of one moment.
//!
//! A later chunk has a higher id, and corrects what earlier ones have of the same time. What was sent before a sender was deleted is left
//! out by its floor.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row};
use schemas::body::decode;
use schemas::names::{DeviceId, Identity, ModuleId};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::unreadable;
use crate::message_values::{Stamp, entry, members};
use crate::series::chunk;
use crate::series::point::Point;
use crate::series::rollup;

/// Series of one device or module. Names beyond are not charted; their values stand in the messages.
pub const NAMES_MAX: usize = 1000;
/// Names of one message that are looked at, the first ones.
const MESSAGE_NAMES_MAX: usize = 1000;
/// Messages that are read at once.
const TAIL_MESSAGES: u32 = 10_000;
/// A floor of a device and all its modules, in place of a module's name.
const ALL_MODULES: &str = "/";
/// A chunk as it came.
pub(super) const LOOSE: i64 = 0;
/// A chunk that was compacted. Those of a series share no times.
pub(super) const COMPACT: i64 = 1;
/// What a chunk takes beside its blobs: its row and its entries in indexes.
pub(super) const ROW_BYTES: u64 = 64;

/// Points of a sender, by component and name, in the order of their messages.
type Points = HashMap<String, HashMap<String, Vec<Point>>>;

fn columns(of: &Identity) -> (&str, &str) {
    (of.device.as_str(), of.module.as_ref().map_or("", ModuleId::as_str))
}

/// A message as it is stored.
pub(super) struct StoredMessage {
    id: i64,
    pub(super) from: Identity,
    enqueued_ms: u64,
    received_ms: u64,
    bag: serde_json::Map<String, serde_json::Value>,
    body: Vec<u8>,
}

impl StoredMessage {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let module: Option<String> = row.get("module")?;
        let module = module.map(|_| parsed_column(row, "module")).transpose()?;
        Ok(Self {
            id: row.get("id")?,
            from: Identity { device: parsed_column(row, "device")?, module },
            enqueued_ms: unsigned(row.get("enqueued_ms")?),
            received_ms: unsigned(row.get("received_ms")?),
            bag: json_column(row, "bag")?,
            body: row.get("body")?,
        })
    }

    /// Adds what the body has under names that `wants` wants, if it is a JSON object.
    fn add_to(&self, senders: &mut HashMap<Identity, Points>, wants: impl Fn(&str, &str) -> bool) {
        let property = |name: &str| self.bag.get(name).map(|value| value.as_str().unwrap_or_default());
        let stamp = Stamp::new(self.enqueued_ms, self.received_ms, self.id).with(property);
        let Some(text) = decode(stamp.encoding, &self.body) else { return };
        let Some(members) = members(&text) else { return };
        let (order, is_stated) = stamp.order_and_stated();
        let component = stamp.component.unwrap_or_default();
        let found = members.into_iter().take(MESSAGE_NAMES_MAX);
        for (name, value) in found.filter(|(name, _)| wants(component, name)) {
            let points: &mut Vec<Point> = entry(entry(entry(senders, &self.from), component), name.as_ref());
            let point =
                Point { at_ms: order.at_ms, enqueued_ms: self.enqueued_ms, is_stated, value: number(value) };
            points.push(point);
        }
    }
}

/// The number that a JSON value is.
fn number(value: &str) -> Option<f64> {
    if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

/// How far the chunks go.
pub(super) struct SeriesState {
    /// The id of the last message that they know.
    pub(super) up_to: i64,
    /// How often floors were set.
    floors: i64,
}

impl SeriesState {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT up_to, floors FROM series_state")?
            .query_row([], |row| Ok(Self { up_to: row.get(0)?, floors: row.get(1)? }))
    }
}

/// The id of the last message of a sender that was sent before it, or its device, was deleted; 0 for none.
fn floor(connection: &Connection, of: &Identity) -> rusqlite::Result<i64> {
    let (device, module) = columns(of);
    connection
        .prepare_cached(
            "SELECT coalesce(max(message), 0) FROM series_floors WHERE device = ?1 AND module IN (?2, ?3)",
        )?
        .query_row((device, module, ALL_MODULES), |row| row.get(0))
}

/// Adds messages to the points of their senders, unless they stand below the senders' floors.
pub(super) fn gather(
    connection: &Connection,
    messages: Vec<StoredMessage>,
    wants: impl Fn(&Identity, &str, &str) -> bool,
) -> rusqlite::Result<HashMap<Identity, Points>> {
    let mut floors: HashMap<Identity, i64> = HashMap::new();
    let mut senders = HashMap::new();
    for message in messages {
        let above = match floors.get(&message.from) {
            Some(above) => *above,
            None => {
                let above = floor(connection, &message.from)?;
                floors.insert(message.from.clone(), above);
                above
            }
        };
        if message.id > above {
            message.add_to(&mut senders, |component, name| wants(&message.from, component, name));
        }
    }
    Ok(senders)
}

/// Points of messages that are not in the chunks yet.
pub(super) struct SeriesTail {
    senders: HashMap<Identity, Points>,
    after: i64,
    up_to: i64,
    floors: i64,
    /// How many messages there are behind these.
    pub(super) left: u64,
}

/// Reads some messages that are not in the chunks yet, oldest first; `None` when there are none.
///
/// # Errors
/// SQLite's.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<SeriesTail>> {
    let SeriesState { up_to: after, floors } = SeriesState::read(connection)?;
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(id) FROM telemetry WHERE id > ?1), (SELECT max(id) FROM telemetry)",
        )?
        .query_row([after], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    // Ids have gaps only where old messages were deleted.
    let up_to = (first - 1).saturating_add(TAIL_MESSAGES.into()).min(last);
    let mut statement = connection.prepare_cached(
        "SELECT telemetry.id, device, module, enqueued_ms, received_ms, bag, body FROM telemetry
         JOIN devices ON devices.id = telemetry.device WHERE telemetry.id > ?1 AND telemetry.id <= ?2
         ORDER BY telemetry.id",
    )?;
    let rows = statement.query_map((after, up_to), StoredMessage::read)?;
    let messages: Vec<StoredMessage> =
        unreadable::rows("telemetry", rows).collect::<rusqlite::Result<_>>()?;
    let senders = gather(connection, messages, |_, _, _| true)?;
    Ok(Some(SeriesTail { senders, after, up_to, floors, left: unsigned(last - up_to) }))
}

/// Points that were added to a series as one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) series: i64,
    pub(super) points: usize,
}

/// Writes a chunk for each series of a tail, unless a sender was deleted or somebody else wrote it since it was read; what is missing is
/// read again then.
///
/// # Errors
/// SQLite's.
pub(super) fn write_tail(connection: &Connection, tail: &SeriesTail) -> rusqlite::Result<Vec<Added>> {
    let state = SeriesState::read(connection)?;
    if (state.up_to, state.floors) != (tail.after, tail.floors) {
        return Ok(Vec::new());
    }
    let mut added = Vec::new();
    for (from, components) in &tail.senders {
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
    connection.prepare_cached("UPDATE series_state SET up_to = ?1")?.execute([tail.up_to])?;
    connection.prepare_cached("DELETE FROM series_floors WHERE message <= ?1")?.execute([tail.up_to])?;
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
///
/// # Errors
/// SQLite's.
pub fn usage(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached("SELECT ifnull(sum(bytes), 0), ifnull(sum(points), 0) FROM series_usage")?
        .query_row([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
}

/// Brings the chunks to a message that is about to be deleted.
///
/// # Errors
/// SQLite's.
pub(super) fn reach(connection: &Connection, message: i64) -> rusqlite::Result<()> {
    while SeriesState::read(connection)?.up_to < message
        && let Some(tail) = read_tail(connection)?
    {
        write_tail(connection, &tail)?;
    }
    Ok(())
}

/// Forgets the series of a device and its modules.
///
/// # Errors
/// SQLite's.
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
    set_floor(connection, device, ALL_MODULES)
}

/// Forgets the series of a module, or of a device without its modules.
///
/// # Errors
/// SQLite's.
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
    set_floor(connection, device, module)
}

fn set_floor(connection: &Connection, device: &str, module: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO series_floors (device, module, message)
             VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM telemetry))",
        )?
        .execute((device, module))?;
    connection.prepare_cached("UPDATE series_state SET floors = floors + 1")?.execute([])?;
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
///
/// # Errors
/// SQLite's.
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
