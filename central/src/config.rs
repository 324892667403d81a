//! `central.toml`: what central listens on, what it is called, and how much it keeps.
//!
//! Every key may be overridden by an environment variable `CENTRAL__SECTION__KEY`; an unknown key is an error.
//!
//! ```toml
//! hostname = "central.example"     # in the server certificate and in devices' SAS tokens; default: the machine's name
//! data_dir = "/var/lib/central"
//! [http]
//! listen = "127.0.0.1:8080"        # REST API and status page; another address than loopback needs one of the next two lines
//! tls = false                      # true: HTTPS, with the certificate of `[tls]` unless cert and key stand here
//! behind_tls_proxy = false         # true: a proxy with TLS stands between this listener and everybody else
//! cert = "/etc/central/http.pem"   # of another authority, for the API alone; read again when it changes, and at SIGHUP
//! key = "/etc/central/http-key.pem"
//! public_url = "https://central.example.com"   # how clients reach the API, for addresses in its answers; the Host header of a
//!                                  # request when left out
//! connections_max = 256            # requests at once
//! connections_per_address = 128    # a proxy before central is one address
//! [mqtt]
//! mqtts = "0.0.0.0:8884"           # a gateway on the same machine has 8883; Azure SDKs of devices that connect to central itself
//!                                  # know 8883 only: write it where no gateway runs
//! mqtt = "127.0.0.1:1883"          # plain, loopback only; off when left out
//! wss = "0.0.0.0:443"              # MQTT over WebSocket over TLS; off when left out, SDKs know no other port
//! connections_max = 10000
//! [limits]                         # of one client of the front door; beyond them it waits or is refused, and is counted
//! connections_per_address = 10000  # as many as connections_max when left out
//! connects_per_second_per_address = 1000   # of an address from which nobody has logged in; 0 for no limit
//! unproven_connections = 1000      # that have not logged in yet, at once
//! messages_per_second = 200000     # 0 for no limit; a gateway is one client
//! bytes_per_second = 268435456
//! subscriptions = 100
//! in_flight = 100
//! publishers_wait_seconds = 10      # for the subscribers of one identity, which are closed then
//! connections_per_identity = 1000
//! sessions_per_identity = 1000     # that outlive their connection
//! retained_messages_per_identity = 1000
//! retained_bytes_per_identity = 8388608
//! subscription_bytes_per_identity = 8388608
//! packets_per_second = 400000      # beside PUBACK and PUBCOMP of what it was sent; 0 for no limit
//! filters_per_second = 500         # subscribed to or given up; 0 for no limit
//! [keep]
//! messages = 10000000              # of all devices together; the oldest go first
//! commands = 100000
//! bytes_per_device = 268435456     # of telemetry; a device's own oldest messages go first
//! bytes = 53687091200              # of all telemetry; the oldest of the device with the most go first; half of the disk when left out
//! free_bytes = 536870912           # with less left on the disk telemetry is refused, and gateways keep it; a twentieth of the disk,
//!                                  # 512 MB at most, when left out
//! [tls]
//! cert = "/etc/central/server.pem" # of another authority; read again when it changes, and at SIGHUP
//! key = "/etc/central/server-key.pem"   # central makes both for itself when they are left out
//! device_ca = ["/etc/central/devices.pem"]   # authorities that give certificates to devices; none when left out
//! [dps]
//! id_scope = "0ne00A1B2C3"         # of devices that enrol themselves; made at the first start when left out
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use edge_hub::limits::Limits;
use serde::Deserialize;

use crate::store::{Keep, Quotas};

/// The prefix of environment variables that override the file.
const OVERRIDE: &str = "CENTRAL__";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// central's name, in its server certificate and in the SAS tokens of devices.
    pub hostname: String,
    /// Where the store, the certificate authority and its key are.
    pub data_dir: PathBuf,
    /// REST API and status page.
    pub http: Http,
    /// The front door.
    pub mqtt: Mqtt,
    /// How much history is kept.
    pub keep: KeepConfig,
    /// Certificates.
    pub tls: Tls,
    /// Devices that enrol themselves.
    pub dps: Dps,
    /// What one client may ask of the front door.
    pub limits: Limits,
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The front door's chain, PEM; central's own when left out.
    pub cert: Option<PathBuf>,
    /// The key of its first certificate, PEM.
    pub key: Option<PathBuf>,
    /// Authorities that give certificates to devices, PEM files.
    pub device_ca: Vec<PathBuf>,
}

