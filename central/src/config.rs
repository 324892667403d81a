//! `central.toml`: what central listens on, what it is called, and how much it keeps.
//!
//! Every key may be overridden by an environment variable `CENTRAL__SECTION__KEY`, see [`edge_hub::config_file`].
//! docs/configuration.md is made of these types: their docstrings are the meanings of the keys.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use edge_hub::config_file::{self, ConfigFileError};
use edge_hub::limits::Limits;
use edge_tls::input_file;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::audit::entry::AuditLimits;
use crate::store::{Keep, Quotas};

/// The prefix of environment variables that override the file.
const OVERRIDE: &str = "CENTRAL__";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// central's name, in its server certificate and in the SAS tokens of devices.
    #[schemars(extend("x-default" = "the machine's name"))]
    pub hostname: String,
    /// Directory of the store, the certificate authority and its key.
    pub data_dir: PathBuf,
    /// REST API and status page.
    pub http: Http,
    /// The MQTT server.
    pub mqtt: Mqtt,
    /// Metrics for Prometheus.
    pub metrics: MetricsConfig,
    /// How much history is kept.
    pub keep: KeepConfig,
    /// Certificates.
    pub tls: Tls,
    /// Devices that enrol themselves.
    pub dps: Dps,
    /// What one client may ask of the MQTT server.
    pub limits: Limits,
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The MQTT listener's certificate chain, PEM; one of central's own authority when left out. Read again when it changes, and at SIGHUP.
    pub cert: Option<PathBuf>,
    /// The key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// Certificate authorities of devices, PEM files.
    pub device_ca: Vec<PathBuf>,
}

/// `[dps]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dps {
    /// ID scope of devices that enrol themselves: 1 to 64 letters, digits and `-`.
    #[schemars(extend("x-default" = "made at the first start"))]
    pub id_scope: Option<String>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port of the REST API and the status page. Each request carries a token, so an address other than loopback needs
    /// `tls` or `behind_tls_proxy`.
    pub listen: SocketAddr,
    /// Whether the API speaks HTTPS, and nothing else.
    pub tls: bool,
    /// Certificate chain of the API alone, PEM; that of `[tls]` when left out.
    pub cert: Option<PathBuf>,
    /// The key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// Whether only a proxy with TLS reaches `listen`, which may then have any address.
    pub behind_tls_proxy: bool,
    /// How clients reach the API, for example `https://central.example.com`: what addresses in its answers begin with. Left out, they
    /// begin with the Host header of the request.
    pub public_url: Option<String>,
    /// Requests at once; each has a connection of its own.
    #[serde(deserialize_with = "config_file::connections")]
    pub connections_max: usize,
    /// Requests at once from one address; a proxy before central is one address.
    #[serde(deserialize_with = "config_file::connections")]
    pub connections_per_address: usize,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Address and port of MQTT over TLS. A gateway on the same machine has 8883; Azure SDKs of devices that connect to central itself
    /// know 8883 only.
    pub mqtts: SocketAddr,
    /// Address and port of plain MQTT, on loopback only; off when left out.
    pub mqtt: Option<SocketAddr>,
    /// Address and port of MQTT over WebSocket over TLS; off when left out. Azure SDKs know port 443 only.
    pub wss: Option<SocketAddr>,
    /// Clients connected at once.
    #[serde(deserialize_with = "config_file::connections")]
    pub connections_max: usize,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Address and port of metrics for Prometheus (`GET /metrics`), on loopback only; `""` for none.
    #[serde(deserialize_with = "address_or_none")]
    #[schemars(with = "String", extend("x-default" = "`127.0.0.1:9610`"))]
    pub listen: Option<SocketAddr>,
}

/// Reads an address; `None` for an empty text.
fn address_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let problem = |_| D::Error::custom(format!("found `{text}`; write address:port, or \"\" for none"));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(problem) }
}

