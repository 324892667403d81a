//! `[upstream]` as it is written, and what of it makes an upstream.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use edge_core::link::budget::{Cause, Limits};
use mqtt::client::Proxy;
use mqtt::codec::packet::Version;
use schemars::JsonSchema;
use schemas::connection_string::ConnectionString;
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use super::setting_error::SettingError;
use super::upstream::{Broker, Kind, Password, Properties, ProxyChoice, Transport, Upstream};

/// Where a broker's topics go when nothing is said.
const TOPIC_DEFAULT: &str = "lineside/{gateway}/{device}/{module}/{output}";
/// Where IoT Hub and central upgrade to WebSockets.
const HUB_PATH: &str = "/$iothub/websocket";
const BROKER_PATH: &str = "/mqtt";

/// A dead line is found within half a minute, and a question every quarter of a minute keeps the entries of NAT alive.
const KEEP_ALIVE_SECS_DEFAULT: u64 = 30;
/// Less than the round trips of a bad line would end good connections; more than an hour finds no dead one.
const KEEP_ALIVE_SECS: RangeInclusive<u64> = 4..=3600;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum KindName {
    #[default]
    Central,
    Mqtt,
    IotHub,
}

impl KindName {
    fn name(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Mqtt => "mqtt",
            Self::IotHub => "iot-hub",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum TransportName {
    #[default]
    Tls,
    Websocket,
    Plain,
}

/// As written in the file.
#[derive(Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileUpstream {
    /// What is upstream: central, any MQTT broker, or IoT Hub.
    kind: KindName,
    /// `HostName=…;DeviceId=…;SharedAccessKey=…` of the gateway at central or IoT Hub. Without it the gateway has no upstream.
    connection_string: Option<String>,
    /// Certificate authorities of the upstream, PEM file; needed wherever TLS is spoken.
    ca: Option<PathBuf>,
    /// Longest time in which nothing is heard of the upstream before the connection is made anew, 4 to 3600.
    #[schemars(extend("x-default" = "`30`"))]
    keep_alive_secs: Option<u64>,
    /// MQTT over TLS, over WebSocket over TLS, or plain. `plain` is for brokers only.
    transport: TransportName,
    /// Path of the WebSocket.
    #[schemars(extend("x-default" = "`/$iothub/websocket`; of a broker `/mqtt`"))]
    path: Option<String>,
    /// `http://…` or `socks5://…`, with `user:password@` if needed; `none` for none.
    #[schemars(extend("x-default" = "what `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say"))]
    proxy: Option<String>,
    budget: Option<FileBudget>,
    /// The broker's DNS name or address.
    host: Option<String>,
    /// The broker's port.
    #[schemars(extend("x-default" = "8883; 443 with `websocket`, 1883 with `plain`"))]
    port: Option<u16>,
    /// MQTT version of the broker.
    #[schemars(extend("x-default" = "`\"5\"`"))]
    version: Option<FileVersion>,
    /// Client id at the broker.
    #[schemars(extend("x-default" = "`device_id`"))]
    client_id: Option<String>,
    /// User name at the broker.
    user_name: Option<String>,
    /// Password at the broker.
    password: Option<String>,
    /// File with that password in one line, instead of `password`.
    password_file: Option<PathBuf>,
    /// Certificate chain to show the broker, PEM file.
    cert: Option<PathBuf>,
    /// The key of `cert`, PEM file.
    key: Option<PathBuf>,
    /// Topic of telemetry at the broker, with `{gateway}`, `{device}`, `{module}` and `{output}`.
    #[schemars(extend("x-default" = "`\"lineside/{gateway}/{device}/{module}/{output}\"`"))]
    topic: Option<String>,
    /// Where a message's properties go: MQTT 5's user properties, the topic's last level, or nowhere.
    #[schemars(extend("x-default" = "`\"user\"`; with version 3.1.1 `\"none\"`"))]
    properties: Option<Properties>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
enum FileVersion {
    #[serde(rename = "3.1.1")]
    V4,
    #[serde(rename = "5")]
    V5,
}

#[derive(Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FileBudget {
    /// Bytes that telemetry may cost in a day; no limit when left out.
    telemetry_bytes: Option<u64>,
    /// Bytes that twins may cost in a day; no limit when left out.
    twins_bytes: Option<u64>,
    /// Bytes that commands and their answers may cost in a day; no limit when left out.
    commands_bytes: Option<u64>,
    /// Bytes that cloud-to-device messages may cost in a day; no limit when left out.
    messages_bytes: Option<u64>,
    /// Bytes that deployments may cost in a day; no limit when left out.
    deployments_bytes: Option<u64>,
    /// Hour of UTC at which a day begins, 0 to 23.
    reset_hour: u8,
}

impl FileUpstream {
    /// The upstream; `None` for a gateway without an upstream.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub(super) fn read(self, device_id: &DeviceId) -> Result<Option<Upstream>, SettingError> {
        let keep_alive_secs = self.keep_alive_secs.unwrap_or(KEEP_ALIVE_SECS_DEFAULT);
        if !KEEP_ALIVE_SECS.contains(&keep_alive_secs) {
            return Err(SettingError::new(
                "[upstream] keep_alive_secs",
                format!(
                    "found {keep_alive_secs}; write {} to {}",
                    KEEP_ALIVE_SECS.start(),
                    KEEP_ALIVE_SECS.end()
                ),
            ));
        }
        let kind = match self.kind {
            KindName::Central if self.connection_string.is_none() => {
                return match self.foreign() {
                    None => Ok(None),
                    Some(key) => Err(SettingError::new(
                        format!("[upstream] {key}"),
                        "there is no upstream; write connection_string, or kind = \"mqtt\" and host",
                    )),
                };
            }
            kind @ (KindName::Central | KindName::IotHub) => {
                if let Some(key) = self.foreign() {
                    return Err(SettingError::new(
                        format!("[upstream] {key}"),
                        format!("only kind = \"mqtt\" has it; found kind = \"{}\"", kind.name()),
                    ));
                }
                let text = self.connection_string.as_deref().ok_or_else(|| {
                    SettingError::new(
                        "[upstream] connection_string",
                        "kind = \"iot-hub\" needs the connection string of the gateway's device",
                    )
                })?;
                let connection_string = read_connection_string(text, device_id)?;
                if kind == KindName::Central {
                    Kind::Central(connection_string)
                } else {
                    Kind::IotHub(connection_string)
                }
            }
            KindName::Mqtt => Kind::Mqtt(Box::new(self.broker(device_id)?)),
        };
        let transport = self.transport(&kind)?;
        let keep_alive = Duration::from_secs(keep_alive_secs);
        Ok(Some(Upstream {
            keep_alive,
            budget: self.budget(&kind)?,
            transport,
            proxy: self.proxy()?,
            ca: self.ca,
            kind,
        }))
    }

