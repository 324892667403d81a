//! The newest value of each name that a device or module has sent.
//!
//! Newest is what was made last, whatever arrives last: messages are ordered by [`Order`]. A row is right after any order of
//! arrivals.
//!
//! Rows are written behind the messages (see `derived.rs`): [`write_slice`] writes what is newest of some messages. Whoever reads for a
//! value gets the newer of its row and the messages that are not in the rows yet.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use schemas::bag::system;
use schemas::body::decode;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::value::RawValue;

use super::columns::{integer, parsed_column, unsigned};
use super::derived::{ALL_MODULES, Derived, StoredMessage, Tail, columns};
use super::tail_bounds::{MESSAGE_NAMES_MAX, TailBounds};
use super::unreadable;
use crate::telemetry::message_values::{Order, entry, members};

/// Names that are kept of one device or module; of more, those with the oldest values go.
pub const NAMES_MAX: u64 = 1000;
/// How many more there may be for a while, because finding the oldest reads all.
const NAMES_OVER: u64 = 100;
/// Names that are kept of a device and all its modules; of more, those with the oldest values go. A gateway may make up modules.
pub const DEVICE_NAMES_MAX: u64 = 5000;
/// How many more there may be for a while.
const DEVICE_NAMES_OVER: u64 = 1000;
/// Rows that are written in one work of the writer, for which the other works wait: about 10 ms.
const SLICE_ROWS_MAX: usize = 500;
/// The longest value that is kept here, in bytes. A longer one is read from its message, as long as that is stored.
const VALUE_BYTES_MAX: usize = 4096;
/// Messages of one device that are not in the rows yet and are looked into for a value, the newest first. So many are only there
/// for a while after an update from a version without rows, or while more arrives than any site sends.
const READ_MAX: u32 = 100_000;
/// Messages that are read at once.
const TAIL_MESSAGES: TailBounds = TailBounds { messages: 5000, values: 1_000_000 };
/// How far the rows go.
const LAST_VALUES: Derived = Derived { state_table: "last_value_state", floors_table: "last_value_floors" };

/// The newest values of some messages.
#[derive(Default)]
struct Folding {
    senders: HashMap<Identity, HashMap<String, HashMap<String, Newest>>>,
    /// Names of each device and its modules.
    names: HashMap<DeviceId, u64>,
}

struct Newest {
    order: Order,
    /// `None`: it is too long to be kept here.
    value: Option<String>,
}

impl Folding {
    /// Takes the values of a message that `wants` wants, if its body is a JSON object; returns how many were read.
    fn add(&mut self, message: &StoredMessage, wants: impl Fn(&str, &str) -> bool) -> usize {
        let (from, stamp) = (&message.from, message.stamp());
        let Some(text) = decode(stamp.encoding, &message.body) else { return 0 };
        let Some(members) = members(&text) else { return 0 };
        let count = members.len();
        let order = stamp.order();
        let component = stamp.component.unwrap_or_default();
        let names = entry(entry(&mut self.senders, from), component);
        let mut added = 0;
        let found = members.into_iter().take(MESSAGE_NAMES_MAX);
        for (name, value) in found.filter(|(name, _)| wants(component, name)) {
            let keep = || (value.len() <= VALUE_BYTES_MAX).then(|| value.to_owned());
            match names.get_mut(name.as_ref()) {
                // Of a name that is twice in a body, the last counts.
                Some(newest) if newest.order <= order => *newest = Newest { order, value: keep() },
                Some(_) => {}
                None => {
                    names.insert(name.into_owned(), Newest { order, value: keep() });
                    added += 1;
                }
            }
        }
        if added > 0 {
            self.bound(from, added);
        }
        count
    }

