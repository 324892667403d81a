//! The newest value of each name that a device or module has sent.
//!
//! Newest is what was made last, whatever arrives last: messages are ordered by [`Order`]. A row is right after any order of
//! arrivals.
//!
//! Rows are written behind the messages, so that no message waits for its body to be read: [`read_tail`] reads some messages that
//! came since on a connection of its own, and [`write_tail`] writes what is newest of them, with how far they went, in one commit. Who
//! asks for a value gets the newer of its row and the messages that are not in the rows yet; so nothing is missed, also after a kill.
//! What was sent before a sender was deleted is left out by its floor.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use schemas::bag::system;
use schemas::body::decode;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::value::RawValue;

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::unreadable;
use crate::message_values::{Order, Stamp, entry, members};

/// Names that are kept of one device or module; of more, those with the oldest values go.
pub const NAMES_MAX: u64 = 1000;
/// How many more there may be for a while, because finding the oldest reads all.
const NAMES_OVER: u64 = 100;
/// The longest value that is kept here, in bytes. A longer one is read from its message, as long as that is stored.
const VALUE_BYTES_MAX: usize = 4096;
/// Messages that are read at once.
const TAIL_MESSAGES: u32 = 5000;
/// Messages of one device that are not in the rows yet and are looked into for a value, the newest first. So many are only there
/// for a while after an update from a version without rows, or while more arrives than any site sends.
const LOOK_MAX: u32 = 100_000;
/// A floor of a device and all its modules, in place of a module's name.
const ALL_MODULES: &str = "/";

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
    fn add(&mut self, from: &Identity, stamp: &Stamp<'_>, body: &[u8]) {
        let Some(text) = decode(stamp.encoding, body) else { return };
        let Some(members) = members(&text) else { return };
        let order = stamp.order();
        let component = stamp.component.unwrap_or_default();
        let names = entry(entry(&mut self.senders, from), component);
        for (name, value) in members {
            let keep = || (value.len() <= VALUE_BYTES_MAX).then(|| value.to_owned());
            match names.get_mut(name.as_ref()) {
                // Of a name that stands twice in a body, the last counts.
                Some(newest) if newest.order <= order => *newest = Newest { order, value: keep() },
                Some(_) => {}
                None => {
                    names.insert(name.into_owned(), Newest { order, value: keep() });
                }
            }
        }
    }

    /// Writes those that are newer than what stands.
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

/// As the table has an identity: module '' is the device itself.
fn columns(of: &Identity) -> (&str, &str) {
    (of.device.as_str(), of.module.as_ref().map_or("", ModuleId::as_str))
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
///
/// # Errors
/// SQLite's.
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
///
/// # Errors
/// SQLite's.
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
    let state = State::read(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT id, device, module, enqueued_ms, received_ms, bag, body FROM telemetry
         WHERE device = ?1 AND id > ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let mut floors: HashMap<Identity, i64> = HashMap::new();
    let mut rows = statement.query((device.as_str(), state.up_to, LOOK_MAX))?;
    let mut folding = Folding::default();
    while let Some(row) = rows.next()? {
        let Some(message) = unreadable::value("telemetry", stored(row))? else { continue };
        if !wants(&message.from) {
            continue;
        }
        let above = match floors.get(&message.from) {
            Some(above) => *above,
            None => {
                let above = floor(connection, &message.from)?;
                floors.insert(message.from.clone(), above);
                above
            }
        };
        if message.id > above {
            message.add_to(&mut folding);
        }
    }
    Ok(folding)
}

/// How far the rows go.
struct State {
    /// The id of the last message that they know.
    up_to: i64,
    /// How often floors were set.
    floors: i64,
}

impl State {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT up_to, floors FROM last_value_state")?
            .query_row([], |row| Ok(Self { up_to: row.get(0)?, floors: row.get(1)? }))
    }
}

