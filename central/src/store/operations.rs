//! Operations on many devices: how far each is, and what it could not do. The newest [`OPERATIONS_MAX`] are kept.

use rusqlite::{Connection, Row};

use super::columns::unsigned;
use super::unreadable;

/// Operations that are kept.
pub const OPERATIONS_MAX: u32 = 20;

/// Long work that a client started, such as an import, with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub id: i64,
    /// `importDevices`
    pub kind: String,
    /// For people: the name of the file.
    pub title: String,
    pub organization: String,
    /// Who asked for it.
    pub who: String,
    pub started_ms: u64,
    /// `None` while it runs, and when central ended before it did.
    pub ended_ms: Option<u64>,
    pub total: u64,
    /// Of `total`, those that were tried.
    pub done: u64,
    /// Of `done`, those that were not possible.
    pub failed: u64,
}

/// Something that an operation could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFault {
    /// Line of the file.
    pub line: u64,
    /// As far as the line says which.
    pub device: Option<String>,
    pub why: String,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        id: row.get("id")?,
        kind: row.get("kind")?,
        title: row.get("title")?,
        organization: row.get("organization")?,
        who: row.get("who")?,
        started_ms: unsigned(row.get("started_ms")?),
        ended_ms: row.get::<_, Option<i64>>("ended_ms")?.map(unsigned),
        total: unsigned(row.get("total")?),
        done: unsigned(row.get("done")?),
        failed: unsigned(row.get("failed")?),
    })
}

/// Adds an operation that begins now; gives its id. Older ones that are too many are forgotten.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn begin(
    c: &Connection,
    kind: &str,
    title: &str,
    who: &str,
    total: usize,
    now_ms: u64,
) -> rusqlite::Result<i64> {
    let id = c
        .prepare_cached(
            "INSERT INTO operations (kind, title, who, started_ms, total, done, failed) VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)
             RETURNING id",
        )?
        .query_row((kind, title, who, now_ms.cast_signed(), i64::try_from(total).unwrap_or(i64::MAX)), |row| {
            row.get(0)
        })?;
    let too_old = "SELECT id FROM operations ORDER BY id DESC LIMIT -1 OFFSET ?1";
    // The faults first: the table of operations says which are too old.
    c.prepare_cached(&format!("DELETE FROM operation_faults WHERE operation IN ({too_old})"))?
        .execute([OPERATIONS_MAX])?;
    c.prepare_cached(&format!("DELETE FROM operations WHERE id IN ({too_old})"))?
        .execute([OPERATIONS_MAX])?;
    Ok(id)
}

/// Notes that some more were tried, and which of them were not possible.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn advance(c: &Connection, id: i64, tried: usize, faults: &[OperationFault]) -> rusqlite::Result<()> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    c.prepare_cached("UPDATE operations SET done = done + ?2, failed = failed + ?3 WHERE id = ?1")?
        .execute((id, count(tried), count(faults.len())))?;
    let mut insert = c.prepare_cached(
        "INSERT INTO operation_faults (operation, line, device, why) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for fault in faults {
        insert.execute((id, fault.line.cast_signed(), &fault.device, &fault.why))?;
    }
    Ok(())
}

/// Notes that an operation ended.
///
/// # Errors
/// The database cannot be written; the caller rolls its transaction back.
pub fn end(c: &Connection, id: i64, now_ms: u64) -> rusqlite::Result<()> {
    c.prepare_cached("UPDATE operations SET ended_ms = ?2 WHERE id = ?1")?
        .execute((id, now_ms.cast_signed()))?;
    Ok(())
}

/// All operations, newest first.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn list(c: &Connection) -> rusqlite::Result<Vec<Operation>> {
    let mut statement = c.prepare_cached("SELECT * FROM operations ORDER BY id DESC")?;
    unreadable::rows("operations", statement.query_map([], read)?).collect()
}

/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn get(c: &Connection, id: i64) -> rusqlite::Result<Option<Operation>> {
    let mut statement = c.prepare_cached("SELECT * FROM operations WHERE id = ?1")?;
    unreadable::row("operations", statement.query_row([id], read))
}

/// What an operation could not do, by line.
///
/// # Errors
/// The database cannot be read, or a row holds what this version of central cannot read.
pub fn faults(c: &Connection, id: i64) -> rusqlite::Result<Vec<OperationFault>> {
    let read = |row: &Row<'_>| {
        Ok(OperationFault { line: unsigned(row.get(0)?), device: row.get(1)?, why: row.get(2)? })
    };
    let mut statement = c.prepare_cached(
        "SELECT line, device, why FROM operation_faults WHERE operation = ?1 ORDER BY line",
    )?;
    unreadable::rows("operation_faults", statement.query_map([id], read)?).collect()
}
