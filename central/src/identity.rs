//! central's own certificate authority, made at the first start and kept in the data directory.
//!
//! `ca.pem` is what gateways and devices trust; `ca-key.pem` never leaves the directory. The server certificate is
//! made anew at every start, so that a changed host name needs no further step, and again in time; its key is never on
//! disk. An operator may give a certificate of another authority instead (`[tls]`).

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use edge_tls::error::TlsError;
use edge_tls::issue::{Authority, issue_ca};
use edge_tls::keep::{CertificateLocation, KeepError, KeepOptions, Keeper};
use edge_tls::new_files::{self, NewFile, NewFilesError};

use crate::config::Config;

/// Why central has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the authority cannot be read or written.
    #[error("the certificate authority's file {path}")]
    File { path: PathBuf, source: std::io::Error },
    /// The files are gone, and there are devices that trust what was in them.
    #[error(
        "ca.pem and ca-key.pem are missing in {dir}, and the store has devices that trust them; restore both files from a backup, or \
         make a new certificate authority on purpose with `central new-authority`, which every gateway and device must be given"
    )]
    Missing { dir: PathBuf },
    /// One of the two files is there without the other.
    #[error(
        "{missing} is missing beside {found}; restore it from a backup, or remove {found} to begin with a new authority"
    )]
    Half { found: PathBuf, missing: PathBuf },
    /// The two files were not written.
    #[error("writing the certificate authority")]
    Write(#[from] NewFilesError),
    /// The authority was not made.
    #[error("making the certificate authority")]
    Tls(#[from] TlsError),
    /// The two files are there, and no certificate can be made with them.
    #[error(
        "the server's certificate cannot be made with ca.pem and ca-key.pem in {dir}; if one of them is damaged, restore both files \
         from a backup"
    )]
    Unusable { dir: PathBuf, source: Box<KeepError> },
    /// There is no certificate to serve.
    #[error("the server's certificate")]
    Keep(#[from] KeepError),
}

/// The keeper of the MQTT server's certificate: of `[tls] cert` and `key` when they are set, otherwise one of central's own
/// authority for `hostname` and `localhost`.
///
/// # Errors
/// [`IdentityError`], naming the file.
pub fn keeper(config: &Config, is_trusted: bool) -> Result<Keeper, IdentityError> {
    // Gateways may still trust it: it is there in any case.
    let authority = authority(&config.data_dir, is_trusted)?;
    let names = names(config);
    let place = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => CertificateLocation::Files { cert: cert.clone(), key: key.clone() },
        _ => CertificateLocation::Memory,
    };
    // Files are an operator's: what is in them is never overwritten.
    let authority = (place == CertificateLocation::Memory).then_some(authority);
    let is_made_here = authority.is_some();
    Keeper::open(KeepOptions::new(place, authority, names)).map_err(|source| {
        if is_made_here {
            IdentityError::Unusable { dir: config.data_dir.clone(), source: source.into() }
        } else {
            source.into()
        }
    })
}

/// The keeper of the certificate of `[http] cert` and `key`; `None` when the API has the MQTT server's.
///
/// # Errors
/// [`IdentityError`], naming the file.
pub fn http_keeper(config: &Config) -> Result<Option<Keeper>, IdentityError> {
    let (Some(cert), Some(key)) = (&config.http.cert, &config.http.key) else { return Ok(None) };
    let place = CertificateLocation::Files { cert: cert.clone(), key: key.clone() };
    Ok(Some(Keeper::open(KeepOptions::new(place, None, Vec::new()))?))
}

/// What clients may call central by: its host name, and where they reach the API when that speaks TLS.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec![config.hostname.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    if config.http.tls {
        let public = config.http.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
        let host = public.as_ref().and_then(Uri::host);
        // An IPv6 address is in brackets in a URL, and without them in a certificate.
        names.extend(host.map(|host| host.trim_matches(['[', ']']).to_owned()));
        let listen = config.http.listen.ip();
        if !listen.is_unspecified() {
            names.push(listen.to_string());
        }
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Makes a certificate authority where there is none.
///
/// # Errors
/// [`IdentityError`], naming the file.
pub fn make_authority(data_dir: &Path) -> Result<(), IdentityError> {
    authority(data_dir, false).map(drop)
}

