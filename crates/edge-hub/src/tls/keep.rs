//! Keeps the server's certificate fresh: reads its files again when they change or at SIGHUP, and makes a new one in time
//! when it is the site's own. Sessions never notice.
//!
//! Files that cannot be used change nothing: the certificate served before is kept, and the log names the file. A
//! certificate that another authority signed is never overwritten.

use edge_core::error_chain::chain;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edge_core::certificate::{self, CaRenewal, Renewal, RenewalReason};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::inspect::is_damaged_own;
use super::watch::{WatchError, directory, quiet};
use super::{
    Authority, Issued, Purpose, SERVER_LIFETIME, ServedCertificate, TlsError, Wanted, inspect, issue, watch,
};
use crate::clock::now_secs;
use crate::input_file::{self, SMALL_BYTES_MAX};

/// How often a certificate is looked at. The wall clock may jump, so nothing waits for months in one piece.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a renewal that failed waits, and how often an operator is reminded.
const REMIND_EVERY: Duration = Duration::from_secs(3_600);
/// How often an operator is reminded that the authority ends: that takes months to mend.
const REMIND_AUTHORITY_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateLocation {
    /// In two PEM files: the chain, and the key of its first certificate.
    Files { cert: PathBuf, key: PathBuf },
    /// In memory only, made anew at each start.
    Memory,
}

/// What certificate the server is to serve.
#[derive(Clone)]
pub struct KeepOptions {
    pub place: CertificateLocation,
    /// The site's own authority with its key, where it is on this machine.
    pub authority: Option<Authority>,
    /// DNS names and addresses that the site's own certificate is for, the first as its common name.
    pub names: Vec<String>,
    /// How long the site's own certificate is valid.
    pub lifetime: Duration,
    /// How often it is looked at.
    pub look_every: Duration,
}

