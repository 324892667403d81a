//! Reading telemetry: pages of messages, the newest ones, and how many come in.

use rusqlite::{Connection, Row};
use schemas::names::{DeviceId, Identity, ModuleId};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::{page, unreadable};

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
    ///
    /// [`NewMessage`]: super::telemetry::NewMessage
    pub enqueued_ms: u64,
    /// Its properties as a JSON object; a property without a value is `null`. `None`: they cannot be read.
    pub properties: Option<serde_json::Map<String, serde_json::Value>>,
    pub body: Vec<u8>,
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
pub fn page(
    connection: &Connection,
    device: &DeviceId,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Message>> {
    page_by(connection, device, after, limit, "id")
}

/// The last messages of a device and its modules with ids above `after`, newest first: up to `limit`, fewer when they are large.
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
    ///
    /// [`NewMessage`]: super::telemetry::NewMessage
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

/// Time over which the rate is measured.
const RATE_MS: u64 = 10_000;
/// Messages that are counted for it; of more, the time that they took counts.
const RATE_MESSAGES: i64 = 50_000;

/// Messages of all devices that are received in a second, of the last ten.
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
pub fn last_received(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT received_ms FROM telemetry WHERE device = ?1 AND id > {BEFORE_DEVICE} ORDER BY id DESC LIMIT 1"
    ))?;
    let at: Option<i64> =
        unreadable::row("telemetry", statement.query_row([device.as_str()], |row| row.get(0)))?;
    Ok(at.map(unsigned))
}
