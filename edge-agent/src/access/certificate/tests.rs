//! Every way in which a file of keys and certificates is damaged, against what docs/operations says that it costs.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::access::module_keys::ModuleKeys;
use crate::check::files;
use crate::cli::init::gateway::{InitOptions, UpstreamCa, init};
use edge_core::health::facts::{CertificateFacts, Probe};
use edge_tls::issue::issue_ca;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { len: usize },
    Garbage,
    Missing,
    Directory,
    NoRights,
}

/// What a start makes of it.
#[derive(Debug, PartialEq)]
enum Start {
    Serves,
    /// And `check` tells of the damage.
    ServesWithFinding,
    Refuses(String),
}

/// What a start may make of a file that is damaged.
#[derive(Clone, Copy, Debug)]
enum Costs {
    /// Nothing: it is made anew.
    MadeAnew,
    /// What needs the file; everything else is served.
    ItsUse,
    /// The start: what is encrypted and who is known depend on it.
    Start,
}

const FILES: [(&str, Costs); 7] = [
    ("ca.pem", Costs::ItsUse),
    ("ca-key.pem", Costs::ItsUse),
    ("server.pem", Costs::MadeAnew),
    ("server-key.pem", Costs::MadeAnew),
    ("upstream-ca.pem", Costs::ItsUse),
    ("device-ca.pem", Costs::ItsUse),
    ("module-key", Costs::Start),
];

fn damages(len: usize) -> Vec<Damage> {
    let places = (0..len).step_by((len / 16).max(1));
    let flips = places.flat_map(|at| [0x01, 0x20, 0x80].map(|bit| Damage::Flip { at, bit }));
    let cuts = [0, 1, len / 2, len - 1].map(|len| Damage::Cut { len });
    let others = [Damage::Garbage, Damage::Missing, Damage::Directory, Damage::NoRights];
    flips.chain(cuts).chain(others).collect()
}

