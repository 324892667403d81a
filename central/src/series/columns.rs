//! Columns of integers and numbers as bytes: small where values follow a pattern, never much larger than they are.

/// Why bytes are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// They end too early.
    #[error("it ends too early")]
    Truncated,
    /// A length or a mode is not one that is written.
    #[error("it holds what is never written")]
    Invalid,
}

/// Equal values in a row from which a run is shorter than the values.
const RUN_MIN: usize = 4;
/// Powers of ten by which decimals become whole numbers.
const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Whole numbers up to here are exact as doubles.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Mode of numbers that are written as bits, each against the one before.
const BITS: u8 = 255;

/// Reads from the front of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'b>(pub(super) &'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn byte(&mut self) -> Result<u8, ColumnError> {
        let (first, rest) = self.0.split_first().ok_or(ColumnError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'b [u8], ColumnError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ColumnError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64, ColumnError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has one bit left of the 64.
            if shift == 63 && part > 1 {
                return Err(ColumnError::Invalid);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ColumnError::Invalid)
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Writes integers: runs of equal ones as one, the others as they are, small ones in few bytes.
pub(super) fn put_integers(out: &mut Vec<u8>, values: &[i64]) {
    let run = |from: usize| values[from..].iter().take_while(|value| **value == values[from]).count();
    let mut at = 0;
    while at < values.len() {
        let equal = run(at);
        if equal >= RUN_MIN {
            put_varint(out, (equal as u64) << 1 | 1);
            put_varint(out, zigzag(values[at]));
            at += equal;
            continue;
        }
        let mut end = at;
        while end < values.len() {
            let equal = run(end);
            if equal >= RUN_MIN {
                break;
            }
            end += equal;
        }
        put_varint(out, ((end - at) as u64) << 1);
        values[at..end].iter().for_each(|value| put_varint(out, zigzag(*value)));
        at = end;
    }
}

/// Reads `count` integers.
pub(super) fn integers(input: &mut Input<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let head = input.varint()?;
        let length = usize::try_from(head >> 1).map_err(|_| ColumnError::Invalid)?;
        if length == 0 || length > count - values.len() {
            return Err(ColumnError::Invalid);
        }
        if head & 1 == 1 {
            let value = unzigzag(input.varint()?);
            values.extend(std::iter::repeat_n(value, length));
        } else {
            for _ in 0..length {
                values.push(unzigzag(input.varint()?));
            }
        }
    }
    Ok(values)
}

/// Differences, wrapping: any sequence comes back.
pub(super) fn deltas(values: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut last = 0_i64;
    let delta = |value: i64| {
        let delta = value.wrapping_sub(last);
        last = value;
        delta
    };
    values.into_iter().map(delta).collect()
}

/// Undoes [`deltas`] in place.
pub(super) fn sums(values: &mut [i64]) {
    let mut last = 0_i64;
    for value in values {
        last = last.wrapping_add(*value);
        *value = last;
    }
}

/// The whole numbers that decimals are times a power of ten, when each of them comes back to the bit.
fn scaled(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let as_whole = |value: f64, power: f64| {
        let whole = (value * power).round();
        if whole.abs() >= EXACT_MAX {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        let whole = whole as i64;
        // As it is read; -0 has no whole number.
        #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
        let back = whole as f64 / power;
        (back.to_bits() == value.to_bits()).then_some(whole)
    };
    // The first power that fits some is most often the one that fits all.
    let mut from = 0;
    'powers: while from < POWERS.len() {
        let mut wholes = Vec::with_capacity(values.len());
        for value in values {
            match as_whole(*value, POWERS[from]) {
                Some(whole) => wholes.push(whole),
                None => {
                    let next = (from + 1..POWERS.len()).find(|at| as_whole(*value, POWERS[*at]).is_some())?;
                    from = next;
                    continue 'powers;
                }
            }
        }
        return Some((u8::try_from(from).ok()?, wholes));
    }
    None
}

