//! The tables of the store's file.

mod steps;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use steps::STEPS;

use super::error::StoreError;

/// Counts the steps in [`STEPS`]; the file has it as `user_version`.
const VERSION: i64 = STEPS.len() as i64;

/// The writer's pages in memory, the readers' as far as they read: the ends of all indexes that telemetry grows.
const CACHE_KB: u32 = 16 * 1024;

/// Opens a connection and brings the file to this version's tables. Its commits do not move the log into the file: SQLite hides
/// the errors of a move that it makes behind a commit, and the disk reports a lost page only once (see `writer.rs`).
///
/// # Errors
/// [`StoreError::Open`], [`StoreError::Damaged`] or [`StoreError::Newer`].
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::opening(path, source);
    make_private(path).map_err(|why| failed(rusqlite::Error::ToSqlConversionFailure(why.into())))?;
    let mut connection = Connection::open(path).map_err(failed)?;
    // `central token create` writes beside a running server: wait for its commit instead of failing.
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    // `FULL`, because gateways delete what central has acknowledged: a commit is on disk when it returns.
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -{CACHE_KB};"
        ))
        .map_err(failed)?;
    keep_log_at_close(&connection).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    known(&connection, path)?;
    upgrade(&mut connection).map_err(failed)?;
    Ok(connection)
}

/// Leaves the log as it is when the connection is closed: whether it may be moved into the file, the writer alone knows.
pub(super) fn keep_log_at_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Refuses a file that a newer central wrote.
///
/// # Errors
/// [`StoreError::Newer`], or [`StoreError::Open`] when the file cannot be read.
pub fn known(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection).map_err(|source| StoreError::opening(path, source))?;
    if found > VERSION {
        Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION })
    } else {
        Ok(())
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The keys of all devices are in the file: it is made for its owner alone, and SQLite gives its log the same mode.
///
/// A file that is there is not opened. Closing any descriptor of a file releases all POSIX locks that the process holds on it
/// (fcntl(2)), also SQLite's: another program that closed the store would then take itself for the last one, and delete the log
/// that this process writes to.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    // Only a file that needs it is locked for writing.
    if version(connection)? >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have upgraded the file before this one had the lock.
    let found = version(&transaction)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    if found < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

#[cfg(test)]
pub(super) mod tests;
