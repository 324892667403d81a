//! The bounds of an MQTT server.

use std::path::PathBuf;
use std::time::Duration;

use edge_core::access::throttle::ThrottleSettings;

/// What one identity may have and do: a device, a module, or a local user with all its client ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Connections at once; a device or module has one.
    pub connections_max: u64,
    /// Sessions that outlive their connection; beyond, a session ends with it.
    pub sessions_max: u64,
    /// Retained messages; beyond, a message is given to its subscribers and not retained.
    pub retained_messages_max: u64,
    /// Their bytes.
    pub retained_bytes_max: u64,
    /// Bytes of filters over all its sessions, with what each holds beside; beyond, the SUBACK refuses.
    pub subscription_bytes_max: u64,
    /// Wills of its clients, of those that are here and of those that are gone; beyond, CONNECT is refused.
    pub wills_max: u64,
    /// Their bytes, with what each holds beside.
    pub will_bytes_max: u64,
    /// Bytes of the topics that its connections have given aliases, with what each holds beside; beyond, the connection is
    /// closed.
    pub alias_bytes_max: u64,
    /// Packet ids of QoS 2 messages that its clients have not released, in all its sessions; beyond, a new one is refused.
    pub unreleased_ids_max: u64,
    /// Packets in a second, beside those that settle what it was sent; 0 for no limit. Beyond, it is not read from for a while.
    pub packets_per_second: u64,
    /// Filters that it subscribes to or gives up in a second; 0 for no limit. Beyond, it is not read from for a while.
    pub filters_per_second: u64,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            // A local user may stand for a tenth of all plain clients.
            connections_max: 1_000,
            sessions_max: 1_000,
            // Half of what all have: a gateway of a PLC is one client, and retains thousands of values.
            retained_messages_max: 5_000,
            retained_bytes_max: 16 << 20,
            subscription_bytes_max: 8 << 20,
            // One for each connection.
            wills_max: 1_000,
            will_bytes_max: 8 << 20,
            // 32 aliases of 200 bytes for each connection.
            alias_bytes_max: 8 << 20,
            // One client of MQTT 3.1.1 may use 65,535 before it releases the first.
            unreleased_ids_max: 100_000,
            // More than one client can send in a second on the machines that gateways are.
            packets_per_second: 400_000,
            // All the filters of five clients at once. Each changes the table that every publisher reads.
            filters_per_second: 500,
        }
    }
}

