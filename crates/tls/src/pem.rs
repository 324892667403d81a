//! PEM, the text form of certificates (RFC 7468).

use edge_core::certificate::Validity;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::TlsError;

/// The certificates of a PEM text, in DER. Other blocks, such as keys, are skipped.
///
/// # Errors
/// [`TlsError::Pem`], or [`TlsError::NoCertificate`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}

/// Validity of a certificate in DER.
///
/// # Errors
/// [`TlsError::NoCertificate`].
pub fn validity(der: &[u8]) -> Result<Validity, TlsError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| TlsError::NoCertificate)?;
    let secs = |time: i64| u64::try_from(time).unwrap_or_default();
    Ok(Validity {
        not_before_secs: secs(certificate.validity().not_before.timestamp()),
        not_after_secs: secs(certificate.validity().not_after.timestamp()),
    })
}
