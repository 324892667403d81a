//! Numbers that devices and modules have sent, as series of points by device, module, component and name.
//!
//! ```text
//! messages ──read_tail, write_slice──> chunks of level 0 ──compact──> chunks of level 1, by time, with roll-ups
//! ```
//! A message is stored with all that is in it, and its points are taken from it behind its commit (see `derived.rs`):
//! [`write_slice`] writes chunks for some series of them together with how far it went, since two equal points may be two. So a point is
//! taken once, also after a kill, and no message waits for it. Who reads a series gets the chunks and the messages that are not in them
//! yet.
//!
//! A later chunk has a higher id, and corrects what earlier ones have of the same time.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _};
use schemas::body::decode;
use schemas::names::{DeviceId, Identity};

use super::columns::{json_column, unsigned};
use super::derived::{ALL_MODULES, Derived, State, StoredMessage, columns};
pub(super) use super::series_chunks::{COMPACT, EncodedChunk, LOOSE, ROW_BYTES};
use super::series_left_out::{LeftOut, refuse, together};
pub use super::series_left_out::{Refused, refused};
use super::tail_bounds::{MESSAGE_NAMES_MAX, TailBounds};
use crate::series::point::Point;
use crate::telemetry::message_values::{entry, members};

/// Series of one device or module. Names beyond are not charted; their values stand in the messages.
pub const NAMES_MAX: usize = 1000;
/// Series of a device and all its modules. A gateway may make up modules.
pub const DEVICE_NAMES_MAX: usize = 5000;
/// Messages that are read at once.
const TAIL_MESSAGES: TailBounds = TailBounds { messages: 10_000, values: 500_000 };
/// Chunks that are written in one work of the writer, for which the other works wait: about 10 ms.
const SLICE_CHUNKS_MAX: usize = 500;
/// How far the chunks go.
pub(super) const SERIES: Derived = Derived { state_table: "series_state", floors_table: "series_floors" };

/// Points of a sender, by component and name, in the order of their messages.
type Points = HashMap<String, HashMap<String, Vec<Point>>>;

/// The number that a JSON value is.
fn number(value: &str) -> Option<f64> {
    if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Names a series: device, module (empty: the device itself), component and name. Parts are written in this order.
pub(super) type SeriesKey = (String, String, String, String);

/// How far the chunks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeriesState {
    state: State,
    /// Of messages that are written in parts.
    part: Option<Part>,
}

/// How far the parts go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// The last message.
    up_to: i64,
    /// The last series that knows it.
    series: SeriesKey,
}

impl SeriesState {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT up_to, floors, part_up_to, part_series FROM series_state")?
            .query_row([], |row| {
                let part = match row.get::<_, Option<i64>>("part_up_to")? {
                    Some(up_to) => Some(Part { up_to, series: json_column(row, "part_series")? }),
                    None => None,
                };
                let state = State { up_to: row.get("up_to")?, floors: row.get("floors")? };
                Ok(Self { state, part })
            })
    }

    /// The last message that a series knows.
    pub(super) fn known_to(&self, series: &SeriesKey) -> i64 {
        self.part.as_ref().filter(|part| *series <= part.series).map_or(self.state.up_to, |part| part.up_to)
    }
}

/// The points of messages, by sender.
#[derive(Default)]
pub(super) struct Gathering {
    pub(super) senders: HashMap<Identity, Points>,
    left_out: HashMap<Identity, LeftOut>,
}

impl Gathering {
    /// Adds what a message has under names that `wants` wants, if its body is a JSON object; returns how many values were read.
    pub(super) fn add(&mut self, message: &StoredMessage, wants: impl Fn(&str, &str) -> bool) -> usize {
        let stamp = message.stamp();
        let Some(text) = decode(stamp.encoding, &message.body) else { return 0 };
        let Some(members) = members(&text) else { return 0 };
        let (order, is_stated) = stamp.order_and_stated();
        let component = stamp.component.unwrap_or_default();
        let count = members.len();
        if let Some((last, _)) = members.last().filter(|_| count > MESSAGE_NAMES_MAX) {
            let left_out = entry(&mut self.left_out, &message.from);
            left_out.add((count - MESSAGE_NAMES_MAX) as u64, last, order.at_ms);
        }
        let found = members.into_iter().take(MESSAGE_NAMES_MAX);
        for (name, value) in found.filter(|(name, _)| wants(component, name)) {
            let points: &mut Vec<Point> =
                entry(entry(entry(&mut self.senders, &message.from), component), name.as_ref());
            let (at_ms, enqueued_ms) = (order.at_ms, message.enqueued_ms);
            points.push(Point { at_ms, enqueued_ms, is_stated, value: number(value) });
        }
        count
    }

