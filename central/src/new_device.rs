//! Devices as they are first registered, with new keys.

use schemas::names::DeviceId;

use crate::store::devices::{Device, Keys};

/// Returns a device with new keys that has never connected.
pub(crate) fn new_device(id: DeviceId) -> Device {
    Device { keys: Some(new_keys()), ..Device::new(id) }
}

pub(crate) fn new_keys() -> Keys {
    Keys { primary: new_key(), secondary: new_key() }
}

/// Returns 256 random bits in base64 that does not begin with `+`: a spreadsheet would take such a key for a formula and lose it.
pub(crate) fn new_key() -> String {
    use base64::Engine as _;
    let mut bits: [u8; 32] = rand::random();
    if bits[0] >> 2 == PLUS {
        bits[0] ^= 0x80;
    }
    base64::engine::general_purpose::STANDARD.encode(bits)
}

/// The six bits that base64 writes as `+`.
const PLUS: u8 = 62;

#[cfg(test)]
mod tests {
    use super::new_key;

    #[test]
    fn no_new_key_begins_as_a_formula_does() {
        assert!((0..2000).all(|_| !new_key().starts_with('+')));
    }
}