/// `[dps]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dps {
    /// The site's ID scope; made at the first start when left out.
    pub id_scope: Option<String>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where the API listens. Each request carries a token, so an address other than loopback needs `tls` or
    /// `behind_tls_proxy`.
    pub listen: SocketAddr,
    /// Whether it speaks HTTPS, and nothing else.
    pub tls: bool,
    /// Certificate chain of the API alone, PEM; that of `[tls]` when left out.
    pub cert: Option<PathBuf>,
    /// The key of its first certificate, PEM.
    pub key: Option<PathBuf>,
    /// The operator's word that only a proxy with TLS reaches the listener, which may then have another address.
    pub behind_tls_proxy: bool,
    /// How clients reach the API: what addresses in its answers begin with. The Host header of a request when left out.
    pub public_url: Option<String>,
    /// Requests at once; each has a connection of its own.
    pub connections_max: usize,
    /// Of one client address.
    pub connections_per_address: usize,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// MQTT over TLS.
    pub mqtts: SocketAddr,
    /// Plain MQTT; a loopback address.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    pub wss: Option<SocketAddr>,
    /// Clients connected at once.
    pub connections_max: usize,
}

/// `[keep]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Telemetry messages of all devices together.
    pub messages: u64,
    /// Commands of all devices together.
    pub commands: u64,
    /// Telemetry of one device with its modules.
    pub bytes_per_device: u64,
    /// Telemetry of all devices together; half of the file system when left out.
    pub bytes: Option<u64>,
    /// Left free on the file system; a twentieth of it, 512 MB at most, when left out.
    pub free_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: edge_hub::machine::name().unwrap_or_else(|| "localhost".to_owned()),
            data_dir: "/var/lib/central".into(),
            http: Http::default(),
            mqtt: Mqtt::default(),
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

impl Default for KeepConfig {
    fn default() -> Self {
        let Quotas { device_bytes, total_bytes, free_bytes } = Quotas::default();
        Self {
            messages: 10_000_000,
            commands: 100_000,
            bytes_per_device: device_bytes,
            bytes: total_bytes,
            free_bytes,
        }
    }
}

impl KeepConfig {
    /// As the store takes it.
    pub fn limits(&self) -> Keep {
        Keep { messages: self.messages, commands: self.commands }
    }

    /// As the store takes it.
    pub fn quotas(&self) -> Quotas {
        Quotas { device_bytes: self.bytes_per_device, total_bytes: self.bytes, free_bytes: self.free_bytes }
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
    /// The file is not TOML.
    #[error("the configuration {path} is not TOML: {why}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A key is unknown or its value is wrong.
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
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?,
        };
        let mut table: toml::Table = text.parse().map_err(|why: toml::de::Error| ConfigError::Toml {
            path: file.unwrap_or(Path::new("")).to_owned(),
            why: why.to_string(),
        })?;
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(OVERRIDE) {
                put(&mut table, &key.to_lowercase(), value)?;
            }
        }
        let config: Self = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Key { key, why: error.into_inner().message().to_owned() }
        })?;
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
        match config.mqtt.mqtt {
            Some(plain) if !plain.ip().is_loopback() => Err(ConfigError::Key {
                key: "mqtt.mqtt".into(),
                why: format!(
                    "found {plain}; plain MQTT is for loopback addresses, use mqtt.mqtts for others"
                ),
            }),
            _ => Ok(config),
        }
    }
}

fn is_public_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !url.contains('#')
}

/// Sets `section__key` to a value: a whole number, `true` or `false` where it reads as one, a text otherwise.
fn put(table: &mut toml::Table, key: &str, value: String) -> Result<(), ConfigError> {
    let value = match (value.parse(), value.parse()) {
        (Ok(number), _) => toml::Value::Integer(number),
        (_, Ok(flag)) => toml::Value::Boolean(flag),
        _ => toml::Value::String(value),
    };
    match key.split_once("__") {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, key)) => {
            let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match entry {
                toml::Value::Table(section) => put(section, key, value_text(value)),
                _ => Err(ConfigError::Key {
                    key: section.to_owned(),
                    why: "found a value, not a section".into(),
                }),
            }
        }
    }
}

fn value_text(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
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
