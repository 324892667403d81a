//! What a container needs of this machine and the engine checks only when it starts: devices, host ports, and programs that this
//! processor runs. Checked when the container was created and before the one that it replaces is stopped.
//!
//! Where this daemon does not see the machine's devices and ports as the engine does (it runs in a container itself, or may not look)
//! only those ports are checked that other containers hold.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerSummary, PortSummaryTypeEnum};
use bollard::query_parameters::ListContainersOptions;
use schemas::names::DeviceId;
use serde_json::{Map, Value};

use super::{DockerError, LABEL_GATEWAY, SharedView};

/// How long a port may still be held by the proxy of a container that has just ended.
const PORT_WITHIN: Duration = Duration::from_secs(3);
const LISTENING: &str = "0A";

/// What create options ask of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    devices: Vec<String>,
    ports: Vec<HostPort>,
}

/// A port of this machine. Ports that the engine chooses, alone or of a range, are none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPort {
    number: u16,
    is_udp: bool,
    /// `None` for all addresses.
    address: Option<IpAddr>,
}

impl Requirements {
    /// Of the body of the engine's "create container".
    pub fn of(body: &Map<String, Value>) -> Self {
        let host = body.get("HostConfig").unwrap_or(&Value::Null);
        let devices = host["Devices"].as_array().into_iter().flatten();
        let bindings = host["PortBindings"].as_object().into_iter().flatten();
        let ports = bindings.flat_map(|(port, bindings)| {
            let is_udp = port.ends_with("/udp");
            bindings.as_array().into_iter().flatten().filter_map(move |binding| {
                let number = binding["HostPort"].as_str()?.parse().ok().filter(|number| *number != 0)?;
                let address = binding["HostIp"].as_str().and_then(|address| address.parse().ok());
                Some(HostPort { number, is_udp, address: address.filter(|ip: &IpAddr| !ip.is_unspecified()) })
            })
        });
        Self {
            devices: devices.filter_map(|device| device["PathOnHost"].as_str().map(str::to_owned)).collect(),
            ports: ports.collect(),
        }
    }

