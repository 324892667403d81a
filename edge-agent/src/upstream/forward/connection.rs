//! One connection to an upstream that is not central, as one identity, kept up while there is something to carry.
//!
//! [`edge_core::link::retransmit_queue`] decides what to send and who is at fault; here it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edge_core::backoff::Backoff;
use edge_core::error_chain::chain;
use edge_core::health::facts::LinkFailure;
use edge_core::link::budget::Cause;
use edge_core::link::fault_attribution::{self, Ended};
use edge_core::link::liveness::{Liveness, Next};
use edge_core::link::retransmit_queue::{RetransmitQueue, Settled};
use futures_util::FutureExt as _;
use mqtt::client::{self, ConnectError, Incoming, Outgoing, ReceiveError, Receiver, Sender};
use mqtt::codec::reason::Reason as Code;
use schemas::names::Identity;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::{Address, Prepared, UpstreamProfile};
use crate::messages::quarantine::Reason;
use crate::upstream::meter::Meter;
use crate::upstream::status::{LinkStatus, link_failure};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest wait while messages are tried one by one because the server, which answers, closes the connection at one.
const CAREFUL_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection other than the gateway's own disconnects when it had nothing to carry for so long.
const IDLE: Duration = Duration::from_secs(300);
/// How long a connection that stops waits for acknowledgements.
const LEAVING: Duration = Duration::from_secs(1);
/// Messages of one write.
const BATCH: usize = 128;
/// How often an identity may be refused, while the gateway's own is let in, before its messages are set aside.
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

pub(super) struct UpstreamConnection {
    pub(super) identity: Identity,
    pub(super) profile: Arc<UpstreamProfile>,
    pub(super) address: Address,
    pub(super) meter: Meter,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Of the gateway's own connection: where to tell.
    pub(super) status: Option<watch::Sender<LinkStatus>>,
    /// Whether the gateway's own connection is connected.
    pub(super) own: watch::Receiver<LinkStatus>,
}

/// Why a connection ended.
enum End {
    Stopped,
    /// Its token runs out: the next one begins at once.
    Renewed,
    Idle,
    Lost(Ended, String),
}

struct Messages {
    line: RetransmitQueue,
    prepared: HashMap<u64, (Prepared, Option<u8>)>,
    events: mpsc::UnboundedSender<Event>,
}

impl Messages {
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
}

