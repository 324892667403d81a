//! `[upstream]`: where telemetry goes, how it is reached, and what it may cost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_core::dialect::template::TopicTemplate;
use edge_core::link::budget::Limits;
use edge_tls::input_file;
use mqtt::client::Proxy;
use mqtt::codec::packet::Version;
use schemars::JsonSchema;
use schemas::connection_string::ConnectionString;
use serde::Deserialize;

/// `[upstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// What is there.
    pub kind: Kind,
    /// The authorities to trust, PEM. Needed wherever TLS is spoken.
    pub ca: Option<PathBuf>,
    /// What is spoken on TCP.
    pub transport: Transport,
    /// Proxy in between.
    pub proxy: ProxyChoice,
    /// `[upstream.budget]`
    pub budget: Limits,
    /// A link on which nothing was heard for so long is given up, and made anew.
    pub keep_alive: Duration,
}

/// What an upstream is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// central: telemetry, twins, commands, deployments, on one connection.
    Central(ConnectionString),
    /// IoT Hub's MQTT endpoint: telemetry, on one connection for each device.
    IotHub(ConnectionString),
    /// Any broker: telemetry, on one connection.
    Mqtt(Box<Broker>),
}

/// An MQTT broker.
#[derive(Clone, PartialEq)]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port; that of the transport when left out.
    pub port: Option<u16>,
    /// The version of MQTT.
    pub version: Version,
    /// As whom to connect.
    pub client_id: String,
    /// What proves it.
    pub user_name: Option<String>,
    /// What proves it.
    pub password: Option<Password>,
    /// Certificate chain and key to show, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where messages go.
    pub topic: TopicTemplate,
    /// Where their properties go.
    pub properties: Properties,
}

/// A password, or the file that holds it.
#[derive(Clone, PartialEq)]
pub enum Password {
    /// As written in the configuration.
    Text(String),
    /// A file with one line.
    File(PathBuf),
}

/// Keeps the password out of whatever is printed.
impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({}, {}, {})", self.host, self.client_id, self.topic)
    }
}

/// Where the properties of a message go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Properties {
    /// Into MQTT 5's user properties.
    User,
    /// Into the last level of the topic, as IoT Hub has them.
    Topic,
    /// Nowhere.
    None,
}

/// What is spoken on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket over TLS, on this path.
    WebSocket(String),
    /// MQTT. Everybody on the way can read and change it.
    Plain,
}

/// Proxy between here and the upstream.
#[derive(Debug, Clone, PartialEq)]
pub enum ProxyChoice {
    /// What `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment,
    /// Nothing.
    None,
    /// This one.
    Named(Proxy),
}

impl Upstream {
    /// Host and port.
    pub fn address(&self) -> (String, u16) {
        let default = match self.transport {
            Transport::Tls => 8883,
            Transport::WebSocket(_) => 443,
            Transport::Plain => 1883,
        };
        match &self.kind {
            Kind::Mqtt(broker) => (broker.host.clone(), broker.port.unwrap_or(default)),
            Kind::Central(to) | Kind::IotHub(to) => (to.hub_name().to_owned(), to.port().unwrap_or(default)),
        }
    }

    /// The hub's name in tokens and user names, where there is a hub.
    pub fn hub_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Central(to) | Kind::IotHub(to) => Some(to.hub_name()),
            Kind::Mqtt(_) => None,
        }
    }

    /// `central`, `iot-hub` or `mqtt`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Central(_) => "central",
            Kind::IotHub(_) => "iot-hub",
            Kind::Mqtt(_) => "mqtt",
        }
    }

    /// The proxy to go through now.
    pub fn proxy(&self) -> Option<Proxy> {
        let (host, port) = self.address();
        self.proxy.for_server(&host, port)
    }
}

impl ProxyChoice {
    /// The proxy between here and a server now.
    pub fn for_server(&self, host: &str, port: u16) -> Option<Proxy> {
        match self {
            Self::None => None,
            Self::Named(proxy) => Some(proxy.clone()),
            Self::Environment => Proxy::from_environment(host, port),
        }
    }
}

impl Password {
    /// The password; a file is read anew each time, without its line end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn text(&self) -> Result<String, (PathBuf, std::io::Error)> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read_line(path).map_err(|error| (path.clone(), error)),
        }
    }
}

fn read_line(path: &Path) -> std::io::Result<String> {
    Ok(input_file::read_text(path, input_file::SMALL_BYTES_MAX)?.trim_end_matches(['\r', '\n']).to_owned())
}