    /// The chunks to write, in the order of their series; what exceeds the limit of its sender is left out.
    fn into_chunks(
        mut self,
        connection: &Connection,
    ) -> rusqlite::Result<(Vec<NewChunk>, BTreeMap<Identity, LeftOut>)> {
        let mut senders: Vec<(Identity, Points)> = std::mem::take(&mut self.senders).into_iter().collect();
        // In the order of series, because a part notes the last series that it wrote.
        senders.sort_by(|(one, _), (other, _)| columns(one).cmp(&columns(other)));
        let mut chunks = Vec::new();
        let mut of_device: Option<(DeviceId, usize)> = None;
        for (from, components) in senders {
            let known = known(connection, &from)?;
            let in_device = match of_device {
                Some((device, count)) if device == from.device => count,
                _ => count(connection, &from.device)?,
            };
            let mut space =
                NAMES_MAX.saturating_sub(known.len()).min(DEVICE_NAMES_MAX.saturating_sub(in_device));
            let before = space;
            let (device, module) = columns(&from);
            let mut all: Vec<(&str, &str, Vec<Point>)> = Vec::new();
            for (component, names) in &components {
                all.extend(
                    names.iter().map(|(name, points)| (component.as_str(), name.as_str(), points.clone())),
                );
            }
            all.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
            for (component, name, mut points) in all {
                let is_known = known.contains(&(component.to_owned(), name.to_owned()));
                // A value that is no number begins no series (decision 0049).
                if !is_known && points.iter().all(|point| point.value.is_none()) {
                    continue;
                }
                if !is_known && space == 0 {
                    let at_ms = points.last().map_or(0, |point| point.at_ms);
                    entry(&mut self.left_out, &from).add(points.len() as u64, name, at_ms);
                    continue;
                }
                space -= usize::from(!is_known);
                // The sort keeps the order of arrival: of two points with one time, the later one corrects the other.
                points.sort_by_key(|point| point.at_ms);
                let series = (device.to_owned(), module.to_owned(), component.to_owned(), name.to_owned());
                chunks.extend(EncodedChunk::of(LOOSE, &points).map(|chunk| NewChunk { series, chunk }));
            }
            of_device = Some((from.device, in_device + before - space));
        }
        Ok((chunks, together(self.left_out)))
    }
}