    /// Forgets the oldest values beyond the limit of rows: so many names as they come need neither memory nor the writer.
    fn bound(&mut self, from: &Identity, added: u64) {
        let of_device = entry(&mut self.names, &from.device);
        *of_device += added;
        let of_sender: usize =
            self.senders.get(from).into_iter().flat_map(HashMap::values).map(HashMap::len).sum();
        if of_sender as u64 > 2 * NAMES_MAX {
            *of_device -= keep_newest(self.senders.get_mut(from).into_iter().collect(), NAMES_MAX);
        }
        if *of_device > 2 * DEVICE_NAMES_MAX {
            let of_it = self.senders.iter_mut().filter(|(sender, _)| sender.device == from.device);
            *of_device -= keep_newest(of_it.map(|(_, components)| components).collect(), DEVICE_NAMES_MAX);
            self.senders.retain(|_, components| !components.is_empty());
        }
    }

    /// The rows in parts for the writer.
    fn into_slices(self) -> Vec<Vec<SliceRows>> {
        let (mut slices, mut slice, mut space) = (Vec::new(), Vec::new(), SLICE_ROWS_MAX);
        for (from, components) in self.senders {
            for (component, names) in components {
                let mut names = names.into_iter().peekable();
                while names.peek().is_some() {
                    let rows: Vec<(String, Newest)> = names.by_ref().take(space).collect();
                    space -= rows.len();
                    slice.push(SliceRows { from: from.clone(), component: component.clone(), rows });
                    if space == 0 {
                        slices.push(std::mem::take(&mut slice));
                        space = SLICE_ROWS_MAX;
                    }
                }
            }
        }
        if !slice.is_empty() {
            slices.push(slice);
        }
        slices
    }
}

/// Forgets all values of some senders but the `most` newest; returns how many.
fn keep_newest(mut senders: Vec<&mut HashMap<String, HashMap<String, Newest>>>, most: u64) -> u64 {
    let all = senders.iter().flat_map(|components| components.values()).flat_map(HashMap::values);
    let mut orders: Vec<Order> = all.map(|newest| newest.order).collect();
    let Some(oldest) = (orders.len() as u64).checked_sub(most).and_then(|index| usize::try_from(index).ok())
    else {
        return 0;
    };
    if oldest == 0 {
        return 0;
    }
    let (_, threshold, newer) = orders.select_nth_unstable(oldest);
    // All values of a message have one order: of those at the threshold, as many stay as fit.
    let (threshold, mut space) =
        (*threshold, most - newer.iter().filter(|order| **order > *threshold).count() as u64);
    let before = orders.len();
    let mut left = 0;
    for components in &mut senders {
        components.retain(|_, names| {
            names.retain(|_, newest| {
                let stays = newest.order > threshold || (newest.order == threshold && space > 0);
                space -= u64::from(stays && newest.order == threshold);
                stays
            });
            left += names.len();
            !names.is_empty()
        });
    }
    (before - left) as u64
}

/// Rows of one component of a sender.
struct SliceRows {
    from: Identity,
    component: String,
    rows: Vec<(String, Newest)>,
}

/// Writes those that are newer than the stored ones.
fn write(connection: &Connection, slice: &[SliceRows]) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE last_values SET at_ms = ?5, enqueued_ms = ?6, message = ?7, value = ?8
         WHERE device = ?1 AND module = ?2 AND component = ?3 AND name = ?4
             AND (at_ms, enqueued_ms, message) < (?5, ?6, ?7)",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO last_values
             (device, module, component, name, at_ms, enqueued_ms, message, value)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut added: BTreeMap<&Identity, usize> = BTreeMap::new();
    for SliceRows { from, component, rows } in slice {
        let (device, module) = columns(from);
        for (name, Newest { order, value }) in rows {
            let row = (
                device,
                module,
                component,
                name,
                integer(order.at_ms),
                integer(order.enqueued_ms),
                order.message,
                value,
            );
            // No stored row is older: the name is new, or its row is newer and stays.
            if update.execute(row)? == 0 {
                *added.entry(from).or_default() += insert.execute(row)?;
            }
        }
    }
    added.retain(|_, rows| *rows > 0);
    for (from, rows) in &added {
        let (device, module) = columns(from);
        trim(connection, device, module, *rows)?;
    }
    let mut devices: Vec<&DeviceId> = added.keys().map(|from| &from.device).collect();
    // The senders are sorted, so those of one device are neighbours.
    devices.dedup();
    devices.into_iter().try_for_each(|device| trim_device(connection, device))
}

