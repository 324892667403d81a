//! Client certificates: by their thumbprint, or by an authority that signed them.
//!
//! The TLS handshake has proven that the client holds the certificate's key and nothing more. Signatures, dates and
//! constraints of a chain are looked at by webpki, as TLS itself does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use schemas::names::DeviceId;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Clocks may differ by this much, as for tokens.
const CLOCK_SKEW_SECS: u64 = 300;

/// What a client showed, DER.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its own certificate.
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
    pub fn sha256(der: &[u8]) -> [u8; 32] {
        Sha256::digest(der).into()
    }

    /// Whether this names the certificate.
    pub fn names(&self, der: &[u8]) -> bool {
        match self {
            Self::Sha1(hash) => Sha1::digest(der).as_slice() == hash,
            Self::Sha256(hash) => Self::sha256(der) == *hash,
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

/// The authorities whose certificates devices may show.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<TrustAnchor<'static>>);

impl Authorities {
    /// From the certificates of the authorities, DER.
    ///
    /// # Errors
    /// In words, with the number of the certificate that cannot be an authority.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Result<Self, String> {
        let anchor = |(n, der): (usize, &CertificateDer<'_>)| {
            webpki::anchor_from_trusted_cert(der)
                .map(|anchor| anchor.to_owned())
                .map_err(|why| format!("certificate {} cannot be an authority: {why}", n + 1))
        };
        certificates.iter().enumerate().map(anchor).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that one of the authorities, directly or through what the client showed, gave this certificate to a
    /// client of this name, and that all of them are valid now.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self, shown: &Shown<'_>, device: &DeviceId, now_secs: u64) -> Result<(), String> {
        if self.is_empty() {
            return Err("no device authority is configured ([tls] device_ca)".to_owned());
        }
        let leaf = CertificateDer::from(shown.leaf);
        let certificate = webpki::EndEntityCert::try_from(&leaf).map_err(|why| why.to_string())?;
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.0,
                shown.intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(now_secs)),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|why| format!("its chain does not hold: {why}"))?;
        let names = common_names(shown.leaf)?;
        match names.as_slice() {
            [name] if name == device.as_str() => Ok(()),
            [name] => Err(format!("its common name is `{name}`")),
            names => Err(format!("it has {} common names; write the device id as the only one", names.len())),
        }
    }
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

fn common_names(leaf: &[u8]) -> Result<Vec<String>, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|why| why.to_string())?;
    let names = certificate.subject().iter_common_name();
    names.map(|name| name.as_str().map(str::to_owned).map_err(|why| why.to_string())).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use time::{Duration as Days, OffsetDateTime};

    use super::*;

    /// An authority that gives certificates to devices.
    pub(crate) struct Signer {
        params: CertificateParams,
        key: KeyPair,
        pub(crate) der: CertificateDer<'static>,
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::now_utc() - Days::days(1);
        params.not_after = OffsetDateTime::now_utc() + Days::days(1);
        params
    }

    pub(crate) fn now() -> u64 {
        u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap()
    }

    impl Signer {
        pub(crate) fn new(name: &str, parent: Option<&Signer>) -> Self {
            let mut params = params(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = match parent {
                None => params.self_signed(&key).unwrap(),
                Some(parent) => {
                    params.signed_by(&key, &Issuer::from_params(&parent.params, &parent.key)).unwrap()
                }
            };
            Self { der: certificate.der().clone(), params, key }
        }

        pub(crate) fn device(&self, name: &str) -> CertificateDer<'static> {
            let key = KeyPair::generate().unwrap();
            let issuer = Issuer::from_params(&self.params, &self.key);
            params(name).signed_by(&key, &issuer).unwrap().der().clone()
        }
    }

    #[test]
    fn a_thumbprint_names_one_certificate_however_it_is_written() {
        let ca = Signer::new("ca", None);
        let (one, two) = (ca.device("d"), ca.device("d"));
        let sha256 = Thumbprint::Sha256(Thumbprint::sha256(&one));
        let sha1 = Thumbprint::Sha1(Sha1::digest(&one).into());
        for thumbprint in [sha256, sha1] {
            let text = thumbprint.to_string();
            assert_eq!(text.parse(), Ok(thumbprint));
            assert_eq!(text.to_lowercase().parse(), Ok(thumbprint));
            let pairs: Vec<&str> = (0..text.len() / 2).map(|n| &text[2 * n..2 * n + 2]).collect();
            assert_eq!(pairs.join(":").parse(), Ok(thumbprint));
            assert!(thumbprint.names(&one) && !thumbprint.names(&two));
        }
        for wrong in ["", "12", "xy", &"z".repeat(64), &"a".repeat(63)] {
            assert!(wrong.parse::<Thumbprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_authority_vouches_for_the_device_that_it_named_through_what_was_shown() {
        let root = Signer::new("root", None);
        let line = Signer::new("line 1", Some(&root));
        let authorities = Authorities::new(std::slice::from_ref(&root.der)).unwrap();
        let device: DeviceId = "press-1".parse().unwrap();
        let leaf = line.device("press-1");
        let between = [line.der.clone()];
        let check = |leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'static>], now| {
            authorities.check(&Shown { leaf, intermediates }, &device, now)
        };
        assert_eq!(check(&leaf, &between, now()), Ok(()));
        assert_eq!(check(&root.device("press-1"), &[], now()), Ok(()));
        assert!(check(&leaf, &[], now()).unwrap_err().contains("chain"), "the one between was not shown");
        assert!(check(&line.device("press-2"), &between, now()).unwrap_err().contains("press-2"));
        assert!(check(&leaf, &between, now() + 3 * 86_400).unwrap_err().contains("chain"), "expired");
        assert!(check(&Signer::new("x", None).device("press-1"), &[], now()).is_err());
        assert!(check(&CertificateDer::from(b"no certificate".as_slice()), &[], now()).is_err());
        let none = Authorities::default();
        let shown = Shown { leaf: &leaf, intermediates: &between };
        assert!(none.check(&shown, &device, now()).unwrap_err().contains("device_ca"));
    }

    #[test]
    fn a_certificate_is_good_from_its_first_day_to_its_last() {
        let leaf = Signer::new("ca", None).device("d");
        let until = valid_until(&leaf, now()).unwrap();
        assert!((now() + 86_000..now() + 87_000).contains(&until), "{until}");
        assert!(valid_until(&leaf, now() - 2 * 86_400).unwrap_err().contains("before"));
        assert!(valid_until(&leaf, now() + 2 * 86_400).unwrap_err().contains("expired"));
        assert!(valid_until(b"x", 0).is_err());
    }
}
