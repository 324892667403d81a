//! Numbers as they are written: which of them a 64-bit integer or a double gives back.

use std::ops::Range;

use super::error::JsonError;

/// Digits that tell one double from every other. A program that holds doubles writes no more, or as many as it likes of the double's
/// own decimal expansion.
const DIGITS_OF_DOUBLE: usize = 17;
/// Digits of the longest decimal expansion of a double, and some.
const DIGITS_MAX: usize = 800;
/// Characters of a literal in an error.
const SHOWN: usize = 40;

/// Checks the numbers of a text; what is not JSON is left to serde.
pub(super) fn check(text: &[u8]) -> Result<(), JsonError> {
    let literals = literals(text).map(|at| std::str::from_utf8(&text[at]).unwrap_or_default());
    match literals.into_iter().find(|literal| !is_kept(literal)) {
        None => Ok(()),
        Some(literal) => {
            let mut shown: String = literal.chars().take(SHOWN).collect();
            if literal.len() > SHOWN {
                shown.push('…');
            }
            Err(JsonError::Number { literal: shown })
        }
    }
}

/// Where the numbers of a JSON text stand, in their order.
pub(super) fn literals(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = text.get(at) {
            match byte {
                b'"' => {
                    at += 1;
                    while let Some(inside) = text.get(at).filter(|inside| **inside != b'"') {
                        at += if *inside == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let rest = &text[at..];
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let begin = at;
                    at += rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                    return Some(begin..at);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// Whether a number is the same one after it was read and written. `0.1` is, though no double is a tenth: it is what a program
/// writes that holds the double next to it. A text that is no number is, too.
pub fn is_kept(literal: &str) -> bool {
    // Any of so few digits.
    if literal.len() <= 15 && !literal.contains(['e', 'E']) {
        return true;
    }
    if !literal.contains(['.', 'e', 'E']) {
        let digits = literal.strip_prefix('-').unwrap_or(literal);
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        return !is_number || literal.parse::<i64>().is_ok() || literal.parse::<u64>().is_ok();
    }
    let Ok(value) = literal.parse::<f64>() else { return true };
    let written = Decimal::read(literal);
    if written.digits.is_empty() {
        return true;
    }
    let count = written.digits.len();
    if !value.is_finite() || value == 0.0 || count > DIGITS_MAX {
        return false;
    }
    // Doubles below the normal range have fewer digits than others and are compared in full.
    if count <= DIGITS_OF_DOUBLE && value.is_normal() {
        return true;
    }
    // The expansion of the double, rounded to as many digits.
    Decimal::read(&format!("{:.*e}", count - 1, value)) == written
}

/// The digits of a number without zeros at either end, and the power of ten of the last one.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    power: i64,
}

impl Decimal {
    /// Of a text that is a number.
    fn read(literal: &str) -> Self {
        let (mantissa, power) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
        // An exponent that is no i32 is beyond all numbers that are held anywhere.
        let beyond = if power.starts_with('-') { i32::MIN } else { i32::MAX };
        let power = power.parse::<i32>().unwrap_or(beyond);
        let is_negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches('-');
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        let zeros = all.len() - all.trim_end_matches('0').len();
        let power = i64::from(power) - fraction.len() as i64 + zeros as i64;
        Self { is_negative, digits: digits.to_owned(), power }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn numbers_that_would_change_are_not_kept() {
        let kept = "0 -0 1 -1 0.0 1.50 1e2 1E+2 0.1 23.100000 18446744073709551615 -9223372036854775808 1e22 5e-324 0e999
            1.7976931348623157e308 0.10000000000000001 3.1415926535897932 23.10000000000000142109 100000000000000000000.0
            12345678901234567.0 0.30000000000000004 2.2250738585072014e-308 4.940656458412465e-324 0.000000000000000000000000001";
        for literal in kept.split_whitespace() {
            assert!(is_kept(literal), "{literal}");
        }
        let changed = "18446744073709551616 -9223372036854775809 12345678901234567890123 12345678901234567890123.0 1e400 -1e400 1e-400
            3.14159265358979324 0.12345678901234567890123 1.2345678901234567e-320 123456789012345678901e-1 1e99999999999 0.1e-99999999999";
        for literal in changed.split_whitespace() {
            assert!(!is_kept(literal), "{literal}");
            let document = format!("[\"-1 \\\" 1e999\", {literal}]");
            let refused = super::super::from_outside::<Value>(document.as_bytes());
            assert!(refused.is_err(), "{literal}");
        }
    }

    proptest! {
        #[test]
        fn a_number_that_is_kept_is_the_same_after_any_number_of_readings(
            literal in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?"
        ) {
            let read: Result<Value, _> = super::super::from_outside(literal.as_bytes());
            let Ok(read) = read else { return Ok(()) };
            let written = read.to_string();
            let again: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(again.to_string(), &written[..]);
            match read.as_f64().filter(|_| read.is_f64()) {
                None => prop_assert_eq!(read.to_string(), literal),
                Some(double) => {
                    let (written, literal) = (Decimal::read(&written), Decimal::read(&literal));
                    let is_same = written.digits == literal.digits
                        && (written.power == literal.power || literal.digits.is_empty());
                    let count = literal.digits.len().max(1);
                    let expanded = Decimal::read(&format!("{:.*e}", count - 1, double));
                    prop_assert!(is_same || count <= DIGITS_OF_DOUBLE || expanded.digits == literal.digits);
                }
            }
        }

        #[test]
        fn every_double_and_every_integer_is_kept(double in any::<f64>(), whole in any::<i64>(), large in any::<u64>(), digits in 17..40_usize) {
            prop_assert!(is_kept(&whole.to_string()) && is_kept(&large.to_string()));
            if double.is_finite() {
                prop_assert!(is_kept(&Value::from(double).to_string()));
                let expanded = format!("{double:.digits$e}");
                prop_assert!(is_kept(&expanded), "{}", expanded);
            }
        }
    }
}
