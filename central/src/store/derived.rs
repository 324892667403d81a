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

use super::columns::{json_column, parsed_column, unsigned};
use super::tail_bounds::{TailBounds, TailRead};
use super::unreadable;
use crate::telemetry::message_values::Stamp;

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
    bag: serde_json::Map<String, serde_json::Value>,
    pub(super) body: Vec<u8>,
}

impl StoredMessage {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
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

    pub(super) fn stamp(&self) -> Stamp<'_> {
        let property = |name: &str| self.bag.get(name).map(|value| value.as_str().unwrap_or_default());
        Stamp::new(self.enqueued_ms, self.received_ms, self.id).with(property)
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
        let mut statement = connection.prepare_cached(
            "SELECT telemetry.id, device, module, enqueued_ms, received_ms, bag, body FROM telemetry
             JOIN devices ON devices.id = telemetry.device WHERE telemetry.id > ?1 AND telemetry.id <= ?2
             ORDER BY telemetry.id",
        )?;
        let (mut floors, mut read) = (Floors::of(self), TailRead::within(bounds));
        let rows = statement.query_map((read_at.up_to, up_to), StoredMessage::read)?;
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
        let mut statement = connection.prepare_cached(
            "SELECT id, device, module, enqueued_ms, received_ms, bag, body FROM telemetry
             WHERE device = ?1 AND id > ?2 ORDER BY id DESC LIMIT ?3",
        )?;
        let mut floors = Floors::of(self);
        let rows = statement.query_map((device, up_to, limit), StoredMessage::read)?;
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
        connection.prepare_cached(&format!("UPDATE {state_table} SET floors = floors + 1"))?.execute([])?;
        Ok(())
    }
}

/// The floors of senders, each read once.
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
                "SELECT coalesce(max(message), 0) FROM {floors_table} WHERE device = ?1 AND module IN (?2, ?3)"
            ))?
            .query_row((device, module, ALL_MODULES), |row| row.get(0))?;
        self.known.insert(message.from.clone(), floor);
        Ok(message.id > floor)
    }
}
