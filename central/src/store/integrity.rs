//! Checks of the store's file when central starts: is it there, and is it whole.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::damage::is_damage;
use super::error::StoreError;
use super::paths::RESTORING_FILE;
use super::schema::keep_log_at_close;

/// Findings that are listed; one damaged page causes many.
const FINDINGS_MAX: u32 = 10;
/// Stores up to this size are checked whole, indexes against tables too; that takes about a second.
const WHOLE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The structure of every page, and the contents of indexes in all but large stores.
    AtStart,
    Whole,
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    Well,
    /// The time was over before all telemetry was checked. All other tables are well.
    InPart,
}

/// Refuses a store that has gone, whose file is missing or empty beside files that were made with it, and one that a restore
/// has begun to replace.
///
/// # Errors
/// [`StoreError::Missing`] or [`StoreError::RestoreCut`].
pub fn present(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let marker = dir.join(RESTORING_FILE);
    if marker.exists() {
        return Err(StoreError::RestoreCut { dir: dir.to_owned(), marker });
    }
    if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let beside = ["ca.pem", "ca-key.pem", "central.db-wal"].map(|name| dir.join(name));
    let beside = beside.into_iter().chain([super::record::path(dir)]);
    match beside.into_iter().find(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0)) {
        Some(beside) => Err(StoreError::Missing { path: path.to_owned(), beside }),
        None => Ok(()),
    }
}

/// Checks the file of a store: telemetry for as long as `within`, all other tables to the end.
///
/// # Errors
/// [`StoreError::Damaged`] with what was found, [`StoreError::Open`] when the check could not be made.
pub fn check(path: &Path, depth: Depth, within: Duration) -> Result<Checked, StoreError> {
    let failed = |source| StoreError::opening(path, source);
    // Writable, because SQLite may have to recover the log first; a missing file is not made.
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    keep_log_at_close(&connection).map_err(failed)?;
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let is_whole = depth == Depth::Whole || size <= WHOLE_BYTES_MAX;
    let checked = tables(&connection).and_then(|tables| {
        // They grow with telemetry.
        let small = tables.iter().filter(|table| !["telemetry", "series_chunks"].contains(&table.as_str()));
        for table in small {
            let found = findings(&connection, "integrity_check", Some(table))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let _timer = Timer::start(&connection, Instant::now() + within);
        findings(&connection, if is_whole { "integrity_check" } else { "quick_check" }, None)
    });
    let damaged = |findings| StoreError::Damaged { path: path.to_owned(), findings };
    match checked {
        Ok(found) if found.is_empty() => Ok(Checked::Well),
        Ok(found) => Err(damaged(found)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(Checked::InPart)
        }
        Err(error) if is_damage(&error) => Err(damaged(vec![error.to_string()])),
        Err(source) => Err(failed(source)),
    }
}

fn tables(c: &Connection) -> rusqlite::Result<Vec<String>> {
    c.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

fn findings(c: &Connection, pragma: &str, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    // Names of tables are ours; a table has no limit of findings of its own.
    let statement = match table {
        Some(table) => format!("PRAGMA {pragma}({table})"),
        None => format!("PRAGMA {pragma}({FINDINGS_MAX})"),
    };
    let mut found: Vec<String> =
        c.prepare(&statement)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    found.retain(|line| line != "ok");
    found.truncate(FINDINGS_MAX as usize);
    let named = |line: String| line.replace('\n', "; ");
    Ok(match table {
        Some(table) => found.into_iter().map(|line| format!("table {table}: {}", named(line))).collect(),
        None => found.into_iter().map(named).collect(),
    })
}

/// Interrupts a connection's statement when its time is over.
struct Timer {
    _stop: mpsc::Sender<()>,
}

impl Timer {
    fn start(connection: &Connection, until: Instant) -> Self {
        let (stop, stopped) = mpsc::channel();
        let handle = connection.get_interrupt_handle();
        let timer = move || {
            let mut left = until.saturating_duration_since(Instant::now());
            while stopped.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                handle.interrupt();
                // An interrupt between two statements is lost.
                left = Duration::from_millis(50);
            }
        };
        // Without a thread for it the check takes its time.
        let _started = std::thread::Builder::new().name("store-check-timer".into()).spawn(timer);
        Self { _stop: stop }
    }
}
