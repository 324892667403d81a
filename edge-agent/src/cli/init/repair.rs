//! `edge-agent init --repair`: makes again what a gateway has lost of keys and certificates. No file that is there is overwritten,
//! good or not: what is wrong with those is said, and left to an operator.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edge_core::clock::is_before_build;
use edge_core::error_chain::chain;
use edge_hub::data_lock::DataLock;
use edge_hub::private_files::make_private;
use edge_tls::inspect::inspect;
use edge_tls::issue::issue_ca;
use edge_tls::new_files::{self, NewFile};
use schemas::timestamp::rfc3339;

use crate::access::certificate;
use crate::access::module_keys::{self, KeysError, ModuleKeys};
use crate::clock::now_ms;
use crate::config::Config;
use crate::deployment::workload;

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// It was missing and was made.
    Made(String),
    /// It is missing or broken, and only an operator can mend it.
    Left(String),
}

/// Makes what is missing, and says of everything else that is wrong why it was left. Empty when nothing is wrong.
///
/// # Errors
/// When the daemon runs, the data directory is not there, the clock is wrong for certain, or a file cannot be written.
pub fn repair(config: &Config) -> Result<Vec<Repair>> {
    let now_secs = now_ms() / 1000;
    if is_before_build(now_secs) {
        bail!(
            "the clock shows {}, before this program was built; set the clock first",
            rfc3339(now_secs * 1000)
        );
    }
    let dir = &config.data_dir;
    // A disk that is not mounted must not be taken for one that lost everything.
    if !dir.is_dir() {
        bail!(
            "{dir} is not there; mount its disk. If it is lost for good, make it (`mkdir -m 700 {dir}`) and run this again",
            dir = dir.display()
        );
    }
    let _lock = DataLock::acquire(dir, "lock", "edge-agent").context("stop edge-agent first")?;
    let mut done = Vec::new();
    done.extend(module_keys(dir)?);
    done.extend(authority(config)?);
    done.extend(server(config)?);
    if let Some(path) = config.upstream.as_ref().and_then(|upstream| upstream.ca.as_ref())
        && !path.exists()
    {
        done.push(Repair::Left(format!(
            "[upstream] ca: {} is not there; copy central's ca.pem there",
            path.display()
        )));
    }
    let changed = make_private(dir, &[workload::DIR])?;
    if changed > 0 {
        done.push(Repair::Made(format!("{} for its owner alone: {changed} files", dir.display())));
    }
    Ok(done)
}

fn module_keys(dir: &Path) -> Result<Option<Repair>> {
    let paths = [dir.join(module_keys::FILE), dir.join(module_keys::CHECKSUM_FILE)];
    new_files::recover(&paths)?;
    let [secret_path, checksum_path] = paths;
    match ModuleKeys::load(dir) {
        Ok(_) if checksum_path.exists() => return Ok(None),
        Ok(_) => {
            let secret = std::fs::read(&secret_path)?;
            write(&[NewFile {
                path: checksum_path.clone(),
                bytes: &module_keys::checksum(&secret),
                mode: 0o600,
            }])?;
            return Ok(Some(Repair::Made(checksum_path.display().to_string())));
        }
        Err(KeysError::Read { .. }) if !secret_path.exists() => {}
        Err(error) => return Ok(Some(Repair::Left(chain(&error).to_string()))),
    }
    // That of a lost secret would call the new one damaged; a backup of the secret may need it.
    if checksum_path.exists() {
        move_away(&checksum_path)?;
    }
    let secret: [u8; module_keys::SECRET_BYTES] = rand::random();
    write(&[
        NewFile { path: secret_path.clone(), bytes: &secret, mode: 0o600 },
        NewFile { path: checksum_path, bytes: &module_keys::checksum(&secret), mode: 0o600 },
    ])?;
    let path = secret_path.display();
    Ok(Some(Repair::Made(format!(
        "{path}: modules get new keys when the daemon starts; what they encrypted with the old ones cannot be read"
    ))))
}

fn authority(config: &Config) -> Result<Option<Repair>> {
    let (cert, key) = (&config.tls.ca, &config.tls.ca_key);
    new_files::recover(&[key.clone(), cert.clone()])?;
    match (cert.exists(), key.exists()) {
        (true, true) => {
            let fits = certificate::authority(config).is_some();
            let why = || {
                format!(
                    "[tls] ca_key: {} does not belong to {}; restore it from a backup",
                    key.display(),
                    cert.display()
                )
            };
            Ok((!fits).then(|| Repair::Left(why())))
        }
        (true, false) => Ok(Some(Repair::Left(format!(
            "[tls] ca_key: {} is not there; restore it from a backup. Devices trust {}, so no new CA is made",
            key.display(),
            cert.display()
        )))),
        (false, true) => Ok(Some(Repair::Left(format!(
            "[tls] ca: {} is not there; copy it from a backup or a leaf device. For a new CA, move {} away first",
            cert.display(),
            key.display()
        )))),
        (false, false) => {
            let made = issue_ca(&format!("{} edge CA", config.device_id))?;
            write(&[
                NewFile { path: key.clone(), bytes: made.key_pem.as_bytes(), mode: 0o600 },
                NewFile { path: cert.clone(), bytes: made.cert_pem.as_bytes(), mode: 0o644 },
            ])?;
            let path = cert.display();
            Ok(Some(Repair::Made(format!("{path} and its key: a new CA; bring it to every leaf device"))))
        }
    }
}

