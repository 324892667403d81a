//! Which of the devices or modules of one name something is of.
//!
//! A name can be given again after a removal. Whoever gives it counts: central its registrations and each stay of a device
//! behind a gateway, a gateway the devices that are added on it. As text: the number in base 36, `~` behind it when the gateway
//! gave it, `-` when the gateway has removed that device or module since.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Who gave a [`Generation`] its number. The two count apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// For what central registered.
    Central,
    /// For a device that was added on the gateway.
    Gateway,
}

/// One of the devices or modules of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// A later one of the same counter has a higher number. 0: from before there were generations.
    pub number: u64,
    /// Who gave the number.
    pub counter: Counter,
    /// The gateway has removed it.
    pub has_ended: bool,
}

impl Generation {
    /// One that central registered.
    pub const fn central(number: u64) -> Self {
        Self { number, counter: Counter::Central, has_ended: false }
    }

    /// One that was added on its gateway.
    pub const fn gateway(number: u64) -> Self {
        Self { number, counter: Counter::Gateway, has_ended: false }
    }

    /// The same, after the gateway removed it.
    #[must_use]
    pub const fn ended(self) -> Self {
        Self { has_ended: true, ..self }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // u64::MAX has 13 digits.
        let (mut digits, mut at, mut rest) = ([b'0'; 13], 13, self.number);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or(0)];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"))?;
        f.write_str(if self.counter == Counter::Gateway { "~" } else { "" })?;
        f.write_str(if self.has_ended { "-" } else { "" })
    }
}

/// The text is no generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "generation: found `{0}`; write a number in base 36, `~` behind it if the gateway gave it, `-` if it has ended"
)]
pub struct GenerationError(String);

impl FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, has_ended) = text.strip_suffix('-').map_or((text, false), |rest| (rest, true));
        let (digits, counter) =
            rest.strip_suffix('~').map_or((rest, Counter::Central), |digits| (digits, Counter::Gateway));
        // `from_str_radix` also takes capitals and a plus sign, and a number must have one text only.
        let is_written_so = digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        match u64::from_str_radix(digits, 36) {
            // central stores it in SQLite, whose integers have a sign.
            Ok(number) if is_written_so && i64::try_from(number).is_ok() => {
                Ok(Self { number, counter, has_ended })
            }
            _ => Err(GenerationError(text.chars().take(40).collect())),
        }
    }
}

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_read_as_it_was_written() {
        for number in [0, 1, 35, 36, 1_764_412_345_678, i64::MAX as u64] {
            for of in [Generation::central(number), Generation::gateway(number)] {
                for of in [of, of.ended()] {
                    assert_eq!(of.to_string().parse(), Ok(of));
                }
            }
        }
        assert_eq!(Generation::gateway(1_764_412_345_678).ended().to_string(), "mik5jz2m~-");
        for wrong in ["", "~", "-", "A", "+1", "1 ", "1-~", "zzzzzzzzzzzzz", "1~~", "-1"] {
            assert!(wrong.parse::<Generation>().is_err(), "{wrong}");
        }
    }
}
