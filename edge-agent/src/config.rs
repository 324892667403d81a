//! `edge.toml`: what it may say, its defaults, and the environment variables that override it.
//!
//! Every key may be overridden by `EDGE_AGENT__SECTION__KEY` (or `EDGE_AGENT__KEY` at the top), see [`edge_hub::config_file`].
//! docs/configuration.md lists all keys.

mod file;
mod sections;
mod setting_error;
mod upstream;
mod upstream_file;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use edge_hub::config_file::{self, ConfigFileError};
use edge_hub::limits::Limits;
use edge_tls::input_file;
use schemas::host_name::HostName;
use schemas::names::{DeviceId, UserName};

use self::file::File;
pub use self::sections::{BufferSection, DeploySection, DockerSection, HTTPS_DEFAULT, QueueSection};
pub use self::setting_error::SettingError;
pub use self::upstream::{Broker, Kind, Password, Properties, ProxyChoice, Transport, Upstream};

const OVERRIDE: &str = "EDGE_AGENT__";

/// The daemon's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This gateway, as central knows it.
    pub device_id: DeviceId,
    /// The name under which leaf devices and modules reach it.
    pub hostname: String,
    /// Keys, state and queues.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listen: Listen,
    /// Where telemetry goes; `None` for a gateway without an upstream.
    pub upstream: Option<Upstream>,
    /// The Docker Engine.
    pub docker: DockerSection,
    /// Where manifests come from beside central.
    pub deploy: DeploySection,
    /// Limits of the queues.
    pub buffer: BufferSection,
    /// Certificates.
    pub tls: TlsSection,
    /// What one client may ask of the MQTT server.
    pub limits: Limits,
    /// The file that it was read from.
    pub file: PathBuf,
    /// CRC-32C of the file: tells whether it was changed since.
    pub crc32c: u32,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// MQTT over TLS.
    pub mqtts: SocketAddr,
    /// Plain MQTT, on loopback only; `None` when it is set to an empty text.
    pub mqtt: Option<SocketAddr>,
    /// The local user that a client of `mqtt` is which gives neither user name nor password; `None` when every client must.
    pub anonymous_user: Option<UserName>,
    /// MQTT over WebSocket and the modules' method API; `None` when it is set to an empty text.
    pub https: Option<SocketAddr>,
    /// AMQP 1.0 over TLS; `None` when it is set to an empty text.
    pub amqps: Option<SocketAddr>,
    /// Metrics for Prometheus, on loopback only; `None` when it is set to an empty text.
    pub metrics: Option<SocketAddr>,
    /// Clients connected at once, over all listeners.
    pub connections_max: usize,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq)]
pub struct TlsSection {
    /// The gateway's authority, which leaf devices and modules trust, PEM.
    pub ca: PathBuf,
    /// The server's certificate and its chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The key of the gateway's authority, PEM; makes certificates for the server and for modules.
    pub ca_key: PathBuf,
    /// Authorities that give certificates to leaf devices (`--x509-ca`), PEM files.
    pub device_ca: Vec<PathBuf>,
}

/// Why the configuration cannot be used. The message names the file and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file, or no right to read it.
    #[error("{path}: cannot be read; write it with `edge-agent init`, or name another with --config")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No TOML, or a key that does not exist, is missing, or is of another type.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// A value that cannot be used.
    #[error("{path}")]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What was found where.
        #[source]
        source: SettingError,
    },
}

impl Config {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file or the variable, and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = input_file::read_text(path, input_file::SMALL_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::read(path, &text, std::env::vars_os())
    }

    fn read(
        path: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let file: File = config_file::read(path, text, OVERRIDE, variables)?;
        let config =
            Self::from_file(file).map_err(|source| ConfigError::Wrong { path: path.to_owned(), source })?;
        Ok(Self { file: path.to_owned(), crc32c: crc32c::crc32c(text.as_bytes()), ..config })
    }