impl UpstreamConnection {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut messages = Messages {
            line: RetransmitQueue::default(),
            prepared: HashMap::new(),
            events: self.events.clone(),
        };
        let mut refusals = 0;
        loop {
            let begun = Instant::now();
            let mut failure = LinkFailure::Unreachable;
            let end = match self.connect(&stop).await {
                None => End::Stopped,
                Some(Ok((sender, receiver))) => {
                    refusals = 0;
                    self.tell(None);
                    let end = self.connection(&mut messages, sender, receiver, &stop).await;
                    backoff.lasted(begun.elapsed());
                    end
                }
                Some(Err(error)) => {
                    refusals = if is_refusal(&error) { refusals + 1 } else { 0 };
                    failure = link_failure(&error);
                    End::Lost(Ended::ByLine, format!("could not connect: {error}"))
                }
            };
            let (by, why) = match end {
                End::Stopped => return,
                End::Renewed => continue,
                End::Idle if self.next_job(&mut messages, &stop).await => continue,
                End::Idle => return,
                End::Lost(by, why) => (by, why),
            };
            if let Some((ticket, why)) = messages.line.ended(by) {
                messages.attribute_fault(ticket, why);
            }
            if refusals >= REFUSALS && self.status.is_none() && self.own.borrow().is_connected {
                self.give_up(&mut messages, &why);
            }
            let wait = if messages.line.is_careful() {
                // The server answers, and one message after the other is tried.
                backoff.failed(rand::random()).min(CAREFUL_WAIT_MAX)
            } else {
                backoff.failed(rand::random())
            };
            self.tell(Some((&why, failure, wait)));
            if !self.wait(&mut messages, wait, &stop).await {
                return;
            }
        }
    }

    /// A connection; `None` when the daemon stops.
    async fn connect(&self, stop: &CancellationToken) -> Option<Result<(Sender, Receiver), ConnectError>> {
        let options = match self.profile.options(&self.address, &self.identity) {
            Ok(options) => options,
            Err(error) => return Some(Err(ConnectError::Protocol(chain(&error).to_string()))),
        };
        tokio::select! {
            connected = client::connect(&options) => Some(connected),
            () = stop.cancelled() => None,
        }
    }

    /// The upstream lets the gateway in and not this identity: its messages must not keep the others waiting.
    fn give_up(&mut self, messages: &mut Messages, why: &str) {
        while let Ok(job) = self.jobs.try_recv() {
            messages.take(job);
        }
        let mut tickets: Vec<u64> = messages.prepared.keys().copied().collect();
        tickets.sort_unstable();
        tracing::warn!(identity = %self.identity, messages = tickets.len(), why, "upstream does not let an identity in");
        for ticket in tickets {
            messages.line.remove(ticket);
            messages.attribute_fault(ticket, format!("{} is not let in: {why}", self.identity));
        }
    }

    /// Waits before the next attempt; false when the daemon stops or nothing is left to carry.
    async fn wait(&mut self, messages: &mut Messages, wait: Duration, stop: &CancellationToken) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                () = stop.cancelled() => return false,
                job = self.jobs.recv() => match job {
                    Some(job) => messages.take(job),
                    None => return false,
                },
            }
        }
        self.status.is_some() || !messages.line.is_empty() || self.next_job(messages, stop).await
    }

    /// Waits until there is something to carry; false when the daemon stops.
    async fn next_job(&mut self, messages: &mut Messages, stop: &CancellationToken) -> bool {
        tokio::select! {
            job = self.jobs.recv() => job.map(|job| messages.take(job)).is_some(),
            () = stop.cancelled() => false,
        }
    }

    fn tell(&self, away: Option<(&str, LinkFailure, Duration)>) {
        let identity = &self.identity;
        match (&self.status, away) {
            (Some(status), None) => {
                tracing::info!(host = self.address.host, "upstream connected");
                status.send_replace(LinkStatus::connected());
            }
            (Some(status), Some((why, failure, wait))) => {
                let before = status.borrow().clone();
                let is_news = before.is_connected || before.why.is_empty();
                if is_news {
                    tracing::warn!(why, ?wait, "upstream is away")
                } else {
                    tracing::info!(why, ?wait, "upstream is still away")
                }
                status.send_replace(before.away(why.to_owned(), failure));
            }
            (None, None) => tracing::info!(%identity, "connected to upstream as itself"),
            (None, Some((why, _, wait))) => {
                tracing::info!(%identity, why, ?wait, "not connected to upstream")
            }
        }
    }

    async fn connection(
        &mut self,
        messages: &mut Messages,
        mut sender: Sender,
        mut receiver: Receiver,
        stop: &CancellationToken,
    ) -> End {
        let keep_alive = self.address.keep_alive;
        let begun = Instant::now();
        let mut liveness = Liveness::new(keep_alive);
        let mut carried = begun;
        let mut is_asked = false;
        loop {
            if messages.line.wants_proof() && !is_asked {
                is_asked = true;
                sender.ping();
                self.meter.count(Cause::Link, 4);
            }
            let is_renewed = self.profile.lasts().is_some_and(|lasts| begun.elapsed() >= lasts);
            if !is_renewed {
                self.send(messages, &mut sender);
            }
            let had_output = sender.has_output();
            match tokio::time::timeout(keep_alive, sender.flush()).await {
                Ok(Ok(())) if had_output => liveness.said(begun.elapsed()),
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.broken(messages, &mut receiver, error).await,
                Err(_) => {
                    return End::Lost(Ended::ByLine, format!("upstream took nothing for {keep_alive:?}"));
                }
            }
            if messages.line.is_stuck() {
                let why = "upstream refuses messages, and nobody knows whether it takes others".to_owned();
                return End::Lost(Ended::ByLine, why);
            }
            if is_renewed && sender.is_idle() {
                sender.disconnect();
                let _ = sender.flush().await;
                return End::Renewed;
            }
            let wait = match liveness.next(begun.elapsed()) {
                Next::Wait(until) => until,
                Next::Ask => {
                    sender.ping();
                    self.meter.count(Cause::Link, 4);
                    continue;
                }
                // It may have spoken while a write kept us from listening.
                Next::Dead(silent) => match receiver.next().now_or_never() {
                    None => return End::Lost(Ended::ByLine, format!("upstream said nothing for {silent:?}")),
                    Some(Ok(incoming)) => {
                        liveness.heard(begun.elapsed());
                        is_asked &= !matches!(incoming, Incoming::Pong);
                        hear(messages, &mut sender, incoming);
                        continue;
                    }
                    Some(Err(error)) => return lost(&error),
                },
            };
            tokio::select! {
                () = stop.cancelled() => return leave(messages, &mut sender, &mut receiver).await,
                incoming = receiver.next() => {
                    liveness.heard(begun.elapsed());
                    let mut next = Some(incoming);
                    while let Some(incoming) = next {
                        is_asked &= !matches!(incoming, Ok(Incoming::Pong));
                        match incoming {
                            Ok(incoming) => hear(messages, &mut sender, incoming),
                            Err(error) => return lost(&error),
                        }
                        next = receiver.next().now_or_never();
                    }
                }
                job = self.jobs.recv() => {
                    let Some(job) = job else { return leave(messages, &mut sender, &mut receiver).await };
                    messages.take(job);
                    carried = Instant::now();
                    for _ in 1..BATCH {
                        let Ok(job) = self.jobs.try_recv() else { break };
                        messages.take(job);
                    }
                }
                () = tokio::time::sleep_until(begun + wait) => {
                    if self.status.is_none() && messages.line.is_empty() && carried.elapsed() > IDLE {
                        sender.disconnect();
                        let _ = sender.flush().await;
                        return End::Idle;
                    }
                }
            }
        }
    }

    /// Writes what the line says is to be sent now.
    fn send(&self, messages: &mut Messages, sender: &mut Sender) {
        while sender.room() > 0
            && sender.waiting_bytes() < 256 << 10
            && let Some(next) = messages.line.next_to_send()
        {
            let Some((prepared, _)) = messages.prepared.get(&next.ticket) else {
                messages.line.remove(next.ticket);
                continue;
            };
            let message = Outgoing {
                topic: &prepared.topic,
                payload: &prepared.payload,
                is_repeated: next.is_repeated,
                properties: prepared.properties.as_deref(),
            };
            if let Some(bytes) = sender.too_large(&message) {
                messages.line.remove(next.ticket);
                messages.attribute_fault(
                    next.ticket,
                    format!("its packet would be {bytes} bytes, which upstream does not take"),
                );
                continue;
            }
            let packet_id = sender.send(&message);
            messages.line.sent(next.ticket, packet_id);
        }
    }

    /// A write failed: what upstream said before is heard first.
    async fn broken(&self, messages: &mut Messages, receiver: &mut Receiver, error: std::io::Error) -> End {
        loop {
            match tokio::time::timeout(Duration::from_millis(200), receiver.next()).await {
                Ok(Ok(Incoming::Acknowledged(packet_id))) => {
                    let settled = messages.line.acknowledged(packet_id);
                    messages.settle(settled);
                }
                Ok(Ok(Incoming::Refused { packet_id, reason, why })) => {
                    refused(messages, packet_id, reason, why)
                }
                Ok(Ok(_)) => {}
                Ok(Err(end @ ReceiveError::Ended { .. })) => return lost(&end),
                _ => return End::Lost(of_io(&error), format!("connection lost while writing: {error}")),
            }
        }
    }
}

