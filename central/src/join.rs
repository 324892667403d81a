//! `central gateway add`: registers a gateway and makes the line that is pasted on it.

use std::path::Path;

use anyhow::Context as _;
use edge_tls::config::client_config;
use edge_tls::input_file;
use rusqlite::Connection;
use schemas::connection_string::ConnectionString;
use schemas::host_name::HostName;
use schemas::join::JoinToken;
use schemas::names::DeviceId;

use crate::config::Config;
use crate::new_device::new_device;
use crate::store::devices::{self, Device};

/// The gateway of this id, registered if it was not. `None` when the id is that of a device that is no gateway.
pub fn add_gateway(c: &Connection, id: DeviceId) -> rusqlite::Result<Option<Device>> {
    if let Some(device) = devices::get(c, &id)? {
        return Ok(device.is_gateway.then_some(device));
    }
    devices::put(c, &Device { is_gateway: true, ..new_device(id.clone()) })?;
    devices::get(c, &id)
}

/// What `edge-agent init --join` needs: the gateway's connection string at central's MQTT listener, and the certificate authority
/// in `ca`, or central's own.
///
/// # Errors
/// A gateway without keys, a file that cannot be read or holds no certificate, and a certificate of another authority
/// (`[tls] cert`) without `ca`.
pub fn join_token(config: &Config, gateway: &Device, ca: Option<&Path>) -> anyhow::Result<JoinToken> {
    let own = config.data_dir.join("ca.pem");
    let ca = match (ca, &config.tls.cert) {
        (Some(ca), _) => ca,
        (None, None) => own.as_path(),
        (None, Some(cert)) => anyhow::bail!(
            "[tls] cert is {}, which another authority signed; name that authority's certificate with --ca",
            cert.display()
        ),
    };
    let ca_pem = input_file::read_text(ca, input_file::SMALL_BYTES_MAX)
        .with_context(|| format!("reading the certificate authority {}", ca.display()))?;
    client_config(ca_pem.as_bytes())
        .with_context(|| format!("{} is no certificate authority", ca.display()))?;
    let keys = gateway.keys.as_ref().with_context(|| {
        format!("gateway `{}` proves itself by certificate and has no key to paste", gateway.id)
    })?;
    let host: HostName = config.hostname.parse().context("hostname")?;
    let upstream: ConnectionString = format!(
        "HostName={}:{};DeviceId={};SharedAccessKey={}",
        // An IPv6 address needs its brackets before a port.
        host.in_url(),
        config.mqtt.mqtts.port(),
        gateway.id,
        keys.primary
    )
    .parse()
    .context("making the connection string")?;
    Ok(JoinToken { upstream, ca_pem })
}

#[cfg(test)]
mod tests {
    use edge_tls::issue::issue_ca;

    use super::*;

    #[test]
    fn an_ipv6_address_is_in_brackets_before_the_port() {
        let dir = tempfile::tempdir().unwrap();
        let authority = issue_ca("central").unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.cert_pem).unwrap();
        let gateway = new_device("gw-1".parse().unwrap());
        for (hostname, shown) in [("fd00::1", "[fd00::1]:8884"), ("central.test", "central.test:8884")] {
            let config =
                Config { hostname: hostname.into(), data_dir: dir.path().into(), ..Config::default() };
            assert_eq!(join_token(&config, &gateway, None).unwrap().upstream.host_name, shown);
        }
    }
}
