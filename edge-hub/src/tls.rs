//! TLS for the door and the link, and the certificates that a site without its own authority makes for itself.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

/// How long an authority is valid.
const CA_DAYS: i64 = 10 * 365;
/// How long a server certificate is valid.
const SERVER_DAYS: i64 = 2 * 365;
/// Validity begins this much in the past: clocks of devices differ.
const CLOCK_SKEW: Duration = Duration::hours(24);

/// Why certificates or keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text holds no certificate.
    #[error("found no certificate; write PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The text is not PEM, or holds no key.
    #[error("reading PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Key and certificate do not fit, or neither is usable.
    #[error("using the certificate: {0}")]
    Unusable(#[from] rustls::Error),
    /// Not made.
    #[error("making a certificate: {0}")]
    Made(#[from] rcgen::Error),
}

/// A certificate authority of our own. The key signs server certificates and must stay secret.
#[derive(Clone)]
pub struct Authority {
    /// The trust bundle.
    pub cert_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// A server certificate.
#[derive(Clone)]
pub struct Issued {
    /// The server's certificate, then the authority's: SDKs that are given only the root need the whole chain.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}

/// The server's side, TLS 1.2 (Azure's Python SDK speaks nothing newer) and 1.3, without client certificates.
///
/// # Errors
/// [`TlsError`] when the PEM cannot be read, or certificate and key do not fit.
pub fn server_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(cert_pem)?, PrivateKeyDer::from_pem_slice(key_pem)?)?;
    Ok(Arc::new(config))
}

/// The client's side: trusts the authorities given and no other.
///
/// # Errors
/// [`TlsError`] when the PEM holds no usable certificate.
pub fn client_config(ca_pem: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn params(common_name: &str, names: &[String], days: i64) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days);
    Ok(params)
}

/// Makes an authority, valid for 10 years.
///
/// # Errors
/// [`TlsError::Made`].
pub fn issue_ca(common_name: &str) -> Result<Authority, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = params(common_name, &[], CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Authority { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Makes a server certificate for DNS names and IP addresses, valid for 2 years.
///
/// # Errors
/// [`TlsError::Made`] when a name cannot stand in a certificate, or the authority cannot be read.
pub fn issue_server(authority: &Authority, names: &[String]) -> Result<Issued, TlsError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.cert_pem, KeyPair::from_pem(&authority.key_pem)?)?;
    let key = KeyPair::generate()?;
    // A common name has at most 64 characters (RFC 5280 ub-common-name); clients look at the other names.
    let common_name = names.first().map_or("lineside", String::as_str);
    let common_name = if common_name.len() > 64 { "lineside" } else { common_name };
    let mut params = params(common_name, names, SERVER_DAYS)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued {
        chain_pem: format!("{}{}", certificate.pem(), authority.cert_pem),
        key_pem: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_chain_serves_and_a_wrong_key_does_not() {
        let ca = issue_ca("site").unwrap();
        let names = ["gw1".to_owned(), "127.0.0.1".to_owned()];
        let issued = issue_server(&ca, &names).unwrap();
        assert_eq!(certificates(issued.chain_pem.as_bytes()).unwrap().len(), 2);
        server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        client_config(ca.cert_pem.as_bytes()).unwrap();
        let other = issue_server(&ca, &names).unwrap();
        assert!(matches!(
            server_config(issued.chain_pem.as_bytes(), other.key_pem.as_bytes()),
            Err(TlsError::Unusable(_))
        ));
        assert!(matches!(client_config(b"nothing"), Err(TlsError::NoCertificate)));
    }
}
