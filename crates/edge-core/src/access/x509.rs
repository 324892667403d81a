//! Client certificates: by their thumbprint, or by an authority that signed them.
//!
//! The TLS handshake has proven that the client holds the certificate's key and nothing more. Signatures, dates and
//! constraints of a chain are looked at by webpki, as TLS itself does.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use schemas::names::{DeviceId, Identity};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::CertificateError;
use super::p521;
use super::proof::KeyFingerprint;

/// Clocks may differ by this much, as for tokens.
const CLOCK_SKEW_SECS: u64 = 300;

/// What a client showed, DER.
#[derive(Debug, Clone, Copy)]
pub struct PresentedChain<'a> {
    pub leaf: &'a [u8],
    /// What it showed beside it.
    pub intermediates: &'a [CertificateDer<'static>],
}

/// Authorities whose certificates clients may show.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<TrustAnchor<'static>>);

/// The authorities of one server.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Those that give certificates to devices (`[tls] device_ca`).
    pub devices: Authorities,
    /// The gateway's own, which gives certificates to its modules; none at central.
    pub modules: Authorities,
}

impl Authorities {
    /// From the certificates of the authorities, DER.
    ///
    /// # Errors
    /// [`CertificateError::NoAuthority`] with the number of the certificate that cannot be an authority.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let anchor = |(n, der): (usize, &CertificateDer<'_>)| {
            let wrong = |why| CertificateError::NoAuthority { number: n + 1, why: Box::new(why) };
            let anchor = webpki::anchor_from_trusted_cert(der)
                .map_err(|why| wrong(CertificateError::Unreadable(why.to_string())))?;
            // webpki takes an anchor with any key; one that it cannot use would be found out only when a client connects.
            check_key(der).map_err(wrong)?;
            Ok(anchor.to_owned())
        };
        certificates.iter().enumerate().map(anchor).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is the one with this mark.
    pub fn has(&self, fingerprint: &KeyFingerprint) -> bool {
        self.0.iter().any(|anchor| fingerprint_of(anchor) == *fingerprint)
    }

    /// Checks that one of the authorities, directly or through what the client showed, gave this certificate to the
    /// device, by its only common name, and that all of them are valid now. Gives the authority's mark.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn check(
        &self,
        shown: &PresentedChain<'_>,
        device: &DeviceId,
        now_secs: u64,
    ) -> Result<KeyFingerprint, CertificateError> {
        let fingerprint = self.chain(shown, now_secs)?;
        is_only_name(&common_names(shown.leaf)?, device.as_str(), "the device id")?;
        Ok(fingerprint)
    }

    /// Checks the same of a module. Its certificate must be made for clients, and names the module by IoT Edge's URI,
    /// `azureiot://{hub}/devices/{device}/modules/{module}`, with one of `hosts` as the hub; one without such a URI by its
    /// only common name, `{device}/{module}`. The name of a module alone would be too little: the same authority may have
    /// signed a device of that name.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn check_module(
        &self,
        shown: &PresentedChain<'_>,
        module: &Identity,
        hosts: &[&str],
        now_secs: u64,
    ) -> Result<KeyFingerprint, CertificateError> {
        let fingerprint = self.chain(shown, now_secs)?;
        let (_, leaf) = X509Certificate::from_der(shown.leaf)?;
        let usage = leaf.extended_key_usage()?;
        // The same authority signs server certificates for modules, which must not prove an identity.
        if !usage.is_some_and(|usage| usage.value.client_auth) {
            return Err(CertificateError::NotForClients);
        }
        match uris(&leaf)?.as_slice() {
            [] => is_only_name(&common_names(shown.leaf)?, &module.to_string(), "device/module")?,
            [uri] => {
                let (host, path) = uri.split_once('/').unwrap_or((uri, ""));
                let is_host = hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
                if !is_host || path != schemas::topics::identity_prefix(module) {
                    return Err(CertificateError::OtherUri { uri: format!("{AZUREIOT}{uri}") });
                }
            }
            many => return Err(CertificateError::Uris { count: many.len() }),
        }
        Ok(fingerprint)
    }

    /// Checks a chain up to one of the authorities and gives that one's mark.
    fn chain(&self, shown: &PresentedChain<'_>, now_secs: u64) -> Result<KeyFingerprint, CertificateError> {
        if self.is_empty() {
            return Err(CertificateError::NothingTrusted);
        }
        let leaf = CertificateDer::from(shown.leaf);
        let certificate = webpki::EndEntityCert::try_from(&leaf)
            .map_err(|why| CertificateError::Unreadable(why.to_string()))?;
        // No revocation lists (the two `None`): a device is blocked in the registry, which takes effect at once.
        let path = certificate
            .verify_for_usage(
                p521::ALL.as_slice(),
                &self.0,
                shown.intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(now_secs)),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(CertificateError::Chain)?;
        Ok(fingerprint_of(path.anchor()))
    }
}

