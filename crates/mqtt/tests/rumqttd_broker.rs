//! Our client at a broker that others wrote: rumqttd's, in this process.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use mqtt::client::{self, ClientOptions, ConnectError, Incoming, ReceiveError, Receiver, Sender, Transport};
use mqtt::codec::packet::Version;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::time::timeout;

/// What a step may take at most on a busy machine.
const STEP: Duration = Duration::from_secs(60);

/// An address that is free now, and that nobody else is given: others have ports of 127.0.0.1.
fn free_address(host: u8) -> SocketAddr {
    TcpListener::bind((Ipv4Addr::new(127, 97, 0, host), 0)).unwrap().local_addr().unwrap()
}

fn listener(name: &str, listen: SocketAddr) -> Option<HashMap<String, ServerSettings>> {
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let settings =
        ServerSettings { name: name.to_owned(), listen, tls: None, next_connection_delay_ms: 0, connections };
    Some(HashMap::from([(name.to_owned(), settings)]))
}

/// A broker that ends with this process; the addresses of MQTT 3.1.1 and 5.
fn broker() -> (SocketAddr, SocketAddr) {
    let (v4, v5) = (free_address(1), free_address(2));
    let router = RouterConfig {
        max_connections: 10,
        max_outgoing_packet_count: 200,
        max_segment_size: 1 << 20,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: listener("v4", v4), v5: listener("v5", v5), ..Config::default() };
    let mut broker = Broker::new(config);
    std::thread::spawn(move || broker.start().unwrap());
    (v4, v5)
}

/// Connects as soon as the broker listens, and subscribes to `line/#`. rumqttd at times closes a connection that comes just after
/// another one ended, before or after its CONNACK, and panics when the same client id comes again; so each try has one of its own.
async fn subscribed(address: SocketAddr, version: Version) -> (Sender, Receiver) {
    let mut options = ClientOptions {
        host: address.ip().to_string(),
        port: address.port(),
        transport: Transport::Plain,
        proxy: None,
        version,
        client_id: String::new(),
        user_name: None,
        password: None,
        keep_alive: Duration::from_secs(60),
        connect_timeout: STEP,
    };
    let tries = async {
        for number in 1.. {
            options.client_id = format!("client-{version:?}-{number}");
            let (mut sender, mut receiver) = match client::connect(&options).await {
                Err(ConnectError::Io(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                connected => connected.unwrap(),
            };
            let subscription = sender.subscribe("line/#");
            if sender.flush().await.is_err() {
                continue;
            }
            match receiver.next().await {
                Err(ReceiveError::Closed | ReceiveError::Io(_)) => {}
                answer => {
                    assert_eq!(answer.unwrap(), Incoming::Subscribed(subscription));
                    sender.acknowledged(subscription);
                    return (sender, receiver);
                }
            }
        }
        unreachable!("the numbers do not end")
    };
    timeout(STEP, tries).await.unwrap()
}

/// Publishes to its own subscription and gives what came back, with the packet ids that were acknowledged.
async fn exchange(address: SocketAddr, version: Version) -> (Vec<String>, Vec<u16>, Vec<u16>) {
    let (mut sender, mut receiver) = subscribed(address, version).await;
    let sent: Vec<u16> = (0..20).map(|n| sender.publish("line/1", format!("{n}").as_bytes())).collect();
    sender.ping();
    sender.flush().await.unwrap();
    let (mut received, mut acknowledged, mut is_answered) = (Vec::new(), Vec::new(), false);
    while received.len() < sent.len() || acknowledged.len() < sent.len() || !is_answered {
        match timeout(STEP, receiver.next()).await.unwrap().unwrap() {
            Incoming::Message { topic, payload, packet_id } => {
                assert_eq!(topic, "line/1");
                received.push(String::from_utf8(payload.to_vec()).unwrap());
                sender.acknowledge(packet_id.unwrap());
                sender.flush().await.unwrap();
            }
            Incoming::Acknowledged(packet_id) => {
                sender.acknowledged(packet_id);
                acknowledged.push(packet_id);
            }
            Incoming::Pong => is_answered = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(sender.is_idle());
    sender.disconnect();
    sender.flush().await.unwrap();
    (received, sent, acknowledged)
}

#[tokio::test]
async fn our_client_publishes_subscribes_and_pings_at_rumqttd_in_both_versions() {
    let (v4, v5) = broker();
    for (address, version) in [(v4, Version::V4), (v5, Version::V5)] {
        let (received, sent, acknowledged) = exchange(address, version).await;
        assert_eq!(received, (0..20).map(|n| n.to_string()).collect::<Vec<_>>(), "{version:?}");
        assert_eq!(acknowledged, sent, "{version:?}");
    }
}
