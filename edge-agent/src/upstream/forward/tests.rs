//! A connection to an upstream that reads nothing more, or says nothing more: what is in flight, when it is given up, how it stops.

use std::time::Duration;

use bytes::Bytes;
use edge_core::link::budget::Limits;
use mqtt::client::Transport;
use mqtt::codec::packet::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::{Prepared, UpstreamProfile};
use super::traffic::{Event, ForwardUpstream, Job, Messages};
use crate::config::Properties;
use crate::state::State;
use crate::upstream::address::Address;
use crate::upstream::driver::{self, Reporter};
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;
use crate::upstream::tests::{SOON, Server};

/// More than the buffers of two sockets hold.
const LARGE: usize = 32 << 20;

/// How a broker is spoken to.
pub(in crate::upstream) fn broker(version: Version) -> UpstreamProfile {
    UpstreamProfile::Broker {
        topic: "site/{device}".parse().unwrap(),
        properties: Properties::None,
        version,
        client_id: "gw".into(),
        user_name: None,
        password: None,
    }
}

/// A gateway's own connection to a broker at a port of this test.
struct Running {
    jobs: mpsc::UnboundedSender<Job>,
    events: mpsc::UnboundedReceiver<Event>,
    status: watch::Receiver<LinkStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    tickets: u64,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(port: u16, version: Version, keep_alive: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meter = Meter::load(State::open(dir.path()).unwrap(), Limits::default()).unwrap();
        let profile = broker(version);
        let (jobs, taken) = mpsc::unbounded_channel();
        let (events_in, events) = mpsc::unbounded_channel();
        let away = LinkStatus { is_connected: false, since_ms: 0, why: String::new(), failure: None };
        let status = watch::Sender::new(away);
        let (receiver, stop) = (status.subscribe(), CancellationToken::new());
        let address =
            Address { host: "127.0.0.1".into(), port, transport: Transport::Plain, proxy: None, keep_alive };
        let upstream = ForwardUpstream {
            identity: "gw".parse().unwrap(),
            profile: profile.into(),
            address,
            meter: meter.clone(),
            jobs: taken,
            is_own: true,
            own: status.subscribe(),
            messages: Messages::new(events_in),
            refusals: 0,
        };
        let reporter = Reporter {
            peer: "upstream",
            host: "127.0.0.1".into(),
            identity: "gw".parse().unwrap(),
            status: Some(status),
        };
        let stopped = stop.clone();
        let task = tokio::spawn(async move { driver::run(upstream, reporter, meter, &stopped).await });
        Self { jobs, events, status: receiver, stop, task, tickets: 0, _dir: dir }
    }

    /// Hands over a message of so many bytes; gives its ticket.
    fn give(&mut self, bytes: usize) -> u64 {
        self.tickets += 1;
        let prepared = Prepared {
            sender: 1,
            topic: "site/press".into(),
            payload: Bytes::from(vec![7; bytes]),
            properties: None,
        };
        let _connection_ended = self.jobs.send(Job { ticket: self.tickets, prepared, is_repeated: false });
        self.tickets
    }

    /// Waits until the first connection is given up, if it was not before; gives the reason.
    async fn given_up(&mut self) -> String {
        let away = self.status.wait_for(|status| !status.is_connected && !status.why.is_empty());
        tokio::time::timeout(SOON, away).await.expect("nobody gives it up").unwrap().why.clone()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("the stop is not heard").unwrap();
    }
}

/// Reads the packet of a small PUBLISH and gives its packet id.
async fn read_publish(stream: &mut TcpStream) -> [u8; 2] {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    assert!(header[0] & 0xf0 == 0x30 && header[1] < 128, "a short PUBLISH: {header:?}");
    let mut rest = vec![0; header[1].into()];
    stream.read_exact(&mut rest).await.unwrap();
    let topic = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    [rest[2 + topic], rest[3 + topic]]
}

#[tokio::test]
async fn an_acknowledgement_is_heard_while_the_broker_reads_nothing_more() {
    for version in [Version::V4, Version::V5] {
        let server = Server::listen(version);
        let mut running = Running::start(server.port(), version, Duration::from_secs(600));
        let mut stream = server.accept().await;
        let small = running.give(10);
        let packet_id = read_publish(&mut stream).await;
        running.give(LARGE);
        // Its write has begun; the rest of it is never read.
        stream.read_u8().await.unwrap();
        stream.write_all(&[0x40, 2, packet_id[0], packet_id[1]]).await.unwrap();
        let event = tokio::time::timeout(SOON, running.events.recv()).await;
        let event = event.expect("the acknowledgement waits behind the write");
        assert!(matches!(event, Some(Event::Taken(ticket)) if ticket == small));
        running.end().await;
    }
}

#[tokio::test]
async fn the_stop_is_heard_while_the_broker_reads_nothing_more() {
    let server = Server::listen(Version::V4);
    let mut running = Running::start(server.port(), Version::V4, Duration::from_secs(600));
    let mut stream = server.accept().await;
    running.give(LARGE);
    stream.read_u8().await.unwrap();
    running.end().await;
}

/// The worst moment for a write to block is just before the keep-alive is over.
#[tokio::test]
async fn a_broker_that_neither_reads_nor_speaks_is_given_up_one_keep_alive_after_it_was_heard() {
    const KEEP_ALIVE: Duration = Duration::from_secs(12);
    let server = Server::listen(Version::V4);
    let mut running = Running::start(server.port(), Version::V4, KEEP_ALIVE);
    let _stream = server.accept().await;
    running.status.wait_for(|status| status.is_connected || !status.why.is_empty()).await.unwrap();
    tokio::time::sleep(KEEP_ALIVE.mul_f64(0.9)).await;
    let blocks = Instant::now();
    running.give(LARGE);
    let why = running.given_up().await;
    assert!(why.starts_with("upstream said nothing for"), "{why}");
    // It is due after a tenth of the keep-alive; the rest is for a loaded machine.
    assert!(blocks.elapsed() < KEEP_ALIVE, "the block counted anew: {:?}", blocks.elapsed());
    running.end().await;
}

#[tokio::test]
async fn a_broker_that_reads_and_says_nothing_more_is_given_up_with_messages_in_flight() {
    let server = Server::listen(Version::V5);
    let mut running = Running::start(server.port(), Version::V5, Duration::from_secs(10));
    let mut stream = server.accept().await;
    running.give(10);
    read_publish(&mut stream).await;
    let discarded = tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    let why = running.given_up().await;
    assert!(why.starts_with("upstream said nothing for"), "{why}");
    discarded.await.unwrap().unwrap();
    // The message is sent again, and marked as repeated.
    let mut stream = server.accept().await;
    assert_eq!(stream.read_u8().await.unwrap(), 0x3a, "PUBLISH, DUP, QoS 1");
    running.end().await;
}

#[tokio::test]
async fn what_a_broker_said_before_a_write_failed_is_heard() {
    let server = Server::listen(Version::V5);
    let mut running = Running::start(server.port(), Version::V5, Duration::from_secs(600));
    let mut stream = server.accept().await;
    running.give(LARGE);
    stream.read_u8().await.unwrap();
    // DISCONNECT, quota exceeded; what it has not read makes the close a reset.
    stream.write_all(&[0xe0, 2, 0x97, 0]).await.unwrap();
    drop(stream);
    let why = running.given_up().await;
    assert!(why.contains("quota exceeded"), "{why}");
    running.end().await;
}
