//! Keeps the server certificate valid: reloads its files when they change or at SIGHUP, and renews it in time if the site's own
//! authority (CA) signed it. Established connections are not affected.
//!
//! If the files cannot be used, the current certificate stays and the log names the file. A certificate of another CA is never
//! overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edge_core::certificate::{
    self, CaRenewal, Issuing, Renewal, RenewalReason, SERVER_VALIDITY_MAX_SECS, Validity,
};
use edge_core::error_chain::chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::now_secs;
use crate::error::TlsError;
use crate::input_file::{self, SMALL_BYTES_MAX};
use crate::inspect::{inspect, is_damaged_own};
use crate::issue::{Authority, CertificateSpec, Issued, Purpose, SERVER_LIFETIME, issue};
use crate::served::ServedCertificate;
use crate::watch::{WatchError, directory, quiet, watch};

/// How often the certificate's validity is compared with the clock. A timer until the renewal would miss jumps of the wall clock.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Time between attempts of a renewal that fails, and between warnings that an operator must renew.
const REMINDER_INTERVAL: Duration = Duration::from_secs(3_600);
/// Time between warnings that the CA expires. Replacing it takes months, since every device trusts it by a file.
const CA_REMINDER_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateLocation {
    /// Two PEM files: the chain, and the private key of its first certificate.
    Files { cert: PathBuf, key: PathBuf },
    /// Memory only; made at each start.
    Memory,
}

/// Which certificate a server serves, and how it is renewed.
#[derive(Clone)]
pub struct KeepOptions {
    pub location: CertificateLocation,
    /// The site's own CA. Without it nothing is made or renewed.
    pub authority: Option<Authority>,
    /// DNS names and IP addresses of the server. If the site's own certificate lacks one, it is renewed. The first is its common name.
    pub names: Vec<String>,
    /// Validity of a certificate that is made here.
    pub lifetime: Duration,
    pub check_interval: Duration,
}

impl KeepOptions {
    /// With [`SERVER_LIFETIME`], checked every 10 s.
    pub fn new(location: CertificateLocation, authority: Option<Authority>, names: Vec<String>) -> Self {
        Self { location, authority, names, lifetime: SERVER_LIFETIME, check_interval: CHECK_INTERVAL }
    }
}

