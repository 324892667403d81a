//! Where an upstream is, and as whom a client logs in there.

use std::time::Duration;

use edge_core::access::sas;
use mqtt::client::{ClientOptions, Proxy, Transport};
use mqtt::codec::packet::Version;
use schemas::names::Identity;

use crate::clock::now_ms;
use crate::config::Upstream;

/// As the Azure SDKs do.
const TOKEN_SECS: u64 = 3600;
/// How long a connection with a SAS token is used: IoT Hub ends it with its token, and a message in flight then would be sent twice.
pub(super) const TOKEN_USED_FOR: Duration = Duration::from_secs(TOKEN_SECS * 5 / 6);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where an upstream is and how it is reached.
#[derive(Clone)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub transport: Transport,
    pub proxy: Option<Proxy>,
    /// A connection on which nothing is heard for so long is given up.
    pub keep_alive: Duration,
}

/// What a client shows in its CONNECT.
pub(super) struct Login {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<String>,
}

impl Address {
    /// Of a configured upstream. The transport is given apart, since it needs files that may be unusable for now.
    pub fn new(upstream: &Upstream, transport: Transport, proxy: Option<Proxy>) -> Self {
        let (host, port) = upstream.address();
        Self { host, port, transport, proxy, keep_alive: upstream.keep_alive }
    }

    pub(super) fn options(&self, login: Login) -> ClientOptions {
        let Login { version, client_id, user_name, password } = login;
        ClientOptions {
            host: self.host.clone(),
            port: self.port,
            transport: self.transport.clone(),
            proxy: self.proxy.clone(),
            version,
            client_id,
            user_name,
            password,
            keep_alive: self.keep_alive,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

impl Login {
    /// With a SAS token made now, as IoT Hub and central want it.
    pub(super) fn sas(version: Version, hub: &str, identity: &Identity, key: &[u8]) -> Self {
        let token = sas::token(hub, identity, key, now_ms() / 1000 + TOKEN_SECS);
        Self {
            version,
            client_id: identity.to_string(),
            user_name: Some(format!("{hub}/{identity}/?api-version=2021-04-12")),
            password: Some(token),
        }
    }
}