impl KeepOptions {
    /// With the usual times.
    pub fn new(place: CertificateLocation, authority: Option<Authority>, names: Vec<String>) -> Self {
        Self { place, authority, names, lifetime: SERVER_LIFETIME, look_every: LOOK_EVERY }
    }
}

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file cannot be read or written.
    #[error("{path}: could not {doing}")]
    File {
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// The files hold no certificate that can be used.
    #[error("{cert} with its key {key}")]
    Files {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: TlsError,
    },
    /// There is no authority to make one with.
    #[error("no certificate authority of this site's own is here to make a certificate with")]
    NoAuthority,
    /// It was not made.
    #[error("making the server's certificate")]
    Made(#[source] TlsError),
    /// Changes of the files would not be noticed.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// The certificate of a server and what keeps it fresh.
pub struct Keeper {
    options: KeepOptions,
    served: Arc<ServedCertificate>,
    known: certificate::Served,
    /// When an operator was told last that the site's own authority ends.
    authority_told_secs: u64,
}

impl Keeper {
    /// Reads or makes the certificate; one of the site's own that is due, expired or lacks a name is made anew at once.
    ///
    /// # Errors
    /// [`KeepError`]: there is none to serve.
    pub fn open(options: KeepOptions) -> Result<Self, KeepError> {
        let (cert_pem, key_pem, known) = match &options.place {
            CertificateLocation::Memory => make(&options)?,
            CertificateLocation::Files { cert, key } => match found(&options, cert, key)? {
                Some(found) => found,
                None => make(&options)?,
            },
        };
        let served = ServedCertificate::new(&cert_pem, &key_pem).map_err(|source| options.failed(source))?;
        Ok(Self { options, served: Arc::new(served), known, authority_told_secs: 0 })
    }

    /// What new handshakes get.
    pub fn served(&self) -> Arc<ServedCertificate> {
        self.served.clone()
    }

    /// Keeps it fresh until `stop`.
    ///
    /// # Errors
    /// [`WatchError`] when changes cannot be noticed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        let mut hangup = signal(SignalKind::hangup()).map_err(WatchError::Signal)?;
        let changed = Arc::new(Notify::new());
        let _watcher = self.options.place.watch(&changed)?;
        let mut looks = tokio::time::interval(self.options.look_every);
        let mut told_at: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = changed.notified() => {
                    quiet(&changed).await;
                    self.reload();
                }
                Some(()) = hangup.recv() => {
                    info!("SIGHUP: the certificate's files are read again");
                    self.reload();
                }
                _ = looks.tick() => {
                    self.look_at_authority();
                    if told_at.is_some_and(|at| at.elapsed() < REMIND_EVERY) {
                        continue;
                    }
                    told_at = self.look().then(tokio::time::Instant::now);
                }
            }
        }
    }

    /// Reads the files again.
    fn reload(&mut self) {
        let CertificateLocation::Files { cert, key } = &self.options.place else { return };
        let read = read(cert).and_then(|cert| Ok((cert, read(key)?)));
        let replaced = read.and_then(|(cert_pem, key_pem)| {
            let known = inspect(&cert_pem, self.options.authority.as_ref());
            let known = known.map_err(|source| self.options.failed(source))?;
            if known.not_after_secs < now_secs() && self.known.not_after_secs > known.not_after_secs {
                return Err(self.options.failed(TlsError::Expired));
            }
            let is_new =
                self.served.replace(&cert_pem, &key_pem).map_err(|source| self.options.failed(source))?;
            Ok(is_new.then_some(known))
        });
        match replaced {
            Ok(None) => {}
            Ok(Some(known)) => {
                self.known = known;
                info!(file = %cert.display(), "new connections get the new certificate");
            }
            Err(error) => {
                let error = chain(&error).to_string();
                error!(file = %cert.display(), error, "certificate not taken; the one served before is kept");
            }
        }
    }

    /// Tells an operator once a day that the site's own authority ends: nothing makes it anew, and every device trusts it.
    fn look_at_authority(&mut self) {
        let Some(authority) = &self.options.authority else { return };
        let now_secs = now_secs();
        if now_secs.saturating_sub(self.authority_told_secs) < REMIND_AUTHORITY_EVERY.as_secs() {
            return;
        }
        let Ok(known) = inspect(authority.cert_pem.as_bytes(), None) else { return };
        let days_left = match certificate::judge_authority(known.not_after_secs, now_secs) {
            CaRenewal::Good => return,
            CaRenewal::Ends { days_left } => days_left,
            CaRenewal::Over => {
                error!("the site's own authority has ended: clients refuse what it signed; make a new one");
                self.authority_told_secs = now_secs;
                return;
            }
        };
        warn!(
            days_left,
            "the site's own authority ends: plan a new one, and bring it to every device and module before"
        );
        self.authority_told_secs = now_secs;
    }

    /// Makes a new certificate when it is time; `true` when that failed or somebody else must.
    fn look(&mut self) -> bool {
        match certificate::renewal(&self.known, &self.options.names, now_secs()) {
            Renewal::Keep { .. } => false,
            Renewal::Tell { not_after_secs } => {
                let seconds_left = not_after_secs.saturating_sub(now_secs());
                warn!(
                    seconds_left,
                    "the server's certificate ends soon and another authority made it: replace its files"
                );
                true
            }
            Renewal::Renew(reason) => match self.renew(&reason) {
                Ok(()) => false,
                Err(error) => {
                    error!(error = %chain(&error), %reason, "the server's certificate was not made anew");
                    true
                }
            },
        }
    }

    fn renew(&mut self, reason: &RenewalReason) -> Result<(), KeepError> {
        let (cert_pem, key_pem, known) = make(&self.options)?;
        if known.not_after_secs < now_secs() {
            // Its authority has ended. ReasonProperties as often as other renewals that fail, and not made every minute.
            return Err(KeepError::Made(TlsError::Expired));
        }
        self.served.replace(&cert_pem, &key_pem).map_err(KeepError::Made)?;
        self.known = known;
        info!(%reason, "the server's certificate was made anew; sessions go on");
        Ok(())
    }
}

