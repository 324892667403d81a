//! Reason strings of MQTT 5: text beside a reason code, which must not make a packet larger than the client takes.

/// Whether a packet of a reason string, so many reason codes and not much more is small enough.
pub(super) fn fits(why: &str, codes: usize, packet_bytes_max: usize) -> bool {
    /// Two lengths, a packet id, and the head of the property.
    const BESIDE: usize = 16;
    why.len() + codes + BESIDE <= packet_bytes_max
}