fn authority(data_dir: &Path, is_trusted: bool) -> Result<Authority, IdentityError> {
    let (cert_path, key_path) = (data_dir.join("ca.pem"), data_dir.join("ca-key.pem"));
    new_files::recover(&[key_path.clone(), cert_path.clone()])?;
    match (read(&cert_path)?, read(&key_path)?) {
        (Some(cert_pem), Some(key_pem)) => Ok(Authority { cert_pem, key_pem }),
        (None, None) if is_trusted => Err(IdentityError::Missing { dir: data_dir.to_owned() }),
        (None, None) => {
            let made = issue_ca("Lineside central")?;
            new_files::write(&[
                NewFile { path: key_path, bytes: made.key_pem.as_bytes(), mode: 0o600 },
                NewFile { path: cert_path.clone(), bytes: made.cert_pem.as_bytes(), mode: 0o644 },
            ])?;
            tracing::info!(path = %cert_path.display(), "certificate authority was made; gateways need this file");
            Ok(made)
        }
        (Some(_), None) => Err(IdentityError::Half { found: cert_path, missing: key_path }),
        (None, Some(_)) => Err(IdentityError::Half { found: key_path, missing: cert_path }),
    }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use edge_tls::issue::issue_server;

    use super::*;

    #[test]
    fn the_authority_is_made_once_its_key_is_private_and_half_of_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = |hostname: &str| Config {
            hostname: hostname.into(),
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        keeper(&config("central.example"), false).unwrap();
        let first = fs::read(dir.path().join("ca.pem")).unwrap();
        keeper(&config("another.example"), false).unwrap();
        assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), first);
        let key = dir.path().join("ca-key.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(key).unwrap();
        let refused = keeper(&config("central.example"), false).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("ca-key.pem") && refused.contains("backup"), "{refused}");
    }

    #[test]
    fn a_first_start_that_was_cut_between_the_authoritys_files_is_completed_or_begun_anew() {
        let made = issue_ca("Lineside central").unwrap();
        for is_renamed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let key = if is_renamed { "ca-key.pem" } else { "ca-key.pem.new" };
            fs::write(dir.path().join(key), &made.key_pem).unwrap();
            fs::write(dir.path().join("ca.pem.new"), &made.cert_pem).unwrap();
            let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
            keeper(&config, false).unwrap();
            let kept = fs::read_to_string(dir.path().join("ca.pem")).unwrap() == made.cert_pem;
            assert_eq!(kept, is_renamed);
        }
    }

    #[test]
    fn the_certificate_is_for_every_name_under_which_the_api_is_reached() {
        let named = |tls: bool, url: &str, listen: &str| {
            let http = crate::config::Http {
                tls,
                public_url: Some(url.to_owned()),
                listen: listen.parse().unwrap(),
                ..Default::default()
            };
            names(&Config { hostname: "central.test".into(), http, ..Config::default() })
        };
        let usual = ["central.test", "localhost", "127.0.0.1"];
        assert_eq!(named(false, "https://site.test", "127.0.0.1:1"), usual);
        assert_eq!(named(true, "https://central.test:8443/x", "0.0.0.0:1"), usual);
        let more = named(true, "https://site.test/x", "192.0.2.7:1");
        assert_eq!(more[3..], ["site.test", "192.0.2.7"]);
        assert_eq!(named(true, "https://[2001:db8::1]:8443", "[::1]:1")[3..], ["2001:db8::1", "::1"]);
    }

    #[test]
    fn an_operators_own_certificate_is_served_and_named_when_it_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        let works = issue_ca("works").unwrap();
        let issued = issue_server(&works, &["central.example".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        fs::write(&cert, &issued.chain_pem).unwrap();
        let tls = crate::config::Tls { cert: Some(cert), key: Some(key.clone()), ..Default::default() };
        let config = Config { data_dir: dir.path().to_owned(), tls, ..Config::default() };
        let refused = keeper(&config, false).map(|_| ()).unwrap_err();
        assert!(std::error::Error::source(&refused).unwrap().to_string().contains("k.pem"), "{refused:?}");
        fs::write(&key, &issued.key_pem).unwrap();
        keeper(&config, false).unwrap();
    }
}
