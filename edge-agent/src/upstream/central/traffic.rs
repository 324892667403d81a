//! What one connection to central carries: telemetry from the queues while the window has space, updates for central, and what
//! central tells.

use std::sync::Arc;
use std::time::Duration;

use edge_core::dialect::link::{LinkDown, LinkUp};
use edge_core::link::budget::Cause;
use futures_util::FutureExt as _;
use mqtt::client::{Incoming, Sender};
use schemas::link::{Hello, LINK_VERSION};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ended::Ended;
use super::telemetry::Telemetry;
use super::updates_out::{IN_FLIGHT_MAX, PACKET_BYTES, UpdateSender};
use super::uplink::Uplink;
use crate::messages::quarantine::Reason;
use crate::messages::queues::destination::{DestinationReader, Queue};
use crate::upstream::connection::{OUT_BYTES_MAX, Traffic};

/// Messages that are taken from the queues at once: as many as one write holds.
const BATCH: usize = 512;
/// How often central is asked for its time: in ten minutes steady clocks drift apart by 0.1 s. Something is written at least once in
/// each keep-alive.
const ASK_TIME_EVERY: Duration = Duration::from_secs(600);

pub(super) struct LinkTraffic<'a> {
    link: &'a Uplink,
    telemetry: Telemetry,
    updates: UpdateSender<'a>,
    reader: DestinationReader,
    /// The message to send next: the last one taken from the queues.
    next: Option<(Arc<Queue>, edge_buffer::Record)>,
    /// It waits for bytes of the budget.
    is_held_back: bool,
    budget: watch::Receiver<()>,
    /// Another message may be taken from the queues.
    may_take: bool,
    /// central sends everything to a connection that subscribes.
    must_subscribe: bool,
    /// central has answered the last question for its time.
    is_time_answered: bool,
    ask_time_at: Option<Instant>,
}

impl<'a> LinkTraffic<'a> {
    /// Begins a connection that central has accepted.
    pub(super) fn begin(link: &'a Uplink, sender: &mut Sender) -> Self {
        let traffic = Self {
            link,
            telemetry: Telemetry::new(),
            updates: UpdateSender::all(link),
            reader: link.queues.upstream().reader(),
            next: None,
            is_held_back: false,
            budget: link.meter.changes(),
            may_take: false,
            must_subscribe: true,
            is_time_answered: false,
            ask_time_at: None,
        };
        // Before the subscription, at which central tells everything.
        traffic.greet(sender, None);
        link.enrolments.linked(true);
        traffic
    }

    /// Sends the message that was taken from the queues, and those behind it.
    async fn send_telemetry(&mut self, sender: &mut Sender) -> Result<(), Ended> {
        if self.is_held_back || self.space(sender) == 0 {
            return Ok(());
        }
        let Some((queue, next)) = self.next.take() else { return Ok(()) };
        // A change from here on is waited for.
        self.budget.mark_unchanged();
        self.send(sender, queue, next).await?;
        for _ in 1..BATCH.min(self.space(sender) + 1) {
            if sender.waiting_bytes() >= OUT_BYTES_MAX || self.next.is_some() {
                break;
            }
            let Some(next) = self.reader.next().now_or_never() else { break };
            let (queue, next) = next?;
            self.send(sender, queue, next).await?;
        }
        Ok(())
    }

    fn ask_time(&mut self, sender: &mut Sender) {
        if self.is_time_answered {
            let at = *self.ask_time_at.get_or_insert_with(|| Instant::now() + ASK_TIME_EVERY);
            if Instant::now() >= at {
                self.ask_time_at = None;
                self.is_time_answered = false;
                self.greet(sender, Some(crate::clock::upstream_requested()));
            }
        }
    }

