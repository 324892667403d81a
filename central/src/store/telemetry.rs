//! Storing telemetry: every message once, and how far the queues of gateways are stored.

use std::collections::{HashMap, HashSet};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _};
use schemas::bag::PropertyBag;
use schemas::generation::Generation;
use schemas::link;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde::Serializer as _;

use super::columns::{integer, unsigned};
use super::queues::{self, NumberTable};
use super::unreadable;

/// Queues whose watermarks a gateway gets; far more than a site has.
const QUEUES_MAX: u32 = 2000;
/// Bytes of their names.
const QUEUE_NAMES_BYTES_MAX: usize = 128 * 1024;
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
    /// Which of the devices or modules of its name sent it, according to its gateway.
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

/// Messages on their way into the tables, each once. What a batch of them needs again and again is looked up once, and is
/// written by [`Writing::finish`].
pub struct Writing<'c> {
    connection: &'c Connection,
    insert: CachedStatement<'c>,
    watermarks: HashMap<DeviceId, HashMap<String, Watermark>>,
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
    pub fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let insert = connection.prepare_cached(
            "INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        Ok(Self { connection, insert, watermarks: HashMap::new(), added: HashMap::new() })
    }

    /// Stores a message, if it is new.
    pub fn insert(&mut self, message: &NewMessage) -> rusqlite::Result<Stored> {
        if let Some(place) = &message.place {
            let Some(watermark) = self.watermark(place)? else { return Ok(Stored::TooManyQueues) };
            if watermark.highest.is_none_or(|highest| place.sequence > highest) {
                (watermark.highest, watermark.is_moved) = (Some(place.sequence), true);
                watermark.taken += 1;
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
    pub fn is_stored(&mut self, place: &Place) -> rusqlite::Result<bool> {
        let watermark = self.watermark(place)?;
        if watermark.and_then(|watermark| watermark.highest).is_none_or(|highest| place.sequence > highest) {
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
    pub fn refuse(&mut self, place: &Place) -> rusqlite::Result<()> {
        let Some(watermark) = self.watermark(place)? else { return Ok(()) };
        watermark.taken += 1;
        watermark.is_moved = true;
        let taken = watermark.taken;
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
    fn watermark(&mut self, place: &Place) -> rusqlite::Result<Option<&mut Watermark>> {
        let is_known = self.watermarks.get(&place.gateway).is_some_and(|of| of.contains_key(&place.queue));
        if !is_known {
            let found: Option<(i64, i64)> = self
                .connection
                .prepare_cached("SELECT sequence, taken FROM watermarks WHERE gateway = ?1 AND queue = ?2")?
                .query_row([place.gateway.as_str(), &place.queue], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let of = self.watermarks.entry(place.gateway.clone()).or_default();
            if found.is_none() {
                let log = queues::log_of(&place.queue);
                let new: HashSet<&str> = of
                    .iter()
                    .filter(|(_, watermark)| watermark.is_new)
                    .map(|(queue, _)| queues::log_of(queue))
                    .collect();
                let more = new.len() - usize::from(new.contains(log));
                if !queues::may_add(self.connection, NumberTable::Watermarks, &place.gateway, log, more)? {
                    return Ok(None);
                }
            }
            let watermark = Watermark {
                highest: found.map(|(highest, _)| unsigned(highest)),
                taken: found.map_or(0, |(_, taken)| unsigned(taken)),
                is_new: found.is_none(),
                is_moved: false,
            };
            of.insert(place.queue.clone(), watermark);
        }
        Ok(self.watermarks.get_mut(&place.gateway).and_then(|of| of.get_mut(&place.queue)))
    }

    /// Writes how far each queue is stored now.
    pub fn finish(self) -> rusqlite::Result<()> {
        let mut write = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO watermarks (gateway, queue, sequence, moved, taken) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        // Ascends with the messages, so it orders queues by when they moved last.
        let moved = self.connection.last_insert_rowid();
        for (gateway, of) in &self.watermarks {
            let moved_watermarks = of.iter().filter_map(|(queue, watermark)| {
                watermark.highest.filter(|_| watermark.is_moved).map(|highest| (queue, watermark, highest))
            });
            for (queue, watermark, highest) in moved_watermarks {
                write.execute((
                    gateway.as_str(),
                    queue,
                    integer(highest),
                    moved,
                    integer(watermark.taken),
                ))?;
                if watermark.is_new {
                    queues::forget_oldest(self.connection, NumberTable::Watermarks, gateway, queue)?;
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

/// A bag as stored in the table: a JSON object, a property without a value is `null`.
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

/// How far the queues of a gateway are stored, of the [`QUEUES_MAX`] that moved last: which the gateway is sent.
pub fn stored(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<link::Stored> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, sequence, (SELECT min(refused.sequence) - 1 FROM refused
                 WHERE refused.gateway = ?1 AND refused.queue = watermarks.queue) AS before_refused
             FROM watermarks WHERE gateway = ?1 ORDER BY moved DESC LIMIT ?2",
    )?;
    let rows = statement.query_map((gateway.as_str(), QUEUES_MAX), |row| {
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
        if bytes > QUEUE_NAMES_BYTES_MAX {
            break;
        }
        *epochs.entry(queues::log_of(&queue).to_owned()).or_default() += 1;
        // Everything before the first refused message is stored; the highest number is sent besides (decision 0018).
        let up_to = before_refused.map_or(highest, |before| highest.min(before));
        if up_to < highest {
            stored.highest.insert(queue.clone(), highest);
        }
        stored.queues.insert(queue, up_to);
    }
    // Only then does an epoch that is not named prove a loss (decision 0018).
    // Of a log whose older epochs are forgotten the newest is kept: one that is not named at all is unknown.
    stored.names_all_logs = stored.queues.len() == count as usize;
    stored.is_complete = stored.names_all_logs && epochs.values().all(|count| *count < queues::EPOCHS_MAX);
    Ok(stored)
}

#[cfg(test)]
mod tests;
