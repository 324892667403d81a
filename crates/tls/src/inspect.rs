//! The contents of a certificate that renewal depends on: validity, names, issuer.

use std::net::IpAddr;

use edge_core::access::p521;
use edge_core::certificate::{Served, Validity};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::TlsError;
use crate::issue::Authority;
use crate::pem::{certificates, validity};

/// Reads the first certificate of a PEM text. `is_own` of the result says whether `authority`, the site's own, signed it.
///
/// # Errors
/// [`TlsError::NoCertificate`] (also for a certificate that cannot be parsed) or [`TlsError::Pem`].
pub fn inspect(cert_pem: &[u8], authority: Option<&Authority>) -> Result<Served, TlsError> {
    let chain = certificates(cert_pem)?;
    let der = chain.first().ok_or(TlsError::NoCertificate)?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| TlsError::NoCertificate)?;
    let Validity { not_before_secs, not_after_secs } = validity(der)?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    Ok(Served {
        not_before_secs,
        not_after_secs,
        names: names.collect(),
        is_own: authority.is_some_and(|authority| is_signed_by(&certificate, authority)),
    })
}

/// Returns true if the chain ends in the site's own authority but that authority did not sign its first certificate: the certificate
/// was altered. A chain of an earlier authority, even of the same name, ends in that authority, so it does not count.
pub(crate) fn is_damaged_own(cert_pem: &[u8], authority: &Authority) -> bool {
    let (Ok(chain), Ok(ca)) = (certificates(cert_pem), certificates(authority.cert_pem.as_bytes())) else {
        return false;
    };
    let is_signed = inspect(cert_pem, Some(authority)).is_ok_and(|known| known.is_own);
    chain.get(1).is_some_and(|issuer| ca.first() == Some(issuer)) && !is_signed
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn is_signed_by(certificate: &X509Certificate<'_>, authority: &Authority) -> bool {
    let Ok(chain) = certificates(authority.cert_pem.as_bytes()) else { return false };
    let Some(Ok((_, ca))) = chain.first().map(|der| X509Certificate::from_der(der)) else { return false };
    p521::is_signed_by(certificate, ca.public_key())
}
