//! PEM, the text form of certificates (RFC 7468).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::TlsError;

/// The certificates of a PEM text, in DER. Other blocks, such as keys, are skipped.
///
/// # Errors
/// [`TlsError::Pem`], or [`TlsError::NoCertificate`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}
