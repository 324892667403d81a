//! Columns of rows as Rust's types.

use super::unreadable;

/// Levels of a stored JSON text that are read: what an answer puts around it stays within serde_json's 127.
const STORED_DEPTH_MAX: usize = 120;

/// Reads a JSON column.
pub(super) fn json_column<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    // A text that is passed on as it is would not be read by those who get it.
    let checked = schemas::json::check_text(text.as_bytes(), STORED_DEPTH_MAX);
    checked.map_err(|error| unreadable::column(row, column, error.into()))?;
    serde_json::from_str(&text).map_err(|error| unreadable::column(row, column, error.into()))
}

/// Reads a column that holds a name or another type that parses.
pub(super) fn parsed_column<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error: T::Err| unreadable::column(row, column, error.into()))
}

/// Milliseconds and counters as SQLite's integers.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
