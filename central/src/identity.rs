//! central's own certificate authority, made at the first start and kept in the data directory.
//!
//! `ca.pem` is what gateways and devices trust; `ca-key.pem` never leaves the directory. The server certificate is
//! made anew at every start, so that a changed host name needs no further step, and its key is never on disk.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_hub::tls::{self, Authority};

/// Why central has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the authority cannot be read or written.
    #[error("the certificate authority's file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// One of the two files is there without the other.
    #[error(
        "{missing} is missing beside {found}; restore it from a backup, or remove {found} to begin with a new authority"
    )]
    Half {
        /// What is there.
        found: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// The certificate or key cannot be used.
    #[error("making the server certificate")]
    Tls(#[from] tls::TlsError),
}

/// TLS for the front door, with a certificate for `hostname` and `localhost`.
///
/// # Errors
/// [`IdentityError`], naming the file.
pub fn server_tls(data_dir: &Path, hostname: &str) -> Result<Arc<rustls::ServerConfig>, IdentityError> {
    let authority = authority(data_dir)?;
    let mut names = vec![hostname.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    names.dedup();
    let issued = tls::issue_server(&authority, &names)?;
    Ok(tls::server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes())?)
}

fn authority(data_dir: &Path) -> Result<Authority, IdentityError> {
    let (cert_path, key_path) = (data_dir.join("ca.pem"), data_dir.join("ca-key.pem"));
    match (read(&cert_path)?, read(&key_path)?) {
        (Some(cert_pem), Some(key_pem)) => Ok(Authority { cert_pem, key_pem }),
        (None, None) => {
            let made = tls::issue_ca("Lineside central")?;
            // The key first: a start that is cut between the two leaves a key without a certificate, which names itself.
            write(&key_path, 0o600, &made.key_pem)?;
            write(&cert_path, 0o644, &made.cert_pem)?;
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

fn write(path: &Path, mode: u32, text: &str) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_authority_is_made_once_its_key_is_private_and_half_of_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        server_tls(dir.path(), "central.example").unwrap();
        let first = fs::read(dir.path().join("ca.pem")).unwrap();
        server_tls(dir.path(), "another.example").unwrap();
        assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), first);
        let key = dir.path().join("ca-key.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(key).unwrap();
        let refused = server_tls(dir.path(), "central.example").unwrap_err().to_string();
        assert!(refused.contains("ca-key.pem") && refused.contains("backup"), "{refused}");
    }
}
