//! Compaction: chunks as they came become chunks by time, with roll-ups; and what is beyond its quota or age goes.
//!
//! A series is compacted in one commit, so that a kill leaves it as it was or compacted. All its loose chunks are taken at once: what is
//! written then is newer than everything that it corrects. A late point rewrites the one chunk whose time it falls into.

use rusqlite::{Connection, OptionalExtension as _};

use super::columns::{integer, unsigned};
use super::series::{Added, COMPACT, LOOSE, ROW_BYTES, account};
use super::series_chunks::insert;
use super::series_reading::points_of;
use crate::series::chunk::POINTS_MAX;
use crate::series::point::{Point, merge};

/// Loose chunks of a series that are compacted together.
const CHUNKS_DUE: u32 = 64;
/// Points in them from which they are compacted before.
const POINTS_DUE: u64 = POINTS_MAX as u64;
/// Points of a chunk to which late ones are added. Only a chunk whose points have all one time has more.
const LENGTH_MAX: u64 = 8 * POINTS_MAX as u64;
/// Chunks that retention takes at once.
const TRIMMED_MAX: u32 = 1000;

/// How many loose chunks each series has, and which are due.
#[derive(Debug, Default)]
pub(super) struct Loose {
    series: std::collections::HashMap<i64, (u32, u64)>,
    due: std::collections::BTreeSet<i64>,
}

impl Loose {
    /// Of the store as it is.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut loose = Self::default();
        let mut statement = connection.prepare(
            "SELECT series, count(*), sum(points) FROM series_chunks WHERE level = 0 GROUP BY series",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            loose.note(row.get(0)?, row.get(1)?, unsigned(row.get(2)?));
        }
        Ok(loose)
    }

    fn note(&mut self, series: i64, chunks: u32, points: u64) {
        let has = self.series.entry(series).or_default();
        *has = (has.0 + chunks, has.1 + points);
        if has.0 >= CHUNKS_DUE || has.1 >= POINTS_DUE {
            self.due.insert(series);
        }
    }

    /// Notes chunks that were written.
    pub(super) fn add(&mut self, added: &[Added]) {
        added.iter().for_each(|added| self.note(added.series, 1, added.points as u64));
    }

    /// How many series are due.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// Takes some that are due.
    pub(super) fn take(&mut self, count: usize) -> Vec<i64> {
        let taken: Vec<i64> = self.due.iter().take(count).copied().collect();
        for series in &taken {
            self.due.remove(series);
            self.series.remove(series);
        }
        taken
    }
}

/// Compacts the loose chunks of a series. Within one transaction.
pub(super) fn compact(connection: &Connection, series: i64) -> rusqlite::Result<()> {
    compact_with(connection, series, |_| {})
}

