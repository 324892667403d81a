//! The newest value of each name that a device or module has sent.
//!
//! Newest is what was made last, whatever arrives last: messages are ordered by [`Order`]. A row is right after any order of
//! arrivals.
//!
//! Rows are written behind the messages (see `derived.rs`): [`write_tail`] writes what is newest of some messages. Whoever reads for a
//! value gets the newer of its row and the messages that are not in the rows yet.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use schemas::bag::system;
use schemas::body::decode;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::value::RawValue;

use super::columns::{integer, parsed_column, unsigned};
use super::derived::{ALL_MODULES, Derived, StoredMessage, Tail, columns};
use super::unreadable;
use crate::telemetry::message_values::{Order, entry, members};

/// Names that are kept of one device or module; of more, those with the oldest values go.
pub const NAMES_MAX: u64 = 1000;
/// How many more there may be for a while, because finding the oldest reads all.
const NAMES_OVER: u64 = 100;
/// The longest value that is kept here, in bytes. A longer one is read from its message, as long as that is stored.
const VALUE_BYTES_MAX: usize = 4096;
/// Messages of one device that are not in the rows yet and are looked into for a value, the newest first. So many are only there
/// for a while after an update from a version without rows, or while more arrives than any site sends.
const LOOK_MAX: u32 = 100_000;
/// How far the rows go.
const LAST_VALUES: Derived =
    Derived { state_table: "last_value_state", floors_table: "last_value_floors", messages_max: 5000 };

/// The newest values of some messages.
#[derive(Default)]
struct Folding {
    senders: HashMap<Identity, HashMap<String, HashMap<String, Newest>>>,
}

struct Newest {
    order: Order,
    /// `None`: it is too long to be kept here.
    value: Option<String>,
}

impl Folding {
    /// Takes the values of a message, if its body is a JSON object.
    fn add(&mut self, message: &StoredMessage) {
        let stamp = message.stamp();
        let Some(text) = decode(stamp.encoding, &message.body) else { return };
        let Some(members) = members(&text) else { return };
        let order = stamp.order();
        let component = stamp.component.unwrap_or_default();
        let names = entry(entry(&mut self.senders, &message.from), component);
        for (name, value) in members {
            let keep = || (value.len() <= VALUE_BYTES_MAX).then(|| value.to_owned());
            match names.get_mut(name.as_ref()) {
                // Of a name that is twice in a body, the last counts.
                Some(newest) if newest.order <= order => *newest = Newest { order, value: keep() },
                Some(_) => {}
                None => {
                    names.insert(name.into_owned(), Newest { order, value: keep() });
                }
            }
        }
    }

    /// Writes those that are newer than the stored ones.
    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
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
        for (from, components) in &self.senders {
            let (device, module) = columns(from);
            let mut added = 0;
            for (component, names) in components {
                for (name, Newest { order, value }) in names {
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
                    if update.execute(row)? == 0 {
                        added += insert.execute(row)?;
                    }
                }
            }
            if added > 0 {
                trim(connection, device, module, added)?;
            }
        }
        Ok(())
    }
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
    let mut folding = look(connection, &of.device, |from| from == of)?;
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
    for (from, components) in look(connection, device, |_| true)?.senders {
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

/// The newest values of messages of a device and its modules that are not in the rows yet, of those senders that `wants` wants.
fn look(
    connection: &Connection,
    device: &DeviceId,
    wants: impl Fn(&Identity) -> bool,
) -> rusqlite::Result<Folding> {
    let mut folding = Folding::default();
    LAST_VALUES.newest(connection, device.as_str(), LOOK_MAX, |message| {
        if wants(&message.from) {
            folding.add(&message);
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

impl ValuesTail {
    /// How many messages there are behind these.
    pub(super) fn left(&self) -> u64 {
        self.tail.left
    }
}

/// Reads some messages that are not in the rows yet; `None` when there are none.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<ValuesTail>> {
    let mut folding = Folding::default();
    let tail = LAST_VALUES.read_tail(connection, |message| folding.add(message))?;
    Ok(tail.map(|tail| ValuesTail { folding, tail }))
}

/// Writes what is newest of some messages, unless a sender was deleted or somebody else wrote it since they were read; they are
/// read again then.
pub(super) fn write_tail(connection: &Connection, tail: &ValuesTail) -> rusqlite::Result<()> {
    let ValuesTail { folding, tail } = tail;
    if !LAST_VALUES.is_current(connection, tail)? {
        return Ok(());
    }
    folding.write(connection)?;
    LAST_VALUES.advance(connection, tail)
}

/// Brings the rows to a message that is about to be deleted.
pub(super) fn reach(connection: &Connection, message: i64) -> rusqlite::Result<()> {
    while LAST_VALUES.state(connection)?.up_to < message
        && let Some(tail) = read_tail(connection)?
    {
        write_tail(connection, &tail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
