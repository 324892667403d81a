//! Inspects keys and certificates.

use std::io::{Error, ErrorKind};
use std::path::Path;

use edge_core::certificate::{Issuing, Renewal, Validity, renewal};
use edge_core::error_chain::chain;
use edge_core::health::facts::{CaFacts, CertificateFacts, Probe, ServerCertificateFacts};
use edge_tls::error::TlsError;
use edge_tls::input_file::{self, SMALL_BYTES_MAX};
use edge_tls::inspect::inspect;
use edge_tls::issue::{Authority, SERVER_LIFETIME};
use edge_tls::pem;
use edge_tls::served::ServedCertificate;

use super::inspect::{blocking, is_plausible};
use crate::access::certificate::server_names;
use crate::access::module_keys::{KeysError, ModuleKeys};
use crate::clock::now_ms;
use crate::config::{Config, TlsSection};

pub(crate) async fn certificates(config: &Config) -> CertificateFacts {
    let (data_dir, tls, hostname) = (config.data_dir.clone(), config.tls.clone(), config.hostname.clone());
    let keys = blocking(move || module_keys(&data_dir));
    let section = tls.clone();
    let ca = blocking(move || ca_file(&section.ca));
    let section = tls.clone();
    let key = blocking(move || match authority(&section) {
        Probe::Found(_) => Probe::Found(()),
        Probe::NotProbed => Probe::NotProbed,
        Probe::Missing(why) => Probe::Missing(why),
        Probe::Denied(why) => Probe::Denied(why),
        Probe::Failed(why) => Probe::Failed(why),
    });
    let section = tls.clone();
    let server = blocking(move || server(&section, &hostname, now_ms() / 1000));
    let upstream_ca = config.upstream.as_ref().and_then(|upstream| upstream.ca.clone());
    let upstream_ca = async {
        match upstream_ca {
            None => Probe::NotProbed,
            Some(path) => blocking(move || ca_file(&path)).await,
        }
    };
    let devices = async {
        let mut found = Vec::new();
        for path in tls.device_ca.clone() {
            let shown = path.display().to_string();
            found.push((shown, blocking(move || ca_file(&path)).await));
        }
        found
    };
    let (module_keys, ca, ca_key, server, upstream_ca, device_ca) =
        tokio::join!(keys, ca, key, server, upstream_ca, devices);
    CertificateFacts { module_keys, ca, ca_key, server, device_ca, upstream_ca }
}

/// What an error of a file says of it.
pub(super) fn of_io<T>(path: &Path, error: &Error) -> Probe<T> {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound => Probe::Missing(format!("{shown} is not there")),
        ErrorKind::PermissionDenied => Probe::Denied(format!("{shown}: permission denied")),
        _ => Probe::Failed(format!("{shown}: {error}")),
    }
}

fn read<T>(path: &Path) -> Result<Vec<u8>, Probe<T>> {
    input_file::read(path, SMALL_BYTES_MAX).map_err(|error| of_io(path, &error))
}

fn broken<T>(path: &Path, error: &TlsError) -> Probe<T> {
    Probe::Failed(format!("{}: {}", path.display(), chain(error)))
}

pub(super) fn folder(path: &Path) -> Probe<String> {
    match std::fs::read_dir(path) {
        Ok(_) => Probe::Found(path.display().to_string()),
        Err(error) => of_io(path, &error),
    }
}

fn module_keys(data_dir: &Path) -> Probe<()> {
    match ModuleKeys::load(data_dir) {
        Ok(_) => Probe::Found(()),
        Err(KeysError::Read { path, source }) => of_io(&path, &source),
        Err(error) => Probe::Failed(chain(&error).to_string()),
    }
}

/// A file of CAs, by the last of them to begin and the first to end.
fn ca_file(path: &Path) -> Probe<CaFacts> {
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(probe) => return probe,
    };
    let all = pem::certificates(&pem)
        .and_then(|all| all.iter().map(|der| pem::validity(der)).collect::<Result<Vec<Validity>, _>>());
    match all {
        Ok(all) => Probe::Found(CaFacts {
            path: path.display().to_string(),
            not_before_secs: all.iter().map(|ca| ca.not_before_secs).max().unwrap_or_default(),
            not_after_secs: all.iter().map(|ca| ca.not_after_secs).min().unwrap_or_default(),
        }),
        Err(error) => broken(path, &error),
    }
}

/// The gateway's own CA with its key.
pub(super) fn authority(tls: &TlsSection) -> Probe<Authority> {
    let read = |path: &Path| match input_file::read_text(path, SMALL_BYTES_MAX) {
        Ok(text) => Ok(text),
        Err(error) => Err(of_io(path, &error)),
    };
    let (cert_pem, key_pem) = match (read(&tls.ca), read(&tls.ca_key)) {
        (Ok(cert_pem), Ok(key_pem)) => (cert_pem, key_pem),
        (_, Err(probe)) => return probe,
        // That [tls] ca is missing is a finding of its own.
        (Err(_), Ok(_)) => return Probe::NotProbed,
    };
    let authority = Authority { cert_pem, key_pem };
    match authority.check() {
        Ok(()) => Probe::Found(authority),
        Err(error) => {
            let (cert, key) = (tls.ca.display(), tls.ca_key.display());
            Probe::Failed(format!("{key} does not belong to {cert}: {}", chain(&error)))
        }
    }
}

pub(super) fn server(tls: &TlsSection, hostname: &str, now_secs: u64) -> Probe<ServerCertificateFacts> {
    let authority = match authority(tls) {
        Probe::Found(authority) => Some(authority),
        _ => None,
    };
    let (cert, key) = match (read(&tls.cert), read(&tls.key)) {
        (Ok(cert), Ok(key)) => (cert, key),
        (Err(probe), _) | (_, Err(probe)) => return probe,
    };
    let known = ServedCertificate::new(&cert, &key).and_then(|_| inspect(&cert, authority.as_ref()));
    let known = match known {
        Ok(known) => known,
        Err(error) => return broken(&tls.cert, &error),
    };
    let ca = authority.as_ref().and_then(|authority| authority.validity().ok());
    let issuing = Issuing { lifetime_secs: SERVER_LIFETIME.as_secs(), ca };
    // Nothing is decided by a clock that is certainly wrong.
    let assessed =
        is_plausible(now_secs).then(|| renewal(&known, &server_names(hostname), &issuing, now_secs));
    Probe::Found(ServerCertificateFacts {
        path: tls.cert.display().to_string(),
        not_after_secs: known.not_after_secs,
        is_own: known.is_own,
        is_due: matches!(assessed, Some(Renewal::Warn { .. })),
        renewal: match assessed {
            Some(Renewal::Renew(reason)) => Some(reason.to_string()),
            _ => None,
        },
    })
}