/// Writes numbers, to the bit: decimals as whole numbers, others as the bits that differ from the one before.
pub(super) fn put_numbers(out: &mut Vec<u8>, values: &[f64]) {
    if let Some((power, wholes)) = scaled(values) {
        out.push(power);
        put_integers(out, &deltas(wholes));
        return;
    }
    out.push(BITS);
    let mut last = 0_u64;
    for value in values {
        let bits = value.to_bits();
        let changed = (bits ^ last).to_be_bytes();
        last = bits;
        let leading = changed.iter().take_while(|byte| **byte == 0).count();
        let trailing = changed[leading..].iter().rev().take_while(|byte| **byte == 0).count();
        let end = 8 - trailing;
        // Both are at most 8, and 8 leading ones leave none to trail.
        out.push(u8::try_from(leading << 4 | (end - leading)).unwrap_or(0));
        out.extend_from_slice(&changed[leading..end]);
    }
}

/// Reads `count` numbers.
pub(super) fn numbers(input: &mut Input<'_>, count: usize) -> Result<Vec<f64>, ColumnError> {
    let mode = input.byte()?;
    if let Some(power) = POWERS.get(usize::from(mode)) {
        let mut wholes = integers(input, count)?;
        sums(&mut wholes);
        #[allow(clippy::cast_precision_loss, reason = "whole numbers below 2^53 were written")]
        return Ok(wholes.into_iter().map(|whole| whole as f64 / power).collect());
    }
    if mode != BITS {
        return Err(ColumnError::Invalid);
    }
    // A number takes one byte at least.
    let mut values = Vec::with_capacity(count.min(input.0.len()));
    let mut last = 0_u64;
    for _ in 0..count {
        let head = input.byte()?;
        let (leading, length) = (usize::from(head >> 4), usize::from(head & 0x0f));
        if leading + length > 8 {
            return Err(ColumnError::Invalid);
        }
        let mut changed = [0; 8];
        changed[leading..leading + length].copy_from_slice(input.bytes(length)?);
        last ^= u64::from_be_bytes(changed);
        values.push(f64::from_bits(last));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(values: &[f64]) -> (Vec<f64>, usize) {
        let mut bytes = Vec::new();
        put_numbers(&mut bytes, values);
        let mut input = Input(&bytes);
        let back = numbers(&mut input, values.len()).unwrap();
        assert!(input.0.is_empty());
        (back, bytes.len())
    }

    #[test]
    fn integers_and_numbers_come_back_to_the_bit() {
        let integer = prop_oneof![Just(0_i64), -3..3_i64, any::<i64>()];
        let number = prop_oneof![
            any::<f64>(),
            (-100_000..100_000_i32).prop_map(|hundredths| f64::from(hundredths) / 100.0),
            Just(-0.0),
            Just(f64::MAX),
            Just(f64::MIN_POSITIVE),
        ];
        proptest!(|(values in prop::collection::vec(integer, 0..50), found in prop::collection::vec(number, 0..50))| {
            let mut bytes = Vec::new();
            put_integers(&mut bytes, &values);
            prop_assert_eq!(integers(&mut Input(&bytes), values.len()).unwrap(), values.clone());
            let mut back = deltas(values.iter().copied());
            sums(&mut back);
            prop_assert_eq!(back, values);
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&there_and_back(&found).0), bits(&found));
        });
    }

    #[test]
    fn regular_columns_are_small_and_irregular_ones_hardly_larger_than_they_are() {
        let mut bytes = Vec::new();
        put_integers(&mut bytes, &[60_000; 1000]);
        assert!(bytes.len() < 8, "{}", bytes.len());
        let decimals: Vec<f64> = (0..1000).map(|n| f64::from(2000 + n % 37) / 100.0).collect();
        assert!(there_and_back(&decimals).1 < 1500);
        let random: Vec<f64> = (0..1000).map(|n| f64::from(n).sin()).collect();
        assert!(there_and_back(&random).1 < 9100);
    }

    #[test]
    fn bytes_of_strangers_are_refused_or_read_and_never_more() {
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0..5000_usize)| {
            let _ = integers(&mut Input(&bytes), count);
            let _ = numbers(&mut Input(&bytes), count);
            let _ = Input(&bytes).varint();
        });
    }
}
