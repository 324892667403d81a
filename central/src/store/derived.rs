//! Tables that are filled from the messages behind their commits, so that no message waits for its body to be read.
//!
//! ```text
//! messages ──read_tail, on a connection of its own──> tail, in parts ──a commit for each part──> rows, and the state with the last
//! ```
//! The writer of the store gets a tail in parts, so that no other work waits for more than one. The state says how far the rows go. Who
//! reads the rows also reads the messages that are not in them yet ([`newest`]), of one moment; so nothing is missed, also after a
//! kill. When a sender is deleted, a floor is set: its messages up to there are not those of a later sender of the name.

use std::collections::HashMap;

use rusqlite::{Connection, Row};
use schemas::names::{Identity, ModuleId};

use super::columns::{parsed_column, unsigned};
use super::tail_bounds::{TailBounds, TailRead};
use super::unreadable;
use crate::telemetry::message_values::{Stamp, StampProperties};

/// A floor of a device and all its modules, in place of a module's name.
pub(super) const ALL_MODULES: &str = "/";

/// Tables that are derived from messages.
#[derive(Debug)]
pub(super) struct Derived {
    /// Its one row says how far the tables go, and how often floors were set.
    pub(super) state_table: &'static str,
    /// The id of the last message before each deletion of a sender.
    pub(super) floors_table: &'static str,
}

/// How far derived tables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The id of the last message that they know.
    pub(super) up_to: i64,
    /// How often floors were set.
    pub(super) floors: i64,
}

/// Messages that were read and are not in the tables yet.
#[derive(Debug)]
pub(super) struct Tail {
    /// The state when they were read.
    pub(super) read_at: State,
    /// The id of the last of them.
    pub(super) up_to: i64,
    /// How many messages there are behind these.
    pub(super) left: u64,
}

/// A message as it is stored.
pub(super) struct StoredMessage {
    pub(super) id: i64,
    pub(super) from: Identity,
    pub(super) enqueued_ms: u64,
    received_ms: u64,
    properties: StampProperties,
    pub(super) body: Vec<u8>,
}

impl StoredMessage {
    pub(super) fn stamp(&self) -> Stamp<'_> {
        Stamp::new(self.enqueued_ms, self.received_ms, self.id).with(|name| self.properties.get(name))
    }
}

/// The columns that [`MessageReader`] reads, in its order. The id comes first: the log names an unreadable row by it.
const MESSAGE_COLUMNS: &str = "telemetry.id, device, module, enqueued_ms, received_ms, bag, body";

/// Reads rows of [`MESSAGE_COLUMNS`]. Each message is read once for each derived table, and most have the sender of the one before,
/// so a sender is parsed only when it is another one.
#[derive(Default)]
struct MessageReader {
    last: Option<Identity>,
}

impl MessageReader {
    fn read(&mut self, row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
        Ok(StoredMessage {
            id: row.get(0)?,
            from: self.sender(row)?.clone(),
            enqueued_ms: unsigned(row.get(3)?),
            received_ms: unsigned(row.get(4)?),
            properties: StampProperties::read(row.get_ref(5)?.as_str()?)
                .map_err(|error| unreadable::column(row, "bag", error.into()))?,
            body: row.get(6)?,
        })
    }

    fn sender(&mut self, row: &Row<'_>) -> rusqlite::Result<&Identity> {
        let (device, module) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str_or_null()?);
        let is_last = |last: &Identity| {
            last.device.as_str() == device && last.module.as_ref().map(ModuleId::as_str) == module
        };
        if !self.last.as_ref().is_some_and(is_last) {
            let module = module.map(|_| parsed_column(row, "module")).transpose()?;
            self.last = Some(Identity { device: parsed_column(row, "device")?, module });
        }
        Ok(self.last.as_ref().expect("it was set just now"))
    }
}

/// An identity in the columns `device` and `module`; the module of the device itself is empty.
pub(super) fn columns(of: &Identity) -> (&str, &str) {
    (of.device.as_str(), of.module.as_ref().map_or("", ModuleId::as_str))
}

impl Derived {
    pub(super) fn state(&self, connection: &Connection) -> rusqlite::Result<State> {
        connection
            .prepare_cached(&format!("SELECT up_to, floors FROM {}", self.state_table))?
            .query_row([], |row| Ok(State { up_to: row.get(0)?, floors: row.get(1)? }))
    }

