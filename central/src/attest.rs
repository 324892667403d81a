//! How a device proves itself, as an operator changes it: stored, told to its gateway, and in force on the connection
//! that it has.

use std::sync::Arc;

use schemas::names::DeviceId;

use crate::error::{ServiceError, no_device};
use crate::fleet::Fleet;
use crate::new_device::new_keys;
use crate::store::devices::{self, Device, Keys, X509};

/// Whether a text is a symmetric key: base64 of 16 to 64 bytes, as IoT Hub bounds them.
pub fn is_key(text: &str) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.is_ok_and(|key| (16..=64).contains(&key.len()))
}

/// A wish; `None` in a key or thumbprint leaves what stands.
#[derive(Debug)]
pub enum Attest {
    /// By symmetric keys, base64; new ones where nothing is given or stands.
    Keys {
        /// The one to use.
        primary: Option<String>,
        /// The one to change over with.
        secondary: Option<String>,
    },
    X509(X509),
    /// By a TPM with this endorsement key, base64. central does not challenge TPMs: the device does not connect.
    Tpm(String),
    /// By new symmetric keys, whatever stands.
    Anew,
}

impl Fleet {
    /// Changes how a device proves itself. A connection that was proven by what proves it no longer is closed. With
    /// `must_merge` what is not given stays, if the device proves itself in that way already.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], or [`ServiceError::Wrong`] for a certificate without a thumbprint.
    pub async fn attest(
        self: &Arc<Self>,
        id: DeviceId,
        wish: Attest,
        must_merge: bool,
    ) -> Result<Device, ServiceError> {
        let written = self
            .store
            .submit(move |c| {
                let mut device = devices::get(c, &id)?.ok_or_else(|| no_device(&id))?;
                change(&mut device, wish, must_merge)?;
                device.is_claim = false;
                device.revision += 1;
                devices::put(c, &device)?;
                Ok::<_, ServiceError>(device)
            })
            .await?;
        tracing::info!(device = %written.id, "how the device proves itself was changed");
        self.review(&written);
        if let Some(gateway) = &written.gateway {
            self.tell_child(gateway, &written.id);
        }
        Ok(written)
    }
}

fn change(device: &mut Device, wish: Attest, must_merge: bool) -> Result<(), ServiceError> {
    match wish {
        Attest::Anew => {
            (device.x509, device.endorsement_key, device.keys) = (None, None, Some(new_keys()));
        }
        Attest::Tpm(key) => {
            (device.x509, device.endorsement_key, device.keys) = (None, Some(key), None);
        }
        Attest::Keys { primary, secondary } => {
            let stands = device.keys.take().filter(|_| must_merge && device.x509.is_none());
            let stands = stands.unwrap_or_else(new_keys);
            (device.x509, device.endorsement_key) = (None, None);
            device.keys = Some(Keys {
                primary: primary.unwrap_or(stands.primary),
                secondary: secondary.unwrap_or(stands.secondary),
            });
        }
        Attest::X509(wish) => {
            let stands =
                device.x509.take().filter(|x509| must_merge && !wish.is_ca_signed && !x509.is_ca_signed);
            let stands = stands.unwrap_or_default();
            let (primary, primary_sha1) = match wish.primary {
                None => (stands.primary, stands.primary_sha1),
                given => (given, wish.primary_sha1),
            };
            let (secondary, secondary_sha1) = match wish.secondary {
                None => (stands.secondary, stands.secondary_sha1),
                given => (given, wish.secondary_sha1),
            };
            let is_ca_signed = wish.is_ca_signed;
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