/// `[keep]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Telemetry messages of all devices together; beyond, the oldest go.
    pub messages: u64,
    /// Commands of all devices together; beyond, the oldest go.
    pub commands: u64,
    /// Rows of the audit log for changes. Refusals, and what people do about themselves, have a tenth of that many each. Beyond, the oldest go.
    pub audit_rows: u64,
    /// Days that a row of the audit log is kept.
    pub audit_days: u32,
    /// Telemetry of one device with its modules; beyond, its oldest messages go.
    pub bytes_per_device: u64,
    /// Telemetry of all devices together; beyond, the oldest of the device with the most go.
    #[schemars(extend("x-default" = "half of the file system"))]
    pub bytes: Option<u64>,
    /// Left free on the file system: with less, telemetry is refused, and gateways keep it.
    #[schemars(extend("x-default" = "a twentieth of the file system, 512 MB at most"))]
    pub free_bytes: Option<u64>,
    /// Numbers over time of all devices together; beyond, the oldest of the device with the most go.
    #[schemars(extend("x-default" = "a quarter of the file system"))]
    pub series_bytes: Option<u64>,
    /// Days after which numbers over time go.
    #[schemars(extend("x-default" = "never"))]
    pub series_days: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: edge_hub::machine::name().unwrap_or_else(|| "localhost".to_owned()),
            data_dir: "/var/lib/central".into(),
            http: Http::default(),
            mqtt: Mqtt::default(),
            metrics: MetricsConfig::default(),
            keep: KeepConfig::default(),
            tls: Tls::default(),
            dps: Dps::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        Self {
            listen,
            tls: false,
            cert: None,
            key: None,
            behind_tls_proxy: false,
            public_url: None,
            connections_max: 256,
            connections_per_address: 128,
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self { mqtts: SocketAddr::from(([0, 0, 0, 0], 8884)), mqtt: None, wss: None, connections_max: 10_000 }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9610))) }
    }
}

impl Default for KeepConfig {
    fn default() -> Self {
        let Quotas { device_bytes, total_bytes, free_bytes, series_bytes, series_days } = Quotas::default();
        Self {
            messages: 10_000_000,
            commands: 100_000,
            audit_rows: 200_000,
            audit_days: 365,
            bytes_per_device: device_bytes,
            bytes: total_bytes,
            free_bytes,
            series_bytes,
            series_days,
        }
    }
}

impl KeepConfig {
    /// As the store takes it.
    pub fn limits(&self) -> Keep {
        Keep { messages: self.messages, commands: self.commands }
    }

    /// As the audit log takes it.
    pub fn audit_limits(&self) -> AuditLimits {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        AuditLimits {
            rows: self.audit_rows,
            // Anybody can cause refusals, so they have a limit of their own and never push out changes.
            refused_rows: self.audit_rows / 10,
            age_ms: u64::from(self.audit_days) * DAY_MS,
        }
    }

    /// As the store takes it.
    pub fn quotas(&self) -> Quotas {
        Quotas {
            device_bytes: self.bytes_per_device,
            total_bytes: self.bytes,
            free_bytes: self.free_bytes,
            series_bytes: self.series_bytes,
            series_days: self.series_days,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML, or a key does not exist or is of another type.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// A value cannot be used.
    #[error("configuration, `{key}`: {why}")]
    Key {
        /// For example `mqtt.mqtts`.
        key: String,
        /// What was found and what is allowed.
        why: String,
    },
}

impl Config {
    /// Reads the file (the defaults when there is none given) and the overriding variables.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file or the key.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => input_file::read_text(path, input_file::SMALL_BYTES_MAX)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?,
        };
        let config: Self = config_file::read(file.unwrap_or(Path::new("")), &text, OVERRIDE, variables)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let config = self;
        for (section, cert, key) in
            [("tls", &config.tls.cert, &config.tls.key), ("http", &config.http.cert, &config.http.key)]
        {
            if cert.is_some() != key.is_some() {
                let why = "found one of cert and key; write both or neither".to_owned();
                return Err(ConfigError::Key { key: section.into(), why });
            }
        }
        if config.http.cert.is_some() && !config.http.tls {
            let why = "found a certificate, and http.tls is false; set http.tls = true".to_owned();
            return Err(ConfigError::Key { key: "http.cert".into(), why });
        }
        if let Some(scope) = config.dps.id_scope.as_ref().filter(|scope| {
            scope.is_empty()
                || scope.len() > 64
                || !scope.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        }) {
            let why = format!("found `{scope}`; write 1 to 64 letters, digits and -");
            return Err(ConfigError::Key { key: "dps.id_scope".into(), why });
        }
        let is_secure = config.http.tls || config.http.behind_tls_proxy;
        if !config.http.listen.ip().is_loopback() && !is_secure {
            let why = format!(
                "found {}; plain HTTP is for loopback addresses, because each request carries a token. Set http.tls = true, or \
                 http.behind_tls_proxy = true when only a proxy with TLS reaches this address",
                config.http.listen
            );
            return Err(ConfigError::Key { key: "http.listen".into(), why });
        }
        if let Some(url) = config.http.public_url.as_ref().filter(|url| !is_public_url(url)) {
            let why = format!(
                "found `{url}`; write http:// or https://, a host, and a path if there is one, no query"
            );
            return Err(ConfigError::Key { key: "http.public_url".into(), why });
        }
        if let Some(address) = config.metrics.listen.filter(|address| !address.ip().is_loopback()) {
            let why = format!(
                "found {address}; metrics are served without TLS and password, on loopback only; others reach them through a \
                 proxy with both"
            );
            return Err(ConfigError::Key { key: "metrics.listen".into(), why });
        }
        match config.mqtt.mqtt {
            Some(plain) if !plain.ip().is_loopback() => Err(ConfigError::Key {
                key: "mqtt.mqtt".into(),
                why: format!(
                    "found {plain}; plain MQTT is for loopback addresses, use mqtt.mqtts for others"
                ),
            }),
            _ => Ok(()),
        }
    }
}

