//! The messages of one identity, over all its connections to an upstream that is not central.
//!
//! [`edge_core::link::retransmit_queue`] decides what to send and who is at fault; here it is done.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use edge_core::error_chain::chain;
use edge_core::link::fault_attribution::{self, Ended};
use edge_core::link::retransmit_queue::{RetransmitQueue, Settled};
use mqtt::client::{ClientOptions, ConnectError, Incoming, Outgoing, ReceiveError, Sender};
use mqtt::codec::reason::Reason as Code;
use schemas::names::Identity;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::{Prepared, UpstreamProfile};
use crate::messages::quarantine::Reason;
use crate::upstream::address::Address;
use crate::upstream::connection::{Connection, ConnectionError, OUT_BYTES_MAX, Outcome, Traffic, ping};
use crate::upstream::driver::{Retry, Upstream};
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;

/// Longest wait while messages are tried one by one because the server, which answers, closes the connection at one.
const CAREFUL_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection other than the gateway's own disconnects when it had nothing to carry for so long.
const IDLE: Duration = Duration::from_secs(300);
/// Messages that are taken at once.
const BATCH: usize = 128;
/// How often an identity may be refused, while the gateway's own is admitted, before its messages are set aside.
const REFUSALS: u32 = 3;

/// A message to carry.
pub(super) struct Job {
    pub(super) ticket: u64,
    pub(super) prepared: Prepared,
    pub(super) is_repeated: bool,
}

/// What became of a message.
pub(super) enum Event {
    /// The upstream has it.
    Taken(u64),
    /// The upstream will never have it.
    Guilty(u64, Reason),
}

/// Why the gateway itself ends a connection that works.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardEnd {
    #[error("its token runs out")]
    Renewed,
    #[error("it has nothing to carry")]
    Idle,
    #[error("upstream refuses messages, and nobody knows whether it takes others")]
    Stuck,
}

/// One identity at the upstream, and its messages.
pub(super) struct ForwardUpstream {
    pub(super) identity: Identity,
    pub(super) profile: Arc<UpstreamProfile>,
    pub(super) address: Address,
    pub(super) meter: Meter,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    /// The gateway's own connection, which is always kept; the others end when they have nothing to carry.
    pub(super) is_own: bool,
    /// Whether the gateway's own connection is connected.
    pub(super) own: watch::Receiver<LinkStatus>,
    pub(super) messages: Messages,
    /// Attempts in a row that upstream refused.
    pub(super) refusals: u32,
}

/// The messages that are taken from the queues and not settled.
pub(super) struct Messages {
    line: RetransmitQueue,
    prepared: HashMap<u64, (Prepared, Option<u8>)>,
    events: mpsc::UnboundedSender<Event>,
}

impl Messages {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Self { line: RetransmitQueue::default(), prepared: HashMap::new(), events }
    }

    fn take(&mut self, job: Job) {
        self.line.push(job.ticket, job.prepared.sender, job.is_repeated);
        self.prepared.insert(job.ticket, (job.prepared, None));
    }

    fn settle(&mut self, settled: Settled) {
        if let Some(ticket) = settled.taken {
            self.prepared.remove(&ticket);
            let _stopping = self.events.send(Event::Taken(ticket));
        }
        for (ticket, why) in settled.guilty {
            self.attribute_fault(ticket, why);
        }
    }

    fn attribute_fault(&mut self, ticket: u64, why: String) {
        let code = self.prepared.remove(&ticket).and_then(|(_, code)| code);
        let _stopping = self.events.send(Event::Guilty(ticket, Reason { code, why }));
    }

    /// Writes what the line says is to be sent now.
    fn send(&mut self, sender: &mut Sender) {
        while sender.space() > 0
            && sender.waiting_bytes() < OUT_BYTES_MAX
            && let Some(next) = self.line.next_to_send()
        {
            let Some((prepared, _)) = self.prepared.get(&next.ticket) else {
                self.line.remove(next.ticket);
                continue;
            };
            let message = Outgoing {
                topic: &prepared.topic,
                payload: &prepared.payload,
                is_repeated: next.is_repeated,
                properties: prepared.properties.as_deref(),
            };
            if let Some(bytes) = sender.too_large(&message) {
                self.line.remove(next.ticket);
                self.attribute_fault(
                    next.ticket,
                    format!("its packet would be {bytes} bytes, which upstream does not take"),
                );
                continue;
            }
            let packet_id = sender.send(&message);
            self.line.sent(next.ticket, packet_id);
        }
    }

    fn refused(&mut self, packet_id: u16, reason: Code, why: String) {
        let why = if why.is_empty() { reason.to_string() } else { format!("{reason}: {why}") };
        if let Some(ticket) = self.line.ticket(packet_id)
            && let Some((_, code)) = self.prepared.get_mut(&ticket)
        {
            *code = Some(reason.code());
        }
        let settled = self.line.refused(packet_id, reason.code(), why);
        self.settle(settled);
    }
}

impl Upstream for ForwardUpstream {
    type End = ForwardEnd;

    async fn needed(&mut self) -> bool {
        if self.is_own || !self.messages.line.is_empty() {
            return true;
        }
        let job = self.jobs.recv().await;
        job.map(|job| self.messages.take(job)).is_some()
    }