/// [`compact`], which tells `step` before each change.
pub(super) fn compact_with(
    connection: &Connection,
    series: i64,
    step: impl Fn(&Connection),
) -> rusqlite::Result<()> {
    let device: Option<String> = connection
        .prepare_cached("SELECT device FROM series WHERE id = ?1")?
        .query_row([series], |row| row.get(0))
        .optional()?;
    // It was deleted meanwhile.
    let Some(device) = device else { return Ok(()) };
    let mut statement = connection
        .prepare_cached("SELECT id FROM series_chunks WHERE series = ?1 AND level = ?2 ORDER BY id")?;
    let ids: Vec<i64> =
        statement.query_map((series, LOOSE), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut sources = Vec::with_capacity(ids.len());
    let mut writing = Rewriting { connection, series, bytes: 0, points: 0 };
    for id in ids {
        // One that cannot be read stays, and is logged whenever it is met.
        if let Some(points) = points_of(connection, id)? {
            sources.push(points);
            step(connection);
            writing.delete(id)?;
        }
    }
    let points = merge(sources);
    let mut rest = points.as_slice();
    while let Some(first) = rest.first() {
        let home = home(connection, series, first.at_ms)?;
        let until_ms = next_begin(connection, series, first.at_ms)?;
        let (here, behind) =
            rest.split_at(rest.partition_point(|point| until_ms.is_none_or(|until| point.at_ms < until)));
        // At least one: the next chunk begins behind the first point.
        rest = behind;
        let old = home.filter(|home| home.has_space(here));
        let old_points = match &old {
            Some(old) => points_of(connection, old.id)?,
            None => None,
        };
        let all = match (old, old_points) {
            (Some(old), Some(old_points)) => {
                step(connection);
                writing.delete(old.id)?;
                merge(vec![old_points, here.to_vec()])
            }
            _ => here.to_vec(),
        };
        for part in parts(&all) {
            step(connection);
            writing.insert(part)?;
        }
    }
    let (bytes, points) = (writing.bytes, writing.points);
    step(connection);
    account(connection, &device, bytes, points)
}

/// Points in pieces of [`POINTS_MAX`] each. Points of one time stay in one piece: a stated one among them may be corrected.
fn parts(points: &[Point]) -> Vec<&[Point]> {
    let (mut parts, mut rest) = (Vec::new(), points);
    while rest.len() > POINTS_MAX {
        let at_ms = rest[POINTS_MAX].at_ms;
        let mut cut = rest.partition_point(|point| point.at_ms < at_ms);
        if cut == 0 {
            cut = rest.partition_point(|point| point.at_ms <= at_ms);
        }
        let (part, behind) = rest.split_at(cut);
        parts.push(part);
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// The changes of one compaction, and what they change of what the series takes.
struct Rewriting<'c> {
    connection: &'c Connection,
    series: i64,
    bytes: i64,
    points: i64,
}

impl Rewriting<'_> {
    fn delete(&mut self, chunk: i64) -> rusqlite::Result<()> {
        let (bytes, points): (i64, i64) = self
            .connection
            .prepare_cached("DELETE FROM series_chunks WHERE id = ?1 RETURNING bytes, points")?
            .query_row([chunk], |row| Ok((row.get(0)?, row.get(1)?)))?;
        (self.bytes, self.points) = (self.bytes - bytes, self.points - points);
        Ok(())
    }

    fn insert(&mut self, points: &[Point]) -> rusqlite::Result<()> {
        let bytes = insert(self.connection, self.series, COMPACT, points)?;
        self.bytes += bytes.cast_signed();
        self.points += (points.len() as u64).cast_signed();
        Ok(())
    }
}

/// A compacted chunk that begins before or at a time.
struct Home {
    id: i64,
    last_ms: u64,
    points: u64,
}

impl Home {
    /// Whether points belong into it: they fall into its time, or it is not full.
    fn has_space(&self, points: &[Point]) -> bool {
        let falls_in = points.first().is_some_and(|first| first.at_ms <= self.last_ms);
        // Longer ones are of one time, and would be written again and again.
        falls_in && self.points <= LENGTH_MAX
            || self.points + (points.len() as u64) <= POINTS_MAX as u64
            || self.points < POINTS_MAX as u64 / 2
    }
}

fn home(connection: &Connection, series: i64, at_ms: u64) -> rusqlite::Result<Option<Home>> {
    connection
        .prepare_cached(
            "SELECT id, last_ms, points FROM series_chunks WHERE series = ?1 AND level = ?2 AND first_ms <= ?3
             ORDER BY first_ms DESC, id DESC LIMIT 1",
        )?
        .query_row((series, COMPACT, integer(at_ms)), |row| {
            Ok(Home { id: row.get(0)?, last_ms: unsigned(row.get(1)?), points: unsigned(row.get(2)?) })
        })
        .optional()
}

/// When the next compacted chunk behind a time begins.
fn next_begin(connection: &Connection, series: i64, at_ms: u64) -> rusqlite::Result<Option<u64>> {
    let next: Option<i64> = connection
        .prepare_cached(
            "SELECT min(first_ms) FROM series_chunks WHERE series = ?1 AND level = ?2 AND first_ms > ?3",
        )?
        .query_row((series, COMPACT, integer(at_ms)), |row| row.get(0))?;
    Ok(next.map(unsigned))
}

/// Deletes some compacted chunks that end before a time, and takes their bytes from `bytes_left`; returns how many.
pub(super) fn trim_age(
    connection: &Connection,
    before_ms: u64,
    bytes_left: &mut u64,
) -> rusqlite::Result<usize> {
    delete_chunks(
        connection,
        "SELECT series_chunks.id, device, series_chunks.bytes, series_chunks.points FROM series_chunks
         JOIN series ON series.id = series_chunks.series
         WHERE level = 1 AND last_ms < ?1 ORDER BY last_ms LIMIT ?2",
        (integer(before_ms), TRIMMED_MAX),
        u64::MAX,
        bytes_left,
    )
}

/// Deletes the oldest chunks of a device that has more than `per_device` bytes, and those of the devices with the most that all have
/// beyond `total`, and takes their bytes from `bytes_left`. Returns how many chunks.
pub(super) fn trim_bytes(
    connection: &Connection,
    per_device: u64,
    total: u64,
    bytes_left: &mut u64,
) -> rusqlite::Result<usize> {
    let mut trimmed = 0;
    let over: Vec<(String, u64)> = connection
        .prepare_cached("SELECT device, bytes FROM series_usage WHERE bytes > ?1")?
        .query_map([integer(per_device)], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect::<rusqlite::Result<_>>()?;
    for (device, bytes) in over {
        trimmed += delete_oldest(connection, &device, bytes - per_device, bytes_left)?;
    }
    let all = super::series::usage(connection)?.0;
    if all > total {
        let largest: Option<String> = connection
            .prepare_cached("SELECT device FROM series_usage ORDER BY bytes DESC LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        if let Some(device) = largest {
            // More at the next look, of whichever has the most then.
            trimmed += delete_oldest(connection, &device, all - total, bytes_left)?;
        }
    }
    Ok(trimmed)
}

fn delete_oldest(
    connection: &Connection,
    device: &str,
    bytes: u64,
    bytes_left: &mut u64,
) -> rusqlite::Result<usize> {
    // Loose ones last: they are few, and new.
    delete_chunks(
        connection,
        "SELECT series_chunks.id, device, series_chunks.bytes, series_chunks.points FROM series
         JOIN series_chunks ON series_chunks.series = series.id
         WHERE device = ?1 ORDER BY level DESC, last_ms LIMIT ?2",
        (device, TRIMMED_MAX),
        bytes,
        bytes_left,
    )
}

/// Deletes the chunks that a query finds until `bytes` are free or `bytes_left` is used up; returns how many.
fn delete_chunks(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
    bytes: u64,
    bytes_left: &mut u64,
) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(query)?;
    let found: Vec<(i64, String, i64, i64)> = statement
        .query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut free, mut deleted) = (0, 0);
    for (id, device, chunk_bytes, points) in found {
        if free >= bytes || *bytes_left == 0 {
            break;
        }
        connection.prepare_cached("DELETE FROM series_chunks WHERE id = ?1")?.execute([id])?;
        account(connection, &device, -chunk_bytes, -points)?;
        let chunk_bytes = unsigned(chunk_bytes).max(ROW_BYTES);
        free += chunk_bytes;
        *bytes_left = bytes_left.saturating_sub(chunk_bytes);
        deleted += 1;
    }
    Ok(deleted)
}
