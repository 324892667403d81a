//! A site's own certificate authority (CA), and certificates that it signs. All keys are ECDSA P-256.

use std::time::Duration as Lifetime;

use edge_core::access::p521;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::TlsError;
use crate::pem::certificates;

/// Validity of a CA.
const CA_LIFETIME: Duration = Duration::days(10 * 365);
/// Validity of a server certificate of the site's own CA. Apple's platforms reject ones of more than 825 days.
pub const SERVER_LIFETIME: Lifetime = Lifetime::from_secs(365 * 24 * 3_600);
/// Validity begins this much in the past, or a tenth of the lifetime if that is less: clocks of devices differ.
const CLOCK_SKEW: Duration = Duration::hours(24);
/// RFC 5280, `ub-common-name`. A longer name is in the subject alternative names only.
const COMMON_NAME_MAX: usize = 64;

/// A site's own CA with its private key.
#[derive(Clone)]
pub struct Authority {
    pub cert_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// Checks that the key belongs to the certificate.
    ///
    /// # Errors
    /// [`TlsError::NotAPair`], or why one of them cannot be read.
    pub fn check(&self) -> Result<(), TlsError> {
        let key = key_pair(&self.key_pem)?;
        let ca = certificates(self.cert_pem.as_bytes())?;
        let ca = ca.first().ok_or(TlsError::NoCertificate)?;
        let (_, ca) = X509Certificate::from_der(ca).map_err(|_| TlsError::NoCertificate)?;
        if ca.public_key().raw == key.subject_public_key_info() { Ok(()) } else { Err(TlsError::NotAPair) }
    }
}

/// A new certificate and its private key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, then the CA's: clients that are given only the root need the whole chain.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
    /// Last second of validity, since the Unix epoch.
    pub not_after_secs: u64,
}

/// Extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// What a new certificate shall contain.
#[derive(Debug, Clone, Copy)]
pub struct CertificateSpec<'a> {
    /// `lineside` is written instead if this is empty or longer than 64 characters.
    pub common_name: &'a str,
    /// DNS names and IP addresses, as subject alternative names.
    pub names: &'a [String],
    pub uris: &'a [String],
    pub purpose: Purpose,
    /// Validity from now on; cut to that of the CA.
    pub lifetime: Lifetime,
}

/// Makes a CA with a new key, valid for 10 years, that may sign no other CA.
///
/// # Errors
/// [`TlsError::Made`].
pub fn issue_ca(common_name: &str) -> Result<Authority, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = subject(common_name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Authority { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Makes a server certificate for DNS names and IP addresses, valid for [`SERVER_LIFETIME`]. The first name is also the common name.
///
/// # Errors
/// [`TlsError::Made`] if a name is no DNS name or address, or the CA cannot be parsed; [`TlsError::AuthorityCurve`].
pub fn issue_server(authority: &Authority, names: &[String]) -> Result<Issued, TlsError> {
    let common_name = names.first().map_or("", String::as_str);
    let purpose = Purpose::Server;
    issue(authority, &CertificateSpec { common_name, names, uris: &[], purpose, lifetime: SERVER_LIFETIME })
}

/// Makes a certificate with a new key, signed by `authority`.
///
/// # Errors
/// [`TlsError::Made`] if a name is no DNS name or address, or the CA cannot be parsed; [`TlsError::AuthorityCurve`].
pub fn issue(authority: &Authority, spec: &CertificateSpec<'_>) -> Result<Issued, TlsError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.cert_pem, key_pair(&authority.key_pem)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(spec.names.to_vec())?;
    for uri in spec.uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    params.distinguished_name = subject(spec.common_name);
    let (now, lifetime) =
        (OffsetDateTime::now_utc(), Duration::try_from(spec.lifetime).unwrap_or(CA_LIFETIME));
    params.not_before = now - CLOCK_SKEW.min(lifetime / 10);
    // Verifiers reject a certificate as soon as one of its chain has expired.
    params.not_after = (now + lifetime).min(not_after(authority)?);
    params.use_authority_key_identifier_extension = true;
    (params.key_usages, params.extended_key_usages) = match spec.purpose {
        Purpose::Server => (
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
            vec![ExtendedKeyUsagePurpose::ServerAuth],
        ),
        Purpose::Client => {
            (vec![KeyUsagePurpose::DigitalSignature], vec![ExtendedKeyUsagePurpose::ClientAuth])
        }
    };
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued {
        chain_pem: format!("{}{}", certificate.pem(), authority.cert_pem),
        key_pem: key.serialize_pem(),
        not_after_secs: u64::try_from(params.not_after.unix_timestamp()).unwrap_or_default(),
    })
}

fn key_pair(pem: &str) -> Result<KeyPair, TlsError> {
    KeyPair::from_pem(pem).map_err(|error| {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok();
        let is_p521 = key.is_some_and(|key| p521::PrivateKey::read(&key).is_some());
        if is_p521 { TlsError::AuthorityCurve } else { error.into() }
    })
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    let is_fitting = (1..=COMMON_NAME_MAX).contains(&common_name.chars().count());
    subject.push(DnType::CommonName, if is_fitting { common_name } else { "lineside" });
    subject
}

fn not_after(authority: &Authority) -> Result<OffsetDateTime, TlsError> {
    let ca = certificates(authority.cert_pem.as_bytes())?;
    let ca = ca.first().ok_or(TlsError::NoCertificate)?;
    let (_, ca) = X509Certificate::from_der(ca).map_err(|_| TlsError::NoCertificate)?;
    Ok(ca.validity().not_after.to_datetime())
}
