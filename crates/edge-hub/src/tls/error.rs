//! Why a certificate or a key is not served, trusted or made.

/// Why certificates or keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text holds no certificate.
    #[error("found no certificate; write PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The text is not PEM, or holds no key.
    #[error("reading PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Key and certificate do not fit, or neither is usable.
    #[error("using the certificate")]
    Unusable(#[from] rustls::Error),
    /// The certificate is of the site's own authority and was changed since.
    #[error("the signature of the site's own authority does not fit the certificate")]
    Signature,
    /// The key is another one's.
    #[error("certificate and key are no pair")]
    NotAPair,
    /// Nobody would accept it.
    #[error("the certificate has expired")]
    Expired,
    /// Certificates are not signed with it.
    #[error(
        "the authority's key is on the curve P-521, with which certificates are not made here; give an authority with a key on P-256 \
             or P-384, or a certificate that it signed"
    )]
    AuthorityCurve,
    #[error("making a certificate")]
    Made(#[from] rcgen::Error),
}
