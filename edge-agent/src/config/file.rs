//! `edge.toml` as it is written. docs/configuration.md is made of these types: their docstrings are the meanings of the keys.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use edge_hub::limits::Limits;
use schemars::JsonSchema;
use schemas::names::DeviceId;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::sections::{BufferSection, DeploySection, DockerSection, HTTPS_DEFAULT};
use super::upstream_file::FileUpstream;

#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The gateway's device id, as central knows it.
    #[schemars(with = "String")]
    pub(super) device_id: DeviceId,
    /// DNS name or address under which leaf devices and modules reach the gateway. Its certificate has this name.
    pub(super) hostname: String,
    /// Directory of keys, state and queues.
    pub(super) data_dir: PathBuf,
    #[serde(default)]
    pub(super) listen: FileListen,
    #[serde(default)]
    pub(super) upstream: FileUpstream,
    #[serde(default)]
    pub(super) docker: DockerSection,
    #[serde(default)]
    pub(super) deploy: DeploySection,
    #[serde(default)]
    pub(super) buffer: BufferSection,
    #[serde(default)]
    pub(super) tls: FileTls,
    #[serde(default)]
    pub(super) limits: Limits,
}

#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileListen {
    /// Address and port of MQTT over TLS. Azure's SDKs know port 8883 only.
    pub(super) mqtts: SocketAddr,
    /// Address and port of plain MQTT, on loopback only; `""` for none.
    pub(super) mqtt: String,
    /// The local user that a client of `mqtt` is which gives neither user name nor password; `""` if every client must give them.
    pub(super) anonymous_user: String,
    /// Address and port of MQTT over WebSocket and of the modules' method API; `""` for none. Azure's SDKs know port 443 only.
    pub(super) https: String,
    /// Address and port of AMQP 1.0 over TLS, for telemetry of devices and modules; `""` for none. Azure's SDKs know port 5671 only.
    pub(super) amqps: String,
    /// Address and port of metrics for Prometheus (`GET /metrics`), on loopback only; `""` for none.
    pub(super) metrics: String,
    /// Connections at once, over all listeners.
    #[serde(deserialize_with = "edge_hub::config_file::connections")]
    pub(super) connections_max: usize,
}

impl Default for FileListen {
    fn default() -> Self {
        Self {
            mqtts: SocketAddr::from(([0, 0, 0, 0], 8883)),
            mqtt: "127.0.0.1:1883".to_owned(),
            anonymous_user: String::new(),
            https: HTTPS_DEFAULT.to_owned(),
            amqps: String::new(),
            metrics: "127.0.0.1:9600".to_owned(),
            connections_max: 10_000,
        }
    }
}

#[derive(Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileTls {
    /// The gateway's certificate authority, which leaf devices and modules trust, PEM.
    #[schemars(extend("x-default" = "`ca.pem` in `data_dir`"))]
    pub(super) ca: Option<PathBuf>,
    /// The server's certificate and its chain, PEM.
    #[schemars(extend("x-default" = "`server.pem` in `data_dir`"))]
    pub(super) cert: Option<PathBuf>,
    /// The key of `cert`, PEM.
    #[schemars(extend("x-default" = "`server-key.pem` in `data_dir`"))]
    pub(super) key: Option<PathBuf>,
    /// The key of `ca`, PEM. It signs certificates of the server and of modules.
    #[schemars(extend("x-default" = "`ca-key.pem` in `data_dir`"))]
    pub(super) ca_key: Option<PathBuf>,
    /// Certificate authorities of leaf devices (`edge-agent device add --x509-ca`), PEM files.
    #[serde(deserialize_with = "one_or_more")]
    pub(super) device_ca: Vec<PathBuf>,
}

/// A path, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    struct Paths;
    impl<'de> Visitor<'de> for Paths {
        type Value = Vec<PathBuf>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E>(self, path: &str) -> Result<Vec<PathBuf>, E> {
            Ok(vec![path.into()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<PathBuf>, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = items.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }
    deserializer.deserialize_seq(Paths)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use edge_hub::config_file::{self, keys};

    use super::super::OVERRIDE;
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

    fn read(table: &toml::Table, variables: &[(String, String)]) -> File {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        config_file::read(Path::new("edge.toml"), &table.to_string(), OVERRIDE, variables)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets a key; `NAME` of a path is a queue's.
    fn set(table: &mut toml::Table, path: &str, value: &str) {
        match path.split_once('.') {
            None => {
                let read: toml::Table = format!("x = {value}").parse().unwrap();
                table.insert(path.to_owned(), read["x"].clone());
            }
            Some((section, rest)) => {
                let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
                set(inner.as_table_mut().unwrap(), rest, value);
            }
        }
    }

    #[test]
    fn every_key_means_the_same_in_the_file_and_in_the_environment() {
        let mut base = toml::Table::new();
        for key in ["device_id", "hostname", "data_dir"] {
            set(&mut base, key, "\"x\"");
        }
        let plain = read(&base, &[]);
        let all = keys::keys::<File>();
        assert!(all.len() > 60, "{}", all.len());
        for key in all {
            let path = key.path.replace(".NAME.", ".upstream.");
            let (in_file, in_variable) = match key.path.as_str() {
                "listen.mqtts" => ("\"[::1]:5\"".to_owned(), "[::1]:5".to_owned()),
                _ => key.sample(),
            };
            let mut table = base.clone();
            set(&mut table, &path, &in_file);
            let by_file = read(&table, &[]);
            assert!(by_file != plain, "{path} has no effect");
            let variable = key.variable(OVERRIDE).replace("__NAME__", "__UPSTREAM__");
            // Also where the file lacks a key that it must have.
            let mut without = base.clone();
            without.remove(&path);
            let by_variable = read(&without, &[(variable.clone(), in_variable.clone())]);
            assert!(by_variable == by_file, "{variable}={in_variable}");
        }
    }

    /// `LINESIDE_WRITE_GOLDEN=1 cargo test -p edge-agent --lib configuration_page` writes the page anew.
    #[test]
    fn the_configuration_page_lists_the_keys_of_the_types() {
        let keys = keys::keys::<File>();
        assert!(keys.iter().all(|key| !key.meaning.is_empty()), "each key has a meaning");
        let page = std::fs::read_to_string(PAGE).unwrap();
        let written = keys::with_block(&page, "edge.toml", &keys::tables(&keys, OVERRIDE)).unwrap();
        if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
            std::fs::write(PAGE, &written).unwrap();
        }
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(
            page == written,
            "docs/configuration.md is not what the types say: write it anew as this test tells"
        );
    }
}
