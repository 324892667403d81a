//! The gateway's certificates as its configuration names them: its own authority, the keeper of its server's, and whose
//! certificates its clients may show.

use edge_core::error_chain::chain;
use edge_tls::issue::Authority;
use edge_tls::pem::certificates;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use edge_core::access::x509::Authorities;
use edge_tls::input_file::{self, SMALL_BYTES_MAX};
use edge_tls::keep::{CertificateLocation, KeepOptions, Keeper};
use edge_tls::trust::TrustKeeper;

use crate::config::Config;

/// The gateway's own authority; `None` where an operator keeps its key elsewhere, and where a file of it cannot be used. The
/// latter is an ERROR in the log and no reason to serve nobody: the server's certificate is valid without it.
pub fn authority(config: &Config) -> Option<Authority> {
    let (cert, key) = (&config.tls.ca, &config.tls.ca_key);
    let unusable = |file: &Path, error: &dyn std::error::Error| {
        tracing::error!(file = %file.display(), error = %chain(error), "the gateway's CA cannot be used: the server's certificate is not made anew, and modules get none; restore the file from a backup and start edge-agent again");
    };
    let read = |path: &Path| input_file::read_text(path, SMALL_BYTES_MAX);
    let key_pem = match read(key) {
        Ok(key_pem) => key_pem,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::warn!(file = %key.display(), "no key of the gateway's authority: its certificate is not made anew, and modules get none");
            return None;
        }
        Err(error) => {
            unusable(key, &error);
            return None;
        }
    };
    let cert_pem = read(cert).inspect_err(|error| unusable(cert, error)).ok()?;
    let authority = Authority { cert_pem, key_pem };
    match authority.check() {
        Ok(()) => Some(authority),
        Err(error) => {
            let (cert, key) = (cert.display(), key.display());
            tracing::error!(error = %chain(&error), "{key} does not belong to {cert}: the server's certificate is not made anew, and modules get none; restore both from a backup and start edge-agent again");
            None
        }
    }
}

/// The certificates that modules get as their trust bundle, in PEM: those of `[tls] ca`; when that file cannot be used, those that the
/// served chain has behind the server's own, which is where `init` puts the same CA.
pub fn trust_bundle(config: &Config) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let read = |path: &Path| -> Result<String> {
        let pem = input_file::read_text(path, SMALL_BYTES_MAX)?;
        certificates(pem.as_bytes())?;
        Ok(pem)
    };
    let error = match read(&config.tls.ca) {
        Ok(pem) => return pem,
        Err(error) => format!("{error:#}"),
    };
    tracing::error!(file = %config.tls.ca.display(), error, "[tls] ca cannot be used: modules get the CA of the served chain as their trust bundle; restore the file from a backup and start edge-agent again");
    let chain = read(&config.tls.cert).unwrap_or_default();
    let behind = chain.match_indices(BEGIN).nth(1).map_or(chain.len(), |(at, _)| at);
    chain[behind..].to_owned()
}

/// The names under which a client may reach this gateway.
pub fn server_names(hostname: &str) -> Vec<String> {
    let machine = edge_hub::machine::name().unwrap_or_default();
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST).to_string();
    let mut names = vec![hostname.to_owned(), machine, "localhost".to_owned(), loopback];
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// The keeper of the server's certificate. One of the gateway's own authority is made anew when it is due, expired, or not
/// for its host name.
///
/// # Errors
/// When there is none to serve.
pub fn keeper(config: &Config, authority: Option<Authority>) -> Result<Keeper> {
    let place = CertificateLocation::Files { cert: config.tls.cert.clone(), key: config.tls.key.clone() };
    let options = KeepOptions::new(place, authority, server_names(&config.hostname));
    Keeper::open(options).context(
        "[tls] cert and key: restore them from a backup, or move them away and run `edge-agent init --repair`",
    )
}

/// The keeper of the authorities whose certificates clients may show: of devices those of the operator, of modules the
/// gateway's own, where its key is here to make such certificates with.
///
/// # Errors
/// When a file cannot be used.
pub fn trust(config: &Config, authority: Option<&Authority>) -> Result<TrustKeeper> {
    // The one whose key it is; a bundle may hold others after it.
    let own = |authority: &Authority| -> Result<Authorities> {
        let chain = certificates(authority.cert_pem.as_bytes())?;
        Ok(Authorities::new(&chain[..1])?)
    };
    let modules = authority.map(own).transpose().unwrap_or_else(|error| {
        tracing::error!(
            error = format!("{error:#}"),
            "[tls] ca can be no authority: certificates of modules are refused"
        );
        None
    });
    let modules = modules.unwrap_or_default();
    TrustKeeper::open(config.tls.device_ca.clone(), modules).context("[tls] device_ca")
}

#[cfg(test)]
mod tests;
