//! Who the module is and where its gateway is, as the container's environment says.

use std::path::PathBuf;
use std::time::Duration;

use schemas::names::Identity;

/// The workload API's version when `IOTEDGE_APIVERSION` does not say.
const API_VERSION: &str = "2018-06-28";
/// MQTT over TLS.
const PORT: u16 = 8883;
/// How long the Azure SDKs make a token valid.
const TOKEN_VALID: Duration = Duration::from_secs(3600);

/// What a module needs to know to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The module: always one of a device.
    pub identity: Identity,
    /// Its generation: a module that was removed and made again has another.
    pub generation: String,
    /// The hub's name, in tokens and in the user name.
    pub hub_name: String,
    /// The gateway's name, which its certificate carries.
    pub gateway: String,
    /// The gateway's MQTT port.
    pub gateway_port: u16,
    /// The socket of the workload API.
    pub workload_socket: PathBuf,
    /// The workload API's version.
    pub api_version: String,
    /// How long a token is valid: an hour. After five sixths of it a new connection brings a new token; the rest is for
    /// clocks that differ.
    pub token_valid: Duration,
}

/// Why the environment is not that of a module container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A variable is missing.
    #[error("environment variable {name} is missing; a gateway sets it in the containers it starts")]
    Missing {
        /// For example `IOTEDGE_DEVICEID`.
        name: &'static str,
    },
    /// A variable has a value that cannot be used.
    #[error("environment variable {name}: found `{found}`; {allowed}")]
    Wrong {
        /// For example `IOTEDGE_DEVICEID`.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
}

impl Settings {
    /// Reads the variables that IoT Edge gives to module containers (`IOTEDGE_…`). `IOTEDGE_GATEWAYPORT` is ours: a
    /// port other than 8883.
    ///
    /// # Errors
    /// [`SettingsError`] names the variable.
    pub fn from_environment() -> Result<Self, SettingsError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingsError> {
        let optional = |name| variable(name).filter(|value| !value.is_empty());
        let needed = |name| optional(name).ok_or(SettingsError::Missing { name });
        fn wrong(name: &'static str, found: &str, allowed: impl Into<String>) -> SettingsError {
            SettingsError::Wrong { name, found: found.to_owned(), allowed: allowed.into() }
        }

        if let Some(scheme) = optional("IOTEDGE_AUTHSCHEME").filter(|scheme| scheme != "sasToken") {
            return Err(wrong("IOTEDGE_AUTHSCHEME", &scheme, "sasToken is the only scheme"));
        }
        let (device, module) = (needed("IOTEDGE_DEVICEID")?, needed("IOTEDGE_MODULEID")?);
        let workload = needed("IOTEDGE_WORKLOADURI")?;
        let Some(socket) = workload.strip_prefix("unix://").filter(|path| path.starts_with('/')) else {
            return Err(wrong("IOTEDGE_WORKLOADURI", &workload, "write unix:///path/of/the/socket"));
        };
        let gateway_port = match optional("IOTEDGE_GATEWAYPORT") {
            None => PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("IOTEDGE_GATEWAYPORT", &port, "write a port from 1 to 65535"))?,
        };
        Ok(Self {
            identity: Identity::module(
                device.parse().map_err(|why| wrong("IOTEDGE_DEVICEID", &device, format!("{why}")))?,
                module.parse().map_err(|why| wrong("IOTEDGE_MODULEID", &module, format!("{why}")))?,
            ),
            generation: needed("IOTEDGE_MODULEGENERATIONID")?,
            hub_name: needed("IOTEDGE_IOTHUBHOSTNAME")?,
            gateway: needed("IOTEDGE_GATEWAYHOSTNAME")?,
            gateway_port,
            workload_socket: PathBuf::from(socket),
            api_version: optional("IOTEDGE_APIVERSION").unwrap_or_else(|| API_VERSION.to_owned()),
            token_valid: TOKEN_VALID,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: [(&str, &str); 8] = [
        ("IOTEDGE_WORKLOADURI", "unix:///var/run/iotedge/workload.sock"),
        ("IOTEDGE_DEVICEID", "gw-1"),
        ("IOTEDGE_MODULEID", "sensor"),
        ("IOTEDGE_MODULEGENERATIONID", "638"),
        ("IOTEDGE_IOTHUBHOSTNAME", "hub.example"),
        ("IOTEDGE_GATEWAYHOSTNAME", "edge-gateway"),
        ("IOTEDGE_AUTHSCHEME", "sasToken"),
        ("IOTEDGE_APIVERSION", "2022-08-03"),
    ];

    fn read_with(change: (&str, Option<&str>)) -> Result<Settings, SettingsError> {
        Settings::read(|name| {
            if name == change.0 {
                change.1.map(str::to_owned)
            } else {
                CONTAINER.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            }
        })
    }

    #[test]
    fn the_environment_that_iot_edge_gives_is_read() {
        let settings = read_with(("", None)).unwrap();
        assert_eq!(settings.identity.to_string(), "gw-1/sensor");
        assert_eq!(settings.workload_socket, PathBuf::from("/var/run/iotedge/workload.sock"));
        assert_eq!((settings.gateway_port, settings.api_version.as_str()), (8883, "2022-08-03"));
        assert_eq!(read_with(("IOTEDGE_APIVERSION", None)).unwrap().api_version, "2018-06-28");
        assert_eq!(read_with(("IOTEDGE_AUTHSCHEME", None)).unwrap(), settings);
        assert_eq!(read_with(("IOTEDGE_GATEWAYPORT", Some("18883"))).unwrap().gateway_port, 18883);
    }

    #[test]
    fn a_wrong_environment_is_refused_by_the_name_of_the_variable() {
        let error = |name, value| read_with((name, value)).unwrap_err().to_string();
        assert_eq!(
            error("IOTEDGE_MODULEID", None),
            "environment variable IOTEDGE_MODULEID is missing; a gateway sets it in the containers it starts"
        );
        assert_eq!(
            error("IOTEDGE_WORKLOADURI", Some("http://10.0.0.1:15581")),
            "environment variable IOTEDGE_WORKLOADURI: found `http://10.0.0.1:15581`; write unix:///path/of/the/socket"
        );
        for (name, value) in [
            ("IOTEDGE_GATEWAYPORT", "0"),
            ("IOTEDGE_GATEWAYPORT", "mqtt"),
            ("IOTEDGE_AUTHSCHEME", "x509"),
            ("IOTEDGE_DEVICEID", "gw 1"),
        ] {
            assert!(
                error(name, Some(value))
                    .starts_with(&format!("environment variable {name}: found `{value}`;"))
            );
        }
    }
}
