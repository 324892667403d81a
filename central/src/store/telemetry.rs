//! Telemetry: every message once, oldest first, up to a number of messages.

use std::collections::{HashMap, HashSet};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row};
use schemas::bag::PropertyBag;
use schemas::generation::Generation;
use schemas::link;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde::Serializer as _;

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::queues::{self, Marks};
use super::{last_values, series};
use super::{page, unreadable};

/// Queues that a gateway is told of; far more than a site has.
const TOLD_MAX: u32 = 2000;
/// Bytes of their names.
const TOLD_BYTES_MAX: usize = 128 * 1024;
/// What a connection may have in flight: MQTT has so many packet ids.
const IN_FLIGHT_MAX: u64 = 65_535;
/// What a message takes beside its bag and body: its row and its entry in the index. In the schema's trigger too.
const ROW_BYTES: usize = 128;

/// A message on its way into the store.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub from: Identity,
    /// When the gateway accepted it, or central did from a device of its own; milliseconds since the Unix epoch.
    pub enqueued_ms: u64,
    /// When central received it.
    pub received_ms: u64,
    /// Its properties, without those of the link.
    pub bag: PropertyBag,
    pub body: Vec<u8>,
    /// Its place in a gateway's queue; none when the device is connected to central itself.
    pub place: Option<Place>,
    /// Which of the devices or modules of its name sent it, as a gateway told.
    pub generation: Option<Generation>,
}

/// A message's place in a gateway's queue: what makes a resend known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub gateway: DeviceId,
    /// The id of its queue, with the epoch of the sequence.
    pub queue: String,
    /// Ascends within the queue.
    pub sequence: u64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// It was stored before: a resend.
    Already,
    /// The gateway brings more queues than one may have.
    TooManyQueues,
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Ascends over all devices.
    pub id: i64,
    /// The device, or the gateway of the module.
    pub device: DeviceId,
    /// The module that sent it.
    pub module: Option<ModuleId>,
    /// As in [`NewMessage`].
    pub enqueued_ms: u64,
    /// Its properties as a JSON object; a property without a value is `null`. `None`: they cannot be read.
    pub properties: Option<serde_json::Map<String, serde_json::Value>>,
    pub body: Vec<u8>,
}

/// Messages on their way into the tables, each once. What a batch of them needs again and again is looked up once, and is
/// written by [`Writing::finish`].
pub struct Writing<'c> {
    connection: &'c Connection,
    insert: CachedStatement<'c>,
    marks: HashMap<DeviceId, HashMap<String, Watermark>>,
    /// Messages and bytes of each device in this batch.
    added: HashMap<DeviceId, (u64, u64)>,
}

/// How far a gateway's queue is stored.
struct Watermark {
    /// `None`: nothing of it yet.
    highest: Option<u64>,
    /// Messages of it that were stored or refused.
    taken: u64,
    /// It is not in the table yet.
    is_new: bool,
    is_moved: bool,
}