    /// A key that only a broker has.
    fn foreign(&self) -> Option<&'static str> {
        let broker = [
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("version", self.version.is_some()),
            ("client_id", self.client_id.is_some()),
            ("user_name", self.user_name.is_some()),
            ("password", self.password.is_some()),
            ("password_file", self.password_file.is_some()),
            ("cert", self.cert.is_some()),
            ("key", self.key.is_some()),
            ("topic", self.topic.is_some()),
            ("properties", self.properties.is_some()),
        ];
        broker.into_iter().find(|(_, is_there)| *is_there).map(|(key, _)| key)
    }

    fn broker(&self, device_id: &DeviceId) -> Result<Broker, SettingError> {
        if self.connection_string.is_some() {
            return Err(SettingError::new(
                "[upstream] connection_string",
                "kind = \"mqtt\" has none; write host, and user_name and password",
            ));
        }
        let host = self.host.clone().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| {
            SettingError::new("[upstream] host", "kind = \"mqtt\" needs the broker's name or address")
        })?;
        if host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(SettingError::new(
                "[upstream] host",
                format!("found `{host}`; write a DNS name or an address, and the port as `port`"),
            ));
        }
        let version = match self.version {
            Some(FileVersion::V4) => Version::V4,
            _ => Version::V5,
        };
        let properties = match (version, self.properties) {
            (Version::V4, Some(Properties::User)) => {
                return Err(SettingError::new(
                    "[upstream] properties",
                    "found \"user\", which MQTT 3.1.1 does not have; write \"topic\" or \"none\"",
                ));
            }
            (_, Some(properties)) => properties,
            (Version::V5, None) => Properties::User,
            (Version::V4, None) => Properties::None,
        };
        let password = match (self.password.clone(), self.password_file.clone()) {
            (Some(_), Some(_)) => {
                return Err(SettingError::new(
                    "[upstream] password_file",
                    "password is there too; write one of them",
                ));
            }
            (text, file) => text.map(Password::Text).or(file.map(Password::File)),
        };
        if password.is_some() && self.user_name.is_none() && version == Version::V4 {
            return Err(SettingError::new("[upstream] user_name", "MQTT 3.1.1 has no password without one"));
        }
        let certificate = match (self.cert.clone(), self.key.clone()) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(SettingError::new("[upstream] key", "cert needs its key")),
            (None, Some(_)) => return Err(SettingError::new("[upstream] cert", "key needs its certificate")),
        };
        let topic = self.topic.as_deref().unwrap_or(TOPIC_DEFAULT);
        Ok(Broker {
            host,
            port: self.port,
            version,
            client_id: self.client_id.clone().unwrap_or_else(|| device_id.to_string()),
            user_name: self.user_name.clone(),
            password,
            certificate,
            topic: topic.parse().map_err(|error| SettingError::unreadable("[upstream] topic", error))?,
            properties,
        })
    }

    fn transport(&self, kind: &Kind) -> Result<Transport, SettingError> {
        let is_websocket = self.transport == TransportName::Websocket;
        if let Some(path) = &self.path {
            if !is_websocket {
                return Err(SettingError::new("[upstream] path", "only transport = \"websocket\" has one"));
            }
            if !path.starts_with('/') {
                return Err(SettingError::new(
                    "[upstream] path",
                    format!("found `{path}`; it begins with /"),
                ));
            }
        }
        let transport = match (self.transport, kind) {
            (TransportName::Plain, Kind::Central(_) | Kind::IotHub(_)) => {
                return Err(SettingError::new(
                    "[upstream] transport",
                    "found \"plain\"; only kind = \"mqtt\" may do without TLS",
                ));
            }
            (TransportName::Plain, _) => Transport::Plain,
            (TransportName::Tls, _) => Transport::Tls,
            (TransportName::Websocket, Kind::Mqtt(_)) => {
                Transport::WebSocket(self.path.clone().unwrap_or_else(|| BROKER_PATH.to_owned()))
            }
            (TransportName::Websocket, _) => {
                Transport::WebSocket(self.path.clone().unwrap_or_else(|| HUB_PATH.to_owned()))
            }
        };
        if transport != Transport::Plain && self.ca.is_none() {
            return Err(SettingError::new(
                "[upstream] ca",
                "the file of the authorities that the upstream's certificate may be of is needed",
            ));
        }
        Ok(transport)
    }

    fn proxy(&self) -> Result<ProxyChoice, SettingError> {
        match self.proxy.as_deref() {
            None => Ok(ProxyChoice::Environment),
            Some("none") => Ok(ProxyChoice::None),
            // Its text may hold a password: it is not shown.
            Some(text) => Proxy::parse(text).map(ProxyChoice::Named).map_err(|error| {
                SettingError::new(
                    "[upstream] proxy",
                    format!("{error}; \"none\" for none; left out for what the environment says"),
                )
            }),
        }
    }

    fn budget(&self, kind: &Kind) -> Result<Limits, SettingError> {
        let Some(budget) = &self.budget else { return Ok(Limits::default()) };
        if budget.reset_hour > 23 {
            return Err(SettingError::new(
                "[upstream.budget] reset_hour",
                format!("found {}; an hour of UTC from 0 to 23", budget.reset_hour),
            ));
        }
        let mut limits = Limits { reset_hour: budget.reset_hour, ..Limits::default() };
        for (key, cause, bytes) in [
            ("telemetry_bytes", Cause::Telemetry, budget.telemetry_bytes),
            ("twins_bytes", Cause::Twins, budget.twins_bytes),
            ("commands_bytes", Cause::Commands, budget.commands_bytes),
            ("messages_bytes", Cause::Messages, budget.messages_bytes),
            ("deployments_bytes", Cause::Deployments, budget.deployments_bytes),
        ] {
            if bytes == Some(0) {
                return Err(SettingError::new(
                    format!("[upstream.budget] {key}"),
                    "found 0; write bytes of a day, or leave it out for no limit",
                ));
            }
            if bytes.is_some() && cause != Cause::Telemetry && !matches!(kind, Kind::Central(_)) {
                return Err(SettingError::new(
                    format!("[upstream.budget] {key}"),
                    "only kind = \"central\" has more than telemetry",
                ));
            }
            limits.bytes[cause as usize] = bytes;
        }
        Ok(limits)
    }
}