fn hurt(path: &Path, whole: &[u8], damage: Damage) {
    let mut bytes = whole.to_vec();
    match damage {
        Damage::Flip { at, bit } => bytes[at] ^= bit,
        Damage::Cut { len } => bytes.truncate(len),
        Damage::Garbage => bytes.extend([0xff, 0x00, 0xfe]),
        Damage::NoRights => {
            return std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        Damage::Missing | Damage::Directory => {
            std::fs::remove_file(path).unwrap();
            if damage == Damage::Directory {
                std::fs::create_dir(path).unwrap();
            }
            return;
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A gateway with every file that there can be.
fn gateway(dir: &Path) -> Config {
    let ca = issue_ca("central").unwrap().cert_pem;
    init(InitOptions {
        device_id: "gw".parse().unwrap(),
        hostname: "edge".into(),
        data_dir: dir.join("data"),
        config: dir.join("edge.toml"),
        upstream: Some("HostName=hub:8884;DeviceId=gw;SharedAccessKey=YQ==".parse().unwrap()),
        upstream_ca: Some(UpstreamCa::Pem(ca.clone().into_bytes())),
    })
    .unwrap();
    let mut config = Config::load(&dir.join("edge.toml")).unwrap();
    let device_ca = config.data_dir.join("device-ca.pem");
    std::fs::write(&device_ca, ca).unwrap();
    config.tls.device_ca.push(device_ca);
    config
}

/// The steps of the daemon's start that read these files, in its order.
fn start(config: &Config) -> Result<()> {
    ModuleKeys::load(&config.data_dir)?;
    let authority = authority(config);
    trust(config, authority.as_ref())?;
    keeper(config, authority)?;
    let bundle = trust_bundle(config);
    let trusted = certificates(bundle.as_bytes()).context("the modules' trust bundle")?;
    anyhow::ensure!(!trusted.is_empty(), "the modules' trust bundle is empty");
    Ok(())
}

fn has_finding(facts: &CertificateFacts) -> bool {
    let CertificateFacts { module_keys, ca, ca_key, server, device_ca, upstream_ca } = facts;
    !matches!(module_keys, Probe::Found(_))
        || !matches!(ca_key, Probe::Found(_))
        || !matches!(server, Probe::Found(_))
        || [ca, upstream_ca]
            .into_iter()
            .chain(device_ca.iter().map(|(_, ca)| ca))
            .any(|ca| !matches!(ca, Probe::Found(_)))
}

#[tokio::test]
async fn a_damaged_file_costs_what_needs_it_and_the_start_only_where_nothing_can_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let config = gateway(dir.path());
    let names: Vec<_> =
        std::fs::read_dir(&config.data_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let saved: Vec<_> = names.iter().map(|path| (path, std::fs::read(path).unwrap())).collect();
    assert!(start(&config).is_ok() && !has_finding(&files::certificates(&config).await));
    for (name, costs) in FILES {
        let path = config.data_dir.join(name);
        let whole = std::fs::read(&path).unwrap();
        for damage in damages(whole.len()) {
            let what = format!("{name} {damage:?}");
            hurt(&path, &whole, damage);
            // For root, every file is readable.
            let is_hurt = std::fs::read(&path).map_or(true, |bytes| bytes != whole);
            let began = match start(&config) {
                Err(error) => Start::Refuses(format!("{error:#}")),
                Ok(()) if has_finding(&files::certificates(&config).await) => Start::ServesWithFinding,
                Ok(()) => Start::Serves,
            };
            // A bit of a certificate's signature, or outside of its text, changes nothing that is looked at.
            let may_be_harmless =
                matches!(damage, Damage::Flip { .. } | Damage::Cut { .. } | Damage::Garbage);
            let is_as_said = match (costs, &began) {
                (_, Start::Serves) if !is_hurt => true,
                (Costs::MadeAnew, Start::Serves) => true,
                (Costs::MadeAnew, Start::ServesWithFinding) => may_be_harmless,
                // What stands in its place is an operator's.
                (Costs::MadeAnew, Start::Refuses(why)) => {
                    matches!(damage, Damage::Directory | Damage::NoRights)
                        && why.contains(name)
                        && why.contains("--repair")
                }
                (Costs::ItsUse, Start::Serves) => may_be_harmless,
                (Costs::ItsUse, Start::ServesWithFinding) => true,
                (Costs::ItsUse, Start::Refuses(_)) => false,
                (Costs::Start, Start::Refuses(why)) => why.contains(name),
                (Costs::Start, _) => false,
            };
            assert!(is_as_said, "{what}: {began:?}");
            std::fs::remove_dir_all(&config.data_dir).unwrap();
            std::fs::create_dir(&config.data_dir).unwrap();
            for (path, bytes) in &saved {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// As it was found: exit code 1 and `stream did not contain valid UTF-8`.
#[test]
fn one_flipped_bit_of_the_ca_or_its_key_does_not_keep_the_gateway_from_starting() {
    for name in ["ca.pem", "ca-key.pem"] {
        let dir = tempfile::tempdir().unwrap();
        let config = gateway(dir.path());
        let path = config.data_dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60] ^= 0x80;
        std::fs::write(&path, bytes).unwrap();
        start(&config).unwrap();
    }
}

#[test]
fn a_damaged_configuration_or_checksum_is_refused_by_the_name_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = gateway(dir.path());
    let (toml, sum) = (dir.path().join("edge.toml"), config.data_dir.join("module-key.crc32c"));
    let (whole, whole_sum) = (std::fs::read(&toml).unwrap(), std::fs::read(&sum).unwrap());
    for damage in [Damage::Cut { len: 0 }, Damage::Garbage, Damage::Missing, Damage::Directory] {
        hurt(&toml, &whole, damage);
        let refused = chain(&Config::load(&toml).unwrap_err()).to_string();
        assert!(refused.contains("edge.toml"), "{damage:?}: {refused}");
        if toml.is_dir() {
            std::fs::remove_dir(&toml).unwrap()
        }
        std::fs::write(&toml, &whole).unwrap();
        hurt(&sum, &whole_sum, damage);
        match (damage, ModuleKeys::load(&config.data_dir)) {
            // An older `init` wrote none.
            (Damage::Missing, loaded) => assert!(loaded.is_ok()),
            (_, loaded) => {
                let refused = chain(&loaded.err().unwrap()).to_string();
                assert!(refused.contains("module-key"), "{damage:?}: {refused}");
            }
        }
        if sum.is_dir() {
            std::fs::remove_dir(&sum).unwrap()
        }
        std::fs::write(&sum, &whole_sum).unwrap();
    }
}