    fn options(&self) -> Result<ClientOptions, ConnectError> {
        match self.profile.login(&self.identity) {
            Ok(login) => Ok(self.address.options(login)),
            Err(error) => Err(ConnectError::Protocol(chain(&error).to_string())),
        }
    }

    async fn carry(&mut self, connection: Connection, stop: &CancellationToken) -> Outcome<ForwardEnd> {
        let began = Instant::now();
        let mut traffic = ForwardTraffic { of: self, began, last_job: began, is_probing: false };
        connection.carry(&mut traffic, stop).await
    }

    fn ended(&mut self, why: &ConnectionError<ForwardEnd>) -> Retry {
        let is_refused = matches!(why, ConnectionError::Connect(error) if is_refusal(error));
        self.refusals = if is_refused { self.refusals + 1 } else { 0 };
        if let ConnectionError::Ended(ForwardEnd::Renewed | ForwardEnd::Idle) = why {
            return Retry::AtOnce;
        }
        if let Some((ticket, why)) = self.messages.line.ended(ended_by(why)) {
            self.messages.attribute_fault(ticket, why);
        }
        if self.refusals >= REFUSALS && !self.is_own && self.own.borrow().is_connected {
            self.give_up(&chain(why).to_string());
        }
        if self.messages.line.is_careful() {
            // The server answers, and one message after the other is tried.
            Retry::Later { at_most: CAREFUL_WAIT_MAX }
        } else {
            Retry::LATER
        }
    }
}

impl ForwardUpstream {
    /// The upstream lets the gateway in and not this identity: its messages must not keep the others waiting.
    fn give_up(&mut self, why: &str) {
        let messages = &mut self.messages;
        while let Ok(job) = self.jobs.try_recv() {
            messages.take(job);
        }
        let mut tickets: Vec<u64> = messages.prepared.keys().copied().collect();
        tickets.sort_unstable();
        tracing::warn!(identity = %self.identity, messages = tickets.len(), why, "upstream does not let an identity in");
        for ticket in tickets {
            messages.line.remove(ticket);
            messages.attribute_fault(ticket, format!("{} is not admitted: {why}", self.identity));
        }
    }
}

/// What one connection carries of them.
struct ForwardTraffic<'a> {
    of: &'a mut ForwardUpstream,
    began: Instant,
    last_job: Instant,
    /// A ping by which a server proves that it answers is on its way.
    is_probing: bool,
}

impl Traffic for ForwardTraffic<'_> {
    type End = ForwardEnd;

    const IS_DEDUPLICATED: bool = false;

    async fn write(&mut self, sender: &mut Sender) -> Result<(), ForwardEnd> {
        let messages = &mut self.of.messages;
        if messages.line.wants_proof() && !self.is_probing {
            self.is_probing = true;
            ping(sender, &self.of.meter);
        }
        let is_renewed = self.of.profile.lasts().is_some_and(|lasts| self.began.elapsed() >= lasts);
        if !is_renewed {
            messages.send(sender);
        }
        if messages.line.is_stuck() {
            return Err(ForwardEnd::Stuck);
        }
        if is_renewed && sender.is_idle() {
            return Err(ForwardEnd::Renewed);
        }
        if !self.of.is_own && messages.line.is_empty() && self.last_job.elapsed() > IDLE {
            return Err(ForwardEnd::Idle);
        }
        Ok(())
    }

    async fn due(&mut self) -> Result<(), ForwardEnd> {
        let Some(job) = self.of.jobs.recv().await else {
            // The forwarder ends, and with it this connection: at the stop, as soon as what is in flight is acknowledged.
            return pending().await;
        };
        self.last_job = Instant::now();
        self.of.messages.take(job);
        for _ in 1..BATCH {
            let Ok(job) = self.of.jobs.try_recv() else { break };
            self.of.messages.take(job);
        }
        Ok(())
    }

    async fn hear(&mut self, _: &mut Sender, incoming: Incoming) -> Result<(), ForwardEnd> {
        let messages = &mut self.of.messages;
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                let settled = messages.line.acknowledged(packet_id);
                messages.settle(settled);
            }
            Incoming::Refused { packet_id, reason, why } => messages.refused(packet_id, reason, why),
            Incoming::Pong => {
                self.is_probing = false;
                messages.line.answered();
            }
            // Nothing was asked for, so nothing comes.
            Incoming::Message { .. } | Incoming::Subscribed(_) => {}
        }
        Ok(())
    }
}

/// Whether the server or the connection ended it.
fn ended_by(why: &ConnectionError<ForwardEnd>) -> Ended {
    match why {
        ConnectionError::Receive(ReceiveError::Closed) => Ended::ByServer,
        ConnectionError::Receive(ReceiveError::Ended { reason, .. }) => {
            fault_attribution::of_disconnect(reason.code())
        }
        ConnectionError::Receive(ReceiveError::Io(error)) | ConnectionError::Write(error) => of_io(error),
        _ => Ended::ByLine,
    }
}

fn of_io(error: &std::io::Error) -> Ended {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof => Ended::ByServer,
        _ => Ended::ByLine,
    }
}

fn is_refusal(error: &ConnectError) -> bool {
    let ConnectError::Refused { reason, .. } = error else { return false };
    [Code::NOT_AUTHORIZED, Code::BAD_USER_NAME_OR_PASSWORD, Code::BANNED, Code::CLIENT_ID_NOT_VALID]
        .contains(reason)
}
