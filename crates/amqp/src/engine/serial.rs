//! Numbers of deliveries and transfers, which begin again after the last one (RFC 1982).

/// Returns true if `number` is `first`, `last` or between them.
pub(super) fn is_between(number: u32, first: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

/// How far `end` is after `start`; zero if it is before it.
pub(super) fn distance(start: u32, end: u32) -> u32 {
    let distance = end.wrapping_sub(start);
    if distance < 1 << 31 { distance } else { 0 }
}