fn hear(messages: &mut Messages, sender: &mut Sender, incoming: Incoming) {
    match incoming {
        Incoming::Acknowledged(packet_id) => {
            sender.acknowledged(packet_id);
            let settled = messages.line.acknowledged(packet_id);
            messages.settle(settled);
        }
        Incoming::Refused { packet_id, reason, why } => {
            sender.acknowledged(packet_id);
            refused(messages, packet_id, reason, why);
        }
        Incoming::Pong => messages.line.answered(),
        // Nothing was asked for, so nothing comes.
        Incoming::Message { .. } | Incoming::Subscribed(_) => {}
    }
}

fn refused(messages: &mut Messages, packet_id: u16, reason: Code, why: String) {
    let why = if why.is_empty() { reason.to_string() } else { format!("{reason}: {why}") };
    if let Some(ticket) = messages.line.ticket(packet_id)
        && let Some((_, code)) = messages.prepared.get_mut(&ticket)
    {
        *code = Some(reason.code());
    }
    let settled = messages.line.refused(packet_id, reason.code(), why);
    messages.settle(settled);
}

/// Stops in order: waits a moment for what is in flight, so that it does not go twice.
async fn leave(messages: &mut Messages, sender: &mut Sender, receiver: &mut Receiver) -> End {
    let until = Instant::now() + LEAVING;
    while !sender.is_idle() {
        match tokio::time::timeout_at(until, receiver.next()).await {
            Ok(Ok(incoming)) => hear(messages, sender, incoming),
            _ => break,
        }
    }
    sender.disconnect();
    let _ = tokio::time::timeout(LEAVING, sender.flush()).await;
    End::Stopped
}

fn lost(error: &ReceiveError) -> End {
    let by = match error {
        ReceiveError::Closed => Ended::ByServer,
        ReceiveError::Ended { reason, .. } => fault_attribution::of_disconnect(reason.code()),
        ReceiveError::Io(error) => of_io(error),
        ReceiveError::SubscriptionRefused(_) | ReceiveError::Protocol(_) => Ended::ByLine,
    };
    End::Lost(by, format!("connection lost: {error}"))
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
