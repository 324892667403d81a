//! Reading series: chunks and the messages behind them, as the buckets of a chart.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;
use schemas::names::{Identity, ModuleId};

use super::columns::{integer, unsigned};
use super::derived::StoredMessage;
use super::series::{COMPACT, Gathering, LOOSE, SERIES, SeriesKey, SeriesState, find};
use super::unreadable;
use crate::series::bucket::{Bucket, buckets, together};
use crate::series::chunk;
use crate::series::point::{Point, merge};
use crate::series::rollup::{self, STEPS_MS};

/// Messages of one device that are not in its chunks yet and are looked into for a chart, the newest first.
const READ_MAX: u32 = 20_000;

/// What of which series: times from `from_ms` and before `to_ms`, in buckets of `step_ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesQuery {
    /// The device or module.
    pub of: Identity,
    /// Of its model; empty for none.
    pub component: String,
    pub names: Vec<String>,
    /// A multiple of the step.
    pub from_ms: u64,
    /// Above `from_ms`, a multiple of the step.
    pub to_ms: u64,
    /// Above 0.
    pub step_ms: u64,
}

/// The buckets of each name of a query.
pub fn read(connection: &Connection, query: &SeriesQuery) -> rusqlite::Result<Vec<Vec<Bucket>>> {
    let mut late = late(connection, query)?;
    let mut found = Vec::with_capacity(query.names.len());
    for name in &query.names {
        let late = late.remove(name).unwrap_or_default();
        let series = find(connection, &query.of, &query.component, name)?;
        found.push(read_one(connection, query, series, late)?);
    }
    Ok(found)
}

/// The points of messages that are not in the chunks yet, sorted by time, by name.
fn late(connection: &Connection, query: &SeriesQuery) -> rusqlite::Result<BTreeMap<String, Vec<Point>>> {
    let mut messages: Vec<StoredMessage> = Vec::new();
    SERIES.newest(connection, query.of.device.as_str(), READ_MAX, |message| {
        if message.from == query.of {
            messages.push(message);
        }
    })?;
    let state = SeriesState::read(connection)?;
    let module = query.of.module.as_ref().map_or("", ModuleId::as_str);
    let mut requested: HashMap<&str, i64> = HashMap::new();
    for name in &query.names {
        let key: SeriesKey =
            (query.of.device.to_string(), module.into(), query.component.clone(), name.clone());
        requested.insert(name, state.known_to(&key));
    }
    let mut gathering = Gathering::default();
    // Oldest first, because a later point corrects an earlier one of its time.
    for message in messages.iter().rev() {
        gathering.add(message, |component, name| {
            component == query.component && requested.get(name).is_some_and(|known| message.id > *known)
        });
    }
    let mut senders = gathering.senders;
    let names = senders.remove(&query.of).and_then(|mut components| components.remove(&query.component));
    let sorted = |(name, mut points): (String, Vec<Point>)| {
        points.sort_by_key(|point| point.at_ms);
        (name, points)
    };
    Ok(names.unwrap_or_default().into_iter().map(sorted).collect())
}

/// Position of a chunk.
#[derive(Debug, Clone, Copy)]
struct Span {
    id: i64,
    level: i64,
    first_ms: u64,
    last_ms: u64,
}

fn read_one(
    connection: &Connection,
    query: &SeriesQuery,
    series: Option<i64>,
    late: Vec<Point>,
) -> rusqlite::Result<Vec<Bucket>> {
    let spans = match series {
        Some(series) => spans(connection, series, query.from_ms, query.to_ms)?,
        None => Vec::new(),
    };
    // The largest step that divides the requested one has the fewest buckets to read.
    let rolled_ms = STEPS_MS.into_iter().rev().find(|step_ms| query.step_ms.is_multiple_of(*step_ms));
    let alone = alone(&spans, &late);
    let (mut rolled, mut sources) = (Vec::new(), Vec::new());
    for (span, is_alone) in spans.iter().zip(alone) {
        let rollup = match rolled_ms.filter(|_| is_alone) {
            Some(step_ms) => rollup_of(connection, span.id, step_ms)?,
            None => None,
        };
        match rollup {
            Some(buckets) => rolled.extend(buckets),
            None => sources.push(points_of(connection, span.id)?.unwrap_or_default()),
        }
    }
    sources.push(late);
    let is_within = |at_ms: u64| (query.from_ms..query.to_ms).contains(&at_ms);
    let mut points = merge(sources);
    points.retain(|point| is_within(point.at_ms));
    // Of a chunk that begins or ends within the first or last bucket: buckets begin at multiples of the step, as the times do.
    rolled.retain(|bucket| is_within(bucket.start_ms));
    Ok(together(rolled.into_iter().chain(buckets(&points, query.step_ms)), query.step_ms))
}