impl<'c> Writing<'c> {
    /// Begins within the connection's transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        Ok(Self { connection, insert, marks: HashMap::new(), added: HashMap::new() })
    }

    /// Stores a message, if it is new.
    ///
    /// # Errors
    /// SQLite's.
    pub fn insert(&mut self, message: &NewMessage) -> rusqlite::Result<Stored> {
        if let Some(place) = &message.place {
            let Some(mark) = self.mark(place)? else { return Ok(Stored::TooManyQueues) };
            if mark.highest.is_none_or(|highest| place.sequence > highest) {
                (mark.highest, mark.is_moved) = (Some(place.sequence), true);
                mark.taken += 1;
            } else if !was_refused(self.connection, place)? {
                // Below the highest, only what was refused before is new.
                return Ok(Stored::Already);
            }
        }
        let bag = json(&message.bag);
        self.insert.execute((
            message.from.device.as_str(),
            message.from.module.as_ref().map(ModuleId::as_str),
            integer(message.enqueued_ms),
            integer(message.received_ms),
            &bag,
            &message.body,
        ))?;
        // As SQLite counts a text: the trigger that takes deleted messages off again must agree.
        let bytes = bag.chars().count() + message.body.len() + ROW_BYTES;
        let added = match self.added.get_mut(&message.from.device) {
            Some(added) => added,
            None => self.added.entry(message.from.device.clone()).or_default(),
        };
        *added = (added.0 + 1, added.1 + bytes as u64);
        Ok(Stored::New)
    }

    /// Whether a message is stored already: a resend.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_stored(&mut self, place: &Place) -> rusqlite::Result<bool> {
        let mark = self.mark(place)?;
        if mark.and_then(|mark| mark.highest).is_none_or(|highest| place.sequence > highest) {
            return Ok(false);
        }
        let of = (place.gateway.as_str(), &place.queue, integer(place.sequence));
        let mut refused = self
            .connection
            .prepare_cached("SELECT 1 FROM refused WHERE gateway = ?1 AND queue = ?2 AND sequence = ?3")?;
        Ok(!refused.exists(of)?)
    }

    /// Remembers that a message was refused for itself: those behind it are stored, and it must not pass for one of them when
    /// it is sent again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refuse(&mut self, place: &Place) -> rusqlite::Result<()> {
        let Some(mark) = self.mark(place)? else { return Ok(()) };
        mark.taken += 1;
        mark.is_moved = true;
        let taken = mark.taken;
        let of = (place.gateway.as_str(), &place.queue);
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO refused (gateway, queue, sequence, taken) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((of.0, of.1, integer(place.sequence), integer(taken)))?;
        // More messages than that have come since: the gateway has nothing so old in flight. Sequences would not tell, since
        // what expired or gave way leaves gaps in them.
        self.connection
            .prepare_cached("DELETE FROM refused WHERE gateway = ?1 AND queue = ?2 AND taken < ?3")?
            .execute((of.0, of.1, integer(taken.saturating_sub(IN_FLIGHT_MAX))))?;
        Ok(())
    }

    /// How far a queue is stored; `None` when it would be one queue too many.
    fn mark(&mut self, place: &Place) -> rusqlite::Result<Option<&mut Watermark>> {
        let is_known = self.marks.get(&place.gateway).is_some_and(|of| of.contains_key(&place.queue));
        if !is_known {
            let found: Option<(i64, i64)> = self
                .connection
                .prepare_cached("SELECT sequence, taken FROM watermarks WHERE gateway = ?1 AND queue = ?2")?
                .query_row([place.gateway.as_str(), &place.queue], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let of = self.marks.entry(place.gateway.clone()).or_default();
            if found.is_none() {
                let log = queues::log_of(&place.queue);
                let new: HashSet<&str> = of
                    .iter()
                    .filter(|(_, mark)| mark.is_new)
                    .map(|(queue, _)| queues::log_of(queue))
                    .collect();
                let more = new.len() - usize::from(new.contains(log));
                if !queues::may_add(self.connection, Marks::Watermarks, &place.gateway, log, more)? {
                    return Ok(None);
                }
            }
            let mark = Watermark {
                highest: found.map(|(highest, _)| unsigned(highest)),
                taken: found.map_or(0, |(_, taken)| unsigned(taken)),
                is_new: found.is_none(),
                is_moved: false,
            };
            of.insert(place.queue.clone(), mark);
        }
        Ok(self.marks.get_mut(&place.gateway).and_then(|of| of.get_mut(&place.queue)))
    }

    /// Writes how far each queue is stored now.
    ///
    /// # Errors
    /// SQLite's.
    pub fn finish(self) -> rusqlite::Result<()> {
        let mut write = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO watermarks (gateway, queue, sequence, moved, taken) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let moved = self.connection.last_insert_rowid();
        for (gateway, of) in &self.marks {
            let moved_marks = of.iter().filter_map(|(queue, mark)| {
                mark.highest.filter(|_| mark.is_moved).map(|highest| (queue, mark, highest))
            });
            for (queue, mark, highest) in moved_marks {
                write.execute((gateway.as_str(), queue, integer(highest), moved, integer(mark.taken)))?;
                if mark.is_new {
                    queues::forget_oldest(self.connection, Marks::Watermarks, gateway, queue)?;
                }
            }
        }
        let mut count = self.connection.prepare_cached(
            "INSERT INTO telemetry_usage (device, messages, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
        )?;
        for (device, (messages, bytes)) in &self.added {
            count.execute((device.as_str(), integer(*messages), integer(*bytes)))?;
        }
        Ok(())
    }
}

/// A bag as it stands in the table: a JSON object, a property without a value is `null`.
fn json(bag: &PropertyBag) -> String {
    let mut text = Vec::with_capacity(64);
    let mut writer = serde_json::Serializer::new(&mut text);
    writer.collect_map(bag.iter()).expect("writing texts to memory does not fail");
    String::from_utf8(text).expect("JSON is UTF-8")
}