    /// Reads some messages that are not in the tables yet, oldest first, within bounds, or those up to `until`; `None` when there
    /// are none. `take` returns how many values a message has.
    pub(super) fn read_tail(
        &self,
        connection: &Connection,
        bounds: TailBounds,
        until: Option<i64>,
        mut take: impl FnMut(&StoredMessage) -> usize,
    ) -> rusqlite::Result<Option<Tail>> {
        let read_at = self.state(connection)?;
        let (first, last): (Option<i64>, Option<i64>) = connection
            .prepare_cached(
                "SELECT (SELECT min(id) FROM telemetry WHERE id > ?1), (SELECT max(id) FROM telemetry)",
            )?
            .query_row([read_at.up_to], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
        // Ids have gaps only where old messages were deleted.
        let within = (first - 1).saturating_add(bounds.messages.into()).min(last);
        let mut up_to = until.unwrap_or(within);
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM telemetry WHERE id > ?1 AND id <= ?2 ORDER BY id"
        ))?;
        let (mut floors, mut read) = (Floors::of(self), TailRead::within(bounds));
        let mut reader = MessageReader::default();
        let rows = statement.query_map((read_at.up_to, up_to), |row| reader.read(row))?;
        for message in unreadable::rows("telemetry", rows) {
            let message = message?;
            let values = if floors.is_above(connection, &message)? { take(&message) } else { 0 };
            if read.is_full(values, message.body.len()) && until.is_none() {
                up_to = message.id;
                break;
            }
        }
        Ok(Some(Tail { read_at, up_to, left: unsigned(last - up_to) }))
    }

    /// Reads the newest messages of a device and its modules that are not in the tables yet, the newest first, up to `limit`.
    pub(super) fn newest(
        &self,
        connection: &Connection,
        device: &str,
        limit: u32,
        mut take: impl FnMut(StoredMessage),
    ) -> rusqlite::Result<()> {
        let State { up_to, .. } = self.state(connection)?;
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM telemetry WHERE device = ?1 AND id > ?2 ORDER BY id DESC LIMIT ?3"
        ))?;
        let (mut floors, mut reader) = (Floors::of(self), MessageReader::default());
        let rows = statement.query_map((device, up_to, limit), |row| reader.read(row))?;
        for message in unreadable::rows("telemetry", rows) {
            let message = message?;
            if floors.is_above(connection, &message)? {
                take(message);
            }
        }
        Ok(())
    }

    /// Stores that the tables know all messages up to this one. In the transaction that writes the last of them.
    pub(super) fn advance(&self, connection: &Connection, up_to: i64) -> rusqlite::Result<()> {
        let Self { state_table, floors_table } = self;
        connection
            .prepare_cached(&format!("UPDATE {state_table} SET up_to = max(up_to, ?1)"))?
            .execute([up_to])?;
        // Floors up to there have had their effect: all messages that are read from now on are above them.
        connection
            .prepare_cached(&format!("DELETE FROM {floors_table} WHERE message <= ?1"))?
            .execute([up_to])?;
        Ok(())
    }

    /// Leaves out what a sender has sent until now. `module` may be [`ALL_MODULES`].
    pub(super) fn set_floor(
        &self,
        connection: &Connection,
        device: &str,
        module: &str,
    ) -> rusqlite::Result<()> {
        let Self { state_table, floors_table } = self;
        connection
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO {floors_table} (device, module, message)
                 VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM telemetry))"
            ))?
            .execute((device, module))?;
        // What was read before this floor is not written any more (`write_slice` of each table compares the count).
        connection.prepare_cached(&format!("UPDATE {state_table} SET floors = floors + 1"))?.execute([])?;
        Ok(())
    }
}

/// The floors of senders, each read once. All messages of a device that is not registered are below its floor.
struct Floors<'d> {
    derived: &'d Derived,
    known: HashMap<Identity, i64>,
}

impl<'d> Floors<'d> {
    fn of(derived: &'d Derived) -> Self {
        Self { derived, known: HashMap::new() }
    }

    fn is_above(&mut self, connection: &Connection, message: &StoredMessage) -> rusqlite::Result<bool> {
        if let Some(floor) = self.known.get(&message.from) {
            return Ok(message.id > *floor);
        }
        let (device, module) = columns(&message.from);
        let floors_table = self.derived.floors_table;
        let floor: i64 = connection
            .prepare_cached(&format!(
                "SELECT CASE WHEN EXISTS (SELECT 1 FROM devices WHERE id = ?1) THEN
                     (SELECT coalesce(max(message), 0) FROM {floors_table} WHERE device = ?1 AND module IN (?2, ?3))
                 ELSE ?4 END"
            ))?
            .query_row((device, module, ALL_MODULES, i64::MAX), |row| row.get(0))?;
        self.known.insert(message.from.clone(), floor);
        Ok(message.id > floor)
    }
}
