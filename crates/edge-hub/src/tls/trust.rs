//! The authorities whose certificates a server's clients may show, read again when their files change or at SIGHUP.
//!
//! Files that cannot be used change nothing and are named in the log. Whoever holds the receiver has every client authorized again
//! when it changes: a client that an authority proved which is not there any more may not stay.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use edge_core::access::error::CertificateError;
use edge_core::access::x509::{Authorities, Trust};
use edge_core::error_chain::chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::error::TlsError;
use super::pem::certificates;
use super::watch::{WatchError, quiet};
use crate::input_file::{self, SMALL_BYTES_MAX};

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("{path}: could not read it")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It holds no certificates.
    #[error("{path}")]
    Pem {
        path: PathBuf,
        #[source]
        source: TlsError,
    },
    /// A certificate in it can be nobody's authority.
    #[error("{path}: {why}")]
    Authority {
        path: PathBuf,
        /// Which certificate, and why.
        why: CertificateError,
    },
}

/// Keeps the authorities of a server.
pub struct TrustKeeper {
    files: Vec<PathBuf>,
    modules: Authorities,
    /// What the files held when they were used last.
    contents: Vec<Vec<u8>>,
    trust: watch::Sender<Arc<Trust>>,
}

impl TrustKeeper {
    /// Reads the PEM files of the authorities of devices. `modules` is the gateway's own. A file that cannot be used is left out,
    /// which the log says: who shows a certificate of it is refused until the file is mended, and nobody else is.
    ///
    /// # Errors
    /// [`TrustError`] when the files cannot be used together.
    pub fn open(files: Vec<PathBuf>, modules: Authorities) -> Result<Self, TrustError> {
        let mut usable = Vec::new();
        for path in &files {
            match read(std::slice::from_ref(path)) {
                Ok(_) => usable.push(path.clone()),
                Err(error) => {
                    let error = chain(&error).to_string();
                    error!(file = %path.display(), error, "authorities of devices not loaded: their certificates are refused; correct the file, which is then read again");
                }
            }
        }
        let (contents, devices) = read(&usable)?;
        let trust = watch::Sender::new(Arc::new(Trust { devices, modules: modules.clone() }));
        Ok(Self { files, modules, contents, trust })
    }

    /// The authorities of now, and a word when they are others.
    pub fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Reads the files again whenever they change, until `stop`.
    ///
    /// # Errors
    /// [`WatchError`] when changes cannot be noticed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        if self.files.is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup()).map_err(WatchError::Signal)?;
        let changed = Arc::new(Notify::new());
        let files: Vec<_> = self.files.iter().map(PathBuf::as_path).collect();
        let _watcher = super::watch::watch(&files, &changed)?;
        // What changed since `open` was not watched.
        self.reload();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = changed.notified() => {
                    quiet(&changed).await;
                    self.reload();
                }
                Some(()) = hangup.recv() => self.reload(),
            }
        }
    }

    fn reload(&mut self) {
        match read(&self.files) {
            Ok((contents, _)) if contents == self.contents => {}
            Ok((contents, devices)) => {
                self.contents = contents;
                self.trust.send_replace(Arc::new(Trust { devices, modules: self.modules.clone() }));
                info!(files = self.files.len(), "the authorities of devices were read anew");
            }
            Err(error) => {
                let error = chain(&error).to_string();
                error!(error, "authorities of devices not taken; those of before are kept");
            }
        }
    }
}

fn read(files: &[PathBuf]) -> Result<(Vec<Vec<u8>>, Authorities), TrustError> {
    let (mut contents, mut all) = (Vec::new(), Vec::new());
    for path in files {
        let read = input_file::read(path, SMALL_BYTES_MAX);
        let pem = read.map_err(|source| TrustError::Read { path: path.clone(), source })?;
        let found = certificates(&pem).map_err(|source| TrustError::Pem { path: path.clone(), source })?;
        Authorities::new(&found).map_err(|why| TrustError::Authority { path: path.clone(), why })?;
        contents.push(pem);
        all.extend(found);
    }
    let path = files.first().cloned().unwrap_or_default();
    let devices = Authorities::new(&all).map_err(|why| TrustError::Authority { path, why })?;
    Ok((contents, devices))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::tls::issue_ca;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn authorities_that_change_are_taken_and_files_that_cannot_be_used_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("line1.pem"), dir.path().join("line2.pem"));
        fs::write(&first, issue_ca("devices").unwrap().cert_pem).unwrap();
        // Damaged at the start: what is of the other file is trusted meanwhile.
        fs::write(&second, b"-----BEGIN \xff").unwrap();
        let keeper = TrustKeeper::open(vec![first.clone(), second.clone()], Authorities::default()).unwrap();
        let mut trust = keeper.trust();
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let changed = async |trust: &mut watch::Receiver<Arc<Trust>>| {
            tokio::time::timeout(PATIENCE, trust.changed()).await.expect("nothing changed").unwrap();
        };
        fs::write(&second, issue_ca("devices").unwrap().cert_pem).unwrap();
        changed(&mut trust).await;
        // What is no certificate is not taken, and what is written after it is.
        fs::write(&first, "-----BEGIN CERTIF").unwrap();
        tokio::time::sleep(super::super::watch::QUIET * 3).await;
        assert!(!trust.has_changed().unwrap());
        fs::write(&first, issue_ca("devices").unwrap().cert_pem).unwrap();
        changed(&mut trust).await;
        let replaced = dir.path().join("new.pem");
        fs::write(&replaced, issue_ca("devices").unwrap().cert_pem).unwrap();
        fs::rename(&replaced, &second).unwrap();
        changed(&mut trust).await;
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
