//! The gateway's certificates as its configuration names them: its own authority, the keeper of its server's, and whose
//! certificates its clients may show.

use edge_core::error_chain::chain;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use edge_core::access::x509::Authorities;
use edge_hub::tls::keep::{KeepOptions, Keeper, Place};
use edge_hub::tls::trust::TrustKeeper;
use edge_hub::tls::{Authority, certificates};

use crate::config::Config;
use crate::init;

/// The gateway's own authority; `None` where an operator keeps its key elsewhere.
///
/// # Errors
/// When a file cannot be read.
pub fn authority(config: &Config) -> Result<Option<Authority>> {
    let (cert, key) = (&config.tls.ca, &config.tls.ca_key);
    let read = |path: &Path| std::fs::read_to_string(path);
    let key_pem = match read(key) {
        Ok(key_pem) => key_pem,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::warn!(file = %key.display(), "no key of the gateway's authority: its certificate is not made anew, and modules get none");
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("[tls] ca_key: reading {}", key.display())),
    };
    let cert_pem = read(cert).with_context(|| format!("[tls] ca: reading {}", cert.display()))?;
    let authority = Authority { cert_pem, key_pem };
    match authority.check() {
        Ok(()) => Ok(Some(authority)),
        Err(error) => {
            let (cert, key) = (cert.display(), key.display());
            tracing::error!(error = %chain(&error), "{key} does not belong to {cert}: the server's certificate is not made anew, and modules get none");
            Ok(None)
        }
    }
}

/// The keeper of the server's certificate. One of the gateway's own authority is made anew when it is due, expired, or not
/// for its host name.
///
/// # Errors
/// When there is none to serve.
pub fn keeper(config: &Config, authority: Option<Authority>) -> Result<Keeper> {
    let place = Place::Files { cert: config.tls.cert.clone(), key: config.tls.key.clone() };
    let options = KeepOptions::new(place, authority, init::names(&config.hostname));
    Keeper::open(options).context("[tls] cert and key")
}

/// The keeper of the authorities whose certificates clients may show: of devices those of the operator, of modules the
/// gateway's own, where its key is here to make such certificates with.
///
/// # Errors
/// When a file cannot be used.
pub fn trust(config: &Config, authority: Option<&Authority>) -> Result<TrustKeeper> {
    let modules = match authority {
        None => Authorities::default(),
        Some(authority) => {
            let chain = certificates(authority.cert_pem.as_bytes()).context("[tls] ca")?;
            // The one whose key it is; a bundle may hold others after it.
            Authorities::new(&chain[..1]).map_err(|why| anyhow::anyhow!("[tls] ca: {why}"))?
        }
    };
    TrustKeeper::open(config.tls.device_ca.clone(), modules).context("[tls] device_ca")
}