    /// Says which version of the link this gateway speaks, and asks for central's time.
    fn greet(&self, sender: &mut Sender, time_request: Option<u64>) {
        let hello = Hello { version: LINK_VERSION, time_request };
        let hello = serde_json::to_vec(&hello).expect("numbers have a JSON form");
        sender.publish(&LinkUp::Hello.to_string(), &hello);
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

    /// How many messages may be sent now: as the window says and central takes, with places left for updates.
    fn space(&self, sender: &Sender) -> usize {
        // Half at most: a central that takes few messages at once must not stop telemetry for updates.
        let kept = IN_FLIGHT_MAX.min(sender.publishes_max() / 2);
        self.telemetry.free().min(sender.space().saturating_sub(kept))
    }

    /// Sends a message, holds it back when the day's bytes are used up, or sets it aside when it can never be sent.
    async fn send(
        &mut self,
        sender: &mut Sender,
        queue: Arc<Queue>,
        next: edge_buffer::Record,
    ) -> Result<(), Ended> {
        // It was set aside before, and the daemon was killed before the cursor was on disk.
        if self.link.quarantine.holds(&queue, next.sequence) {
            self.telemetry.passed(&queue, next.sequence);
            return Ok(());
        }
        self.link.quarantine.before_sending(&next.payload).await?;
        let generation = self.link.generation_of(&queue, next.sequence, &next.payload);
        let sent = self
            .telemetry
            .send(sender, &queue, &next, generation, |bytes| self.link.meter.spend(Cause::Telemetry, bytes));
        match sent {
            Ok(true) => {}
            Ok(false) => {
                self.next = Some((queue, next));
                self.is_held_back = true;
            }
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

    /// central will never take a message: telemetry is set aside, and an update is sent again when it changes.
    async fn refused(
        &mut self,
        packet_id: u16,
        reason: mqtt::codec::reason::Reason,
        why: String,
    ) -> Result<(), Ended> {
        if self.updates.refused(packet_id) {
            tracing::error!(%reason, why, "central rejected an update");
        } else if let Some((queue, sequence)) = self.telemetry.find(packet_id) {
            let why = if why.is_empty() { reason.to_string() } else { why };
            Self::set_aside(self.link, &queue, sequence, Reason { code: Some(reason.code()), why }).await?;
            self.telemetry.set_aside(packet_id);
        }
        Ok(())
    }
}

impl Traffic for LinkTraffic<'_> {
    type End = Ended;

    const IS_DEDUPLICATED: bool = true;

    async fn write(&mut self, sender: &mut Sender) -> Result<(), Ended> {
        if std::mem::take(&mut self.must_subscribe) {
            sender.subscribe(schemas::topics::LINK);
        }
        self.ask_time(sender);
        self.send_telemetry(sender).await?;
        // After telemetry, which leaves packet ids for it (`space`): an update never waits for a backlog.
        self.updates.send(sender);
        self.may_take =
            self.next.is_none() && self.space(sender) > 0 && sender.waiting_bytes() < OUT_BYTES_MAX;
        Ok(())
    }

    async fn due(&mut self) -> Result<(), Ended> {
        tokio::select! {
            next = self.reader.next(), if self.may_take => self.next = Some(next?),
            // The meter lives as long as the link.
            _ = self.budget.changed(), if self.is_held_back => self.is_held_back = false,
            () = self.updates.due() => {}
            // What central wants of a module that was removed here, it wants of the next one of the name.
            () = self.link.authorizer.removals.local() => self.must_subscribe = true,
        }
        Ok(())
    }

    async fn hear(&mut self, sender: &mut Sender, incoming: Incoming) -> Result<(), Ended> {
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                if !self.updates.acknowledged(packet_id)
                    && let Some(took) = self.telemetry.acknowledged(packet_id)
                {
                    self.link.queues.send_times.observe(took);
                }
            }
            Incoming::Refused { packet_id, reason, why } => self.refused(packet_id, reason, why).await?,
            // Only now can central answer.
            Incoming::Subscribed(_) => self.greet(sender, Some(crate::clock::upstream_requested())),
            Incoming::Pong => {}
            Incoming::Message { topic, payload, packet_id } => {
                let bytes = topic.len() + payload.len() + PACKET_BYTES;
                self.link.meter.count(super::updates_in::cause(&topic), bytes as u64);
                let received = self.link.received(&topic, &payload).await?;
                match received {
                    Some(LinkDown::Stored) => {
                        self.telemetry.resume();
                        self.updates.resume();
                    }
                    // An older central never answers, and gets no second request.
                    Some(LinkDown::Time) => self.is_time_answered = true,
                    _ => {}
                }
                if let Some(packet_id) = packet_id {
                    // Only now is it saved: central sends again what was not acknowledged.
                    sender.acknowledge(packet_id);
                }
            }
        }
        Ok(())
    }
}
