//! A session: one task that owns one connection, from its CONNECT to its last byte.
//!
//! ```text
//! accepted ── CONNECT proven ──> open ── DISCONNECT, error, silence, take-over, stop ──> finishing ──> closed
//!     └ refused: CONNACK 1, 2, 3 or 5, or nothing                       what was taken in is stored and acknowledged
//! ```
//!
//! Guarantees: a PUBACK is written only after the message is where it must be, and in the order of arrival; a session
//! that cannot go on taking things in stops reading instead of queueing them.

mod connect;
mod end;
mod packets;
mod pending;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use schemas::topics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clients::Connection;
use crate::codec::message::Message;
use crate::codec::packet::{Ack, Version, Will};
use crate::codec::write::{self, AckKind};
use crate::door::{Door, count};
use crate::outbox::{Bound, Outgoing};
use crate::service::{ClientCert, Rejected, Service};
use end::End;
use pending::{Done, Pending};
use wire::{Reader, Writer};

/// Bytes that wait to be written to one client before its session stops adding to them.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// Text of a client for the log: on one line whatever it holds.
pub(crate) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_unicode()),
            false => write!(f, "{c}"),
        })
    }
}

/// Serves one connection to its end.
pub(crate) async fn hold<S, T>(
    door: Arc<Door<S>>,
    stream: T,
    peer: SocketAddr,
    client_cert: Option<ClientCert>,
    deadline: Instant,
    stop: CancellationToken,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    let proven = tokio::select! {
        proven = connect::prove(&door, &mut reader, &mut writer, peer, client_cert, deadline) => proven,
        () = stop.cancelled() => None,
    };
    let Some(proven) = proven else {
        // What was written is the CONNACK of the refusal.
        return end::close(&mut reader, &mut writer, Instant::now() + door.settings.finish_timeout).await;
    };
    let mut session = connect::open(door, proven, peer, reader, writer);
    let end = session.run(&stop).await;
    session.finish(end).await;
}

