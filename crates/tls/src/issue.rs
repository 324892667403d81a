//! A site's own certificate authority (CA), and certificates that it signs. All keys are ECDSA P-256.

use std::time::Duration;

use edge_core::access::p521;
use edge_core::certificate::{SERVER_VALIDITY_MAX_SECS, Validity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::now_secs;
use crate::error::TlsError;
use crate::pem::{certificates, validity};

/// Validity of a CA.
const CA_LIFETIME_SECS: u64 = 10 * 365 * 24 * 3_600;
/// Validity of a server certificate of the site's own CA. Apple's platforms reject ones of more than 825 days.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);
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

    /// Its first and last second.
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`] or [`TlsError::Pem`].
    pub fn validity(&self) -> Result<Validity, TlsError> {
        let ca = certificates(self.cert_pem.as_bytes())?;
        validity(ca.first().ok_or(TlsError::NoCertificate)?)
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
    /// Validity from now on; cut to that of the CA. It begins in the past, whatever the clock says ([`Validity::of_new`]).
    pub lifetime: Duration,
    /// Longest validity in all, in seconds; with it, a certificate made by a clock that is ahead of the truth by more is not valid yet.
    pub validity_max_secs: Option<u64>,
}

/// Makes a CA with a new key, valid for 10 years, that may sign no other CA.
///
/// # Errors
/// [`TlsError::Made`].
pub fn issue_ca(common_name: &str) -> Result<Authority, TlsError> {
    issue_ca_at(common_name, now_secs())
}

fn issue_ca_at(common_name: &str, now_secs: u64) -> Result<Authority, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = subject(common_name);
    set_validity(&mut params, Validity::of_new(now_secs, CA_LIFETIME_SECS, None));
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
    let validity_max_secs = Some(SERVER_VALIDITY_MAX_SECS);
    let lifetime = SERVER_LIFETIME;
    issue(authority, &CertificateSpec { common_name, names, uris: &[], purpose, lifetime, validity_max_secs })
}

/// Makes a certificate with a new key, signed by `authority`.
///
/// # Errors
/// [`TlsError::Made`] if a name is no DNS name or address, or the CA cannot be parsed; [`TlsError::AuthorityCurve`].
pub fn issue(authority: &Authority, spec: &CertificateSpec<'_>) -> Result<Issued, TlsError> {
    issue_at(authority, spec, now_secs())
}

fn issue_at(authority: &Authority, spec: &CertificateSpec<'_>, now_secs: u64) -> Result<Issued, TlsError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.cert_pem, key_pair(&authority.key_pem)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(spec.names.to_vec())?;
    for uri in spec.uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    params.distinguished_name = subject(spec.common_name);
    let validity = Validity::of_new(now_secs, spec.lifetime.as_secs(), Some(authority.validity()?));
    let validity = validity.at_most(spec.validity_max_secs.unwrap_or(u64::MAX));
    set_validity(&mut params, validity);
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
        not_after_secs: validity.not_after_secs,
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

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let time = |secs: u64| {
        let secs = i64::try_from(secs).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(secs).expect("a validity ends in the year 9999 at the latest")
    };
    params.not_before = time(validity.not_before_secs);
    params.not_after = time(validity.not_after_secs);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge_core::clock::BUILT_SECS;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    const DAY: u64 = 24 * 3_600;

    /// Whether a client whose clock is right takes the chain of a server.
    fn is_taken(authority: &Authority, issued: &Issued, at_secs: u64) -> bool {
        let mut roots = RootCertStore::empty();
        for ca in certificates(authority.cert_pem.as_bytes()).unwrap() {
            roots.add(ca).unwrap();
        }
        let provider = crate::provider::provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let chain = certificates(issued.chain_pem.as_bytes()).unwrap();
        let (name, at) = (ServerName::try_from("edge1").unwrap(), Duration::from_secs(at_secs));
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::since_unix_epoch(at))
            .is_ok()
    }

    /// Every pair of clocks at which CA and certificate are made: unset, behind, right, and ahead by days to centuries.
    #[test]
    fn a_chain_that_was_made_while_the_clock_was_ahead_is_valid_when_the_clock_is_right() {
        let right = BUILT_SECS + 30 * DAY;
        let clocks =
            [0, BUILT_SECS - 1, right, right + DAY, right + 300 * DAY, right + 5_000 * DAY, u64::MAX];
        let names = ["edge1".to_owned()];
        for ca_clock in clocks {
            let authority = issue_ca_at("site", ca_clock).unwrap();
            for clock in clocks {
                let spec = CertificateSpec {
                    common_name: "edge1",
                    names: &names,
                    uris: &[],
                    purpose: Purpose::Server,
                    lifetime: Duration::from_secs(90 * DAY),
                    validity_max_secs: None,
                };
                let issued = issue_at(&authority, &spec, clock).unwrap();
                assert!(
                    is_taken(&authority, &issued, right),
                    "CA made at {ca_clock}, certificate at {clock}"
                );
                assert!(is_taken(&authority, &issued, BUILT_SECS), "from the build on");
                let validity_max_secs = Some(SERVER_VALIDITY_MAX_SECS);
                let server =
                    issue_at(&authority, &CertificateSpec { validity_max_secs, ..spec }, clock).unwrap();
                let served = certificates(server.chain_pem.as_bytes()).unwrap();
                let Validity { not_before_secs, not_after_secs } = validity(&served[0]).unwrap();
                assert!(not_after_secs - not_before_secs <= 825 * DAY, "as Apple's platforms ask");
                assert_eq!(is_taken(&authority, &server, right), not_before_secs <= right);
                assert!(clock > right + 365 * DAY || not_before_secs == BUILT_SECS, "{clock}");
            }
        }
    }
}
