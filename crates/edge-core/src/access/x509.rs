//! Client certificates: by their thumbprint, or by an authority that signed them.
//!
//! The TLS handshake has proven that the client holds the certificate's key and nothing more. Signatures, dates and
//! constraints of a chain are looked at by webpki, as TLS itself does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use schemas::names::{DeviceId, Identity};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::p521;
use super::proof::{Fingerprint, KeyFingerprint};

/// Clocks may differ by this much, as for tokens.
const CLOCK_SKEW_SECS: u64 = 300;

/// What a client showed, DER.
#[derive(Debug, Clone, Copy)]
pub struct PresentedChain<'a> {
    pub leaf: &'a [u8],
    /// What it showed beside it.
    pub intermediates: &'a [CertificateDer<'static>],
}

/// The hash of a certificate, by which a registry names it: SHA-1 or SHA-256, as IoT Hub takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbprint {
    /// 40 hexadecimal digits.
    Sha1([u8; 20]),
    /// 64 hexadecimal digits.
    Sha256([u8; 32]),
}

/// A text that is no thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found {digits} hexadecimal digits; a thumbprint is SHA-1 (40) or SHA-256 (64), with or without colons"
)]
pub struct ThumbprintError {
    digits: usize,
}

impl Thumbprint {
    /// The SHA-256 thumbprint of a certificate.
    pub fn sha256(der: &[u8]) -> Self {
        Self::Sha256(Fingerprint::of(der).sha256)
    }

    /// Whether this names the certificate.
    pub fn names(&self, certificate: &Fingerprint) -> bool {
        match self {
            Self::Sha1(hash) => certificate.sha1 == *hash,
            Self::Sha256(hash) => certificate.sha256 == *hash,
        }
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let plain: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b' ')).collect();
        let wrong =
            || ThumbprintError { digits: plain.iter().filter(|byte| byte.is_ascii_hexdigit()).count() };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> =
            plain.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
        let bytes = bytes.ok_or_else(wrong)?;
        if let Ok(hash) = <[u8; 32]>::try_from(bytes.as_slice()) {
            return Ok(Self::Sha256(hash));
        }
        <[u8; 20]>::try_from(bytes.as_slice()).map(Self::Sha1).map_err(|_| wrong())
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha1(hash) => hash,
            Self::Sha256(hash) => hash,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
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
    /// In words, with the number of the certificate that cannot be an authority.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, String> {
        let anchor = |(n, der): (usize, &CertificateDer<'_>)| {
            let wrong = |why: String| format!("certificate {} cannot be an authority: {why}", n + 1);
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|why| wrong(why.to_string()))?;
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
    pub fn has(&self, mark: &KeyFingerprint) -> bool {
        self.0.iter().any(|anchor| mark_of(anchor) == *mark)
    }

    /// Checks that one of the authorities, directly or through what the client showed, gave this certificate to the
    /// device, by its only common name, and that all of them are valid now. Gives the authority's mark.
    ///
    /// # Errors
    /// In words.
    pub fn check(
        &self,
        shown: &PresentedChain<'_>,
        device: &DeviceId,
        now_secs: u64,
    ) -> Result<KeyFingerprint, String> {
        let mark = self.chain(shown, now_secs)?;
        is_only_name(&common_names(shown.leaf)?, device.as_str(), "the device id")?;
        Ok(mark)
    }

    /// Checks the same of a module. Its certificate must be made for clients, and names the module by IoT Edge's URI,
    /// `azureiot://{hub}/devices/{device}/modules/{module}`, with one of `hosts` as the hub; one without such a URI by its
    /// only common name, `{device}/{module}`. The name of a module alone would be too little: the same authority may have
    /// signed a device of that name.
    ///
    /// # Errors
    /// In words.
    pub fn check_module(
        &self,
        shown: &PresentedChain<'_>,
        module: &Identity,
        hosts: &[&str],
        now_secs: u64,
    ) -> Result<KeyFingerprint, String> {
        let mark = self.chain(shown, now_secs)?;
        let (_, leaf) = X509Certificate::from_der(shown.leaf).map_err(|why| why.to_string())?;
        let usage = leaf.extended_key_usage().map_err(|why| why.to_string())?;
        if !usage.is_some_and(|usage| usage.value.client_auth) {
            return Err("it is not made for clients (clientAuth)".to_owned());
        }
        match uris(&leaf)?.as_slice() {
            [] => is_only_name(&common_names(shown.leaf)?, &module.to_string(), "device/module")?,
            [uri] => {
                let (host, path) = uri.split_once('/').unwrap_or((uri, ""));
                let is_host = hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
                if !is_host || path != schemas::topics::identity_prefix(module) {
                    return Err(format!("it is {AZUREIOT}{uri}'s"));
                }
            }
            many => return Err(format!("it has {} URIs {AZUREIOT}…; write the module's alone", many.len())),
        }
        Ok(mark)
    }

    /// Checks a chain up to one of the authorities and gives that one's mark.
    fn chain(&self, shown: &PresentedChain<'_>, now_secs: u64) -> Result<KeyFingerprint, String> {
        if self.is_empty() {
            return Err("no authority that could have made it is configured".to_owned());
        }
        let leaf = CertificateDer::from(shown.leaf);
        let certificate = webpki::EndEntityCert::try_from(&leaf).map_err(|why| why.to_string())?;
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
            .map_err(|why| format!("its chain does not hold: {why}"))?;
        Ok(mark_of(path.anchor()))
    }
}