fn is_public_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else { return false };
    // `Uri` drops what follows a `#` without an error, so the text is searched for it.
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !url.contains('#')
}

#[cfg(test)]
mod tests {
    use edge_hub::config_file::keys;

    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), variables.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn a_variable_overrides_the_file_and_the_file_the_defaults() {
        let config = load(
            "hostname = \"file\"\n[http]\nlisten = \"127.0.0.1:1\"\n[keep]\nmessages = 5",
            &[
                ("CENTRAL__HTTP__LISTEN", "127.0.0.1:2"),
                ("CENTRAL__KEEP__COMMANDS", "7"),
                ("CENTRAL__LIMITS__SUBSCRIPTIONS", "3"),
                ("CENTRAL__MQTT__MQTT", "127.0.0.1:1883"),
                ("PATH", "x"),
            ],
        )
        .unwrap();
        assert_eq!(config.hostname, "file");
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.keep, KeepConfig { messages: 5, commands: 7, ..KeepConfig::default() });
        assert_eq!(config.limits, Limits { subscriptions: 3, ..Limits::default() });
        assert_eq!(config.mqtt.mqtts.port(), 8884);
        assert!(config.mqtt.mqtt.is_some());
    }

    /// Every key, by file and by variable; a text may look like a number.
    #[test]
    fn every_key_means_the_same_in_the_file_and_in_the_environment() {
        let all = keys::keys::<Config>();
        assert!(all.len() > 35, "{}", all.len());
        let read = |text: &str, variables: &[(String, String)]| -> Config {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            config_file::read(Path::new("central.toml"), text, OVERRIDE, variables)
                .unwrap_or_else(|e| panic!("{e}"))
        };
        for key in all {
            let (in_file, in_variable) = match key.path.as_str() {
                "http.listen" | "mqtt.mqtts" | "mqtt.mqtt" | "mqtt.wss" | "metrics.listen" => {
                    ("\"[::1]:5\"".to_owned(), "[::1]:5".to_owned())
                }
                _ => key.sample(),
            };
            let by_file = read(&format!("{} = {in_file}", key.path), &[]);
            assert!(by_file != Config::default(), "{} has no effect", key.path);
            assert_eq!(read("", &[(key.variable(OVERRIDE), in_variable)]), by_file, "{}", key.path);
        }
    }

    /// `LINESIDE_WRITE_GOLDEN=1 cargo test -p central --lib configuration_page` writes the page anew.
    #[test]
    fn the_configuration_page_lists_the_keys_of_the_types() {
        const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let keys = keys::keys::<Config>();
        assert!(keys.iter().all(|key| !key.meaning.is_empty()), "each key has a meaning");
        let page = std::fs::read_to_string(PAGE).unwrap();
        let written = keys::with_block(&page, "central.toml", &keys::tables(&keys, OVERRIDE)).unwrap();
        if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
            std::fs::write(PAGE, &written).unwrap();
        }
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(
            page == written,
            "docs/configuration.md is not what the types say: write it anew as this test tells"
        );
    }

    /// Every whole number at the ends of what can be written: it is refused by the name of its key, or central starts with it.
    #[tokio::test]
    async fn no_number_of_any_key_ends_central_by_a_panic() {
        let integers = keys::keys::<Config>().into_iter().filter(|key| key.kind == keys::Kind::Integer);
        let integers: Vec<_> = integers.collect();
        assert!(integers.len() > 20, "{}", integers.len());
        for value in
            ["0", "1", "4294967296", "9007199254740992", "9223372036854775807", "18446744073709551615"]
        {
            let mut taken = Vec::new();
            for key in &integers {
                let variable = key.variable(OVERRIDE);
                match load("", &[(&variable, value)]) {
                    Ok(_) => taken.push((variable, value)),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains(&format!("`{}`", key.path)), "{error}");
                        let text = format!("{} = {value}", key.path);
                        assert!(load(&text, &[]).is_err(), "{text}");
                    }
                }
            }
            assert!(value.len() > 16 || taken.len() > 5, "{value}");
            let variables: Vec<_> =
                taken.iter().map(|(variable, value)| (variable.as_str(), *value)).collect();
            let dir = tempfile::tempdir().unwrap();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut config = load("", &variables).unwrap();
            config.data_dir = dir.path().to_owned();
            config.metrics.listen = None;
            (config.http.listen, config.mqtt.mqtts) = (any, any);
            let stop = tokio_util::sync::CancellationToken::new();
            let started = crate::server::start(config, stop.clone()).await;
            let started = started.unwrap_or_else(|error| panic!("{value}: {error:#}"));
            stop.cancel();
            started.ended().await.unwrap();
        }
    }

    #[test]
    fn an_unknown_key_or_a_wrong_value_is_an_error_that_names_it() {
        let error = |text: &str, variables: &[(&str, &str)]| load(text, variables).unwrap_err().to_string();
        let unknown = error("[http]\nlistn = \"127.0.0.1:1\"", &[]);
        assert!(unknown.contains("`http") && unknown.contains("listn"), "{unknown}");
        let unknown = error("", &[("CENTRAL__MQTT__PORT", "1")]);
        assert!(unknown.contains("mqtt") && unknown.contains("port"), "{unknown}");
        let wrong = error("[mqtt]\nmqtts = \"8883\"", &[]);
        assert!(wrong.contains("`mqtt.mqtts`"), "{wrong}");
        let open = error("[mqtt]\nmqtt = \"0.0.0.0:1883\"", &[]);
        assert!(open.contains("loopback"), "{open}");
        for open in ["0.0.0.0:8080", "[::]:8080", "192.0.2.7:80"] {
            let refused = error(&format!("[http]\nlisten = \"{open}\""), &[]);
            assert!(refused.contains("`http.listen`") && refused.contains("behind_tls_proxy"), "{refused}");
            let refused = error("", &[("CENTRAL__HTTP__LISTEN", open)]);
            assert!(refused.contains("TLS"), "{refused}");
            let text = format!("[http]\nlisten = \"{open}\"\nbehind_tls_proxy = true");
            assert_eq!(load(&text, &[]).unwrap().http.listen.to_string(), open);
            for secure in ["CENTRAL__HTTP__BEHIND_TLS_PROXY", "CENTRAL__HTTP__TLS"] {
                assert!(load("", &[("CENTRAL__HTTP__LISTEN", open), (secure, "true")]).is_ok());
            }
        }
        for url in ["central", "ftp://central", "https://central?x", "/central"] {
            let refused = error(&format!("[http]\npublic_url = \"{url}\""), &[]);
            assert!(refused.contains("`http.public_url`") && refused.contains(url), "{refused}");
        }
        assert!(load("", &[("CENTRAL__HTTP__PUBLIC_URL", "https://central.test/x/")]).is_ok());
        for (section, text) in
            [("`tls`", "[tls]\ncert = \"/a\""), ("`http`", "[http]\ntls = true\nkey = \"/a\"")]
        {
            let half = error(text, &[]);
            assert!(half.contains(section) && half.contains("both"), "{half}");
        }
        let unused = error("[http]\ncert = \"/a\"\nkey = \"/b\"", &[]);
        assert!(unused.contains("`http.cert`") && unused.contains("http.tls = true"), "{unused}");
    }
}