/// Counts the names that a sender has more of, and forgets its oldest values beyond [`NAMES_MAX`].
fn trim(connection: &Connection, device: &str, module: &str, added: usize) -> rusqlite::Result<()> {
    let names: i64 = connection
        .prepare_cached(
            "INSERT INTO last_value_counts (device, module, names) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET names = names + excluded.names RETURNING names",
        )?
        .query_row((device, module, integer(added as u64)), |row| row.get(0))?;
    if unsigned(names) <= NAMES_MAX + NAMES_OVER {
        return Ok(());
    }
    connection
        .prepare_cached(
            "DELETE FROM last_values WHERE device = ?1 AND module = ?2 AND (component, name) IN
                 (SELECT component, name FROM last_values WHERE device = ?1 AND module = ?2
                  ORDER BY at_ms DESC, enqueued_ms DESC, message DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute((device, module, integer(NAMES_MAX)))?;
    connection
        .prepare_cached("UPDATE last_value_counts SET names = ?3 WHERE device = ?1 AND module = ?2")?
        .execute((device, module, integer(NAMES_MAX)))?;
    Ok(())
}

/// Forgets the oldest values of a device and its modules beyond [`DEVICE_NAMES_MAX`].
fn trim_device(connection: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    let names: i64 = connection
        .prepare_cached("SELECT ifnull(sum(names), 0) FROM last_value_counts WHERE device = ?1")?
        .query_row([device.as_str()], |row| row.get(0))?;
    if unsigned(names) <= DEVICE_NAMES_MAX + DEVICE_NAMES_OVER {
        return Ok(());
    }
    connection
        .prepare_cached(
            "DELETE FROM last_values WHERE device = ?1 AND (module, component, name) IN
                 (SELECT module, component, name FROM last_values WHERE device = ?1
                  ORDER BY at_ms DESC, enqueued_ms DESC, message DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute((device.as_str(), integer(DEVICE_NAMES_MAX)))?;
    connection
        .prepare_cached("DELETE FROM last_value_counts WHERE device = ?1")?
        .execute([device.as_str()])?;
    connection
        .prepare_cached(
            "INSERT INTO last_value_counts (device, module, names)
                 SELECT device, module, count(*) FROM last_values WHERE device = ?1 GROUP BY module",
        )?
        .execute([device.as_str()])?;
    Ok(())
}

/// The newest value of a name that a device or module has sent, with when it was made; `component` is one of its model.
pub fn get(
    connection: &Connection,
    of: &Identity,
    component: Option<&str>,
    name: &str,
) -> rusqlite::Result<Option<(u64, Box<RawValue>)>> {
    let (device, module) = columns(of);
    let component = component.unwrap_or_default();
    let found = connection
        .prepare_cached(
            "SELECT device, at_ms, enqueued_ms, message, value FROM last_values
             WHERE device = ?1 AND module = ?2 AND component = ?3 AND name = ?4",
        )?
        .query_row((device, module, component, name), |row| {
            let order = Order {
                at_ms: unsigned(row.get("at_ms")?),
                enqueued_ms: unsigned(row.get("enqueued_ms")?),
                message: row.get("message")?,
            };
            Ok(Newest { order, value: row.get("value")? })
        });
    let kept = unreadable::row("last_values", found)?;
    let wants = |found_component: &str, found_name: &str| found_component == component && found_name == name;
    let mut folding = read_newest(connection, &of.device, |from| from == of, wants)?;
    let names = folding.senders.get_mut(of).and_then(|components| components.get_mut(component));
    let late = names.and_then(|names| names.remove(name));
    let newest = match (kept, late) {
        (Some(kept), Some(late)) => {
            if late.order > kept.order {
                late
            } else {
                kept
            }
        }
        (kept, late) => match kept.or(late) {
            Some(newest) => newest,
            None => return Ok(None),
        },
    };
    let value = match newest.value {
        Some(value) => RawValue::from_string(value).ok(),
        None => in_message(connection, newest.order.message, name)?,
    };
    Ok(value.map(|value| (newest.order.at_ms, value)))
}

/// A name that a device or module has sent.
#[derive(Debug, Clone)]
pub struct NamedValue {
    pub from: Identity,
    /// Of its model; empty for none.
    pub component: String,
    pub name: String,
    /// When the newest value was made.
    pub at_ms: u64,
    /// When its message was accepted.
    pub enqueued_ms: u64,
    /// As it was sent; `None` when it is longer than [`VALUE_BYTES_MAX`].
    pub value: Option<Box<RawValue>>,
}

/// The newest value of each name that a device and its modules have sent, in the order of modules, components and names.
pub fn list(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Vec<NamedValue>> {
    let mut newest: BTreeMap<(Option<ModuleId>, String, String), Newest> = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT device, module, component, name, at_ms, enqueued_ms, message, value FROM last_values WHERE device = ?1",
    )?;
    let rows = statement.query_map([device.as_str()], |row| {
        let module: String = row.get("module")?;
        let module = if module.is_empty() { None } else { Some(parsed_column(row, "module")?) };
        let order = Order {
            at_ms: unsigned(row.get("at_ms")?),
            enqueued_ms: unsigned(row.get("enqueued_ms")?),
            message: row.get("message")?,
        };
        let key = (module, row.get("component")?, row.get("name")?);
        Ok((key, Newest { order, value: row.get("value")? }))
    })?;
    for row in unreadable::rows("last_values", rows) {
        let (key, value) = row?;
        newest.insert(key, value);
    }
    for (from, components) in read_newest(connection, device, |_| true, |_, _| true)?.senders {
        for (component, names) in components {
            for (name, late) in names {
                let key = (from.module.clone(), component.clone(), name);
                match newest.get(&key) {
                    Some(kept) if kept.order >= late.order => {}
                    _ => drop(newest.insert(key, late)),
                }
            }
        }
    }
    let shown = |((module, component, name), Newest { order, value }): ((Option<ModuleId>, _, _), Newest)| {
        let from = Identity { device: device.clone(), module };
        let value = value.and_then(|value| RawValue::from_string(value).ok());
        NamedValue { from, component, name, at_ms: order.at_ms, enqueued_ms: order.enqueued_ms, value }
    };
    Ok(newest.into_iter().map(shown).collect())
}

/// The newest values of messages of a device and its modules that are not in the rows yet, of those senders and names that are wanted.
fn read_newest(
    connection: &Connection,
    device: &DeviceId,
    wants_sender: impl Fn(&Identity) -> bool,
    wants: impl Fn(&str, &str) -> bool,
) -> rusqlite::Result<Folding> {
    let mut folding = Folding::default();
    LAST_VALUES.newest(connection, device.as_str(), READ_MAX, |message| {
        if wants_sender(&message.from) {
            folding.add(&message, &wants);
        }
    })?;
    Ok(folding)
}

/// A value in a message that is stored.
fn in_message(connection: &Connection, message: i64, name: &str) -> rusqlite::Result<Option<Box<RawValue>>> {
    let found = connection
        .prepare_cached("SELECT id, bag ->> ?2, body FROM telemetry WHERE id = ?1")?
        .query_row((message, format!("$.\"{}\"", system::CONTENT_ENCODING)), |row| {
            Ok((row.get::<_, Option<String>>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
    let Some((encoding, body)) = unreadable::row("telemetry", found)? else { return Ok(None) };
    let Some(text) = decode(encoding.as_deref(), &body) else { return Ok(None) };
    // The last of equal names counts, as for the rows.
    let value = members(&text).into_iter().flatten().rfind(|(found, _)| found == name);
    Ok(value.and_then(|(_, value)| RawValue::from_string(value.to_owned()).ok()))
}

/// Deletes the values of a device and its modules.
pub fn delete_device(connection: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    for table in ["last_values", "last_value_counts"] {
        let delete = format!("DELETE FROM {table} WHERE device = ?1");
        connection.prepare_cached(&delete)?.execute([device.as_str()])?;
    }
    LAST_VALUES.set_floor(connection, device.as_str(), ALL_MODULES)
}

/// Deletes the values of a module, or of a device without its modules.
pub fn delete(connection: &Connection, of: &Identity) -> rusqlite::Result<()> {
    let (device, module) = columns(of);
    for table in ["last_values", "last_value_counts"] {
        let delete = format!("DELETE FROM {table} WHERE device = ?1 AND module = ?2");
        connection.prepare_cached(&delete)?.execute((device, module))?;
    }
    LAST_VALUES.set_floor(connection, device, module)
}

/// What is newest of some messages that are not in the rows yet.
pub(super) struct ValuesTail {
    folding: Folding,
    tail: Tail,
}

/// A part of a tail for one work of the writer. A row that is written twice is the same, so that a kill between two parts does no harm.
pub(super) struct ValuesSlice {
    rows: Vec<SliceRows>,
    /// How often floors had been set when the messages were read.
    floors: i64,
    /// Of the last part: the rows know the messages up to there.
    up_to: Option<i64>,
}

impl ValuesTail {
    /// How many messages there are behind these.
    pub(super) fn left(&self) -> u64 {
        self.tail.left
    }

    /// The parts, to be written in this order.
    pub(super) fn into_slices(self) -> Vec<ValuesSlice> {
        let Self { folding, tail: Tail { read_at, up_to, .. } } = self;
        let slice = |rows| ValuesSlice { rows, floors: read_at.floors, up_to: None };
        let mut slices: Vec<ValuesSlice> = folding.into_slices().into_iter().map(slice).collect();
        match slices.last_mut() {
            Some(last) => last.up_to = Some(up_to),
            // Without values, too, the rows know these messages from now on; otherwise they would be read again and again.
            None => slices.push(ValuesSlice { up_to: Some(up_to), ..slice(Vec::new()) }),
        }
        slices
    }
}

/// Reads some messages that are not in the rows yet; `None` when there are none.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<ValuesTail>> {
    read_within(connection, TAIL_MESSAGES)
}

fn read_within(connection: &Connection, bounds: TailBounds) -> rusqlite::Result<Option<ValuesTail>> {
    let mut folding = Folding::default();
    let tail =
        LAST_VALUES.read_tail(connection, bounds, None, |message| folding.add(message, |_, _| true))?;
    Ok(tail.map(|tail| ValuesTail { folding, tail }))
}

/// Writes a part of a tail, unless a sender was deleted since it was read; the messages are read again then.
pub(super) fn write_slice(connection: &Connection, slice: &ValuesSlice) -> rusqlite::Result<()> {
    if LAST_VALUES.state(connection)?.floors != slice.floors {
        return Ok(());
    }
    write(connection, &slice.rows)?;
    slice.up_to.map_or(Ok(()), |up_to| LAST_VALUES.advance(connection, up_to))
}

/// Brings the rows nearer to a message that is about to be deleted, within the bounds of one work of the writer. Returns the id of the
/// last message that they know.
pub(super) fn fold_up_to(connection: &Connection, message: i64) -> rusqlite::Result<i64> {
    if LAST_VALUES.state(connection)?.up_to < message
        && let Some(tail) = read_within(connection, TailBounds::OF_WRITER)?
    {
        tail.into_slices().iter().try_for_each(|slice| write_slice(connection, slice))?;
    }
    Ok(LAST_VALUES.state(connection)?.up_to)
}

#[cfg(test)]
mod tests;
