//! `edge-agent init`: the configuration, keys and certificates of a new gateway. It never overwrites anything.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use edge_core::clock::is_before_build;
use edge_tls::config::client_config;
use edge_tls::error::TlsError;
use edge_tls::input_file::{self, SMALL_BYTES_MAX};
use edge_tls::issue::{issue_ca, issue_server};
use edge_tls::new_files::{self, NewFile, NewFilesError};
use schemas::connection_string::ConnectionString;
use schemas::names::DeviceId;
use schemas::timestamp::rfc3339;
use toml::{Table, Value};

use crate::access::certificate::server_names;
use crate::access::module_keys;
use crate::clock::now_ms;
use crate::config::HTTPS_DEFAULT;

/// Options of a new gateway.
pub struct InitOptions {
    /// Its id at central.
    pub device_id: DeviceId,
    /// The name under which leaf devices and modules reach it.
    pub hostname: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Where its configuration goes.
    pub config: PathBuf,
    /// Its connection string at central.
    pub upstream: Option<ConnectionString>,
    /// The authority that signs central's certificate.
    pub upstream_ca: Option<UpstreamCa>,
}

/// Where the authority of central comes from; it is copied to the data directory.
pub enum UpstreamCa {
    /// A PEM file (`--upstream-ca`).
    File(PathBuf),
    /// PEM text (`--join`).
    Pem(Vec<u8>),
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It is there already.
    #[error(
        "{path} is there already; nothing was overwritten. Remove it first if this gateway is to begin anew"
    )]
    Exists { path: PathBuf },
    /// The disk said no.
    #[error("{path}: could not {doing}")]
    Io {
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The connection string is of another device.
    #[error("--upstream: found DeviceId={found}; --device-id is {device_id}")]
    Device {
        /// In the connection string.
        found: DeviceId,
        device_id: DeviceId,
    },
    /// central's authority is needed with a connection string.
    #[error(
        "--upstream-ca: central's certificate authority is needed to trust its address; copy its ca.pem here"
    )]
    NoCa,
    /// The text given as authority is none.
    #[error("--join: its certificate authority")]
    JoinCa(#[source] TlsError),
    /// The file given as authority is none.
    #[error("--upstream-ca {path}")]
    Ca {
        path: PathBuf,
        #[source]
        source: TlsError,
    },
    /// The clock is not set.
    #[error(
        "the clock shows {now}, before this program was built: certificates issued now would have expired already. Set the clock first"
    )]
    Clock {
        /// What it says, RFC 3339.
        now: String,
    },
    /// The files were not written.
    #[error(transparent)]
    Write(#[from] NewFilesError),
    /// Certificates were not made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Writes everything that a new gateway needs.
///
/// # Errors
/// [`InitError`]; all files are written, or none. An `init` that a kill interrupted is completed or undone by the next one.
pub fn init(options: InitOptions) -> Result<(), InitError> {
    init_at(options, now_ms() / 1000)
}

fn init_at(options: InitOptions, now_secs: u64) -> Result<(), InitError> {
    if is_before_build(now_secs) {
        return Err(InitError::Clock { now: rfc3339(now_secs * 1000) });
    }
    let data_dir = std::path::absolute(&options.data_dir).map_err(|source| InitError::Io {
        path: options.data_dir.clone(),
        doing: "find its place",
        source,
    })?;
    let file = |name: &str| data_dir.join(name);
    // Everything that could be wrong is looked at before anything is written.
    let paths: Vec<PathBuf> = ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "upstream-ca.pem"]
        .into_iter()
        .chain([module_keys::FILE, module_keys::CHECKSUM_FILE])
        .map(&file)
        .chain([options.config.clone()])
        .collect();
    new_files::recover(&paths)?;
    if let Some(path) = paths.into_iter().find(|path| path.exists()) {
        return Err(InitError::Exists { path });
    }
    let upstream_ca = upstream_ca(&options)?;
    let authority = issue_ca(&format!("{} edge CA", options.device_id))?;
    let server = issue_server(&authority, &server_names(&options.hostname))?;

    // Whoever mounts a module's socket is the Docker Engine, which may pass through.
    make_dir(&data_dir, 0o700)?;
    if let Some(parent) = options.config.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent, 0o711)?;
    }
    let secret: [u8; module_keys::SECRET_BYTES] = rand::random();
    let checksum = module_keys::checksum(&secret);
    // It holds the gateway's key.
    let config = config_text(&options, &data_dir);
    let mut files = vec![
        NewFile { path: file("ca.pem"), bytes: authority.cert_pem.as_bytes(), mode: 0o644 },
        NewFile { path: file("ca-key.pem"), bytes: authority.key_pem.as_bytes(), mode: 0o600 },
        NewFile { path: file("server.pem"), bytes: server.chain_pem.as_bytes(), mode: 0o644 },
        NewFile { path: file("server-key.pem"), bytes: server.key_pem.as_bytes(), mode: 0o600 },
        NewFile { path: file(module_keys::FILE), bytes: &secret, mode: 0o600 },
        NewFile { path: file(module_keys::CHECKSUM_FILE), bytes: &checksum, mode: 0o600 },
        NewFile { path: options.config.clone(), bytes: config.as_bytes(), mode: 0o600 },
    ];
    if let Some(ca) = &upstream_ca {
        files.push(NewFile { path: file("upstream-ca.pem"), bytes: ca, mode: 0o644 });
    }
    Ok(new_files::write(&files)?)
}