/// Checks that the key of a certificate can prove anything here.
///
/// # Errors
/// [`CertificateError`] with the curve or algorithm.
pub fn check_key(der: &[u8]) -> Result<(), CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der)?;
    Ok(p521::check_key(certificate.public_key())?)
}

/// Of an authority's name and key: a certificate that was made anew for both is the same authority.
fn fingerprint_of(anchor: &TrustAnchor<'_>) -> KeyFingerprint {
    KeyFingerprint::of(&[anchor.subject.as_ref(), anchor.subject_public_key_info.as_ref()].concat())
}

fn is_only_name(names: &[String], expected: &str, what: &'static str) -> Result<(), CertificateError> {
    match names {
        [name] if name == expected => Ok(()),
        [name] => Err(CertificateError::OtherName { found: name.clone() }),
        names => Err(CertificateError::Names { count: names.len(), expected: what }),
    }
}

/// How the URI of a module's certificate begins.
const AZUREIOT: &str = "azureiot://";

/// What follows [`AZUREIOT`] in the URIs of a certificate.
fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, CertificateError> {
    let names = certificate.subject_alternative_name()?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(AZUREIOT),
            _ => None,
        })
        .collect())
}

/// Checks that whoever uploaded the certificate of an authority has its key: with it was signed a certificate whose common
/// name is the code that was asked for. Source: Azure, "proof of possession". What signed it may have made X.509
/// version 1, as `openssl x509 -req` does.
///
/// # Errors
/// [`CertificateError`].
pub fn check_possession(
    authority: &[u8],
    proof: &[u8],
    code: &str,
    now_secs: u64,
) -> Result<(), CertificateError> {
    let (_, authority) = X509Certificate::from_der(authority)?;
    let (_, certificate) = X509Certificate::from_der(proof)?;
    is_only_name(&common_names(proof)?, code, "the verification code")?;
    if !p521::is_signed_by(&certificate, authority.public_key()) {
        return Err(CertificateError::NotSigned);
    }
    valid_until(proof, now_secs).map(drop)
}

/// Checks that a certificate is valid now, and says until when, skew included; both in seconds since the Unix epoch.
///
/// # Errors
/// [`CertificateError`].
pub fn valid_until(leaf: &[u8], now_secs: u64) -> Result<u64, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(leaf)?;
    let validity = certificate.validity();
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    // A negative time is before 1970: always past.
    let begins = seconds(validity.not_before.timestamp());
    let ends = seconds(validity.not_after.timestamp()).saturating_add(CLOCK_SKEW_SECS);
    match (now_secs.saturating_add(CLOCK_SKEW_SECS) < begins, ends < now_secs) {
        (true, _) => Err(CertificateError::NotYetValid { begins: validity.not_before.to_string() }),
        (_, true) => Err(CertificateError::Expired { ended: validity.not_after.to_string() }),
        _ => Ok(ends),
    }
}

/// A moment at which a certificate is valid, in seconds since the Unix epoch; `None` for what is no certificate.
pub(super) fn middle_of_life(leaf: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let validity = certificate.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    u64::try_from(begins + (ends - begins) / 2).ok()
}

fn common_names(leaf: &[u8]) -> Result<Vec<String>, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(leaf)?;
    let names = certificate.subject().iter_common_name();
    names.map(|name| Ok(name.as_str()?.to_owned())).collect()
}

#[cfg(test)]
pub(super) mod tests;
