//! One connection to central, from its start to its end.
//!
//! One task writes and hears, and neither waits for the other: a line that takes nothing more is still listened to. It waits
//! for whatever comes first: something from central, room to write, a record of the queues while the window has room,
//! something to tell, or the time to ask whether anybody is there.

use std::sync::Arc;
use std::time::Duration;

use edge_core::dialect::link::{LinkDown, LinkUp};
use edge_core::link::budget::Cause;
use edge_core::link::liveness::{Liveness, Next};
use futures_util::FutureExt as _;
use mqtt::client::{Incoming, Receiver, Sender};
use schemas::link::{Hello, LINK_VERSION};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ended::Ended;
use super::telemetry::Telemetry;
use super::updates_out::{IN_FLIGHT_MAX, PACKET_BYTES, UpdateSender};
use super::uplink::Uplink;
use crate::messages::quarantine::Reason;
use crate::messages::queues::destination::Queue;

/// Messages that are taken from the queues at once: as many as the write below holds.
const BATCH: usize = 512;
/// Bytes that wait to be written before more is taken from the queues. Some of what TLS puts into one record is as much as
/// one write needs to be; the rest would only wait here, where an alarm cannot overtake it.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// How often central is asked for its time: in ten minutes steady clocks drift apart by 0.1 s. The loop below turns at least once
/// in each keep-alive.
const ASK_TIME_EVERY: Duration = Duration::from_secs(600);

pub(super) struct Connection<'a> {
    link: &'a Uplink,
    sender: Sender,
    telemetry: Telemetry,
    telling: UpdateSender<'a>,
    /// A message that waits for the next day's bytes.
    held_back: Option<(Arc<Queue>, edge_buffer::Record)>,
    /// central has answered the last question for its time.
    is_time_told: bool,
}

impl<'a> Connection<'a> {
    /// A connection that central has accepted.
    pub(super) fn new(link: &'a Uplink, sender: Sender) -> Self {
        Self {
            link,
            sender,
            telemetry: Telemetry::new(),
            telling: UpdateSender::all(link),
            held_back: None,
            is_time_told: false,
        }
    }

