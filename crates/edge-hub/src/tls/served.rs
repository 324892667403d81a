//! The certificate that new handshakes are answered with. It can be replaced at any time; sessions go on.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::pem::certificates;
use super::provider::provider;

/// A certificate, its chain and its key, as the server serves them now.
#[derive(Debug)]
pub struct ServedCertificate(RwLock<Arc<CertifiedKey>>);

impl ServedCertificate {
    /// Reads a chain and the key of its first certificate, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] when the PEM cannot be read, or certificate and key do not fit.
    pub fn new(cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(read(cert_pem, key_pem)?))))
    }

    /// Serves another certificate from now on; `false` when it is the one served already.
    ///
    /// # Errors
    /// [`TlsError`] as for [`ServedCertificate::new`]; the one served before is kept.
    pub fn replace(&self, cert_pem: &[u8], key_pem: &[u8]) -> Result<bool, TlsError> {
        let new = read(cert_pem, key_pem)?;
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = served.cert != new.cert;
        *served = Arc::new(new);
        Ok(is_new)
    }

    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key_pem)?;
    Ok(CertifiedKey::from_der(certificates(cert_pem)?, key, &provider())?)
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