    /// Checks what the engine does not. Ports that containers of this gateway hold count as free: whether these go is known only when
    /// they have gone.
    ///
    /// # Errors
    /// [`DockerError::Unmet`] with the first that is missing.
    pub async fn check(
        &self,
        docker: &Docker,
        view: SharedView,
        gateway: &DeviceId,
        module: &str,
        image: &str,
    ) -> Result<(), DockerError> {
        let unmet = |what: String| DockerError::Unmet { module: module.to_owned(), what };
        if view.files {
            if let Some(device) = self.devices.iter().find(|device| !Path::new(device).exists()) {
                return Err(unmet(format!("device {device}, which this machine does not have")));
            }
            if let Some(what) = foreign_architecture(docker, image).await? {
                return Err(unmet(what));
            }
        }
        if self.ports.is_empty() {
            return Ok(());
        }
        let said = |source| DockerError::Said { doing: "list the containers".to_owned(), source };
        let running = docker.list_containers(None::<ListContainersOptions>).await.map_err(said)?;
        for port in &self.ports {
            let holder = running.iter().find(|container| port.is_held_by(container));
            match holder {
                Some(holder) if is_of(holder, gateway) => {}
                Some(holder) => {
                    let name = holder.names.iter().flatten().next().map_or("", String::as_str);
                    let name = name.trim_start_matches('/');
                    return Err(unmet(format!(
                        "host port {}, which is already allocated to container `{name}`",
                        port.number
                    )));
                }
                None if view.ports && port.stays_in_use().await => {
                    return Err(unmet(format!(
                        "host port {}, which a program of this machine uses already",
                        port.number
                    )));
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn is_of(container: &ContainerSummary, gateway: &DeviceId) -> bool {
    let labels = container.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL_GATEWAY)).is_some_and(|of| of == gateway.as_str())
}

impl HostPort {
    fn is_held_by(&self, container: &ContainerSummary) -> bool {
        container.ports.iter().flatten().any(|held| {
            let is_udp = held.typ == Some(PortSummaryTypeEnum::UDP);
            let address: Option<IpAddr> = held.ip.as_deref().and_then(|ip| ip.parse().ok());
            held.public_port == Some(self.number)
                && is_udp == self.is_udp
                && self.overlaps(address.filter(|ip| !ip.is_unspecified()))
        })
    }

    /// Whether two listeners cannot have the port, of which one has this address; `None` for all.
    fn overlaps(&self, address: Option<IpAddr>) -> bool {
        self.address.zip(address).is_none_or(|(own, other)| own == other)
    }

    /// Whether a program listens on the port, and goes on to.
    async fn stays_in_use(&self) -> bool {
        let until = tokio::time::Instant::now() + PORT_WITHIN;
        loop {
            if !self.is_in_use() {
                return false;
            }
            if tokio::time::Instant::now() >= until {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn is_in_use(&self) -> bool {
        let kind = if self.is_udp { "udp" } else { "tcp" };
        ["", "6"].iter().any(|version| {
            let table = std::fs::read_to_string(format!("/proc/net/{kind}{version}")).unwrap_or_default();
            listeners(&table, self.is_udp)
                .any(|(address, number)| number == self.number && self.overlaps(address))
        })
    }
}

/// The listening addresses (`None` for all) and ports of one of the kernel's tables of sockets, such as `/proc/net/tcp`.
fn listeners(table: &str, is_udp: bool) -> impl Iterator<Item = (Option<IpAddr>, u16)> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        if !is_udp && state != LISTENING {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((address_of(address), port))
    })
}

/// The kernel writes addresses as 32-bit numbers in the machine's order; `None` for all addresses.
fn address_of(text: &str) -> Option<IpAddr> {
    let numbers = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok().and_then(|word| u32::from_str_radix(word, 16).ok());
        word.unwrap_or(0).to_ne_bytes()
    });
    let bytes: Vec<u8> = numbers.flatten().collect();
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(address).filter(|address| !address.is_unspecified())
}

/// Why this machine cannot run the programs of an image; `None` when it can, or when that is not known.
async fn foreign_architecture(docker: &Docker, image: &str) -> Result<Option<String>, DockerError> {
    let said = |source| DockerError::Said { doing: format!("look for image {image}"), source };
    let Some(of_image) = docker.inspect_image(image).await.map_err(said)?.architecture else {
        return Ok(None);
    };
    let version = docker.version().await;
    let of_engine =
        version.map_err(|source| DockerError::Said { doing: "ask for its version".into(), source });
    let of_engine = of_engine?.arch.unwrap_or_default();
    let is_known = [&of_image, &of_engine].iter().all(|architecture| !architecture.is_empty());
    if !is_known || runs(&of_engine, &of_image) || is_emulated(&of_image) {
        return Ok(None);
    }
    Ok(Some(format!("an image for {of_engine}; image {image} is for {of_image}")))
}

/// Whether a processor runs programs of an architecture, in Docker's names.
fn runs(processor: &str, programs: &str) -> bool {
    processor == programs || matches!((processor, programs), ("amd64", "386") | ("arm64", "arm"))
}

/// Whether the kernel has an emulator for programs of an architecture.
fn is_emulated(architecture: &str) -> bool {
    let emulator = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        other => other,
    };
    Path::new("/proc/sys/fs/binfmt_misc").join(format!("qemu-{emulator}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices_and_ports_of_create_options_are_found_and_those_that_the_engine_chooses_are_not() {
        let body = json!({"HostConfig": {
            "Devices": [{"PathOnHost": "/dev/ttyUSB0", "PathInContainer": "/dev/ttyUSB0"}],
            "PortBindings": {
                "80/tcp": [{"HostPort": "18080"}, {"HostIp": "127.0.0.1", "HostPort": "81"}, {"HostPort": ""}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}, {"HostPort": "8000-8010"}, {"HostPort": "0"}],
                "1/tcp": null
            }
        }});
        let found = Requirements::of(body.as_object().unwrap());
        let port = |number, is_udp, address: Option<&str>| HostPort {
            number,
            is_udp,
            address: address.map(|address| address.parse().unwrap()),
        };
        assert_eq!(found.devices, ["/dev/ttyUSB0"]);
        let mut ports = found.ports;
        ports.sort_by_key(|port| port.number);
        assert_eq!(
            ports,
            [port(53, true, None), port(81, false, Some("127.0.0.1")), port(18080, false, None)]
        );
        assert_eq!(Requirements::of(&Map::new()), Requirements::default());
    }

    #[test]
    fn a_port_is_in_use_where_a_listener_has_it_on_an_address_in_common() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let port = |address: Option<&str>| HostPort {
            number,
            is_udp: false,
            address: address.map(|address| address.parse().unwrap()),
        };
        assert!(port(None).is_in_use());
        assert!(port(Some("127.0.0.1")).is_in_use());
        assert!(!port(Some("127.0.0.2")).is_in_use());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_tables_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A\n   \
            1: 00000000:0016 00000000:0000 0A\n   2: 0100007F:0050 0100007F:9999 01\n";
        let found: Vec<_> = listeners(table, false).collect();
        assert_eq!(found, [(Some("127.0.0.1".parse().unwrap()), 8080), (None, 22)]);
        let six = "head\n 0: 00000000000000000000000000000000:1F90 x 07\n 1: 0000000000000000FFFF00000100007F:0035 x 07\n";
        let found: Vec<_> = listeners(six, true).collect();
        assert_eq!(found, [(None, 8080), (Some("127.0.0.1".parse().unwrap()), 53)]);
    }

    #[test]
    fn a_processor_runs_its_own_programs_and_its_smaller_siblings() {
        for (processor, programs, expected) in [
            ("amd64", "amd64", true),
            ("amd64", "386", true),
            ("arm64", "arm", true),
            ("arm", "arm64", false),
            ("amd64", "arm64", false),
        ] {
            assert_eq!(runs(processor, programs), expected, "{processor} {programs}");
        }
    }
}