/// The components and names that a sender has series of.
fn known(connection: &Connection, of: &Identity) -> rusqlite::Result<HashSet<(String, String)>> {
    connection
        .prepare_cached("SELECT component, name FROM series WHERE device = ?1 AND module = ?2")?
        .query_map(columns(of), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// How many series a device and its modules have.
fn count(connection: &Connection, device: &DeviceId) -> rusqlite::Result<usize> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM series WHERE device = ?1")?
        .query_row([device.as_str()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Points of messages that are not in the chunks yet, in parts for the writer.
pub(super) struct SeriesTail {
    /// To be written in this order.
    pub(super) slices: Vec<SeriesSlice>,
    /// How many messages there are behind these.
    pub(super) left: u64,
}

/// The chunks of some series.
pub(super) struct SeriesSlice {
    /// When they are written; else the messages are read again.
    when: SeriesState,
    chunks: Vec<NewChunk>,
    then: SeriesState,
    left_out: BTreeMap<Identity, LeftOut>,
}

struct NewChunk {
    series: SeriesKey,
    chunk: EncodedChunk,
}

/// Reads some messages that are not in the chunks yet, oldest first; `None` when there are none.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<SeriesTail>> {
    read_within(connection, TAIL_MESSAGES)
}

fn read_within(connection: &Connection, bounds: TailBounds) -> rusqlite::Result<Option<SeriesTail>> {
    let state = SeriesState::read(connection)?;
    // Of those that were begun, the same messages.
    let until = state.part.as_ref().map(|part| part.up_to);
    let mut gathering = Gathering::default();
    let tail = SERIES.read_tail(connection, bounds, until, |message| gathering.add(message, |_, _| true))?;
    let Some(tail) = tail else { return Ok(None) };
    let (mut chunks, left_out) = gathering.into_chunks(connection)?;
    if let Some(part) = &state.part {
        // The series up to there have these points already.
        chunks.retain(|chunk| chunk.series > part.series);
    }
    Ok(Some(SeriesTail { slices: slices(state, chunks, left_out, tail.up_to), left: tail.left }))
}

fn slices(
    mut when: SeriesState,
    chunks: Vec<NewChunk>,
    left_out: BTreeMap<Identity, LeftOut>,
    up_to: i64,
) -> Vec<SeriesSlice> {
    let mut slices = Vec::with_capacity(chunks.len() / SLICE_CHUNKS_MAX + 1);
    let mut chunks = chunks.into_iter().peekable();
    loop {
        let slice: Vec<NewChunk> = chunks.by_ref().take(SLICE_CHUNKS_MAX).collect();
        let series = slice.last().filter(|_| chunks.peek().is_some()).map(|last| last.series.clone());
        let Some(series) = series else {
            let then = SeriesState { state: State { up_to, ..when.state }, part: None };
            // Once, with the last part: a kill between two parts must not count it twice.
            slices.push(SeriesSlice { when, chunks: slice, then, left_out });
            return slices;
        };
        let then = SeriesState { part: Some(Part { up_to, series }), state: when.state };
        let left_out = BTreeMap::new();
        slices.push(SeriesSlice { when, chunks: slice, then: then.clone(), left_out });
        when = then;
    }
}

/// Points that were added to a series as one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) series: i64,
    pub(super) points: usize,
}

/// Writes the chunks of some series of a tail, unless a sender was deleted or somebody else wrote them since they were read; what is
/// missing is read again then.
pub(super) fn write_slice(connection: &Connection, slice: &SeriesSlice) -> rusqlite::Result<Vec<Added>> {
    if SeriesState::read(connection)? != slice.when {
        return Ok(Vec::new());
    }
    let mut added = Vec::with_capacity(slice.chunks.len());
    let mut usage: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for NewChunk { series, chunk } in &slice.chunks {
        let id = series_for(connection, series)?;
        chunk.insert(connection, id)?;
        let of_device = usage.entry(&series.0).or_default();
        *of_device = (of_device.0 + chunk.bytes(), of_device.1 + chunk.points as u64);
        added.push(Added { series: id, points: chunk.points });
    }
    for (device, (bytes, points)) in usage {
        account(connection, device, bytes.cast_signed(), points.cast_signed())?;
    }
    for (from, left_out) in &slice.left_out {
        refuse(connection, from, left_out)?;
    }
    let SeriesState { state, part } = &slice.then;
    let (part_up_to, part_series) =
        part.as_ref().map(|part| (part.up_to, serde_json::json!(part.series))).unzip();
    connection
        .prepare_cached("UPDATE series_state SET part_up_to = ?1, part_series = ?2")?
        .execute((part_up_to, part_series.map(|series| series.to_string())))?;
    SERIES.advance(connection, state.up_to)?;
    Ok(added)
}

/// The series of a name, which is made when it is new.
fn series_for(connection: &Connection, series: &SeriesKey) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached(
            "SELECT id FROM series WHERE device = ?1 AND module = ?2 AND component = ?3 AND name = ?4",
        )?
        .query_row((&series.0, &series.1, &series.2, &series.3), |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    connection
        .prepare_cached("INSERT INTO series (device, module, component, name) VALUES (?1, ?2, ?3, ?4)")?
        .execute((&series.0, &series.1, &series.2, &series.3))?;
    Ok(connection.last_insert_rowid())
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

/// Brings the chunks nearer to a message that is about to be deleted, within the bounds of one work of the writer. Returns the id of
/// the last message that they know.
pub(super) fn fold_up_to(connection: &Connection, message: i64) -> rusqlite::Result<i64> {
    let SeriesState { state, part } = SeriesState::read(connection)?;
    // What was begun in parts was read with wider bounds, and is not read again here.
    if state.up_to < message
        && part.is_none()
        && let Some(tail) = read_within(connection, TailBounds::OF_WRITER)?
    {
        for slice in &tail.slices {
            write_slice(connection, slice)?;
        }
    }
    Ok(SERIES.state(connection)?.up_to)
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

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