fn upstream_ca(options: &InitOptions) -> Result<Option<Vec<u8>>, InitError> {
    if let Some(upstream) = &options.upstream {
        if upstream.device_id != options.device_id {
            let (found, device_id) = (upstream.device_id.clone(), options.device_id.clone());
            return Err(InitError::Device { found, device_id });
        }
        if options.upstream_ca.is_none() {
            return Err(InitError::NoCa);
        }
    }
    let path = match &options.upstream_ca {
        None => return Ok(None),
        Some(UpstreamCa::Pem(pem)) => {
            client_config(pem).map_err(InitError::JoinCa)?;
            return Ok(Some(pem.clone()));
        }
        Some(UpstreamCa::File(path)) => path,
    };
    let ca = input_file::read(path, SMALL_BYTES_MAX).map_err(|source| InitError::Io {
        path: path.clone(),
        doing: "read it",
        source,
    })?;
    client_config(&ca).map_err(|source| InitError::Ca { path: path.clone(), source })?;
    Ok(Some(ca))
}

fn config_text(options: &InitOptions, data_dir: &Path) -> String {
    let text = |value: String| Value::String(value);
    let mut table = Table::new();
    table.insert("device_id".into(), text(options.device_id.to_string()));
    table.insert("hostname".into(), text(options.hostname.clone()));
    table.insert("data_dir".into(), text(data_dir.display().to_string()));
    let mut listen = Table::new();
    listen.insert("https".into(), text(HTTPS_DEFAULT.to_owned()));
    table.insert("listen".into(), Value::Table(listen));
    if let Some(upstream) = &options.upstream {
        let mut section = Table::new();
        section.insert("connection_string".into(), text(upstream.to_string()));
        section.insert("ca".into(), text(data_dir.join("upstream-ca.pem").display().to_string()));
        table.insert("upstream".into(), Value::Table(section));
    }
    format!(
        "# The settings of this gateway's edge-agent. It holds a key: keep it to its owner.\n\
         # Manifests are root on this host unless [deploy.policy] limits them: docs/operating/deploy-policy.md.\n{table}"
    )
}

fn make_dir(path: &Path, mode: u32) -> Result<(), InitError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path).map_err(|source| InitError::Io {
        path: path.to_owned(),
        doing: "make the directory",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use edge_tls::config::server_config;
    use edge_tls::inspect::inspect;

    use super::*;
    use crate::config::Config;

    fn options(dir: &Path) -> InitOptions {
        let ca = dir.join("central-ca.pem");
        std::fs::write(&ca, issue_ca("central").unwrap().cert_pem).unwrap();
        InitOptions {
            device_id: "gw".parse().unwrap(),
            hostname: "edge".into(),
            data_dir: dir.join("data"),
            config: dir.join("etc/edge.toml"),
            upstream: Some("HostName=c:1;DeviceId=gw;SharedAccessKey=YWJj".parse().unwrap()),
            upstream_ca: Some(UpstreamCa::File(ca)),
        }
    }

    #[test]
    fn what_init_writes_the_daemon_reads_and_secrets_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        init(options(dir.path())).unwrap();
        let config = Config::load(&dir.path().join("etc/edge.toml")).unwrap();
        assert_eq!(config.hostname, "edge");
        assert_eq!(config.upstream.unwrap().address(), ("c".to_owned(), 1));
        let cert = std::fs::read(&config.tls.cert).unwrap();
        server_config(&cert, &std::fs::read(&config.tls.key).unwrap()).unwrap();
        module_keys::ModuleKeys::load(&config.data_dir).unwrap();
        for secret in ["data/ca-key.pem", "data/server-key.pem", "data/module-key", "etc/edge.toml"] {
            let mode = std::fs::metadata(dir.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }

    #[test]
    fn a_gateway_that_is_reached_by_an_ipv6_address_has_it_in_its_configuration_and_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let hostname = "fd00::1".to_owned();
        init(InitOptions { hostname, ..options(dir.path()) }).unwrap();
        let config = Config::load(&dir.path().join("etc/edge.toml")).unwrap();
        assert_eq!(config.hostname, "fd00::1");
        let cert = std::fs::read(&config.tls.cert).unwrap();
        let known = inspect(&cert, None).unwrap();
        assert!(known.names.contains(&"fd00::1".to_owned()));
    }

    #[test]
    fn a_clock_that_is_not_set_makes_no_authority_that_has_ended_already() {
        let dir = tempfile::tempdir().unwrap();
        for now_secs in [0, 946_684_800, edge_core::clock::BUILT_SECS - 1] {
            let refused = init_at(options(dir.path()), now_secs).unwrap_err();
            assert!(refused.to_string().contains("Set the clock"), "{refused}");
            assert!(!dir.path().join("data").exists());
        }
        init_at(options(dir.path()), edge_core::clock::BUILT_SECS).unwrap();
    }

    #[test]
    fn nothing_is_overwritten_and_a_wrong_upstream_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = InitOptions { device_id: "other".parse().unwrap(), ..options(dir.path()) };
        assert!(matches!(init(wrong), Err(InitError::Device { .. })));
        assert!(matches!(
            init(InitOptions { upstream_ca: None, ..options(dir.path()) }),
            Err(InitError::NoCa)
        ));
        assert!(!dir.path().join("data").exists());
        init(options(dir.path())).unwrap();
        let before = std::fs::read(dir.path().join("data/ca.pem")).unwrap();
        assert!(matches!(init(options(dir.path())), Err(InitError::Exists { .. })));
        assert_eq!(std::fs::read(dir.path().join("data/ca.pem")).unwrap(), before);
    }
}
