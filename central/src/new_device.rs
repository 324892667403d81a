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

/// Returns 256 random bits in base64.
pub(crate) fn new_key() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>())
}
