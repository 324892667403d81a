//! Pages of rows: bounded by how many there are, and by their bytes, because a row may be a manifest of a megabyte.

use rusqlite::Row;
use rusqlite::types::ValueRef;

/// Bytes of the rows of one page, as they stand in the store; the first row counts for none.
pub const BYTES_MAX: usize = 1 << 20;

/// A row with what it holds in the store.
pub(super) struct Sized<T> {
    pub(super) row: T,
    bytes: usize,
}

/// Reads a row of a page.
pub(super) fn sized<T>(
    row: &Row<'_>,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Sized<T>> {
    let bytes = |column| match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes.len(),
        _ => 8,
    };
    let bytes = (0..row.as_ref().column_count()).map(bytes).sum();
    Ok(Sized { row: read(row)?, bytes })
}

/// Up to `limit` rows, fewer when they are large; and whether there may be more.
pub(super) fn page<T>(
    rows: impl Iterator<Item = rusqlite::Result<Sized<T>>>,
    limit: u32,
) -> rusqlite::Result<(Vec<T>, bool)> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for sized in rows {
        let sized = sized?;
        bytes += sized.bytes;
        page.push(sized.row);
        if page.len() >= limit as usize || bytes >= BYTES_MAX {
            return Ok((page, true));
        }
    }
    Ok((page, false))
}