type Found = (Vec<u8>, Vec<u8>, certificate::Served);

/// The certificate of the files, unless it must be made anew.
fn found(options: &KeepOptions, cert: &Path, key: &Path) -> Result<Option<Found>, KeepError> {
    if options.authority.is_some() && !(cert.exists() && key.exists()) {
        info!(file = %cert.display(), "the server's certificate is made: there is none");
        return Ok(None);
    }
    let (cert_pem, key_pem) = (read(cert)?, read(key)?);
    let own = options.authority.as_ref();
    let inspected = if own.is_some_and(|own| is_damaged_own(&cert_pem, own)) {
        Err(TlsError::Signature)
    } else {
        inspect(&cert_pem, own)
    };
    let known = match inspected {
        Ok(known) => known,
        // Nobody can tell whose it was, or it was made here: it is kept beside the new one.
        Err(error) if own.is_some() => {
            set_aside(cert)?;
            error!(file = %cert.display(), error = %chain(&error), "the server's certificate is damaged: it was renamed to .damaged and is made anew");
            return Ok(None);
        }
        Err(source) => return Err(options.failed(source)),
    };
    if known.is_own && ServedCertificate::new(&cert_pem, &key_pem).is_err() {
        // The power went between the two renames.
        warn!(file = %cert.display(), "the server's certificate is made anew: its key is another one's");
        return Ok(None);
    }
    if let Renewal::Renew(reason) = certificate::renewal(&known, &options.names, now_secs()) {
        info!(file = %cert.display(), %reason, "the server's certificate is made anew");
        return Ok(None);
    }
    Ok(Some((cert_pem, key_pem, known)))
}

/// Keeps a damaged file for an operator.
fn set_aside(path: &Path) -> Result<(), KeepError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let renamed = fs::rename(path, &aside);
    renamed.map_err(|source| KeepError::File {
        path: path.to_owned(),
        doing: "rename it to .damaged",
        source,
    })
}

/// Makes a certificate and puts it where it belongs.
fn make(options: &KeepOptions) -> Result<Found, KeepError> {
    let authority = options.authority.as_ref().ok_or(KeepError::NoAuthority)?;
    let wanted = Wanted {
        common_name: options.names.first().map_or("", String::as_str),
        names: &options.names,
        uris: &[],
        purpose: Purpose::Server,
        lifetime: options.lifetime,
    };
    let Issued { chain_pem, key_pem, .. } = issue(authority, &wanted).map_err(KeepError::Made)?;
    let known = inspect(chain_pem.as_bytes(), Some(authority)).map_err(KeepError::Made)?;
    if let CertificateLocation::Files { cert, key } = &options.place {
        write(key, key_pem.as_bytes(), 0o600)?;
        write(cert, chain_pem.as_bytes(), 0o644)?;
    }
    Ok((chain_pem.into_bytes(), key_pem.into_bytes(), known))
}

impl KeepOptions {
    fn failed(&self, source: TlsError) -> KeepError {
        match &self.place {
            CertificateLocation::Files { cert, key } => {
                KeepError::Files { cert: cert.clone(), key: key.clone(), source }
            }
            CertificateLocation::Memory => KeepError::Made(source),
        }
    }
}

impl CertificateLocation {
    fn watch(&self, changed: &Arc<Notify>) -> Result<Option<notify::RecommendedWatcher>, WatchError> {
        match self {
            Self::Files { cert, key } => watch::watch(&[cert, key], changed).map(Some),
            Self::Memory => Ok(None),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeepError> {
    input_file::read(path, SMALL_BYTES_MAX).map_err(|source| KeepError::File {
        path: path.to_owned(),
        doing: "read it",
        source,
    })
}

/// Replaces a file whole: a power cut leaves the old one or the new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeepError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = || {
        // A file that a power cut left may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory(path))?.sync_all()
    };
    written().map_err(|source| KeepError::File { path: path.to_owned(), doing: "replace it", source })
}

#[cfg(test)]
mod tests;
