//! Errors of reading, making and using certificates.

/// Why certificates or keys could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text holds no certificate.
    #[error("found no certificate; write PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The text is not PEM, or holds no key.
    #[error("reading PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls accepts the certificate or the key not at all, or not together.
    #[error("using the certificate")]
    Unusable(#[from] rustls::Error),
    /// The chain ends in the site's own authority, which did not sign the certificate: it was altered.
    #[error("the certificate is not signed by the site's own authority, which its chain names")]
    Signature,
    #[error("certificate and key are no pair")]
    NotAPair,
    #[error("the certificate has expired")]
    Expired,
    /// rcgen signs with P-256 and P-384 only.
    #[error(
        "the authority's key is on the curve P-521, with which certificates are not made here; give an authority with a key on P-256 \
             or P-384, or a certificate that it signed"
    )]
    AuthorityCurve,
    #[error("making a certificate")]
    Made(#[from] rcgen::Error),
}
