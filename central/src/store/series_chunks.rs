//! Chunks of points as they are stored.

use rusqlite::Connection;

use super::columns::integer;
use crate::series::chunk;
use crate::series::point::Point;
use crate::series::rollup;

/// A chunk as it came.
pub(super) const LOOSE: i64 = 0;
/// A chunk that was compacted. Those of a series share no times.
pub(super) const COMPACT: i64 = 1;
/// What a chunk takes beside its blobs: its row and its entries in indexes.
pub(super) const ROW_BYTES: u64 = 64;

/// Points as they are stored.
pub(super) struct EncodedChunk {
    level: i64,
    first_ms: u64,
    last_ms: u64,
    pub(super) points: usize,
    rollup: Vec<u8>,
    data: Vec<u8>,
}

impl EncodedChunk {
    /// Of points that are sorted by time; `None` for none.
    pub(super) fn of(level: i64, points: &[Point]) -> Option<Self> {
        let (first, last) = (points.first()?, points.last()?);
        let rollup = if level == COMPACT { rollup::encode(points) } else { Vec::new() };
        let (first_ms, last_ms) = (first.at_ms, last.at_ms);
        Some(Self { level, first_ms, last_ms, points: points.len(), rollup, data: chunk::encode(points) })
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.data.len() + self.rollup.len()) as u64 + ROW_BYTES
    }

    pub(super) fn insert(&self, connection: &Connection, series: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO series_chunks (series, level, first_ms, last_ms, points, bytes, rollup, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                series,
                self.level,
                integer(self.first_ms),
                integer(self.last_ms),
                integer(self.points as u64),
                integer(self.bytes()),
                &self.rollup,
                &self.data,
            ))?;
        Ok(())
    }
}

/// Writes a chunk of points, which are sorted by time, and gives what it takes.
pub(super) fn insert(
    connection: &Connection,
    series: i64,
    level: i64,
    points: &[Point],
) -> rusqlite::Result<u64> {
    let Some(chunk) = EncodedChunk::of(level, points) else { return Ok(0) };
    chunk.insert(connection, series)?;
    Ok(chunk.bytes())
}
