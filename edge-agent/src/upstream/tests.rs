//! Every upstream is given up one keep-alive after it was heard last, whatever else it does.

use std::path::Path;
use std::time::Duration;

use edge_core::route::QueueClass;
use mqtt::client::Transport;
use mqtt::codec::packet::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::central;
use super::central::tests::Gateway;
use super::forward::tests::broker;
use super::forward::{Forwarder, UpstreamProfile};
use crate::messages::record;

/// For what must happen at once; a loaded machine takes its time.
pub(super) const SOON: Duration = Duration::from_secs(120);
/// So long that a busy machine does not take twice as much.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// `$ls/stored` by which central lets telemetry in: QoS 0, without properties, `{"queues":{}}`.
const STORED: &[u8] = b"\x30\x1a\0\x0a$ls/stored\0{\"queues\":{}}";

/// A server that reads what it is told to, and no more than fits into a small socket buffer besides.
pub(super) struct Server(TcpListener, Version);

impl Server {
    pub(super) fn listen(version: Version) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket.listen(8).unwrap(), version)
    }

    pub(super) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Takes the next client in.
    pub(super) async fn accept(&self) -> TcpStream {
        let (mut stream, _) = tokio::time::timeout(SOON, self.0.accept()).await.unwrap().unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0x10, "CONNECT");
        let (mut bytes, mut byte, mut shift) = (0, 0x80, 0);
        while byte & 0x80 != 0 {
            byte = stream.read_u8().await.unwrap();
            bytes |= usize::from(byte & 0x7f) << shift;
            shift += 7;
        }
        stream.read_exact(&mut vec![0; bytes]).await.unwrap();
        let ack: &[u8] = if self.1 == Version::V5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
        stream.write_all(ack).await.unwrap();
        stream
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Central,
    Broker(Version),
    IotHub,
}

/// What the upstream does from its CONNACK on. It says nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    ReadsAll,
    ReadsNothing,
}

/// Starts a gateway that has more to send than two sockets hold, and gives why its upstream was given up, and after how long.
async fn given_up(kind: Kind, behaviour: Behaviour, dir: &Path) -> (String, Duration) {
    let version = match kind {
        Kind::Central => Version::V5,
        Kind::Broker(version) => version,
        Kind::IotHub => Version::V4,
    };
    let server = Server::listen(version);
    let mut gateway = Gateway::start(dir).await;
    let message = record::encode("devices/gw/messages/events/", &[7; 200_000]).unwrap();
    for _ in 0..60 {
        let queue = gateway.uplink.queues.upstream();
        queue.append(QueueClass::DEFAULT, message.clone(), None, None).unwrap().await.unwrap();
    }
    let address = Address {
        host: "127.0.0.1".into(),
        port: server.port(),
        transport: Transport::Plain,
        proxy: None,
        keep_alive: KEEP_ALIVE,
    };
    let mut status = gateway.uplink.status.subscribe();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = match kind {
        Kind::Central => {
            gateway.uplink.address = address;
            tokio::spawn(central::run(gateway.uplink, stopped))
        }
        Kind::Broker(_) | Kind::IotHub => {
            let profile = match kind {
                Kind::IotHub => UpstreamProfile::IotHub {
                    connection_string: gateway.uplink.upstream.clone(),
                    devices: gateway.uplink.authorizer.devices.clone(),
                },
                _ => broker(version),
            };
            let forwarder = Forwarder {
                gateway: "gw".parse().unwrap(),
                profile: profile.into(),
                address,
                queues: gateway.uplink.queues.clone(),
                quarantine: gateway.uplink.quarantine.clone(),
                meter: gateway.uplink.meter.clone(),
                status: gateway.uplink.status.clone(),
            };
            tokio::spawn(forwarder.run(stopped))
        }
    };
    // Nothing can be heard before.
    let heard = Instant::now();
    let mut stream = server.accept().await;
    if matches!(kind, Kind::Central) {
        stream.write_all(STORED).await.unwrap();
    }
    let reading = match behaviour {
        Behaviour::ReadsNothing => None,
        Behaviour::ReadsAll => {
            Some(tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await }))
        }
    };
    let away = status.wait_for(|status| !status.is_connected && !status.why.is_empty());
    let why = tokio::time::timeout(SOON, away).await.expect("nobody gives it up").unwrap().why.clone();
    let after = heard.elapsed();
    stop.cancel();
    tokio::time::timeout(SOON, task).await.expect("the stop is not heard").unwrap();
    if let Some(reading) = reading {
        let _ended = tokio::time::timeout(SOON, reading).await.expect("the connection stays").unwrap();
    }
    (why, after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upstream_that_goes_silent_is_given_up_after_one_keep_alive_whether_it_reads_or_not() {
    let kinds = [Kind::Central, Kind::Broker(Version::V4), Kind::Broker(Version::V5), Kind::IotHub];
    let cases = kinds
        .into_iter()
        .flat_map(|kind| [Behaviour::ReadsAll, Behaviour::ReadsNothing].map(|behaviour| (kind, behaviour)));
    let running = cases.map(|(kind, behaviour)| async move {
        let dir = tempfile::tempdir().unwrap();
        (kind, behaviour, given_up(kind, behaviour, dir.path()).await)
    });
    for (kind, behaviour, (why, after)) in futures_util::future::join_all(running).await {
        assert!(why.contains(" said nothing for "), "{kind:?} {behaviour:?}: {why}");
        assert!(after >= KEEP_ALIVE, "{kind:?} {behaviour:?}: {after:?}");
        assert!(after < 3 * KEEP_ALIVE, "{kind:?} {behaviour:?}: {after:?}");
    }
}