    fn from_file(file: File) -> Result<Self, SettingError> {
        file.buffer.check()?;
        file.deploy.policy.validate()?;
        let https = address("[listen] https", &file.listen.https)?;
        let amqps = address("[listen] amqps", &file.listen.amqps)?;
        let mqtt = loopback_address(
            "[listen] mqtt",
            &file.listen.mqtt,
            "plain MQTT is served on loopback only, others use mqtts",
        )?;
        let metrics = loopback_address(
            "[listen] metrics",
            &file.listen.metrics,
            "metrics are served without TLS and password, on loopback only; others reach them through a proxy with both",
        )?;
        let anonymous_user = match file.listen.anonymous_user.as_str() {
            "" => None,
            _ if mqtt.is_none() => {
                return Err(SettingError::new(
                    "[listen] anonymous_user",
                    "it is for clients of [listen] mqtt, which is off",
                ));
            }
            name => Some(
                name.parse().map_err(|error| SettingError::unreadable("[listen] anonymous_user", error))?,
            ),
        };
        let upstream = file.upstream.read(&file.device_id)?;
        let hostname: HostName =
            file.hostname.parse().map_err(|error| SettingError::unreadable("hostname", error))?;
        let in_data_dir = |name: &str| file.data_dir.join(name);
        Ok(Self {
            tls: TlsSection {
                ca: file.tls.ca.unwrap_or_else(|| in_data_dir("ca.pem")),
                cert: file.tls.cert.unwrap_or_else(|| in_data_dir("server.pem")),
                key: file.tls.key.unwrap_or_else(|| in_data_dir("server-key.pem")),
                ca_key: file.tls.ca_key.unwrap_or_else(|| in_data_dir("ca-key.pem")),
                device_ca: file.tls.device_ca,
            },
            device_id: file.device_id,
            hostname: hostname.into(),
            data_dir: file.data_dir,
            listen: Listen {
                mqtts: file.listen.mqtts,
                mqtt,
                anonymous_user,
                https,
                amqps,
                metrics,
                connections_max: file.listen.connections_max,
            },
            upstream,
            docker: file.docker,
            deploy: file.deploy,
            buffer: file.buffer,
            limits: file.limits,
            file: PathBuf::new(),
            crc32c: 0,
        })
    }
}

/// Reads the address of a listener; `None` for an empty text.
fn address(key: &'static str, text: &str) -> Result<Option<SocketAddr>, SettingError> {
    if text.is_empty() {
        return Ok(None);
    }
    let problem = || format!("found `{text}`; write address:port, or \"\" for none");
    text.parse().map(Some).map_err(|_| SettingError::new(key, problem()))
}

