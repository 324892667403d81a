//! Values in the store that cannot be read: they are logged and left out, and stop nothing else.
//!
//! What is written can be read (docs/protocol.md has the limits). What cannot was damaged, or changed by hand.

use edge_core::error_chain::chain;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rusqlite::{OptionalExtension as _, Row};

/// Rows that are counted.
const COUNTED_MAX: usize = 1000;

/// The rows that were met, by table and what is wrong with them.
static MET: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A value of a column that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("column `{column}` of row `{row}`")]
struct UnreadableColumn {
    column: String,
    row: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Rows that could not be read since the program began, up to 1000.
pub fn count() -> usize {
    MET.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Says that a value of a column is not what it should be.
pub(super) fn column(
    row: &Row<'_>,
    column: &str,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> rusqlite::Error {
    // The first column of every table that is read so is its key.
    let key = match row.get_ref(0) {
        Ok(rusqlite::types::ValueRef::Integer(key)) => key.to_string(),
        Ok(rusqlite::types::ValueRef::Text(key)) => String::from_utf8_lossy(key).into_owned(),
        _ => "?".to_owned(),
    };
    let why = UnreadableColumn { column: column.to_owned(), row: key, source };
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, why.into())
}

/// Whether a row was found and holds something that it should not.
pub fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

fn report(table: &'static str, error: &rusqlite::Error) {
    let mut met = MET.lock().unwrap_or_else(PoisonError::into_inner);
    if met.len() < COUNTED_MAX {
        met.insert(format!("{table}: {}", chain(error)));
    }
    drop(met);
    tracing::error!(table, error = %chain(error), "a row of the store cannot be read; it is left out");
}

/// The rows of a query that can be read.
pub(super) fn rows<T>(
    table: &'static str,
    rows: impl Iterator<Item = rusqlite::Result<T>>,
) -> impl Iterator<Item = rusqlite::Result<T>> {
    rows.filter(move |row| match row {
        Err(error) if is_unreadable(error) => {
            report(table, error);
            false
        }
        _ => true,
    })
}

/// The one row of a query; `None` when there is none, and when it cannot be read.
pub(super) fn row<T>(table: &'static str, row: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    value(table, row.optional()).map(Option::flatten)
}

/// A value; `None` when it cannot be read.
pub(super) fn value<T>(table: &'static str, value: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match value {
        Err(error) if is_unreadable(&error) => {
            report(table, &error);
            Ok(None)
        }
        value => value.map(Some),
    }
}