/// Which chunks are compacted and share their time with no other source: of those the roll-ups stand, since none of their points can be
/// corrected elsewhere.
fn alone(spans: &[Span], late: &[Point]) -> Vec<bool> {
    let loose: Vec<&Span> = spans.iter().filter(|span| span.level == LOOSE).collect();
    let mut by_time: Vec<&Span> = spans.iter().filter(|span| span.level == COMPACT).collect();
    by_time.sort_by_key(|span| (span.first_ms, span.last_ms));
    let mut shared = std::collections::HashSet::new();
    let mut longest: Option<&Span> = None;
    for span in by_time {
        if let Some(before) = longest.filter(|before| before.last_ms >= span.first_ms) {
            shared.extend([before.id, span.id]);
        }
        longest = Some(longest.filter(|before| before.last_ms > span.last_ms).unwrap_or(span));
    }
    let is_alone = |span: &Span| {
        let late_here = late.partition_point(|point| point.at_ms < span.first_ms);
        span.level == COMPACT
            && !shared.contains(&span.id)
            && !loose.iter().any(|other| other.first_ms <= span.last_ms && other.last_ms >= span.first_ms)
            && late.get(late_here).is_none_or(|point| point.at_ms > span.last_ms)
    };
    spans.iter().map(is_alone).collect()
}

/// The chunks of a series that may have points of a time, in the order of their ids.
fn spans(connection: &Connection, series: i64, from_ms: u64, to_ms: u64) -> rusqlite::Result<Vec<Span>> {
    // Chunks that were compacted share no times: of those that begin before, the last one alone may reach into it.
    let mut statement = connection.prepare_cached(
        "SELECT id, level, first_ms, last_ms FROM series_chunks
         WHERE series = ?1 AND level = 0 AND first_ms < ?3 AND last_ms >= ?2
         UNION ALL
         SELECT id, level, first_ms, last_ms FROM series_chunks
         WHERE series = ?1 AND level = 1 AND first_ms < ?3 AND last_ms >= ?2 AND first_ms >= ifnull(
             (SELECT max(first_ms) FROM series_chunks WHERE series = ?1 AND level = 1 AND first_ms <= ?2), 0)",
    )?;
    let rows = statement.query_map((series, integer(from_ms), integer(to_ms)), |row| {
        Ok(Span {
            id: row.get("id")?,
            level: row.get("level")?,
            first_ms: unsigned(row.get("first_ms")?),
            last_ms: unsigned(row.get("last_ms")?),
        })
    })?;
    let mut spans: Vec<Span> = unreadable::rows("series_chunks", rows).collect::<rusqlite::Result<_>>()?;
    spans.sort_by_key(|span| span.id);
    Ok(spans)
}

fn rollup_of(connection: &Connection, chunk: i64, step_ms: u64) -> rusqlite::Result<Option<Vec<Bucket>>> {
    let rollup = connection
        .prepare_cached("SELECT id, rollup FROM series_chunks WHERE id = ?1")?
        .query_row([chunk], |row| row.get::<_, Vec<u8>>(1));
    let rollup = rollup.and_then(|rollup| readable(rollup::decode(&rollup, step_ms)));
    // Its points may be readable.
    Ok(unreadable::value("series_chunks", rollup)?.flatten())
}

/// The points of a chunk; `None` when they cannot be read.
pub(super) fn points_of(connection: &Connection, chunk: i64) -> rusqlite::Result<Option<Vec<Point>>> {
    let data = connection
        .prepare_cached("SELECT id, data FROM series_chunks WHERE id = ?1")?
        .query_row([chunk], |row| row.get::<_, Vec<u8>>(1));
    unreadable::value("series_chunks", data.and_then(|data| readable(chunk::decode(&data))))
}

fn readable<T>(read: Result<T, chunk::ChunkError>) -> rusqlite::Result<T> {
    read.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, error.into())
    })
}
