//! Chunks: points of one series as bytes.
//!
//! ```text
//! version 1 │ count │ columns: times, enqueued times, stated or not, number or not, numbers │ CRC-32C of all before
//! ```
//! Times stand as differences of differences: those of a regular series are one run. A chunk never changes.

use super::columns::{
    ColumnError, Input, deltas, integers, numbers, put_integers, put_numbers, put_varint, sums,
};
use super::point::Point;

/// Points in a chunk: enough to be small, few enough that a late point rewrites little. Few in tests, so that they have many chunks.
pub const POINTS_MAX: usize = if cfg!(test) { 16 } else { 1024 };
/// Points that a chunk may claim to have. One reading of messages may bring more of a series than [`POINTS_MAX`].
const CLAIMED_MAX: usize = 1 << 20;
/// The form that is written.
const VERSION: u8 = 1;

/// Why a chunk cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A newer central wrote it.
    #[error("a chunk of version {0} is not known here")]
    Version(u8),
    /// Its checksum is wrong.
    #[error("a chunk's checksum is wrong")]
    Checksum,
    /// A column cannot be read.
    #[error("a column of a chunk")]
    Column(#[from] ColumnError),
}

/// Adds the checksum of what was written.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// What was written, when its checksum is right.
pub(super) fn unseal(bytes: &[u8]) -> Result<&[u8], ChunkError> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(ColumnError::Truncated)?;
    if crc32c::crc32c(body) == u32::from_le_bytes(*sum) { Ok(body) } else { Err(ChunkError::Checksum) }
}

/// Writes points, which are sorted by time.
pub fn encode(points: &[Point]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, points.len() as u64);
    put_integers(&mut out, &deltas(deltas(points.iter().map(|point| point.at_ms.cast_signed()))));
    let behind = |point: &Point| point.enqueued_ms.wrapping_sub(point.at_ms).cast_signed();
    // The difference is small or the same in a row, where the time itself is neither.
    put_integers(&mut out, &deltas(points.iter().map(behind)));
    put_integers(&mut out, &points.iter().map(|point| i64::from(point.is_stated)).collect::<Vec<_>>());
    put_integers(&mut out, &points.iter().map(|point| i64::from(point.value.is_some())).collect::<Vec<_>>());
    put_numbers(&mut out, &points.iter().filter_map(|point| point.value).collect::<Vec<_>>());
    seal(out)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`ChunkError`].
pub fn decode(bytes: &[u8]) -> Result<Vec<Point>, ChunkError> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(ChunkError::Version(other)),
        None => return Err(ColumnError::Truncated.into()),
    }
    let mut input = Input(unseal(bytes)?);
    input.byte()?;
    let count = usize::try_from(input.varint()?).map_err(|_| ColumnError::Invalid)?;
    if count > CLAIMED_MAX {
        return Err(ColumnError::Invalid.into());
    }
    let mut times = integers(&mut input, count)?;
    sums(&mut times);
    sums(&mut times);
    let mut behind = integers(&mut input, count)?;
    sums(&mut behind);
    let stated = integers(&mut input, count)?;
    let has_number = integers(&mut input, count)?;
    let found = numbers(&mut input, has_number.iter().filter(|has| **has != 0).count())?;
    if !input.0.is_empty() {
        return Err(ColumnError::Invalid.into());
    }
    let mut found = found.into_iter();
    let points = times.into_iter().zip(behind).zip(stated).zip(has_number);
    let point = |(((at, behind), stated), has_number): (((i64, i64), i64), i64)| {
        let at_ms = at.cast_unsigned();
        let value = if has_number == 0 { None } else { found.next() };
        Point {
            at_ms,
            enqueued_ms: at_ms.wrapping_add(behind.cast_unsigned()),
            is_stated: stated != 0,
            value,
        }
    };
    Ok(points.map(point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<Point>> {
        let value = prop::option::of(prop_oneof![
            any::<f64>().prop_filter("JSON has finite numbers", |value| value.is_finite()),
            (-100_000..100_000_i32).prop_map(|hundredths| f64::from(hundredths) / 100.0),
        ]);
        let one = (0..1_u64 << 62, any::<u64>(), any::<bool>(), value);
        prop::collection::vec(one, 0..80).prop_map(|points| {
            let point =
                |(at_ms, enqueued_ms, is_stated, value)| Point { at_ms, enqueued_ms, is_stated, value };
            let mut points: Vec<Point> = points.into_iter().map(point).collect();
            points.sort_by_key(|point| point.at_ms);
            points
        })
    }

    #[test]
    fn a_chunk_comes_back_and_a_changed_byte_never_does() {
        proptest!(|(points in points(), place in any::<prop::sample::Index>(), flip in 1..=255_u8)| {
            let mut bytes = encode(&points);
            prop_assert_eq!(decode(&bytes).unwrap(), points);
            *place.get_mut(&mut bytes) ^= flip;
            prop_assert!(decode(&bytes).is_err());
        });
    }

    #[test]
    fn bytes_of_strangers_with_a_right_checksum_are_refused_or_read() {
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..120))| {
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            let _ = decode(&seal(bytes));
        });
        let mut huge = vec![VERSION];
        put_varint(&mut huge, u64::MAX);
        assert!(decode(&seal(huge)).is_err());
    }

    #[test]
    fn a_chunk_of_another_version_says_so() {
        let mut bytes = encode(&[]);
        bytes[0] = 2;
        assert_eq!(decode(&bytes), Err(ChunkError::Version(2)));
    }

    #[test]
    fn a_million_points_of_a_sensor_take_less_than_three_megabytes() {
        let mut value = 20.0_f64;
        let points: Vec<Point> = (0..1024)
            .map(|n| {
                value += f64::from(u8::try_from(n * 7919 % 41).unwrap()) / 100.0 - 0.2;
                let at_ms = 1_800_000_000_000 + n * 60_000 + n * 31 % 17;
                let value = Some((value * 100.0).round() / 100.0);
                Point { at_ms, enqueued_ms: at_ms + 40, is_stated: true, value }
            })
            .collect();
        let bytes = encode(&points).len();
        assert!(bytes * 1_000_000 / 1024 < 3_000_000, "{bytes}");
    }
}
