//! `[limits]`: what one client may ask of the MQTT server, as the configurations of both programs write it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config_file;
use crate::settings::{IdentitySettings, MqttServerSettings};

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once from one address.
    #[schemars(extend("x-default" = "`connections_max`"))]
    #[serde(deserialize_with = "config_file::optional_connections")]
    pub connections_per_address: Option<usize>,
    /// Connections at once that have not logged in yet.
    #[serde(deserialize_with = "config_file::connections")]
    pub unproven_connections: usize,
    /// Connections that an address from which nobody has logged in may open in a second; 0 for no limit.
    pub connects_per_second_per_address: u64,
    /// Messages that a client may publish in a second; 0 for no limit. A gateway is one client.
    pub messages_per_second: u64,
    /// Bytes that a client may publish in a second; 0 for no limit.
    pub bytes_per_second: u64,
    /// Topic filters that a client may hold.
    pub subscriptions: usize,
    /// QoS 1 and 2 messages on their way to a client at once.
    pub in_flight: usize,
    /// How long publishers may wait for the subscribers of one identity, which are closed then.
    pub publishers_wait_seconds: u64,
    /// Connections of one identity at once.
    #[serde(deserialize_with = "config_file::connections")]
    pub connections_per_identity: u64,
    /// Sessions of one identity that outlive their connection.
    pub sessions_per_identity: u64,
    /// Retained messages of one identity.
    pub retained_messages_per_identity: u64,
    /// Bytes of the retained messages of one identity.
    pub retained_bytes_per_identity: u64,
    /// Bytes of all filters of one identity.
    pub subscription_bytes_per_identity: u64,
    /// Wills of the clients of one identity, until they are published or void.
    pub wills_per_identity: u64,
    /// Bytes of the wills of one identity.
    pub will_bytes_per_identity: u64,
    /// Bytes of the topics that the connections of one identity have given aliases.
    pub alias_bytes_per_identity: u64,
    /// Packet ids of QoS 2 messages that the clients of one identity have not released.
    pub unreleased_ids_per_identity: u64,
    /// Packets that an identity may send in a second, beside those that settle what it was sent; 0 for no limit.
    pub packets_per_second: u64,
    /// Filters that an identity may subscribe to or give up in a second; 0 for no limit.
    pub filters_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let server = MqttServerSettings::default();
        Self {
            connections_per_address: None,
            unproven_connections: server.unproven_max,
            connects_per_second_per_address: server.address_connects_per_second,
            messages_per_second: server.messages_per_second,
            bytes_per_second: server.bytes_per_second,
            subscriptions: server.filters_max,
            in_flight: server.in_flight_max,
            publishers_wait_seconds: server.publishers_wait.as_secs(),
            connections_per_identity: server.identity.connections_max,
            sessions_per_identity: server.identity.sessions_max,
            retained_messages_per_identity: server.identity.retained_messages_max,
            retained_bytes_per_identity: server.identity.retained_bytes_max,
            subscription_bytes_per_identity: server.identity.subscription_bytes_max,
            wills_per_identity: server.identity.wills_max,
            will_bytes_per_identity: server.identity.will_bytes_max,
            alias_bytes_per_identity: server.identity.alias_bytes_max,
            unreleased_ids_per_identity: server.identity.unreleased_ids_max,
            packets_per_second: server.identity.packets_per_second,
            filters_per_second: server.identity.filters_per_second,
        }
    }
}

impl Limits {
    /// As the MQTT server takes them, with its bound for all connections.
    pub fn settings(&self, connections_max: usize) -> MqttServerSettings {
        MqttServerSettings {
            connections_max,
            unproven_max: self.unproven_connections.max(1),
            address_connections_max: self.connections_per_address.unwrap_or(connections_max),
            address_connects_per_second: self.connects_per_second_per_address,
            messages_per_second: self.messages_per_second,
            bytes_per_second: self.bytes_per_second,
            filters_max: self.subscriptions,
            in_flight_max: self.in_flight.max(1),
            publishers_wait: Duration::from_secs(self.publishers_wait_seconds),
            identity: IdentitySettings {
                connections_max: self.connections_per_identity,
                sessions_max: self.sessions_per_identity,
                retained_messages_max: self.retained_messages_per_identity,
                retained_bytes_max: self.retained_bytes_per_identity,
                subscription_bytes_max: self.subscription_bytes_per_identity,
                wills_max: self.wills_per_identity,
                will_bytes_max: self.will_bytes_per_identity,
                alias_bytes_max: self.alias_bytes_per_identity,
                unreleased_ids_max: self.unreleased_ids_per_identity,
                packets_per_second: self.packets_per_second,
                filters_per_second: self.filters_per_second,
            },
            ..MqttServerSettings::default()
        }
    }
}
