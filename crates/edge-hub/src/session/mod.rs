//! A connection's task: it owns one connection, from its CONNECT to its last byte, and has the client's session meanwhile.
//!
//! ```text
//! accepted ── CONNECT proven ──> open ── DISCONNECT, error, silence, take-over, stop ──> finishing ──> closed
//!     └ refused: CONNACK with why, or nothing                       what was taken in is stored and acknowledged
//! ```
//!
//! Guarantees: a PUBACK or PUBREC is written only after the message is where it must be, and in the order of arrival; a
//! connection that cannot go on taking things in stops reading instead of queueing them.

mod answer;
mod connect;
mod end;
mod open;
mod packets;
mod pending;
mod publish;
mod rate;
mod send;
mod subscribe;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::wills::Will;
use crate::clients::Connection;
use crate::connection_slots::ConnectionSlot;
use crate::mqtt_server::MqttServer;
use crate::quota::Used;
use crate::service::{Service, Transport};
use crate::table::Route;
use end::End;
use mqtt::codec::packet::Version;
use mqtt::codec::reason::Reason;
use pending::{PendingQueue, Request};
use rate::Rates;
use send::Gate;
use wire::{Reader, Writer};

/// Bytes that wait to be written to one client before its session stops adding to them.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// Serves one connection to its end.
pub(crate) async fn hold<S, T>(
    server: Arc<MqttServer<S>>,
    stream: T,
    peer: SocketAddr,
    transport: Transport,
    slot: Arc<ConnectionSlot>,
    deadline: Instant,
    stop: CancellationToken,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    // What a connection does once is boxed: its task is as large as what it waits in for days.
    let begun = Box::pin(begin(server, stream, peer, transport, &slot, deadline, stop)).await;
    let Some(mut session) = begun else { return };
    let end = if slot.is_proven() {
        session.run().await
    } else {
        // A device that enrols itself.
        Box::pin(async {
            tokio::select! {
                end = session.run() => end,
                () = slot.evicted() => {
                    session.server.evicted(peer);
                    End::Closed("others need its slot more".to_owned(), Reason::SERVER_BUSY)
                }
            }
        })
        .await
    };
    Box::pin(session.finish(end)).await;
}

/// From the first byte to an open connection; `None` when there is none.
async fn begin<S, T>(
    server: Arc<MqttServer<S>>,
    stream: T,
    peer: SocketAddr,
    transport: Transport,
    slot: &ConnectionSlot,
    deadline: Instant,
    stop: CancellationToken,
) -> Option<Box<Session<S, T>>>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    let proven = tokio::select! {
        proven = connect::prove(&server, &mut reader, &mut writer, peer, transport, deadline) => proven,
        () = stop.cancelled() => None,
        () = slot.evicted() => None,
    };
    let proven =
        proven.and_then(|mut proven| proven.has_place(&server, slot, &mut writer, peer).then_some(proven));
    let Some(proven) = proven else {
        // What was written is the CONNACK of the refusal.
        let deadline = Instant::now() + server.settings.finish_timeout;
        tokio::select! {
            () = end::close(&mut reader, &mut writer, deadline) => {}
            () = slot.evicted() => server.evicted(peer),
        }
        return None;
    };
    Some(Box::new(open::open(server, proven, peer, reader, writer, &stop)))
}

struct Session<S, T> {
    server: Arc<MqttServer<S>>,
    connection: Arc<Connection>,
    /// What the client said of itself.
    peer: Peer,
    will: Option<Box<Will>>,
    reader: Reader<T>,
    writer: Writer<T>,
    /// Messages that were taken in and are not answered yet, in the order of arrival.
    pending: PendingQueue,
    pending_bytes: usize,
    /// What is answered when the journal has it.
    requests: VecDeque<Request>,
    /// QoS 1 and 2 messages of the client that it has not been told the end of.
    unanswered: usize,
    /// SUBSCRIBEs that wait for their SUBACK. Nothing is taken from the queue meanwhile.
    subscribing: usize,
    /// Twin requests run one after the other: the next one waits for this.
    twin_turn: Option<oneshot::Receiver<()>>,
    /// Messages whose packet ids must be on disk before they are sent.
    gate: Option<Box<Gate>>,
    /// Who receives on the topics that the client publishes to: few, so that comparing is faster than hashing.
    routes: BTreeMap<Bytes, Arc<Route>>,
    /// Topic aliases of the client.
    aliases: BTreeMap<u16, Bytes>,
    /// The client is closed when it is silent for so long.
    silence_max: Option<Duration>,
    /// How much more the client may send.
    rates: Rates,
    /// When its proof is worth nothing any more.
    ends_at: Option<Instant>,
    last_read: Instant,
    stall_check_at: Instant,
    /// Bytes written at the last check, when more was waiting.
    written_at_check: Option<u64>,
    /// When there was no room for a message of the client, and that was logged.
    full_since: Option<Instant>,
    /// Its identity's share of connections.
    _held: Option<Used>,
}

