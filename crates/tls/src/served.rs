//! The certificate that new handshakes are answered with. It can be replaced at any time; established connections keep theirs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::TlsError;
use crate::pem::certificates;
use crate::provider::provider;

/// A certificate, its chain and its private key.
#[derive(Debug)]
pub struct ServedCertificate(RwLock<Arc<CertifiedKey>>);

impl ServedCertificate {
    /// Parses a chain and the private key of its first certificate, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] if one of them cannot be parsed, or they are no pair.
    pub fn new(cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(read(cert_pem, key_pem)?))))
    }

    /// Serves another certificate to new handshakes. Returns false if it is the one served already.
    ///
    /// # Errors
    /// [`TlsError`] as for [`ServedCertificate::new`]; the current certificate stays.
    pub fn replace(&self, cert_pem: &[u8], key_pem: &[u8]) -> Result<bool, TlsError> {
        let new = read(cert_pem, key_pem)?;
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = served.cert != new.cert;
        *served = Arc::new(new);
        Ok(is_new)
    }

    pub(crate) fn current(&self) -> Arc<CertifiedKey> {
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
