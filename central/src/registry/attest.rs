//! How a device proves itself, as an operator changes it.

use crate::error::ServiceError;
use crate::new_device::new_keys;
use crate::store::devices::{Device, Keys, X509};

/// Returns true for a symmetric key: base64 of 16 to 64 bytes, as IoT Hub bounds them.
pub fn is_key(text: &str) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.is_ok_and(|key| (16..=64).contains(&key.len()))
}

/// How a device shall prove itself; `None` in a key or thumbprint leaves what is stored.
#[derive(Debug)]
pub enum Attest {
    /// By symmetric keys, base64; new ones where none is given or stored.
    Keys {
        /// The one to use.
        primary: Option<String>,
        /// The one to change over with.
        secondary: Option<String>,
    },
    X509(X509),
    /// By a TPM with this endorsement key, base64. central does not challenge TPMs: the device does not connect.
    Tpm(String),
    /// By new symmetric keys, whatever it has.
    Anew,
}

/// Changes how a device proves itself, as [`Registry::attest`].
///
/// [`Registry::attest`]: super::service::Registry::attest
pub(super) fn change(device: &mut Device, attest: Attest, must_merge: bool) -> Result<(), ServiceError> {
    match attest {
        Attest::Anew => {
            (device.x509, device.endorsement_key, device.keys) = (None, None, Some(new_keys()));
        }
        Attest::Tpm(key) => {
            (device.x509, device.endorsement_key, device.keys) = (None, Some(key), None);
        }
        Attest::Keys { primary, secondary } => {
            let stored = device.keys.take().filter(|_| must_merge && device.x509.is_none());
            let stored = stored.unwrap_or_else(new_keys);
            (device.x509, device.endorsement_key) = (None, None);
            device.keys = Some(Keys {
                primary: primary.unwrap_or(stored.primary),
                secondary: secondary.unwrap_or(stored.secondary),
            });
        }
        Attest::X509(new) => {
            let stored =
                device.x509.take().filter(|x509| must_merge && !new.is_ca_signed && !x509.is_ca_signed);
            let stored = stored.unwrap_or_default();
            let (primary, primary_sha1) = match new.primary {
                None => (stored.primary, stored.primary_sha1),
                given => (given, new.primary_sha1),
            };
            let (secondary, secondary_sha1) = match new.secondary {
                None => (stored.secondary, stored.secondary_sha1),
                given => (given, new.secondary_sha1),
            };
            let is_ca_signed = new.is_ca_signed;
            let x509 = X509 { primary, secondary, primary_sha1, secondary_sha1, is_ca_signed };
            if !x509.is_ca_signed && x509.primary.is_none() {
                return Err(ServiceError::Wrong(
                    "x509.clientCertificates.primary: found nothing; write a certificate or a thumbprint"
                        .into(),
                ));
            }
            (device.x509, device.endorsement_key) = (Some(x509), None);
        }
    }
    Ok(())
}