    /// Runs it; `Ok` when it was stopped.
    pub(super) async fn run(
        &mut self,
        mut receiver: Receiver,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        // Before the subscription, at which central tells everything.
        self.greet(None);
        self.sender.subscribe(schemas::topics::LINK);
        self.link.enrolments.linked(true);
        let mut reader = self.link.queues.upstream().reader();
        let began = Instant::now();
        let mut ask_time_at = None;
        let mut liveness = Liveness::new(self.link.keep_alive);
        let mut budget = self.link.meter.changes();
        loop {
            self.telling.tell(&mut self.sender);
            let wait = match liveness.next(began.elapsed()) {
                Next::Wait(until) => until,
                Next::Ask => {
                    self.sender.ping();
                    self.link.meter.count(Cause::Link, 4);
                    continue;
                }
                // It may have spoken while the disk kept us from listening.
                Next::Dead(silent) => match receiver.next().now_or_never() {
                    None => return Err(Ended::Silent(silent)),
                    Some(incoming) => {
                        liveness.heard(began.elapsed());
                        self.hear(incoming?).await?;
                        continue;
                    }
                },
            };
            let may_send =
                self.room() > 0 && self.held_back.is_none() && self.sender.waiting_bytes() < OUT_BYTES_MAX;
            tokio::select! {
                () = stop.cancelled() => {
                    self.sender.disconnect();
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.sender.flush()).await;
                    return Ok(());
                }
                incoming = receiver.next() => {
                    liveness.heard(began.elapsed());
                    self.hear(incoming?).await?;
                    // What came in the same read is heard before anything is written.
                    while let Some(incoming) = receiver.next().now_or_never() {
                        self.hear(incoming?).await?;
                    }
                }
                written = self.sender.flush(), if self.sender.has_output() => {
                    written?;
                    liveness.said(began.elapsed());
                }
                next = reader.next(), if may_send => {
                    let (queue, next) = next?;
                    // What changes from here on is waited for.
                    budget.mark_unchanged();
                    self.send(queue, next).await?;
                    for _ in 1..BATCH.min(self.room() + 1) {
                        if self.sender.waiting_bytes() >= OUT_BYTES_MAX || self.held_back.is_some() {
                            break;
                        }
                        let Some(next) = reader.next().now_or_never() else { break };
                        let (queue, next) = next?;
                        self.send(queue, next).await?;
                    }
                }
                // The meter lives as long as the link.
                _ = budget.changed(), if self.held_back.is_some() => {
                    if let Some((queue, next)) = self.held_back.take() {
                        self.send(queue, next).await?;
                    }
                }
                () = self.telling.due() => {}
                // central tells everything to whom subscribes: what it wants of a module that was removed here, it wants of
                // the next one of the name.
                () = self.link.authorizer.removals.local() => {
                    self.sender.subscribe(schemas::topics::LINK);
                }
                () = tokio::time::sleep_until(began + wait) => {}
            }
            if self.is_time_told {
                let at = *ask_time_at.get_or_insert_with(|| Instant::now() + ASK_TIME_EVERY);
                if Instant::now() >= at {
                    ask_time_at = None;
                    self.is_time_told = false;
                    self.greet(Some(crate::clock::upstream_asked()));
                }
            }
        }
    }

    /// Says which version of the link this gateway speaks, and asks for central's time.
    fn greet(&mut self, asks_time: Option<u64>) {
        let hello = Hello { version: LINK_VERSION, asks_time };
        let hello = serde_json::to_vec(&hello).expect("numbers have a JSON form");
        self.sender.publish(&LinkUp::Hello.to_string(), &hello);
        self.link
            .meter
            .count(Cause::Link, (LinkUp::Hello.to_string().len() + hello.len() + PACKET_BYTES) as u64);
    }

    /// Says in the log what the line was like.
    pub(super) fn sum_up(&self) {
        let pace = self.telemetry.pace();
        let (round_trip, per_second) = (pace.round_trip(), pace.rate().round());
        tracing::info!(?round_trip, per_second, window = pace.window(), "the connection to central ended");
    }

    /// How many messages may be sent now: as the window says and central takes, with places left for what is told.
    fn room(&self) -> usize {
        let kept = IN_FLIGHT_MAX.min(self.sender.publishes_max() / 2);
        self.telemetry.free().min(self.sender.room().saturating_sub(kept))
    }

    /// Sends a message, holds it back when the day's bytes are used up, or sets it aside when it can never be sent.
    async fn send(&mut self, queue: Arc<Queue>, next: edge_buffer::Record) -> Result<(), Ended> {
        if self.link.quarantine.holds(&queue, next.sequence) {
            self.telemetry.passed(&queue, next.sequence);
            return Ok(());
        }
        self.link.quarantine.before_sending(&next.payload).await?;
        let generation = self.link.generation_of(&queue, next.sequence, &next.payload);
        let sent = self.telemetry.send(&mut self.sender, &queue, &next, generation, |bytes| {
            self.link.meter.spend(Cause::Telemetry, bytes)
        });
        match sent {
            Ok(true) => {}
            Ok(false) => self.held_back = Some((queue, next)),
            Err(reason) => {
                Self::set_aside(self.link, &queue, next.sequence, reason).await?;
                self.telemetry.passed(&queue, next.sequence);
            }
        }
        Ok(())
    }

    /// Puts a message into quarantine, with the generation of its sender.
    async fn set_aside(link: &Uplink, queue: &Queue, sequence: u64, reason: Reason) -> Result<(), Ended> {
        let generation = |payload: &_| link.generation_of(queue, sequence, payload);
        Ok(link.quarantine.put_of(queue, sequence, reason, generation).await?)
    }

    /// central will never take a message: telemetry is set aside, and what was told is told again when it changes.
    async fn refused(
        &mut self,
        packet_id: u16,
        reason: mqtt::codec::reason::Reason,
        why: String,
    ) -> Result<(), Ended> {
        self.sender.acknowledged(packet_id);
        if self.telling.refused(packet_id) {
            tracing::error!(%reason, why, "central refused what it was told");
        } else if let Some((queue, sequence)) = self.telemetry.find(packet_id) {
            let why = if why.is_empty() { reason.to_string() } else { why };
            Self::set_aside(self.link, &queue, sequence, Reason { code: Some(reason.code()), why }).await?;
            self.telemetry.set_aside(packet_id);
        }
        Ok(())
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<(), Ended> {
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                self.sender.acknowledged(packet_id);
                if !self.telling.acknowledged(packet_id) {
                    self.telemetry.acknowledged(packet_id);
                }
            }
            Incoming::Refused { packet_id, reason, why } => self.refused(packet_id, reason, why).await?,
            // Only now can central answer.
            Incoming::Subscribed(_) => self.greet(Some(crate::clock::upstream_asked())),
            Incoming::Pong => {}
            Incoming::Message { topic, payload, packet_id } => {
                let bytes = topic.len() + payload.len() + PACKET_BYTES;
                self.link.meter.count(super::updates_in::cause(&topic), bytes as u64);
                let told = self.link.told(&topic, &payload).await?;
                match told {
                    Some(LinkDown::Stored) => {
                        self.telemetry.resume();
                        self.telling.resume();
                    }
                    // An older central never answers, and is not asked again.
                    Some(LinkDown::Time) => self.is_time_told = true,
                    _ => {}
                }
                if let Some(packet_id) = packet_id {
                    self.sender.acknowledge(packet_id);
                }
            }
        }
        Ok(())
    }
}