/// An open session.
struct Session<S, T> {
    door: Arc<Door<S>>,
    connection: Arc<Connection>,
    client_id: String,
    /// Whether its filters are forgotten when it ends.
    is_clean: bool,
    will: Option<Will>,
    reader: Reader<T>,
    writer: Writer<T>,
    /// What was taken in and is not acknowledged yet, in the order of arrival.
    pending: FuturesOrdered<Pending>,
    pending_bytes: usize,
    /// Twin requests run one after the other: the next one waits for this.
    twin_turn: Option<oneshot::Receiver<()>>,
    /// QoS 1 messages that the client has not acknowledged yet.
    in_flight: HashMap<u16, Option<oneshot::Sender<()>>>,
    last_id: u16,
    /// The client is closed when it is silent for so long.
    silence_max: Option<Duration>,
    /// When its proof is worth nothing any more.
    ends_at: Option<Instant>,
    last_read: Instant,
    stall_check_at: Instant,
    /// Bytes written at the last check, when more was waiting.
    written_at_check: Option<u64>,
    has_logged_retain: bool,
}

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run(&mut self, stop: &CancellationToken) -> End {
        let connection = self.connection.clone();
        let mut timer = pin!(tokio::time::sleep_until(self.next_tick()));
        loop {
            if let Err(end) = self.take_packets() {
                return end;
            }
            self.send_waiting();
            let may_take = self.may_take();
            let may_send = self.may_send();
            // All of these lose nothing when dropped. Not biased: a busy one must not starve the others.
            let step = tokio::select! {
                () = connection.ended.cancelled() => Err(End::Closed(connection.why().to_owned())),
                () = stop.cancelled() => Err(End::Stopped),
                written = self.writer.write(), if self.writer.has_output() => {
                    written.map_err(|error| End::Lost(error.to_string()))
                }
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.settle_ready(done),
                () = connection.outbox.arrived.notified(), if may_send => Ok(()),
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

    /// Whether more may be taken in from the client.
    fn may_take(&self) -> bool {
        self.pending.len() < self.door.settings.pending_max
            && self.pending_bytes < self.door.settings.pending_bytes_max
            && self.writer.out.len() < OUT_BYTES_MAX
    }

    /// Whether more may be sent to the client.
    fn may_send(&self) -> bool {
        self.in_flight.len() < self.door.settings.in_flight_max && self.writer.out.len() < OUT_BYTES_MAX
    }

    /// Moves messages from the client's queue to the wire, as many as fit.
    fn send_waiting(&mut self) {
        while self.may_send() {
            let Some(message) = self.connection.outbox.pop() else { return };
            let id = match message.qos {
                0 => 0,
                _ => {
                    let id = self.take_id();
                    self.in_flight.insert(id, None);
                    id
                }
            };
            let publish = Message {
                topic: &message.topic,
                payload: &message.payload,
                qos: message.qos,
                id,
                ..Message::default()
            };
            publish.write(&mut self.writer.out, Version::V4);
            match message.done {
                Some(done) if id == 0 => {
                    // Whoever waited may have gone.
                    let _ = done.send(());
                }
                done if id != 0 => {
                    self.in_flight.insert(id, done);
                }
                _ => {}
            }
        }
    }

    fn take_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            // There is always a free one: the window is far smaller than 65,535.
            if self.last_id != 0 && !self.in_flight.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Settles what has ended, and everything behind it that has ended too: their PUBACKs leave in one write.
    fn settle_ready(&mut self, done: Done) -> Result<(), End> {
        self.settle(done)?;
        while let Some(Some(done)) = self.pending.next().now_or_never() {
            self.settle(done)?;
        }
        Ok(())
    }

    /// Acknowledges what was done, or ends the session without a PUBACK.
    fn settle(&mut self, done: Done) -> Result<(), End> {
        self.pending_bytes -= done.bytes;
        let (client, peer) = (&self.client_id, self.connection.client.peer);
        let topic = std::str::from_utf8(&done.topic).unwrap_or_default();
        let answer = match done.result {
            Ok(answer) => answer,
            Err(Rejected::Wrong(status, why)) => {
                count(&self.door.counts.messages_wrong);
                let (client, topic, why) = (Shown(client), Shown(topic), Shown(&why));
                warn!(%client, %topic, %peer, status, "message refused, acknowledged and dropped: {why}");
                None
            }
            Err(Rejected::Temporary(status, why)) => {
                let (client, topic, why) = (Shown(client), Shown(topic), Shown(&why));
                warn!(%client, %topic, %peer, status, "message refused for now, not acknowledged: {why}");
                return Err(End::Closed("a message could not be taken now".to_owned()));
            }
        };
        if done.id != 0 {
            write::ack(&mut self.writer.out, Version::V4, AckKind::PubAck, &Ack::success(done.id));
        }
        match answer {
            Some((topic, body)) => self.answer(topic, body),
            None => Ok(()),
        }
    }

    /// Sends the answer to a twin request, when the client has subscribed to them.
    fn answer(&mut self, topic: String, body: Bytes) -> Result<(), End> {
        let Some(qos) = self.connection.granted(&topic) else {
            info!(client = %Shown(&self.client_id), filter = topics::TWIN_RESPONSES, "twin answer dropped: no subscription");
            return Ok(());
        };
        let message = Outgoing { topic: topic.into(), payload: body, qos, done: None };
        match self.connection.outbox.push(message, Bound::Soft) {
            Ok(_) => Ok(()),
            Err(_) => Err(End::Closed("the client asks for more than it reads or acknowledges".to_owned())),
        }
    }

    fn next_tick(&self) -> Instant {
        let silent_at = self.silence_max.map(|max| self.last_read + max);
        [silent_at, self.ends_at].into_iter().flatten().fold(self.stall_check_at, Instant::min)
    }

    /// Looks whether the client still reads and still speaks.
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.ends_at.is_some_and(|at| now >= at) {
            return Err(End::Closed("its SAS token expired".to_owned()));
        }
        if !self.may_take() {
            // Its silence is ours: nothing is read.
            self.last_read = now;
        }
        if now >= self.stall_check_at {
            let waiting = self.writer.has_output().then_some(self.writer.written);
            if waiting.is_some() && waiting == self.written_at_check {
                return Err(End::Closed("the client does not read what is sent to it".to_owned()));
            }
            self.written_at_check = waiting;
            self.stall_check_at = now + self.door.settings.write_timeout;
            if now.duration_since(self.last_read) >= self.door.settings.write_timeout {
                self.reader.give_back_memory();
            }
        }
        match self.silence_max {
            Some(max) if now.duration_since(self.last_read) >= max => {
                Err(End::Closed("the client was silent for one and a half times its keep-alive".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