/// Checks that the key of a certificate can prove anything here.
///
/// # Errors
/// In words, with the curve or algorithm.
pub fn check_key(der: &[u8]) -> Result<(), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|why| why.to_string())?;
    p521::check_key(certificate.public_key()).map_err(|why| why.to_string())
}

/// Of an authority's name and key: a certificate that was made anew for both is the same authority.
fn mark_of(anchor: &TrustAnchor<'_>) -> KeyFingerprint {
    KeyFingerprint::of(&[anchor.subject.as_ref(), anchor.subject_public_key_info.as_ref()].concat())
}

fn is_only_name(names: &[String], wanted: &str, what: &str) -> Result<(), String> {
    match names {
        [name] if name == wanted => Ok(()),
        [name] => Err(format!("its common name is `{name}`")),
        names => Err(format!("it has {} common names; write {what} as the only one", names.len())),
    }
}

/// How the URI of a module's certificate begins.
const AZUREIOT: &str = "azureiot://";

/// What follows [`AZUREIOT`] in the URIs of a certificate.
fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, String> {
    let names = certificate.subject_alternative_name().map_err(|why| why.to_string())?;
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
/// In words.
pub fn check_possession(authority: &[u8], proof: &[u8], code: &str, now_secs: u64) -> Result<(), String> {
    let (_, authority) = X509Certificate::from_der(authority).map_err(|why| why.to_string())?;
    let (_, certificate) = X509Certificate::from_der(proof).map_err(|why| why.to_string())?;
    is_only_name(&common_names(proof)?, code, "the verification code")?;
    if !p521::is_signed_by(&certificate, authority.public_key()) {
        return Err("it was not signed with the key of the certificate that is to be verified".to_owned());
    }
    valid_until(proof, now_secs).map(drop)
}

/// Checks that a certificate is valid now, and says until when, skew included; both in seconds since the Unix epoch.
///
/// # Errors
/// In words.
pub fn valid_until(leaf: &[u8], now_secs: u64) -> Result<u64, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|why| why.to_string())?;
    let validity = certificate.validity();
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let begins = seconds(validity.not_before.timestamp());
    let ends = seconds(validity.not_after.timestamp()).saturating_add(CLOCK_SKEW_SECS);
    match (now_secs.saturating_add(CLOCK_SKEW_SECS) < begins, ends < now_secs) {
        (true, _) => Err(format!("it is not valid before {}", validity.not_before)),
        (_, true) => Err(format!("it expired on {}", validity.not_after)),
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

fn common_names(leaf: &[u8]) -> Result<Vec<String>, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|why| why.to_string())?;
    let names = certificate.subject().iter_common_name();
    names.map(|name| name.as_str().map(str::to_owned).map_err(|why| why.to_string())).collect()
}

#[cfg(test)]
pub(super) mod tests;