fn was_refused(connection: &Connection, place: &Place) -> rusqlite::Result<bool> {
    let of = (place.gateway.as_str(), &place.queue, integer(place.sequence));
    let mut statement = connection
        .prepare_cached("DELETE FROM refused WHERE gateway = ?1 AND queue = ?2 AND sequence = ?3")?;
    Ok(statement.execute(of)? == 1)
}

/// How far the queues of a gateway are stored, of the [`TOLD_MAX`] that moved last: what the gateway is told.
///
/// # Errors
/// SQLite's.
pub fn stored(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<link::Stored> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, sequence, (SELECT min(refused.sequence) - 1 FROM refused
                 WHERE refused.gateway = ?1 AND refused.queue = watermarks.queue) AS before_refused
             FROM watermarks WHERE gateway = ?1 ORDER BY moved DESC LIMIT ?2",
    )?;
    let rows = statement.query_map((gateway.as_str(), TOLD_MAX), |row| {
        let (highest, before_refused): (i64, Option<i64>) =
            (row.get("sequence")?, row.get("before_refused")?);
        Ok((row.get::<_, String>("queue")?, unsigned(highest), before_refused.map(unsigned)))
    })?;
    let origin = connection
        .prepare_cached("SELECT value FROM settings WHERE name = 'origin_id'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let count: u32 = connection
        .prepare_cached("SELECT count(*) FROM watermarks WHERE gateway = ?1")?
        .query_row([gateway.as_str()], |row| row.get(0))?;
    let mut stored = link::Stored { origin, version: link::LINK_VERSION, ..link::Stored::default() };
    let (mut epochs, mut bytes): (HashMap<String, usize>, usize) = (HashMap::new(), 0);
    for row in unreadable::rows("watermarks", rows) {
        let (queue, highest, before_refused) = row?;
        bytes += queue.len();
        if bytes > TOLD_BYTES_MAX {
            break;
        }
        *epochs.entry(queues::log_of(&queue).to_owned()).or_default() += 1;
        let up_to = before_refused.map_or(highest, |before| highest.min(before));
        if up_to < highest {
            stored.highest.insert(queue.clone(), highest);
        }
        stored.queues.insert(queue, up_to);
    }
    stored.is_complete =
        stored.queues.len() == count as usize && epochs.values().all(|count| *count < queues::EPOCHS_MAX);
    Ok(stored)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Message> {
    let module: Option<String> = row.get("module")?;
    Ok(Message {
        id: row.get("id")?,
        device: parsed_column(row, "device")?,
        module: module.map(|_| parsed_column(row, "module")).transpose()?,
        enqueued_ms: unsigned(row.get("enqueued_ms")?),
        properties: unreadable::value("telemetry", json_column(row, "bag"))?,
        body: row.get("body")?,
    })
}

/// The last id of messages that an earlier device of the id sent, which is parameter 1.
const BEFORE_DEVICE: &str = "coalesce((SELECT telemetry_after FROM devices WHERE devices.id = ?1), 0)";

/// Messages of a device and its modules with ids above `after`, oldest first: up to `limit`, fewer when they are large,
/// none only when there are no more.
///
/// # Errors
/// SQLite's.
pub fn page(
    connection: &Connection,
    device: &DeviceId,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Message>> {
    page_by(connection, device, after, limit, "id")
}

/// The last messages of a device and its modules with ids above `after`, newest first: up to `limit`, fewer when they are large.
///
/// # Errors
/// SQLite's.
pub fn newest(
    connection: &Connection,
    device: &DeviceId,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Message>> {
    page_by(connection, device, after, limit, "id DESC")
}

fn page_by(
    connection: &Connection,
    device: &DeviceId,
    after: i64,
    limit: u32,
    order: &str,
) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM telemetry WHERE device = ?1 AND id > max(?2, {BEFORE_DEVICE}) ORDER BY {order}"
    ))?;
    let rows = statement.query_map((device.as_str(), after), |row| page::sized(row, read))?;
    Ok(page::page(unreadable::rows("telemetry", rows), limit)?.0)
}

/// The id of the last message; 0 before the first.
///
/// # Errors
/// SQLite's.
pub fn last_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT ifnull(max(id), 0) FROM telemetry")?.query_row([], |row| row.get(0))
}