/// What a client said of itself in its CONNECT.
#[derive(Debug, Clone, Copy)]
struct Peer {
    version: Version,
    /// Whether it is a bridge of mosquitto, by its protocol level.
    is_bridge: bool,
    /// How long its session outlives the connection, in seconds.
    expiry_s: u32,
    /// QoS 1 and 2 messages that it takes at once.
    window: usize,
    /// Bytes of the largest packet that it takes.
    packet_bytes_max: usize,
    /// Whether reason strings may be sent in any packet.
    wants_reasons: bool,
}

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run(&mut self) -> End {
        let connection = self.connection.clone();
        let mut timer = pin!(tokio::time::sleep_until(self.next_tick()));
        loop {
            // Looked at first: what was read before a pause is taken when it is over.
            self.rates.paused_until();
            if let Err(end) = self.take_packets() {
                return end;
            }
            self.send_waiting();
            // Nothing else announces the end of a pause, or of the patience with a full queue.
            let due = [self.rates.paused_until(), self.closes_at()].into_iter().flatten().min();
            if let Some(at) = due.filter(|at| *at < timer.deadline()) {
                timer.as_mut().reset(at);
            }
            let may_take = self.may_take();
            let may_send = self.may_send();
            let is_congested = self.server.broker.journal.is_congested();
            // All of these lose nothing when dropped. Not biased: a busy one must not starve the others.
            let step = tokio::select! {
                end = connection.close.closed() => Err(end.map_or(End::Stopped, |(why, reason)| {
                    End::Closed(why.to_owned(), reason)
                })),
                written = self.writer.write(), if self.writer.has_output() => {
                    written.map_err(|error| End::Lost(error.to_string()))
                }
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.settle_ready(done),
                reply = pending::ready(&mut self.requests), if !self.requests.is_empty() => self.answer_ready(reply),
                stored = send::opened(&mut self.gate), if self.gate.is_some() => self.open_gate(stored),
                () = connection.session_queue.arrived.notified(), if may_send => Ok(()),
                () = self.server.broker.journal.decongested(), if is_congested => Ok(()),
                read = self.reader.fill(), if may_take => match read {
                    Ok(0) => Err(End::Lost("the client closed the connection without a DISCONNECT".to_owned())),
                    Ok(_) => {
                        self.last_read = Instant::now();
                        Ok(())
                    }
                    Err(error) => Err(End::Lost(error.to_string())),
                },
                () = &mut timer => {
                    let ticked = self.tick();
                    timer.as_mut().reset(self.next_tick());
                    ticked
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn client_id(&self) -> &str {
        &self.connection.session_queue.client_id
    }

    /// Whether more may be taken in from the client.
    fn may_take(&self) -> bool {
        self.pending.len() + self.requests.len() < self.server.settings.pending_max
            && self.pending_bytes < self.server.settings.pending_bytes_max
            && self.writer.out.len() < OUT_BYTES_MAX
            && !self.rates.is_paused()
            && !self.server.broker.journal.is_congested()
    }

    /// When a client is closed that waits for a PUBACK which will not come.
    fn closes_at(&self) -> Option<Instant> {
        let is_waiting = self.peer.version == Version::V4;
        self.full_since.filter(|_| is_waiting).map(|since| since + self.server.settings.full_timeout)
    }

    fn next_tick(&self) -> Instant {
        let silent_at = self.silence_max.map(|max| self.last_read + max);
        [silent_at, self.ends_at, self.closes_at()]
            .into_iter()
            .flatten()
            .fold(self.stall_check_at, Instant::min)
    }

    /// Looks whether the client still reads and still speaks.
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.ends_at.is_some_and(|at| now >= at) {
            let why = self.connection.client.login.proof.expired();
            return Err(End::Closed(why.to_owned(), Reason::MAXIMUM_CONNECT_TIME));
        }
        if self.closes_at().is_some_and(|at| now >= at) {
            let why = "there was no room for a message of it: it is to send that again";
            return Err(End::Closed(why.to_owned(), Reason::QUOTA_EXCEEDED));
        }
        if !self.may_take() {
            // Its silence is ours: nothing is read.
            self.last_read = now;
        }
        if now >= self.stall_check_at {
            let waiting = self.writer.has_output().then_some(self.writer.written);
            if waiting.is_some() && waiting == self.written_at_check {
                let why = "the client does not read what is sent to it";
                return Err(End::Closed(why.to_owned(), Reason::UNSPECIFIED));
            }
            self.written_at_check = waiting;
            self.stall_check_at = now + self.server.settings.write_timeout;
            if now.duration_since(self.last_read) >= self.server.settings.write_timeout {
                self.reader.give_back_memory();
                self.routes = BTreeMap::new();
                self.pending.give_back_memory();
                self.connection.session_queue.usage.give_back_memory(now);
            }
        }
        match self.silence_max {
            Some(max) if now.duration_since(self.last_read) >= max => {
                let why = "the client was silent for one and a half times its keep-alive";
                Err(End::Closed(why.to_owned(), Reason::KEEP_ALIVE_TIMEOUT))
            }
            _ => Ok(()),
        }
    }
}
