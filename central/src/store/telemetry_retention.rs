//! Retention of telemetry: the oldest messages go, by number and by bytes.

use rusqlite::Connection;

use super::columns::{integer, unsigned};
use super::{last_values, series};

/// Deletes the oldest messages beyond `keep`, and takes their bytes from `bytes_left`; while that is not used up, one at least. Returns how
/// many.
pub fn trim(connection: &Connection, keep: u64, bytes_left: &mut u64) -> rusqlite::Result<usize> {
    let newest: Option<i64> =
        connection.prepare_cached("SELECT max(id) FROM telemetry")?.query_row([], |row| row.get(0))?;
    let last = newest.unwrap_or(0).saturating_sub(integer(keep));
    if last <= 0 {
        return Ok(0);
    }
    let of = "SELECT id, length(bag) + length(body) + 128 FROM telemetry WHERE id <= ?1 ORDER BY id";
    let Some((last, found)) = last_of(connection, of, [last], *bytes_left)? else { return Ok(0) };
    *bytes_left = bytes_left.saturating_sub(found);
    let last = reached(connection, last)?;
    connection.prepare_cached("DELETE FROM telemetry WHERE id <= ?1")?.execute([last])
}

/// The last of the messages that a query finds, with their bytes, until those are `bytes`, and how many they are; `None` when there are none.
fn last_of(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
    bytes: u64,
) -> rusqlite::Result<Option<(i64, u64)>> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(parameters)?;
    let (mut last, mut found) = (None, 0);
    while found < bytes
        && let Some(row) = rows.next()?
    {
        last = Some(row.get::<_, i64>(0)?);
        found += unsigned(row.get(1)?);
    }
    Ok(last.map(|last| (last, found)))
}

/// The last message up to `last` that values and points were taken from. What they have not reached yet stays, and goes with a later
/// commit: the works of all others would wait until they have.
fn reached(connection: &Connection, last: i64) -> rusqlite::Result<i64> {
    Ok(last.min(last_values::fold_up_to(connection, last)?).min(series::fold_up_to(connection, last)?))
}

/// Bytes of all telemetry that is kept.
pub fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM telemetry_usage")?
        .query_row([], |row| row.get(0).map(unsigned))
}

/// Deletes the oldest messages of each device that has more than `per_device` bytes, and of the devices with the most while all
/// have more than `total`, and takes their bytes from `bytes_left`. Returns the devices and how many of their messages were deleted.
pub fn trim_bytes(
    connection: &Connection,
    per_device: u64,
    total: u64,
    bytes_left: &mut u64,
) -> rusqlite::Result<Vec<(String, usize)>> {
    let mut trimmed = Vec::new();
    let over: Vec<(String, u64)> = connection
        .prepare_cached("SELECT device, bytes FROM telemetry_usage WHERE bytes > ?1")?
        .query_map([integer(per_device)], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect::<rusqlite::Result<_>>()?;
    for (device, bytes) in over {
        let goes = (bytes - per_device).min(*bytes_left);
        let gone = delete_oldest(connection, &device, goes)?;
        *bytes_left -= if gone > 0 { goes } else { 0 };
        trimmed.push((device, gone));
    }
    let mut beyond = bytes(connection)?.saturating_sub(total);
    while beyond > 0 && *bytes_left > 0 {
        let (device, bytes): (String, u64) = connection
            .prepare_cached("SELECT device, bytes FROM telemetry_usage ORDER BY bytes DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
        let goes = beyond.min(bytes).min(*bytes_left);
        let gone = delete_oldest(connection, &device, goes)?;
        *bytes_left -= if gone > 0 { goes } else { 0 };
        trimmed.push((device, gone));
        let left = self::bytes(connection)?.saturating_sub(total);
        // Nothing became free: values and points of the oldest messages have not been taken yet.
        if left >= beyond {
            break;
        }
        beyond = left;
    }
    Ok(trimmed)
}

/// Deletes a device's oldest messages until `bytes` are free.
fn delete_oldest(connection: &Connection, device: &str, bytes: u64) -> rusqlite::Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let of = "SELECT id, length(bag) + length(body) + 128 FROM telemetry WHERE device = ?1 ORDER BY id";
    let Some((last, _)) = last_of(connection, of, [device], bytes)? else {
        // Counted and not there: the count is wrong, and would be found again and again.
        connection.prepare_cached("DELETE FROM telemetry_usage WHERE device = ?1")?.execute([device])?;
        return Ok(0);
    };
    let last = reached(connection, last)?;
    // The newest of all stays, whosever it is: SQLite would give its id again, below what devices were registered after.
    connection
        .prepare_cached(
            "DELETE FROM telemetry WHERE device = ?1 AND id <= ?2 AND id < (SELECT max(id) FROM telemetry)",
        )?
        .execute((device, last))
}