/// Why no certificate can be served.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("{path}: could not {doing}")]
    File {
        path: PathBuf,
        /// What failed: "could not …".
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{cert} with its key {key}")]
    Files {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: TlsError,
    },
    #[error("no certificate authority of this site's own is here to make a certificate with")]
    NoAuthority,
    #[error("making the server's certificate")]
    Made(#[source] TlsError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// The certificate of a server; [`Keeper::run`] reloads and renews it.
pub struct Keeper {
    options: KeepOptions,
    served: Arc<ServedCertificate>,
    known: certificate::Served,
    /// When the log last warned that the CA expires, in seconds since the Unix epoch; 0 for never.
    ca_reminder_secs: u64,
}

impl Keeper {
    /// Reads the certificate, or makes one if there is none. The site's own is renewed now if it is due, has expired or lacks a name.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn open(options: KeepOptions) -> Result<Self, KeepError> {
        let (cert_pem, key_pem, known) = match &options.location {
            CertificateLocation::Memory => make(&options)?,
            CertificateLocation::Files { cert, key } => match found(&options, cert, key)? {
                Some(found) => found,
                None => make(&options)?,
            },
        };
        let served = ServedCertificate::new(&cert_pem, &key_pem).map_err(|source| options.failed(source))?;
        Ok(Self { options, served: Arc::new(served), known, ca_reminder_secs: 0 })
    }

    /// The certificate of new handshakes, to configure a server with.
    pub fn served(&self) -> Arc<ServedCertificate> {
        self.served.clone()
    }

    /// Reloads and renews the certificate until `stop`.
    ///
    /// # Errors
    /// [`WatchError`]: changes of the files cannot be noticed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchError> {
        let mut hangup = signal(SignalKind::hangup()).map_err(WatchError::Signal)?;
        let changed = Arc::new(Notify::new());
        let _watcher = self.options.location.watch(&changed)?;
        let mut checks = tokio::time::interval(self.options.check_interval);
        let mut reminded_at: Option<tokio::time::Instant> = None;
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
                _ = checks.tick() => {
                    self.check_ca();
                    if reminded_at.is_some_and(|at| at.elapsed() < REMINDER_INTERVAL) {
                        continue;
                    }
                    reminded_at = self.check().then(tokio::time::Instant::now);
                }
            }
        }
    }

    fn reload(&mut self) {
        let CertificateLocation::Files { cert, key } = &self.options.location else { return };
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

    /// Warns once a day while the CA is about to expire or has: it is not renewed here, because every device trusts it by a file.
    fn check_ca(&mut self) {
        let Some(authority) = &self.options.authority else { return };
        let now_secs = now_secs();
        if now_secs.saturating_sub(self.ca_reminder_secs) < CA_REMINDER_INTERVAL.as_secs() {
            return;
        }
        let Ok(known) = inspect(authority.cert_pem.as_bytes(), None) else { return };
        let ca = Validity { not_before_secs: known.not_before_secs, not_after_secs: known.not_after_secs };
        let days_left = match certificate::ca_renewal(ca, now_secs) {
            CaRenewal::Keep => return,
            CaRenewal::NotYetValid { days } => {
                error!(
                    days,
                    "the site's own authority is not valid yet: correct this machine's clock if it is behind; otherwise the authority was \
                     made while the clock was ahead: make a new one, and bring it to every device and module"
                );
                self.ca_reminder_secs = now_secs;
                return;
            }
            CaRenewal::Expires { days_left } => days_left,
            CaRenewal::Expired => {
                error!("the site's own authority has ended: clients refuse what it signed; make a new one");
                self.ca_reminder_secs = now_secs;
                return;
            }
        };
        warn!(
            days_left,
            "the site's own authority ends: plan a new one, and bring it to every device and module before"
        );
        self.ca_reminder_secs = now_secs;
    }

    /// Renews the certificate if it is due. Returns true if an operator must act: renewal failed, or another CA signed the certificate.
    fn check(&mut self) -> bool {
        match certificate::renewal(&self.known, &self.options.names, &self.options.issuing(), now_secs()) {
            Renewal::Keep { .. } => false,
            Renewal::Warn { not_after_secs } => {
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
            // The CA has expired. An error, so that the next attempt is an hour from now and not at the next check.
            return Err(KeepError::Made(TlsError::Expired));
        }
        self.served.replace(&cert_pem, &key_pem).map_err(KeepError::Made)?;
        self.known = known;
        info!(%reason, "the server's certificate was made anew; sessions go on");
        Ok(())
    }
}

type Found = (Vec<u8>, Vec<u8>, certificate::Served);

/// The certificate of the files; `None` if a new one must be made.
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
        // It may be of another CA, whose owner has no other copy: it is renamed, not overwritten.
        Err(error) if own.is_some() => {
            set_aside(cert)?;
            error!(file = %cert.display(), error = %chain(&error), "the server's certificate is damaged: it was renamed to .damaged and is made anew");
            return Ok(None);
        }
        Err(source) => return Err(options.failed(source)),
    };
    if known.is_own && ServedCertificate::new(&cert_pem, &key_pem).is_err() {
        // `make` replaces two files. A power cut between the renames leaves the new key beside the old certificate.
        warn!(file = %cert.display(), "the server's certificate is made anew: its key is another one's");
        return Ok(None);
    }
    if let Renewal::Renew(reason) =
        certificate::renewal(&known, &options.names, &options.issuing(), now_secs())
    {
        info!(file = %cert.display(), %reason, "the server's certificate is made anew");
        return Ok(None);
    }
    Ok(Some((cert_pem, key_pem, known)))
}

/// Renames a damaged file to `.damaged`, for an operator to look at.
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

/// Makes a certificate and writes it to its files.
fn make(options: &KeepOptions) -> Result<Found, KeepError> {
    let authority = options.authority.as_ref().ok_or(KeepError::NoAuthority)?;
    let spec = CertificateSpec {
        common_name: options.names.first().map_or("", String::as_str),
        names: &options.names,
        uris: &[],
        purpose: Purpose::Server,
        lifetime: options.lifetime,
        validity_max_secs: Some(SERVER_VALIDITY_MAX_SECS),
    };
    let Issued { chain_pem, key_pem, .. } = issue(authority, &spec).map_err(KeepError::Made)?;
    let known = inspect(chain_pem.as_bytes(), Some(authority)).map_err(KeepError::Made)?;
    if let CertificateLocation::Files { cert, key } = &options.location {
        write(key, key_pem.as_bytes(), 0o600)?;
        write(cert, chain_pem.as_bytes(), 0o644)?;
    }
    Ok((chain_pem.into_bytes(), key_pem.into_bytes(), known))
}

impl KeepOptions {
    fn issuing(&self) -> Issuing {
        let ca = self.authority.as_ref().and_then(|authority| authority.validity().ok());
        Issuing { lifetime_secs: self.lifetime.as_secs(), ca }
    }

    fn failed(&self, source: TlsError) -> KeepError {
        match &self.location {
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
            Self::Files { cert, key } => watch(&[cert, key], changed).map(Some),
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

/// Replaces a file atomically: a power cut leaves the old or the new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeepError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = || {
        // A `.new` that a power cut left may have another mode, which `mode` below would not change.
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