/// Reads the address of a listener without TLS; `why` says why it must be a loopback one.
fn loopback_address(key: &'static str, text: &str, why: &str) -> Result<Option<SocketAddr>, SettingError> {
    match address(key, text)? {
        Some(address) if !address.ip().is_loopback() => {
            Err(SettingError::new(key, format!("found `{text}`; {why}")))
        }
        address => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_core::deploy::policy::{Permitted, Policy};
    use edge_core::error_chain::chain;
    use edge_hub::config_file::keys::{self, Kind};
    use schemas::manifest::WhenFull;

    #[test]
    fn a_line_that_cannot_be_read_is_reported_by_its_number_and_not_by_its_text() {
        let error = read(&format!("{TEXT}[upstream]\nconnection_string = \"SharedAccessKey=SECRET\n"), &[]);
        let error = error.unwrap_err();
        assert!(error.contains("line 5") && !error.contains("SECRET"), "{error}");
    }

    const TEXT: &str = "device_id = \"gw\"\nhostname = \"edge\"\ndata_dir = \"/data\"\n";

    fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Config, String> {
        let overrides = overrides.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Config::read(Path::new("edge.toml"), text, overrides).map_err(|error| chain(&error).to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default_and_the_environment_overrides_the_file() {
        let config = read(TEXT, &[]).unwrap();
        assert_eq!(config.listen.mqtts.port(), 8883);
        assert_eq!(config.listen.mqtt.unwrap().to_string(), "127.0.0.1:1883");
        assert_eq!(config.listen.https.unwrap().to_string(), "0.0.0.0:443");
        assert_eq!(config.listen.metrics.unwrap().to_string(), "127.0.0.1:9600");
        assert_eq!(config.docker.network, "azure-iot-edge");
        assert_eq!(config.tls.ca, Path::new("/data/ca.pem"));
        assert_eq!((config.upstream, config.buffer.full), (None, WhenFull::DropOldest));
        let config = read(
            &format!("{TEXT}[buffer]\nmax_bytes = 2000000\nfull = \"refuse\"\n"),
            &[
                ("EDGE_AGENT__BUFFER__MAX_BYTES", "3000000"),
                ("EDGE_AGENT__HOSTNAME", "other"),
                ("EDGE_AGENT__DEVICE_ID", "123"),
                ("EDGE_AGENT__LISTEN__MQTT", ""),
                ("EDGE_AGENT__LISTEN__HTTPS", ""),
                ("EDGE_AGENT__LISTEN__METRICS", ""),
                ("EDGE_AGENT__DEPLOY__POLICY__PRIVILEGED", "false"),
                ("EDGE_AGENT__DEPLOY__POLICY__HOST_MOUNTS", "/srv, /data"),
                ("EDGE_AGENT__DEPLOY__POLICY__CAPABILITIES", "none"),
            ],
        )
        .unwrap();
        assert_eq!((config.buffer.max_bytes, config.buffer.full), (3_000_000, WhenFull::Refuse));
        assert_eq!((config.hostname.as_str(), config.listen.mqtt), ("other", None));
        assert_eq!((config.listen.https, config.listen.metrics), (None, None));
        assert_eq!(config.device_id.as_str(), "123");
        assert_eq!(config.listen.anonymous_user, None, "nobody is anonymous unless it is said");
        let variable = [("EDGE_AGENT__LISTEN__ANONYMOUS_USER", "floor")];
        assert_eq!(read(TEXT, &variable).unwrap().listen.anonymous_user, Some("floor".parse().unwrap()));
        let policy = Policy {
            privileged: false,
            host_mounts: Permitted::Only(vec!["/srv".to_owned(), "/data".to_owned()]),
            capabilities: Permitted::Only(Vec::new()),
            ..Policy::default()
        };
        assert_eq!(config.deploy.policy, policy);
    }

    #[test]
    fn a_mistake_is_reported_with_its_file_or_variable_and_its_key() {
        for (text, overrides, parts) in [
            (format!("{TEXT}[listen]\nmqts = \"1\"\n"), vec![], vec!["edge.toml", "mqts"]),
            (
                format!("{TEXT}[deploy.policy]\ndevices = [\"sda\"]\n"),
                vec![],
                vec!["[deploy.policy] devices", "`sda`"],
            ),
            (format!("{TEXT}[deploy.policy]\nprivilegd = false\n"), vec![], vec!["privilegd"]),
            (
                format!("{TEXT}[listen]\nanonymous_user = \"a b\"\n"),
                vec![],
                vec!["[listen] anonymous_user", "` `"],
            ),
            (
                format!("{TEXT}[listen]\nmqtt = \"\"\nanonymous_user = \"floor\"\n"),
                vec![],
                vec!["[listen] anonymous_user", "[listen] mqtt"],
            ),
            (format!("{TEXT}[listn]\n"), vec![], vec!["edge.toml", "listn"]),
            (format!("{TEXT}[listen]\nhttps = \"443\"\n"), vec![], vec!["[listen] https", "`443`"]),
            (format!("{TEXT}[listen]\nmqtt = \"0.0.0.0:1883\"\n"), vec![], vec!["[listen] mqtt", "loopback"]),
            (
                format!("{TEXT}[listen]\nmetrics = \"0.0.0.0:9600\"\n"),
                vec![],
                vec!["[listen] metrics", "loopback"],
            ),
            (format!("{TEXT}[listen]\nmetrics = \"9600\"\n"), vec![], vec!["[listen] metrics", "`9600`"]),
            (
                format!(
                    "{TEXT}[upstream]\nconnection_string = \"HostName=h;DeviceId=x;SharedAccessKey=YQ==\"\n"
                ),
                vec![],
                vec!["[upstream] connection_string", "DeviceId=x", "gw"],
            ),
            (
                TEXT.to_owned(),
                vec![("EDGE_AGENT__DOCKER__NETWRK", "a")],
                vec!["EDGE_AGENT__DOCKER__NETWRK", "netwrk"],
            ),
            (TEXT.replace("\"edge\"", "\"edge:1\""), vec![], vec!["hostname", "edge:1"]),
            (TEXT.replace("\"edge\"", "\" \""), vec![], vec!["hostname", "blank"]),
            (TEXT.replace("\"gw\"", "\"g w\""), vec![], vec!["edge.toml", "g w"]),
            (format!("{TEXT}[buffer]\nmax_bytes = \"1\"\n"), vec![], vec!["line 5"]),
            (format!("{TEXT}[buffer]\nfull = \"no\"\n"), vec![], vec!["line 5", "drop-oldest"]),
            (format!("{TEXT}[buffer]\nmax_bytes = 1000\n"), vec![], vec!["[buffer] max_bytes", "1000"]),
            (
                format!("{TEXT}[buffer.queues.\"upstream@3\"]\nmax_bytes = 5\n"),
                vec![],
                vec!["[buffer.queues.\"upstream@3\"] max_bytes", "found 5"],
            ),
            (
                format!("{TEXT}[buffer.queues.input]\n"),
                vec![],
                vec!["[buffer.queues.\"input\"]", "inputs/MODULE"],
            ),
            (format!("{TEXT}[buffer.queues.upstream]\nfull = \"refuse\"\n"), vec![], vec!["full"]),
        ] {
            let error = read(&text, &overrides).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{error} should name {part}");
            }
        }
    }

    /// Numbers that no key takes, as a variable has them.
    const NO_NUMBERS: &[&str] = &[
        "-1",
        "-9223372036854775808",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1.5",
        "1e9",
        "1e400",
        "NaN",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "0x10",
        "1_000",
        "1,000",
        "1 000",
        "--1",
        "\u{663}",
        "\u{ff17}",
        "\u{b2}",
        " ",
        "null",
        "true",
    ];
    /// Of these, what TOML reads as a number that may be one.
    const NUMBERS_IN_TOML: &[&str] = &["0x10", "1_000"];

    #[test]
    fn what_is_no_number_is_refused_by_each_key_that_takes_one_and_the_key_is_named() {
        let keys = keys::keys::<File>();
        let numbers: Vec<_> =
            keys.iter().filter(|key| matches!(key.kind, Kind::Integer | Kind::Number)).collect();
        assert!(numbers.len() > 25, "{}", numbers.len());
        let upstream =
            "connection_string = \"HostName=hub:8884;DeviceId=gw;SharedAccessKey=YQ==\"\nca = \"/ca.pem\"\n";
        for key in numbers {
            let path = key.path.replace(".NAME.", ".upstream.");
            let variable = key.variable(OVERRIDE).replace("__NAME__", "__UPSTREAM__");
            let (section, name) = path.rsplit_once('.').unwrap_or(("", &path));
            let in_file = |value: &str| {
                let (own, more) = match section {
                    "upstream" => ("", format!("[upstream]\n{upstream}{name} = {value}\n")),
                    section => (upstream, format!("[{section}]\n{name} = {value}\n")),
                };
                let own = if own.is_empty() { String::new() } else { format!("[upstream]\n{own}") };
                read(&format!("{TEXT}{own}{more}"), &[])
            };
            for value in NO_NUMBERS {
                let error = read(&format!("{TEXT}[upstream]\n{upstream}"), &[(&variable, value)]);
                let error = error.expect_err(&format!("{variable}={value}"));
                assert!(error.contains(&variable) && error.contains(name), "{variable}={value}: {error}");
                if NUMBERS_IN_TOML.contains(value) {
                    continue;
                }
                let error = in_file(value).expect_err(&format!("{path} = {value}"));
                let is_named = error.contains(name) || error.contains("line");
                assert!(is_named && error.contains("edge.toml"), "{path} = {value}: {error}");
                // As a text, it is no number either.
                let error = in_file(&format!("\"{value}\"")).expect_err(&format!("{path} = \"{value}\""));
                assert!(error.contains(name), "{path} = \"{value}\": {error}");
            }
            for value in ["0", "1", "4294967296", "9007199254740992"] {
                // Taken in one way is taken in the other, or the key is named.
                let by_file = in_file(value);
                let by_variable = read(&format!("{TEXT}[upstream]\n{upstream}"), &[(&variable, value)]);
                assert_eq!(by_file.is_ok(), by_variable.is_ok(), "{path} = {value}");
                for error in [by_file.err(), by_variable.err()].into_iter().flatten() {
                    assert!(error.contains(name), "{path} = {value}: {error}");
                }
            }
        }
    }
}
