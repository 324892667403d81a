//! Roll-ups: what a chart of a long time needs of a chunk, without its points.
//!
//! ```text
//! version 1 │ for each step: its buckets │ CRC-32C of all before
//! ```
//! They are written with the points in one row, so that they never differ from them.

use super::bucket::{Bucket, buckets};
use super::chunk::{ChunkError, seal, unseal};
use super::columns::{
    ColumnError, Input, deltas, integers, numbers, put_integers, put_numbers, put_varint, sums,
};
use super::point::Point;

/// Lengths of roll-ups, in milliseconds: a minute and an hour.
pub const STEPS_MS: [u64; 2] = [60_000, 3_600_000];
/// Points for each bucket from which a roll-up is worth its bytes.
const WORTH: usize = 8;
/// Buckets that a roll-up may claim to have.
const CLAIMED_MAX: usize = 1 << 20;
/// The form that is written.
const VERSION: u8 = 1;

/// Writes the roll-ups of points, which are sorted by time.
pub fn encode(points: &[Point]) -> Vec<u8> {
    let mut out = vec![VERSION];
    for step_ms in STEPS_MS {
        let found = buckets(points, step_ms);
        if found.len() * WORTH > points.len() {
            put_varint(&mut out, 0);
            continue;
        }
        // One more than there are: 0 says that there is no roll-up.
        put_varint(&mut out, found.len() as u64 + 1);
        let number = |bucket: &Bucket| (bucket.start_ms / step_ms).cast_signed();
        // Most buckets follow each other, so differences of differences are zeros, which take few bytes.
        put_integers(&mut out, &deltas(deltas(found.iter().map(number))));
        put_integers(&mut out, &deltas(found.iter().map(|bucket| bucket.count.cast_signed())));
        let offset = |bucket: &Bucket| (bucket.last_at_ms - bucket.start_ms).cast_signed();
        put_integers(&mut out, &deltas(found.iter().map(offset)));
        let columns: [fn(&Bucket) -> f64; 4] =
            [|bucket| bucket.min, |bucket| bucket.max, |bucket| bucket.last, |bucket| bucket.sum];
        for column in columns {
            put_numbers(&mut out, &found.iter().map(column).collect::<Vec<_>>());
        }
    }
    seal(out)
}

/// Reads the roll-up of one of [`STEPS_MS`]; `None` when the points are too few for one.
///
/// # Errors
/// [`ChunkError`].
pub fn decode(bytes: &[u8], step_ms: u64) -> Result<Option<Vec<Bucket>>, ChunkError> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(ChunkError::Version(other)),
        None => return Err(ColumnError::Truncated.into()),
    }
    let mut input = Input(unseal(bytes)?);
    input.byte()?;
    for step in STEPS_MS {
        let found = read(&mut input, step)?;
        if step == step_ms {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(input: &mut Input<'_>, step_ms: u64) -> Result<Option<Vec<Bucket>>, ChunkError> {
    let count = usize::try_from(input.varint()?).map_err(|_| ColumnError::Invalid)?;
    let Some(count) = count.checked_sub(1) else { return Ok(None) };
    if count > CLAIMED_MAX {
        return Err(ColumnError::Invalid.into());
    }
    let mut starts = integers(input, count)?;
    sums(&mut starts);
    sums(&mut starts);
    let mut counts = integers(input, count)?;
    sums(&mut counts);
    let mut offsets = integers(input, count)?;
    sums(&mut offsets);
    let (min, max) = (numbers(input, count)?, numbers(input, count)?);
    let (last, sum) = (numbers(input, count)?, numbers(input, count)?);
    let bucket = |n: usize| {
        let start_ms = starts[n].cast_unsigned().wrapping_mul(step_ms);
        Bucket {
            start_ms,
            min: min[n],
            max: max[n],
            sum: sum[n],
            count: counts[n].cast_unsigned(),
            last: last[n],
            last_at_ms: start_ms.wrapping_add(offsets[n].cast_unsigned()),
        }
    };
    Ok(Some((0..count).map(bucket).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_roll_up_comes_back_and_a_changed_byte_never_does() {
        let one = (0..20_000_000_u64, prop::option::of(-1000..1000_i32));
        proptest!(|(found in prop::collection::vec(one, 1..300), place in any::<prop::sample::Index>(), flip in 1..=255_u8)| {
            let point = |(at_ms, value): (u64, Option<i32>)| {
                Point { at_ms, enqueued_ms: at_ms, is_stated: true, value: value.map(|value| f64::from(value) / 8.0) }
            };
            let mut points: Vec<Point> = found.into_iter().map(point).collect();
            points.sort_by_key(|point| point.at_ms);
            let mut bytes = encode(&points);
            for step_ms in STEPS_MS {
                let expected = buckets(&points, step_ms);
                match decode(&bytes, step_ms).unwrap() {
                    Some(found) => prop_assert_eq!(found, expected),
                    None => prop_assert!(expected.len() * WORTH > points.len()),
                }
            }
            *place.get_mut(&mut bytes) ^= flip;
            prop_assert!(decode(&bytes, STEPS_MS[1]).is_err());
        });
    }

    #[test]
    fn bytes_of_strangers_with_a_right_checksum_are_refused_or_read() {
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..120))| {
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            let _ = decode(&seal(bytes), STEPS_MS[1]);
        });
    }
}