fn server(config: &Config) -> Result<Option<Repair>> {
    let (cert, key) = (&config.tls.cert, &config.tls.key);
    let authority = certificate::authority(config);
    if cert.exists() && key.exists() {
        let cert_pem = std::fs::read(cert).with_context(|| format!("reading {}", cert.display()))?;
        let is_own = inspect(&cert_pem, authority.as_ref()).is_ok_and(|known| known.is_own);
        let why = format!(
            "[tls] cert: {} is not of this gateway's CA; if it is no other CA's on purpose, move it and its key away and run this \
             again",
            cert.display()
        );
        return Ok((authority.is_some() && !is_own).then_some(Repair::Left(why)));
    }
    if authority.is_none() {
        let path = if cert.exists() { key } else { cert };
        return Ok(Some(Repair::Left(format!(
            "[tls] cert and key: {} is not there, and without the CA's key none can be made",
            path.display()
        ))));
    }
    // One without the other is of no use; it is moved and not overwritten.
    for path in [cert, key].into_iter().filter(|path| path.exists()) {
        move_away(path)?;
    }
    certificate::keeper(config, authority)?;
    Ok(Some(Repair::Made(format!("{} and its key", cert.display()))))
}

fn write(files: &[NewFile<'_>]) -> Result<()> {
    Ok(new_files::write(files)?)
}

/// Renames a file to the first free one of `NAME.lost-1`, `NAME.lost-2`, …
fn move_away(path: &Path) -> Result<()> {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".lost-{number}"));
        PathBuf::from(name)
    };
    let free = (1..).map(named).find(|name| !name.exists()).context("no name is free")?;
    std::fs::rename(path, &free).with_context(|| format!("renaming {} to {}", path.display(), free.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::init::gateway::{InitOptions, init};

    const FILES: [&str; 6] =
        ["module-key", "module-key.crc32c", "ca.pem", "ca-key.pem", "server.pem", "server-key.pem"];

    fn gateway(dir: &Path) -> Config {
        init(InitOptions {
            device_id: "gw".parse().unwrap(),
            hostname: "edge".into(),
            data_dir: dir.join("data"),
            config: dir.join("edge.toml"),
            upstream: None,
            upstream_ca: None,
        })
        .unwrap();
        Config::load(&dir.join("edge.toml")).unwrap()
    }

    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "lock")
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect()
    }

    /// Every set of lost files: what was there is there still, byte for byte, under its name or beside it; and when nothing was
    /// left to an operator, the gateway has all that it needs.
    #[test]
    fn whatever_is_lost_nothing_that_is_left_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let whole = gateway(dir.path());
        let saved = files(&whole.data_dir);
        for lost in 0u32..1 << FILES.len() {
            std::fs::remove_dir_all(&whole.data_dir).unwrap();
            std::fs::create_dir(&whole.data_dir).unwrap();
            for (at, name) in FILES.iter().enumerate().filter(|(at, _)| lost & (1 << at) == 0) {
                let _ = at;
                std::fs::write(whole.data_dir.join(name), &saved[*name]).unwrap();
            }
            let before = files(&whole.data_dir);
            let done = repair(&whole).unwrap();
            let after = files(&whole.data_dir);
            for (name, bytes) in &before {
                let kept = after.iter().any(|(other, now)| other.starts_with(name) && now == bytes);
                assert!(kept, "{name} was lost: {lost:b} {done:?}");
            }
            let is_left = done.iter().any(|done| matches!(done, Repair::Left(_)));
            let has_all = FILES.iter().all(|name| after.contains_key(*name));
            assert!(is_left || has_all, "{lost:b} {done:?}");
            assert!(lost == 0 || !done.is_empty(), "{lost:b}");
            ModuleKeys::load(&whole.data_dir).unwrap();
            if !is_left {
                certificate::authority(&whole).expect("a CA with its key");
                certificate::keeper(&whole, certificate::authority(&whole)).unwrap();
            }
        }
    }

    #[test]
    fn a_damaged_key_and_a_running_daemon_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = gateway(dir.path());
        std::fs::write(config.data_dir.join("module-key"), [1; module_keys::SECRET_BYTES]).unwrap();
        let before = files(&config.data_dir);
        let done = repair(&config).unwrap();
        assert!(matches!(&done[..], [Repair::Left(why), ..] if why.contains("damaged")), "{done:?}");
        assert_eq!(files(&config.data_dir), before);
        let running = DataLock::acquire(&config.data_dir, "lock", "edge-agent").unwrap();
        let refused = format!("{:#}", repair(&config).unwrap_err());
        assert!(refused.starts_with("stop edge-agent first"), "{refused}");
        drop(running);
        std::fs::remove_dir_all(&config.data_dir).unwrap();
        assert!(repair(&config).unwrap_err().to_string().contains("mount its disk"));
        assert!(!config.data_dir.exists());
    }
}
