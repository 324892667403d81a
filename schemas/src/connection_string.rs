//! An Azure device or module connection string: `HostName=…;DeviceId=…;SharedAccessKey=…[;ModuleId=…][;GatewayHostName=…]`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::host_name::{HostName, split_port};
use crate::names::{DeviceId, Identity, ModuleId};

/// A connection string that can be used: it has a host, a device and a key.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// The hub's name, `name` or `name:port`. The port is ours (Azure knows none); SAS resources use the name alone.
    pub host_name: String,
    /// The leaf device or gateway, also in a module's connection string.
    pub device_id: DeviceId,
    /// The module, in a module's connection string.
    pub module_id: Option<ModuleId>,
    /// The symmetric key, decoded.
    pub shared_access_key: Vec<u8>,
    /// Where to connect instead of `host_name`, for a leaf device behind a gateway.
    pub gateway_host_name: Option<String>,
}

/// Why a connection string was refused. Keys and values of keys are never part of the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is not `Name=value`.
    #[error("connection string: part {part} is not Name=value")]
    NotAPair {
        /// Counted from 1.
        part: usize,
    },
    /// A needed name is missing or empty.
    #[error("connection string: {name} is missing")]
    Missing {
        /// As it is written, for example `DeviceId`.
        name: &'static str,
    },
    /// A value is wrong.
    #[error("connection string: {name}: {why}")]
    Wrong {
        /// As it is written, for example `DeviceId`.
        name: &'static str,
        /// What was found and what is allowed.
        why: String,
    },
}

impl ConnectionString {
    /// Who connects with it.
    pub fn identity(&self) -> Identity {
        Identity { device: self.device_id.clone(), module: self.module_id.clone() }
    }

    /// The hub's name without a port, as SAS resources and user names carry it.
    pub fn hub_name(&self) -> &str {
        split_port(&self.host_name).map_or(&self.host_name, |(host, _)| host)
    }

    /// The port that follows the hub's name.
    pub fn port(&self) -> Option<u16> {
        split_port(&self.host_name).ok().and_then(|(_, port)| port)
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ConnectionStringError as E;
        let (mut host, mut device, mut module, mut key, mut gateway) = (None, None, None, None, None);
        for (index, part) in text.trim().split(';').enumerate().filter(|(_, part)| !part.is_empty()) {
            // Keys in base64 end with `=`, so only the first one separates.
            let (name, value) = part.split_once('=').ok_or(E::NotAPair { part: index + 1 })?;
            let value = Some(value.to_owned()).filter(|value| !value.is_empty());
            match name {
                "HostName" => host = value,
                "DeviceId" => device = value,
                "ModuleId" => module = value,
                "SharedAccessKey" => key = value,
                "GatewayHostName" => gateway = value,
                // Azure's strings may have names that have no meaning here.
                _ => {}
            }
        }
        let wrong = |name, why: &dyn fmt::Display| E::Wrong { name, why: why.to_string() };
        let key = key.ok_or(E::Missing { name: "SharedAccessKey" })?;
        let host_name = host.ok_or(E::Missing { name: "HostName" })?;
        let (host, _) = split_port(&host_name).map_err(|error| wrong("HostName", &error))?;
        host.parse::<HostName>().map_err(|error| wrong("HostName", &error))?;
        Ok(Self {
            host_name,
            device_id: device
                .ok_or(E::Missing { name: "DeviceId" })?
                .parse()
                .map_err(|error| wrong("DeviceId", &error))?,
            module_id: module.map(|m| m.parse()).transpose().map_err(|error| wrong("ModuleId", &error))?,
            shared_access_key: STANDARD.decode(key).map_err(|_| {
                wrong("SharedAccessKey", &"found text that is not base64; copy the key whole")
            })?,
            gateway_host_name: gateway,
        })
    }
}

impl fmt::Display for ConnectionString {
    /// Writes the whole string, key included: print it only to whom it belongs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostName={};DeviceId={}", self.host_name, self.device_id)?;
        if let Some(module) = &self.module_id {
            write!(f, ";ModuleId={module}")?;
        }
        write!(f, ";SharedAccessKey={}", STANDARD.encode(&self.shared_access_key))?;
        if let Some(gateway) = &self.gateway_host_name {
            write!(f, ";GatewayHostName={gateway}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionString({} at {}, key not shown)", self.identity(), self.host_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_reads_back_as_it_prints_and_hides_its_key_from_logs() {
        let text =
            "HostName=hub.local:18883;DeviceId=press-1;SharedAccessKey=c2VjcmV0a2V5;GatewayHostName=gw";
        let parsed: ConnectionString = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.hub_name(), "hub.local");
        assert!(!format!("{parsed:?}").contains("c2VjcmV0a2V5"));
    }

    #[test]
    fn a_wrong_one_is_refused_by_the_name_of_the_part() {
        let error = |text: &str| text.parse::<ConnectionString>().unwrap_err().to_string();
        assert_eq!(error("HostName=h;DeviceId=d"), "connection string: SharedAccessKey is missing");
        assert_eq!(error("HostName=h;nonsense"), "connection string: part 2 is not Name=value");
        assert!(
            error("HostName=h;DeviceId=d d;SharedAccessKey=YQ==")
                .starts_with("connection string: DeviceId: found ` `")
        );
        assert!(!error("HostName=h;DeviceId=d;SharedAccessKey=!!!").contains("!!!"));
    }

    #[test]
    fn a_hub_is_a_name_or_an_address_with_or_without_a_port() {
        for (host, hub_name, port) in [
            ("hub", "hub", None),
            ("hub.example:8884", "hub.example", Some(8884)),
            ("10.0.0.1:8884", "10.0.0.1", Some(8884)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:8884", "fd00::1", Some(8884)),
        ] {
            let text = format!("HostName={host};DeviceId=d;SharedAccessKey=YQ==");
            let read: ConnectionString = text.parse().unwrap();
            assert_eq!((read.hub_name(), read.port()), (hub_name, port), "{host}");
            assert_eq!(read.to_string(), text);
        }
        for host in ["hub:port", "hub:99999", "h ub", "[fd00::1]8884", "https://hub"] {
            let text = format!("HostName={host};DeviceId=d;SharedAccessKey=YQ==");
            let error = text.parse::<ConnectionString>().unwrap_err().to_string();
            assert!(error.contains("HostName"), "{host}: {error}");
        }
    }
}