/// A message as those who watch it get it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveMessage {
    /// Ascends over all devices.
    pub id: i64,
    pub from: Identity,
    /// As in [`NewMessage`].
    pub enqueued_ms: u64,
    /// When central received it.
    pub received_ms: u64,
    /// As in [`Message`].
    pub properties: serde_json::Map<String, serde_json::Value>,
    pub body: Vec<u8>,
}

impl LiveMessage {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let module: Option<String> = row.get("module")?;
        let module = module.map(|_| parsed_column(row, "module")).transpose()?;
        Ok(Self {
            id: row.get("id")?,
            from: Identity { device: parsed_column(row, "device")?, module },
            enqueued_ms: unsigned(row.get("enqueued_ms")?),
            received_ms: unsigned(row.get("received_ms")?),
            properties: unreadable::value("telemetry", json_column(row, "bag"))?.unwrap_or_default(),
            body: row.get("body")?,
        })
    }
}

/// The newest messages of a device and its modules, the newest first.
///
/// # Errors
/// SQLite's.
pub fn newest_live(
    connection: &Connection,
    device: &DeviceId,
    limit: u32,
) -> rusqlite::Result<Vec<LiveMessage>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM telemetry WHERE device = ?1 AND id > {BEFORE_DEVICE} ORDER BY id DESC LIMIT ?2"
    ))?;
    let rows = statement.query_map((device.as_str(), limit), LiveMessage::read)?;
    unreadable::rows("telemetry", rows).collect()
}

/// Time of which the rate is told.
const RATE_MS: u64 = 10_000;
/// Messages that are counted for it; of more, the time that they took counts.
const RATE_MESSAGES: i64 = 50_000;

/// Messages of all devices that are received in a second, of the last ten.
///
/// # Errors
/// SQLite's.
#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
pub fn rate(connection: &Connection, now_ms: u64) -> rusqlite::Result<f64> {
    let (count, oldest_ms): (i64, Option<i64>) = connection
        .prepare_cached(
            "SELECT count(*), min(received_ms) FROM
                 (SELECT received_ms FROM telemetry ORDER BY id DESC LIMIT ?2) WHERE received_ms > ?1",
        )?
        .query_row((integer(now_ms.saturating_sub(RATE_MS)), RATE_MESSAGES), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let span_ms = match oldest_ms {
        Some(oldest_ms) if count == RATE_MESSAGES => now_ms.saturating_sub(unsigned(oldest_ms)).max(1),
        _ => RATE_MS,
    };
    Ok(count as f64 * 1000.0 / span_ms as f64)
}

/// Messages of one device that [`between`] gives at once.
const BETWEEN_MAX: u32 = 200;
/// Bytes of their bodies, but for the newest one.
const BETWEEN_BYTES_MAX: usize = 1024 * 1024;

/// The newest messages of a device and its modules with ids above `after` and up to `up_to`, oldest first, and how many before them
/// were left out.
///
/// # Errors
/// SQLite's.
pub fn between(
    connection: &Connection,
    device: &DeviceId,
    after: i64,
    up_to: i64,
) -> rusqlite::Result<(u64, Vec<LiveMessage>)> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM telemetry WHERE device = ?1 AND id > ?2 AND id <= ?3 ORDER BY id DESC LIMIT ?4",
    )?;
    let rows = statement.query_map((device.as_str(), after, up_to, BETWEEN_MAX), LiveMessage::read)?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for message in unreadable::rows("telemetry", rows) {
        let message: LiveMessage = message?;
        bytes += message.body.len();
        if !messages.is_empty() && bytes > BETWEEN_BYTES_MAX {
            break;
        }
        messages.push(message);
    }
    messages.reverse();
    let Some(first) = messages.first() else { return Ok((0, messages)) };
    let left_out: i64 = connection
        .prepare_cached("SELECT count(*) FROM telemetry WHERE device = ?1 AND id > ?2 AND id < ?3")?
        .query_row((device.as_str(), after, first.id), |row| row.get(0))?;
    Ok((unsigned(left_out), messages))
}

/// When central last received a message of a device or one of its modules.
///
/// # Errors
/// SQLite's.
pub fn last_received(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT received_ms FROM telemetry WHERE device = ?1 AND id > {BEFORE_DEVICE} ORDER BY id DESC LIMIT 1"
    ))?;
    let at: Option<i64> =
        unreadable::row("telemetry", statement.query_row([device.as_str()], |row| row.get(0)))?;
    Ok(at.map(unsigned))
}

