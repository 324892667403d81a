//! The foreign client rumqttc with the patience that a test on a busy machine needs.

use rumqttc::{AsyncClient, EventLoop, MqttOptions, NetworkOptions};

/// What a connection may take, TLS handshake and CONNACK included. By itself rumqttc gives up after 5 s, and what a test then sees is
/// neither a connection nor a refusal.
pub const CONNECT_SECS: u64 = crate::STEP.as_secs();

/// A client that is not connected yet.
pub fn client(options: MqttOptions, capacity: usize) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, capacity);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_SECS);
    events.set_network_options(network);
    (client, events)
}