/// The id of the last message of a sender that was sent before it, or its device, was deleted; 0 for none.
fn floor(connection: &Connection, of: &Identity) -> rusqlite::Result<i64> {
    let (device, module) = columns(of);
    connection
        .prepare_cached(
            "SELECT coalesce(max(message), 0) FROM last_value_floors WHERE device = ?1 AND module IN (?2, ?3)",
        )?
        .query_row((device, module, ALL_MODULES), |row| row.get(0))
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

/// Forgets the values of a device and its modules.
///
/// # Errors
/// SQLite's.
pub fn delete_device(connection: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    for table in ["last_values", "last_value_counts"] {
        let delete = format!("DELETE FROM {table} WHERE device = ?1");
        connection.prepare_cached(&delete)?.execute([device.as_str()])?;
    }
    set_floor(connection, device.as_str(), ALL_MODULES)
}

/// Forgets the values of a module, or of a device without its modules.
///
/// # Errors
/// SQLite's.
pub fn delete(connection: &Connection, of: &Identity) -> rusqlite::Result<()> {
    let (device, module) = columns(of);
    for table in ["last_values", "last_value_counts"] {
        let delete = format!("DELETE FROM {table} WHERE device = ?1 AND module = ?2");
        connection.prepare_cached(&delete)?.execute((device, module))?;
    }
    set_floor(connection, device, module)
}

fn set_floor(connection: &Connection, device: &str, module: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO last_value_floors (device, module, message)
             VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM telemetry))",
        )?
        .execute((device, module))?;
    connection.prepare_cached("UPDATE last_value_state SET floors = floors + 1")?.execute([])?;
    Ok(())
}

/// A message as it is stored.
struct StoredMessage {
    id: i64,
    from: Identity,
    enqueued_ms: u64,
    received_ms: u64,
    bag: serde_json::Map<String, serde_json::Value>,
    body: Vec<u8>,
}

impl StoredMessage {
    fn add_to(&self, folding: &mut Folding) {
        let stamp = Stamp::new(self.enqueued_ms, self.received_ms, self.id);
        let property = |name: &str| self.bag.get(name).map(|value| value.as_str().unwrap_or_default());
        folding.add(&self.from, &stamp.with(property), &self.body);
    }
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredMessage> {
    let module: Option<String> = row.get("module")?;
    let module = module.map(|_| parsed_column(row, "module")).transpose()?;
    Ok(StoredMessage {
        id: row.get("id")?,
        from: Identity { device: parsed_column(row, "device")?, module },
        enqueued_ms: unsigned(row.get("enqueued_ms")?),
        received_ms: unsigned(row.get("received_ms")?),
        bag: json_column(row, "bag")?,
        body: row.get("body")?,
    })
}

/// Messages that are not in the rows yet, oldest first, and what is newest of them.
pub(super) struct Tail {
    folding: Folding,
    up_to: i64,
    floors: i64,
    /// How many messages there are behind these.
    pub(super) left: u64,
}

/// Reads some messages that are not in the rows yet; `None` when there are none.
///
/// # Errors
/// SQLite's.
pub(super) fn read_tail(connection: &Connection) -> rusqlite::Result<Option<Tail>> {
    let State { up_to, floors } = State::read(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT telemetry.id, device, module, enqueued_ms, received_ms, bag, body FROM telemetry
         JOIN devices ON devices.id = telemetry.device WHERE telemetry.id > ?1 AND telemetry.id <= ?2
         ORDER BY telemetry.id",
    )?;
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(id) FROM telemetry WHERE id > ?1), (SELECT max(id) FROM telemetry)",
        )?
        .query_row([up_to], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    // Ids have gaps only where old messages were deleted.
    let until = (first - 1).saturating_add(TAIL_MESSAGES.into()).min(last);
    let mut tail = Tail { folding: Folding::default(), up_to: until, floors, left: unsigned(last - until) };
    let mut known = HashMap::new();
    let mut rows = statement.query((up_to, until))?;
    while let Some(row) = rows.next()? {
        let Some(message) = unreadable::value("telemetry", stored(row))? else { continue };
        let above = match known.get(&message.from) {
            Some(above) => *above,
            None => {
                let above = floor(connection, &message.from)?;
                known.insert(message.from.clone(), above);
                above
            }
        };
        if message.id > above {
            message.add_to(&mut tail.folding);
        }
    }
    Ok(Some(tail))
}

