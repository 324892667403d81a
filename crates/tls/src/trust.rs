//! The certificate authorities (CAs) of client certificates, reloaded when their files change or at SIGHUP.
//!
//! If the files cannot be used, the current authorities stay and the log names the file. The holder of the receiver authorizes every
//! client again after a change: a client whose CA was removed may not stay connected.

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

use crate::error::TlsError;
use crate::input_file::{self, SMALL_BYTES_MAX};
use crate::pem::certificates;
use crate::watch::{WatchError, quiet};

/// Why authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path}: could not read it")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}")]
    Pem {
        path: PathBuf,
        #[source]
        source: TlsError,
    },
    /// A certificate in the file is no CA's.
    #[error("{path}: {why}")]
    Authority {
        path: PathBuf,
        /// Which certificate, and why.
        why: CertificateError,
    },
}

/// The authorities of a server; [`TrustKeeper::run`] reloads them.
pub struct TrustKeeper {
    files: Vec<PathBuf>,
    modules: Authorities,
    /// Contents of the files that `trust` was made from.
    contents: Vec<Vec<u8>>,
    trust: watch::Sender<Arc<Trust>>,
}

impl TrustKeeper {
    /// Reads the PEM files of the CAs of devices; `modules` is the gateway's own CA. A file that cannot be used is left out and logged:
    /// only clients with certificates of its CAs are rejected until it is corrected.
    ///
    /// # Errors
    /// [`TrustError`]: the usable files cannot be used together.
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

    /// The current authorities and their changes.
    pub fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Reloads the files when they change, until `stop`.
    ///
    /// # Errors
    /// [`WatchError`]: changes of the files cannot be noticed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        if self.files.is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup()).map_err(WatchError::Signal)?;
        let changed = Arc::new(Notify::new());
        let files: Vec<_> = self.files.iter().map(PathBuf::as_path).collect();
        let _watcher = crate::watch::watch(&files, &changed)?;
        // Changes between `open` and here were not watched.
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
    use crate::issue::issue_ca;

    const PATIENCE: Duration = Duration::from_secs(60);

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
        tokio::time::sleep(crate::watch::QUIET * 3).await;
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