fn read_connection_string(text: &str, device_id: &DeviceId) -> Result<ConnectionString, SettingError> {
    let read: ConnectionString =
        text.parse().map_err(|error| SettingError::unreadable("[upstream] connection_string", error))?;
    if read.device_id != *device_id {
        let found = &read.device_id;
        return Err(SettingError::new(
            "[upstream] connection_string",
            format!("found DeviceId={found}; device_id is {device_id}"),
        ));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use edge_core::error_chain::chain;

    use super::*;

    const TO_GW: &str =
        "connection_string = \"HostName=hub:8884;DeviceId=gw;SharedAccessKey=YQ==\"\nca = \"/ca.pem\"\n";

    fn read(text: &str) -> Result<Option<Upstream>, String> {
        let file: FileUpstream = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        file.read(&"gw".parse().unwrap()).map_err(|error| chain(&error).to_string())
    }

    #[test]
    fn a_file_that_knows_no_kinds_means_central() {
        assert_eq!(read("").unwrap(), None);
        let upstream = read(TO_GW).unwrap().unwrap();
        assert_eq!((upstream.kind_name(), upstream.address()), ("central", ("hub".to_owned(), 8884)));
        assert_eq!((upstream.transport, upstream.proxy), (Transport::Tls, ProxyChoice::Environment));
        assert_eq!(upstream.budget, Limits::default());
    }

    #[test]
    fn a_broker_has_topics_and_a_hub_has_a_connection_string() {
        let text = "kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\ntopic = \"s/{device}\"\nversion = \"3.1.1\"\nproperties = \"topic\"\n\
                    user_name = \"u\"\npassword_file = \"p\"\nproxy = \"socks5://p:1\"\n[budget]\ntelemetry_bytes = 7\nreset_hour = 5";
        let upstream = read(text).unwrap().unwrap();
        assert_eq!((upstream.kind_name(), upstream.address()), ("mqtt", ("b".to_owned(), 8883)));
        assert_eq!(upstream.budget.bytes[Cause::Telemetry as usize], Some(7));
        let Kind::Mqtt(broker) = &upstream.kind else { panic!("a broker") };
        assert_eq!(
            (broker.version, broker.properties, &broker.client_id[..]),
            (Version::V4, Properties::Topic, "gw")
        );
        let hub = read(&format!("kind = \"iot-hub\"\ntransport = \"websocket\"\n{TO_GW}")).unwrap().unwrap();
        assert_eq!(hub.transport, Transport::WebSocket("/$iothub/websocket".into()));
    }

    #[test]
    fn a_mistake_is_reported_with_its_key_and_without_secrets() {
        for (text, parts) in [
            ("kind = \"azure\"", vec!["azure", "iot-hub"]),
            ("kind = \"iot-hub\"", vec!["[upstream] connection_string"]),
            ("kind = \"mqtt\"\nca = \"c\"", vec!["[upstream] host"]),
            ("host = \"b\"", vec!["[upstream] host"]),
            (&format!("{TO_GW}topic = \"x\""), vec!["[upstream] topic", "mqtt"]),
            (&format!("{TO_GW}transport = \"plain\""), vec!["[upstream] transport", "TLS"]),
            (&format!("{TO_GW}path = \"/x\""), vec!["[upstream] path", "websocket"]),
            (&format!("{TO_GW}proxy = \"u:SECRET@p\""), vec!["[upstream] proxy", "http://HOST"]),
            (&format!("{TO_GW}topics = \"x\""), vec!["topics"]),
            (&format!("{TO_GW}[budget]\nreset_hour = 24"), vec!["[upstream.budget] reset_hour", "24"]),
            (&format!("{TO_GW}[budget]\ntelemetry_byte = 24"), vec!["telemetry_byte"]),
            ("kind = \"mqtt\"\nhost = \"b\"", vec!["[upstream] ca"]),
            (
                "kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\ntopic = \"a/+\"",
                vec!["[upstream] topic", "wildcards"],
            ),
            ("kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\ncert = \"a\"", vec!["[upstream] key"]),
            ("kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\nversion = \"3\"", vec!["3.1.1"]),
            (
                "kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\n[budget]\ntwins_bytes = 1",
                vec!["[upstream.budget] twins_bytes", "central"],
            ),
            (
                "kind = \"mqtt\"\nhost = \"b\"\nca = \"c\"\nversion = \"3.1.1\"\nproperties = \"user\"",
                vec!["[upstream] properties"],
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
    }
}