/// Writes what is newest of some messages, unless a sender was deleted since they were read; they are read again then.
///
/// # Errors
/// SQLite's.
pub(super) fn write_tail(connection: &Connection, tail: &Tail) -> rusqlite::Result<()> {
    if State::read(connection)?.floors != tail.floors {
        return Ok(());
    }
    tail.folding.write(connection)?;
    connection.prepare_cached("UPDATE last_value_state SET up_to = ?1")?.execute([tail.up_to])?;
    connection.prepare_cached("DELETE FROM last_value_floors WHERE message <= ?1")?.execute([tail.up_to])?;
    Ok(())
}

/// Brings the rows to a message that is about to be deleted.
///
/// # Errors
/// SQLite's.
pub(super) fn reach(connection: &Connection, message: i64) -> rusqlite::Result<()> {
    while State::read(connection)?.up_to < message
        && let Some(tail) = read_tail(connection)?
    {
        write_tail(connection, &tail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::error::StoreError;
    use super::super::limits::Keep;
    use super::super::{devices, schema};
    use super::*;
    use crate::store::telemetry::{NewMessage, Writing};
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom as _;
    use rand::{Rng as _, SeedableRng as _};
    use schemas::bag::PropertyBag;
    use schemas::timestamp::rfc3339;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn open() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let connection = schema::open(&dir.path().join("central.db")).unwrap();
        // Nothing here is about the disk.
        connection.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        (dir, connection)
    }

    fn message(from: &str, body: &[u8], properties: &[(&str, &str)]) -> NewMessage {
        let mut bag = PropertyBag::new();
        for (name, value) in properties {
            bag.set(name, *value);
        }
        let from = from.parse().unwrap();
        NewMessage {
            from,
            enqueued_ms: NOW_MS,
            received_ms: NOW_MS,
            bag,
            body: body.to_vec(),
            place: None,
            generation: None,
        }
    }

    fn store(connection: &Connection, messages: &[NewMessage]) {
        let mut writing = Writing::new(connection).unwrap();
        for message in messages {
            writing.insert(message).unwrap();
        }
        writing.finish().unwrap();
    }

    fn register(connection: &Connection, id: &str) {
        let new = devices::Device { revision: 1, ..devices::Device::new(id.parse().unwrap()) };
        devices::put(connection, &new).unwrap();
    }

    /// Brings the rows to where the messages are.
    fn fold(connection: &Connection) {
        while let Some(tail) = read_tail(connection).unwrap() {
            write_tail(connection, &tail).unwrap();
        }
    }

    fn value(
        connection: &Connection,
        of: &str,
        component: Option<&str>,
        name: &str,
    ) -> Option<(u64, String)> {
        let found = get(connection, &of.parse().unwrap(), component, name).unwrap();
        found.map(|(at_ms, value)| (at_ms, value.get().to_owned()))
    }

    /// A message whose time is known, of however many clocks it is told.
    #[derive(Debug, Clone)]
    struct Sent {
        from: &'static str,
        component: Option<&'static str>,
        at_ms: u64,
        created: Option<(&'static str, u64)>,
        enqueued_ms: u64,
        names: Vec<&'static str>,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let clocks = (0..1_000_000_u64, 0..6_u8, 0..100_000_u64);
        let names = proptest::sample::subsequence(vec!["t", "p", "ü", "a b"], 1..4);
        let from = prop_oneof![Just("press-1"), Just("press-2"), Just("gw/filter")];
        (from, proptest::option::of(Just("pump")), clocks, names).prop_map(
            |(from, component, clocks, names)| {
                let (ago_ms, clock, late_ms) = clocks;
                let made_ms = NOW_MS - ago_ms;
                let (key, after_ms) = ("$.ctime", (made_ms + late_ms).min(NOW_MS));
                let (at_ms, created, enqueued_ms) = match clock {
                    0 => (made_ms, None, made_ms),
                    1 => (made_ms, Some((key, made_ms)), after_ms),
                    2 => (made_ms, Some(("iothub-creation-time-utc", made_ms)), after_ms),
                    // A device whose clock is far ahead, and one whose clock was never set.
                    3 => (made_ms, Some((key, NOW_MS + 86_400_000)), made_ms),
                    4 => (made_ms, Some((key, 1000 + ago_ms)), made_ms),
                    // A gateway that is far ahead: only central knows when it got the message.
                    _ => (NOW_MS, None, NOW_MS + 86_400_000 + ago_ms),
                };
                Sent { from, component, at_ms, created, enqueued_ms, names }
            },
        )
    }

    /// Stores what was sent in another order, in batches, with the rows written behind some of them; gives the order of arrival.
    fn store_shuffled(connection: &Connection, sent: &[Sent], seed: u64, batch: usize) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut arrivals: Vec<usize> = (0..sent.len()).collect();
        arrivals.shuffle(&mut random);
        for batch in arrivals.chunks(batch) {
            let messages: Vec<NewMessage> = batch
                .iter()
                .map(|number| {
                    let sent = &sent[*number];
                    let body: serde_json::Map<String, serde_json::Value> =
                        sent.names.iter().map(|name| ((*name).to_owned(), (*number).into())).collect();
                    let body = serde_json::Value::Object(body).to_string();
                    let created = sent.created.map(|(key, at_ms)| (key, rfc3339(at_ms)));
                    let created = created.iter().map(|(key, at)| (*key, at.as_str()));
                    let component = sent.component.map(|component| (system::COMPONENT, component));
                    let properties: Vec<(&str, &str)> = created.chain(component).collect();
                    let new = message(sent.from, body.as_bytes(), &properties);
                    NewMessage { enqueued_ms: sent.enqueued_ms, ..new }
                })
                .collect();
            store(connection, &messages);
            if random.random_bool(0.4) {
                fold(connection);
            }
        }
        arrivals
    }

    #[test]
    fn values_that_arrive_in_any_order_are_those_of_the_messages_in_theirs() {
        let (_dir, connection) = open();
        let all = (proptest::collection::vec(sent(), 1..60), any::<u64>(), 1..20_usize);
        let check = |(sent, seed, batch): (Vec<Sent>, u64, usize)| {
            connection.execute_batch("ROLLBACK; BEGIN").unwrap();
            for device in ["press-1", "press-2", "gw"] {
                register(&connection, device);
            }
            let arrivals = store_shuffled(&connection, &sent, seed, batch);
            // The reference: the messages sorted, each name taken from the last one that has it. What was made and enqueued in the
            // same millisecond stays in the order of its queue, which is that of arrival.
            let mut sorted: Vec<(usize, &Sent)> =
                arrivals.iter().map(|number| (*number, &sent[*number])).collect();
            sorted.sort_by_key(|(_, sent)| (sent.at_ms, sent.enqueued_ms));
            let mut expected = HashMap::new();
            for (number, sent) in sorted {
                for name in &sent.names {
                    expected.insert((sent.from, sent.component, *name), (sent.at_ms, number.to_string()));
                }
            }
            for _ in 0..2 {
                for from in ["press-1", "press-2", "gw/filter"] {
                    for component in [None, Some("pump")] {
                        for name in ["t", "p", "ü", "a b"] {
                            let found = value(&connection, from, component, name);
                            prop_assert_eq!(found.as_ref(), expected.get(&(from, component, name)));
                        }
                    }
                }
                fold(&connection);
            }
            Ok(())
        };
        TestRunner::new(ProptestConfig::with_cases(64)).run(&all, check).unwrap();
    }

    #[test]
    fn a_value_is_kept_as_it_was_written() {
        let (_dir, connection) = open();
        let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?";
        register(&connection, "d");
        let check = |text: String| {
            store(&connection, &[message("d", format!("{{\"n\": {text} }}").as_bytes(), &[])]);
            prop_assert_eq!(value(&connection, "d", None, "n"), Some((NOW_MS, text.clone())));
            fold(&connection);
            prop_assert_eq!(value(&connection, "d", None, "n"), Some((NOW_MS, text)));
            Ok(())
        };
        TestRunner::new(ProptestConfig::with_cases(64)).run(&number, check).unwrap();
    }

    #[test]
    fn a_value_stays_when_any_number_of_later_messages_do_not_carry_it() {
        let (_dir, connection) = open();
        register(&connection, "d");
        store(&connection, &[message("d", br#"{"rare": 1}"#, &[])]);
        let others = vec![message("d", br#"{"often": 2}"#, &[]); 6000];
        store(&connection, &others);
        assert_eq!(value(&connection, "d", None, "rare"), Some((NOW_MS, "1".into())));
        crate::store::telemetry::trim(&connection, 5000).unwrap();
        assert_eq!(value(&connection, "d", None, "rare"), Some((NOW_MS, "1".into())));
        store(&connection, &[message("d", br#"{"new": 1}"#, &[])]);
        crate::store::telemetry::trim_bytes(&connection, 0, 0).unwrap();
        for name in ["rare", "new"] {
            assert_eq!(value(&connection, "d", None, name), Some((NOW_MS, "1".into())));
        }
    }

    #[test]
    fn bodies_of_every_encoding_have_values_and_what_is_no_object_has_none() {
        let (_dir, connection) = open();
        let units: Vec<u8> = r#"{"wide": "ü"}"#.encode_utf16().flat_map(u16::to_be_bytes).collect();
        store(
            &connection,
            &[
                message("d", b"\xef\xbb\xbf{\"marked\": true}", &[]),
                message("d", &units, &[("$.ce", "UTF-16BE")]),
                message("d", &[b"\xfe\xff", units.as_slice()].concat(), &[]),
                message("d", br#"{"twice": 1, "twice": [2, {"x": null}]}"#, &[]),
                message("d", br#"{"half": 1, "#, &[]),
                message("d", br#"{"behind": 1} x"#, &[]),
                message("d", b"[1]", &[]),
                message("d", b"\xff\xfe{", &[]),
                message("d", b"", &[]),
            ],
        );
        register(&connection, "d");
        fold(&connection);
        let found = |name: &str| value(&connection, "d", None, name).map(|(_, value)| value);
        assert_eq!(found("marked").as_deref(), Some("true"));
        assert_eq!(found("wide").as_deref(), Some("\"ü\""));
        assert_eq!(found("twice").as_deref(), Some(r#"[2, {"x": null}]"#));
        assert_eq!((found("half"), found("behind")), (None, None));
    }

    #[test]
    fn a_long_value_is_read_from_its_message_and_one_that_is_nested_too_deep_is_left_out() {
        let (_dir, connection) = open();
        let long = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let body = format!("{{\"long\": {long}, \"deep\": {deep}, \"short\": 1}}");
        register(&connection, "d");
        store(&connection, &[message("d", body.as_bytes(), &[])]);
        fold(&connection);
        assert_eq!(value(&connection, "d", None, "long"), Some((NOW_MS, long)));
        assert_eq!(value(&connection, "d", None, "deep"), None);
        assert_eq!(value(&connection, "d", None, "short"), Some((NOW_MS, "1".into())));
    }

    #[test]
    fn of_more_names_than_are_kept_those_with_the_newest_values_stay() {
        let (_dir, connection) = open();
        for round in 0..30_u64 {
            let messages: Vec<NewMessage> = (0..100)
                .map(|n| {
                    let body = format!("{{\"n{}\": {round}}}", round * 100 + n);
                    let new = message("d", body.as_bytes(), &[]);
                    NewMessage { enqueued_ms: NOW_MS - 1_000_000 + round * 100 + n, ..new }
                })
                .collect();
            store(&connection, &messages);
            register(&connection, "d");
            fold(&connection);
        }
        let count: u64 = connection
            .query_row("SELECT count(*) FROM last_values", [], |row| row.get(0).map(unsigned))
            .unwrap();
        assert!((NAMES_MAX..=NAMES_MAX + NAMES_OVER).contains(&count), "{count}");
        assert!(
            value(&connection, "d", None, "n2999").is_some() && value(&connection, "d", None, "n0").is_none()
        );
    }

    #[test]
    fn what_an_earlier_device_or_module_sent_is_no_value_of_the_next_one_whenever_it_was_read() {
        let (_dir, connection) = open();
        for is_read_before in [true, false] {
            register(&connection, "d");
            let senders = ["d", "d/m", "d/n"];
            store(&connection, &senders.map(|from| message(from, br#"{"t": 1}"#, &[])));
            let unwritten = read_tail(&connection).unwrap().unwrap();
            if is_read_before {
                fold(&connection);
            }
            delete(&connection, &"d/m".parse().unwrap()).unwrap();
            let found = senders.map(|from| value(&connection, from, None, "t").is_some());
            assert_eq!(found, [true, false, true]);
            devices::delete(&connection, &"d".parse().unwrap()).unwrap();
            register(&connection, "d");
            write_tail(&connection, &unwritten).unwrap();
            assert_eq!(senders.map(|from| value(&connection, from, None, "t")), [None, None, None]);
            fold(&connection);
            assert_eq!(senders.map(|from| value(&connection, from, None, "t")), [None, None, None]);
            store(&connection, &[message("d/m", br#"{"t": 2}"#, &[])]);
            assert_eq!(value(&connection, "d/m", None, "t"), Some((NOW_MS, "2".into())));
        }
    }

    #[tokio::test]
    async fn a_store_of_an_older_version_has_the_last_values_of_its_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(super::super::paths::FILE);
        let old = schema::tests::before(&path, "CREATE TABLE last_values");
        old.execute_batch("BEGIN").unwrap();
        old.execute(
            "INSERT INTO devices (id, display_name, is_gateway, enabled, revision) VALUES ('d', 'd', 0, 1, 1)",
            [],
        )
        .unwrap();
        let count: u64 = 12_000;
        for n in 0..count {
            let (bag, body) = match n {
                7 => (r#"{"$.ctime":"2027-01-15T08:00:00Z"}"#, r#"{"t": 7, "rare": 1.50}"#.to_owned()),
                _ => ("{}", format!("{{\"t\": {n}}}")),
            };
            old.execute(
                "INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body)
                 VALUES (?1, NULL, ?2, ?2, ?3, ?4)",
                ("d", integer(NOW_MS + n), bag, body.as_bytes()),
            )
            .unwrap();
        }
        old.execute_batch("COMMIT").unwrap();
        drop(old);
        let store = crate::store::open(dir.path(), Keep { messages: 100_000, commands: 10 }).unwrap();
        let t = Some((NOW_MS + count - 1, (count - 1).to_string()));
        let rare = Some((NOW_MS, "1.50".to_owned()));
        let read = async || {
            let all = store.read(|c| {
                let up_to = State::read(c)?.up_to;
                let all = (value(c, "d", None, "t"), value(c, "d", None, "rare"), up_to);
                Ok::<_, StoreError>(all)
            });
            all.await.unwrap()
        };
        // Made 7 ms before it was enqueued. Right at once, and still when all are in the rows.
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let found = read().await;
            assert_eq!((&found.0, &found.1), (&t, &rare));
            if found.2 == count.cast_signed() {
                break;
            }
        }
        store.close().await;
    }
}
