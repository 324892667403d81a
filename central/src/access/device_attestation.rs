//! What a registered device proves itself with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::attestation::Attestation;

use crate::store::devices::Device;

/// Returns the keys, thumbprints or authority that a device must prove itself with.
pub(crate) fn attestation(device: &Device) -> Attestation {
    match (&device.x509, &device.keys) {
        (Some(x509), _) if x509.is_ca_signed => Attestation::Authority,
        (Some(x509), _) => {
            let thumbprints = x509.thumbprints();
            Attestation::Thumbprints(thumbprints.iter().filter_map(|text| text.parse().ok()).collect())
        }
        (None, keys) => {
            let keys = keys.iter().flat_map(|keys| [&keys.primary, &keys.secondary]);
            // An empty key would accept a token that anybody can make.
            let decode = |key: &String| STANDARD.decode(key).ok().filter(|key| !key.is_empty());
            Attestation::Keys(keys.filter_map(decode).collect())
        }
    }
}