/// The bounds of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttServerSettings {
    /// Connections at once, over all listeners of the server.
    pub connections_max: usize,
    /// Connections at once that have proven nothing yet; beyond, the address with the most of them loses its oldest.
    pub unproven_max: usize,
    /// Connections at once from one address.
    pub address_connections_max: usize,
    /// Connections that one address from which nobody has proven himself may open in a second, counted over all listeners;
    /// 0 for no limit. Beyond, it is refused.
    pub address_connects_per_second: u64,
    /// Messages that a client may publish in a second; 0 for no limit. Beyond, it is not read from for a while.
    pub messages_per_second: u64,
    /// Their bytes, topics included; 0 for no limit. Beyond, it is not read from for a while.
    pub bytes_per_second: u64,
    /// From accepting a connection to its proven CONNECT, TLS handshake included.
    pub connect_timeout: Duration,
    /// The largest packet, without its first two to five bytes.
    pub packet_bytes_max: usize,
    /// Messages per session that are not acknowledged yet; beyond, the session stops reading.
    pub pending_max: usize,
    /// The receive maximum that is sent to a client of MQTT 5; `pending_max` when it is left out. What is on a long line is in
    /// flight for its client, and here not yet.
    pub receive_max: Option<u16>,
    /// Their bytes; beyond, the session stops reading.
    pub pending_bytes_max: usize,
    /// QoS 1 and 2 messages to one client that it has not settled yet; the next ones wait in its queue. A client of MQTT 5
    /// may ask for fewer.
    pub in_flight_max: usize,
    /// Filters per client; beyond, the SUBACK refuses.
    pub filters_max: usize,
    /// Topic aliases that a client of MQTT 5 may use.
    pub topic_aliases_max: u16,
    /// Sessions that outlive their connection; beyond, a session ends with it.
    pub sessions_max: usize,
    /// QoS 1 and 2 messages that are kept for one client that is away; beyond, its oldest is dropped.
    pub session_messages_max: usize,
    /// Their bytes; beyond, its oldest is dropped.
    pub session_bytes_max: usize,
    /// Bytes that wait in all sessions that outlive their connection; beyond, the absent client with the most loses half.
    pub queued_bytes_max: usize,
    /// Retained messages; beyond, a message is given to its subscribers and not retained.
    pub retained_messages_max: usize,
    /// Their bytes.
    pub retained_bytes_max: usize,
    /// Wills of all clients; beyond, a CONNECT with a will is refused.
    pub wills_max: u64,
    /// Their bytes.
    pub will_bytes_max: u64,
    /// Bytes of the journal's files; beyond, what has to be kept is refused.
    pub journal_bytes_max: u64,
    /// A file outside of the journal's directory that tells what was in it when that is gone; `None` for none.
    pub journal_ledger_copy: Option<PathBuf>,
    /// Bytes that the journal leaves free on its file system.
    pub keep_free_bytes: u64,
    /// How long the will of a client waits at least that was connected when the program ended: it gets the time to come
    /// back.
    pub will_grace: Duration,
    /// A client that takes none of the bytes written to it for so long (to twice that) is closed.
    pub write_timeout: Duration,
    /// How long the PUBACKs of publishers may wait for the subscribers of one identity, less a tenth of the time since; then
    /// its slow subscriber is closed.
    pub publishers_wait: Duration,
    /// How long a client of MQTT 3.1.1 with a message that there was no space for stays connected. It gets no PUBACK for that
    /// one, and when it is closed it sends it again.
    pub full_timeout: Duration,
    /// What one identity may have and do.
    pub identity: IdentitySettings,
    /// How failed logins slow down the next ones.
    pub throttle: ThrottleSettings,
    /// How long an ending session waits for what it has taken to be stored, and for its last bytes to be written.
    pub finish_timeout: Duration,
}

impl Default for MqttServerSettings {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            unproven_max: 1_000,
            // Behind one address there may be all devices.
            address_connections_max: 10_000,
            // A whole line of devices that come for the first time at once.
            address_connects_per_second: 1_000,
            // More than one client can send in a second on the machines that gateways are.
            messages_per_second: 200_000,
            bytes_per_second: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            // IoT Hub's 256 KiB message, and the longest topic with its length and packet id.
            packet_bytes_max: 256 * 1024 + 65_535 + 4,
            pending_max: 1_000,
            receive_max: None,
            pending_bytes_max: 4 * 1024 * 1024,
            in_flight_max: 100,
            filters_max: 100,
            topic_aliases_max: 32,
            sessions_max: 10_000,
            session_messages_max: 10_000,
            session_bytes_max: 16 << 20,
            queued_bytes_max: 128 << 20,
            retained_messages_max: 10_000,
            retained_bytes_max: 32 << 20,
            // One for each connection, and of those that are gone as many.
            wills_max: 20_000,
            will_bytes_max: 32 << 20,
            journal_bytes_max: 1 << 30,
            journal_ledger_copy: None,
            keep_free_bytes: 64 << 20,
            will_grace: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            publishers_wait: Duration::from_secs(10),
            // Azure's Node SDK waits 30 s for a PUBACK and then fails the message; the Python SDK waits for ever. Both send
            // again what was not acknowledged when they have connected again.
            full_timeout: Duration::from_secs(20),
            identity: IdentitySettings::default(),
            throttle: ThrottleSettings::default(),
            finish_timeout: Duration::from_secs(5),
        }
    }
}