/// Forgets the oldest messages beyond `keep`.
///
/// # Errors
/// SQLite's.
pub fn trim(connection: &Connection, keep: u64) -> rusqlite::Result<()> {
    let newest: Option<i64> =
        connection.prepare_cached("SELECT max(id) FROM telemetry")?.query_row([], |row| row.get(0))?;
    let last = newest.unwrap_or(0).saturating_sub(integer(keep));
    if last > 0 {
        last_values::reach(connection, last)?;
        series::reach(connection, last)?;
        connection.prepare_cached("DELETE FROM telemetry WHERE id <= ?1")?.execute([last])?;
    }
    Ok(())
}

/// Bytes of all telemetry that is kept.
///
/// # Errors
/// SQLite's.
pub fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM telemetry_usage")?
        .query_row([], |row| row.get(0).map(unsigned))
}

/// Makes a device's oldest messages give way that one device has beyond `per_device` bytes, and those of the devices with the
/// most that all have beyond `total`. Gives the devices and how many of their messages went.
///
/// # Errors
/// SQLite's.
pub fn trim_bytes(
    connection: &Connection,
    per_device: u64,
    total: u64,
) -> rusqlite::Result<Vec<(String, usize)>> {
    let mut trimmed = Vec::new();
    let over: Vec<(String, u64)> = connection
        .prepare_cached("SELECT device, bytes FROM telemetry_usage WHERE bytes > ?1")?
        .query_map([integer(per_device)], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect::<rusqlite::Result<_>>()?;
    for (device, bytes) in over {
        let gone = delete_oldest(connection, &device, bytes - per_device)?;
        trimmed.push((device, gone));
    }
    let mut beyond = bytes(connection)?.saturating_sub(total);
    while beyond > 0 {
        let (device, bytes): (String, u64) = connection
            .prepare_cached("SELECT device, bytes FROM telemetry_usage ORDER BY bytes DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
        let gone = delete_oldest(connection, &device, beyond.min(bytes))?;
        trimmed.push((device, gone));
        let left = self::bytes(connection)?.saturating_sub(total);
        if left >= beyond {
            break;
        }
        beyond = left;
    }
    Ok(trimmed)
}

/// Deletes a device's oldest messages until `bytes` are free.
fn delete_oldest(connection: &Connection, device: &str, bytes: u64) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "SELECT id, length(bag) + length(body) + 128 FROM telemetry WHERE device = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([device])?;
    let (mut last, mut found) = (None, 0);
    while found < bytes
        && let Some(row) = rows.next()?
    {
        last = Some(row.get::<_, i64>(0)?);
        found += unsigned(row.get(1)?);
    }
    drop(rows);
    let Some(last) = last else {
        // Counted and not there: the count is wrong, and would be found again and again.
        connection.prepare_cached("DELETE FROM telemetry_usage WHERE device = ?1")?.execute([device])?;
        return Ok(0);
    };
    last_values::reach(connection, last)?;
    series::reach(connection, last)?;
    // The newest of all stays, whosever it is: SQLite would give its id again, below what devices were registered after.
    connection
        .prepare_cached(
            "DELETE FROM telemetry WHERE device = ?1 AND id <= ?2 AND id < (SELECT max(id) FROM telemetry)",
        )?
        .execute((device, last))
}

#[cfg(test)]
mod tests {
    use super::super::error::StoreError;
    use super::super::handle::Store;
    use super::super::limits::Keep;
    use super::*;

    fn message(sequence: u64, queue: &str, body: &str) -> NewMessage {
        let mut bag = PropertyBag::new();
        bag.set("line", "4");
        NewMessage {
            from: "press-1".parse().unwrap(),
            enqueued_ms: 1000 + sequence,
            received_ms: 2000,
            bag,
            body: body.as_bytes().to_vec(),
            place: Some(Place { gateway: "gw".parse().unwrap(), queue: queue.into(), sequence }),
            generation: None,
        }
    }

    async fn put(store: &Store, message: NewMessage) -> Stored {
        let stored = store.submit(move |c| {
            let mut writing = Writing::new(c)?;
            let stored = writing.insert(&message)?;
            writing.finish()?;
            Ok::<_, StoreError>(stored)
        });
        stored.await.unwrap()
    }

    async fn all(store: &Store) -> Vec<Message> {
        store.read(|c| Ok::<_, StoreError>(page(c, &"press-1".parse().unwrap(), 0, 1000)?)).await.unwrap()
    }

    #[tokio::test]
    async fn a_resent_message_is_stored_once_even_after_central_was_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep { messages: 1000, commands: 10 };
        let store = crate::store::open(dir.path(), keep).unwrap();
        assert_eq!(put(&store, message(1, "q", "{}")).await, Stored::New);
        assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::New);
        assert_eq!(put(&store, message(1, "q", "{}")).await, Stored::Already);
        assert_eq!(
            put(&store, message(1, "other", "{}")).await,
            Stored::New,
            "another queue counts by itself"
        );
        store.close().await;
        let store = crate::store::open(dir.path(), keep).unwrap();
        assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::Already);
        assert_eq!(put(&store, message(5, "q", "{}")).await, Stored::New, "a gap is told elsewhere");
        let stored = all(&store).await;
        assert_eq!(stored.len(), 4);
        assert_eq!(stored[0].enqueued_ms, 1001);
        assert_eq!(stored[0].properties.as_ref().unwrap()["line"], "4");
    }

    #[tokio::test]
    async fn a_message_that_was_refused_is_not_taken_for_stored_because_later_ones_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::open(dir.path(), Keep { messages: 1000, commands: 10 }).unwrap();
        let far = async |store: &Store| {
            let of = "gw".parse().unwrap();
            store.read(move |c| Ok::<_, StoreError>(stored(c, &of)?)).await.unwrap().queues["q"]
        };
        put(&store, message(1, "q", "{}")).await;
        let refused = message(2, "q", "{}").place.unwrap();
        let refuse = move |c: &Connection| {
            let mut writing = Writing::new(c)?;
            writing.refuse(&refused)?;
            Ok::<_, StoreError>(writing.finish()?)
        };
        store.submit(refuse).await.unwrap();
        put(&store, message(3, "q", "{}")).await;
        assert_eq!(far(&store).await, 1, "the gateway must not forget what was refused");
        assert_eq!(put(&store, message(3, "q", "{}")).await, Stored::Already);
        assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::New, "it is taken now");
        assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::Already);
        assert_eq!((far(&store).await, all(&store).await.len()), (3, 3));
    }

    #[tokio::test]
    async fn the_oldest_messages_go_when_there_are_more_than_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::open(dir.path(), Keep { messages: 3, commands: 10 }).unwrap();
        for sequence in 1..=10 {
            put(&store, message(sequence, "q", "{}")).await;
        }
        let enqueued: Vec<u64> = all(&store).await.iter().map(|message| message.enqueued_ms).collect();
        assert_eq!(enqueued, [1008, 1009, 1010]);
    }

    #[tokio::test]
    async fn what_is_kept_of_each_device_is_counted_exactly_and_the_largest_gives_way() {
        use rand::rngs::StdRng;
        use rand::{Rng as _, SeedableRng as _};
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let mut random = StdRng::seed_from_u64(5);
        let truth = |c: &Connection| -> Vec<(String, i64, i64)> {
            c.prepare(
                "SELECT device, count(*), sum(length(bag) + length(body) + 128) FROM telemetry GROUP BY device",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
        };
        for sequence in 1..300 {
            let mut new = message(sequence, "q", &"ä".repeat(random.random_range(0..200)));
            new.bag.set("name", "ü€");
            new.from = format!("press-{}", random.random_range(1..5_u32).min(3)).parse().unwrap();
            let mut writing = Writing::new(&c).unwrap();
            writing.insert(&new).unwrap();
            // A resend counts once.
            writing.insert(&new).unwrap();
            writing.finish().unwrap();
            let (per_device, total) =
                (random.random_range(5_000..20_000), random.random_range(8_000..40_000));
            trim_bytes(&c, per_device, total).unwrap();
            let counted: Vec<(String, i64, i64)> = c
                .prepare("SELECT device, messages, bytes FROM telemetry_usage ORDER BY device")
                .unwrap()
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(counted, truth(&c));
            assert!(counted.iter().all(|(_, _, bytes)| unsigned(*bytes) <= per_device));
            assert!(bytes(&c).unwrap() <= total);
        }
        trim(&c, 0).unwrap();
        assert_eq!(bytes(&c).unwrap(), 0);
    }
}
