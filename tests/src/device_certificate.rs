//! Devices that connect with certificates which they signed themselves.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::site::Site;

/// Files in the site's directory.
#[derive(Debug)]
pub struct DeviceCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl DeviceCertificate {
    /// Gives a registered device a certificate. central knows it when this returns, and the gateway a moment later.
    ///
    /// # Errors
    /// When it cannot be made or written, or central refuses it.
    pub async fn of(site: &Site, id: &str) -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
        let certificate = parameters.self_signed(&key)?.pem();
        let files = Self { certificate: site.dir.join("device.pem"), key: site.dir.join("device-key.pem") };
        std::fs::write(&files.certificate, &certificate)?;
        std::fs::write(&files.key, key.serialize_pem())?;
        let attestation = json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate}}}});
        site.rest()?.put(&format!("/api/devices/{id}/attestation"), &attestation).await?;
        Ok(files)
    }
}
