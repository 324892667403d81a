//! Takes messages out of the queues in their order, gives each to the connection of its identity, and moves the cursors over what
//! is done with.

use edge_core::error_chain::chain;
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use edge_buffer::Record;
use edge_core::link::budget::Cause;
use edge_core::link::progress::Progress;
use edge_hub::tasks;
use schemas::names::{DeviceId, Identity};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::{Prepared, UpstreamProfile};
use super::traffic::{Event, ForwardUpstream, Job, Messages};
use crate::messages::quarantine::{Quarantine, Reason};
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::upstream::address::Address;
use crate::upstream::driver::{self, Reporter};
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;

/// Messages that the connections hold together, sent or waiting. At 100 ms to the upstream it allows 10,000 a second.
const HELD_MAX: usize = 1000;
/// Their bytes.
const HELD_BYTES_MAX: usize = 16 << 20;
/// When something on this gateway's disk failed, how long until it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Carries telemetry to an upstream that is not central.
pub struct Forwarder {
    pub gateway: DeviceId,
    /// How the upstream is spoken to.
    pub profile: Arc<UpstreamProfile>,
    pub address: Address,
    pub queues: Arc<Queues>,
    /// What the upstream will not take.
    pub quarantine: Arc<Quarantine>,
    /// What the link may cost.
    pub meter: Meter,
    /// Whether the upstream can be reached, as seen by the gateway's own connection.
    pub status: watch::Sender<LinkStatus>,
}

/// A message that a connection holds.
struct Held {
    queue: Arc<Queue>,
    sequence: u64,
    bytes: usize,
}

/// What is taken and not done with.
struct Taken {
    ticket: u64,
    held: HashMap<u64, Held>,
    bytes: usize,
    progress: HashMap<u64, Progress>,
    /// By queue: sequences that a former run of the daemon may have sent.
    sent_before: HashMap<u64, std::ops::RangeInclusive<u64>>,
}

impl Taken {
    fn new(queues: &Queues) -> Self {
        let of = |queue: &Arc<Queue>| {
            let (stats, most) = (queue.log.stats(), HELD_MAX as u64);
            (queue.key, stats.cursor + 1..=(stats.cursor + most).min(stats.next_sequence - 1))
        };
        let sent_before = queues.upstream().queues().iter().map(of).collect();
        Self { ticket: 0, held: HashMap::new(), bytes: 0, progress: HashMap::new(), sent_before }
    }

    fn has_space(&self) -> bool {
        self.held.len() < HELD_MAX && self.bytes < HELD_BYTES_MAX
    }

    fn take(&mut self, queue: &Arc<Queue>, record: &Record) -> u64 {
        self.ticket += 1;
        let (sequence, bytes) = (record.sequence, record.payload.len());
        self.progress.entry(queue.key).or_default().taken(sequence);
        self.bytes += bytes;
        self.held.insert(self.ticket, Held { queue: queue.clone(), sequence, bytes });
        self.ticket
    }

    fn done(&mut self, ticket: u64) {
        let Some(held) = self.held.remove(&ticket) else { return };
        self.bytes -= held.bytes;
        let progress = self.progress.get_mut(&held.queue.key);
        if let Some(up_to) = progress.and_then(|progress| progress.done(held.sequence)) {
            held.queue.log.advance(up_to);
        }
    }
}

impl Forwarder {
    /// Carries until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (events, mut heard) = mpsc::unbounded_channel();
        let mut connections =
            Connections { jobs: HashMap::new(), tasks: JoinSet::new(), events, stop: stop.clone() };
        // The gateway's own connection is there from the start: it tells whether the upstream can be reached.
        let own = Identity::device(self.gateway.clone());
        connections.open(&self, &own);
        let mut reader = self.queues.upstream().reader();
        let mut taken = Taken::new(&self.queues);
        let mut changes = self.meter.changes();
        // A message that waits for the budget.
        let mut waiting: Option<(Arc<Queue>, Record)> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // Its messages are taken from the queue again by the next forwarder.
                Some(Err(panicked)) = connections.tasks.join_next() => resume_unwind(panicked.into_panic()),
                Some(event) = heard.recv() => match event {
                    Event::Taken(ticket) => taken.done(ticket),
                    Event::Guilty(ticket, reason) => {
                        if let Some(held) = taken.held.get(&ticket)
                            && !self.set_aside(&held.queue, held.sequence, reason, &stop).await
                        {
                            break;
                        }
                        taken.done(ticket);
                    }
                },
                changed = changes.changed(), if waiting.is_some() => {
                    if changed.is_err() {
                        break;
                    }
                    let Some((queue, record)) = waiting.take() else { continue };
                    waiting = self.forward(&mut taken, &mut connections, queue, record, &stop).await;
                }
                next = reader.next(), if waiting.is_none() && taken.has_space() => match next {
                    Ok((queue, record)) => {
                        changes.mark_unchanged();
                        waiting = self.forward(&mut taken, &mut connections, queue, record, &stop).await;
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "the queue for upstream cannot be read; trying again");
                        if tokio::time::timeout(AGAIN, stop.cancelled()).await.is_ok() {
                            break;
                        }
                    }
                },
            }
        }
        // What upstream still acknowledges while the connections leave is done with too.
        let Connections { jobs, mut tasks, events, .. } = connections;
        drop((jobs, events));
        while let Some(event) = heard.recv().await {
            if let Event::Taken(ticket) = event {
                taken.done(ticket);
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Gives a message to its connection; returns it if it must wait for the budget.
    async fn forward(
        &self,
        taken: &mut Taken,
        connections: &mut Connections,
        queue: Arc<Queue>,
        record: Record,
        stop: &CancellationToken,
    ) -> Option<(Arc<Queue>, Record)> {
        if self.quarantine.holds(&queue, record.sequence) {
            let ticket = taken.take(&queue, &record);
            taken.done(ticket);
            return None;
        }
        while let Err(error) = self.quarantine.before_sending(&record.payload).await {
            tracing::error!(error = %chain(&error), "a message that was put back could not be taken out of quarantine; trying again");
            if tokio::time::timeout(AGAIN, stop.cancelled()).await.is_ok() {
                return Some((queue, record));
            }
        }
        let (connection, prepared) = match self.profile.prepare(&self.gateway, &queue, &record) {
            Ok(prepared) => prepared,
            Err(reason) => {
                let ticket = taken.take(&queue, &record);
                if self.set_aside(&queue, record.sequence, reason, stop).await {
                    taken.done(ticket);
                }
                return None;
            }
        };
        if !self.meter.spend(Cause::Telemetry, cost(&prepared)) {
            return Some((queue, record));
        }
        let was_sent =
            taken.sent_before.get(&queue.key).is_some_and(|range| range.contains(&record.sequence));
        let ticket = taken.take(&queue, &record);
        connections.give(self, &connection, Job { ticket, prepared, is_repeated: was_sent });
        None
    }

    /// Puts a message into quarantine, however long the disk takes; false when the daemon stopped first.
    async fn set_aside(
        &self,
        queue: &Queue,
        sequence: u64,
        reason: Reason,
        stop: &CancellationToken,
    ) -> bool {
        loop {
            match self.quarantine.put(queue, sequence, reason.clone()).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a message could not be set aside; trying again")
                }
            }
            if tokio::time::timeout(AGAIN, stop.cancelled()).await.is_ok() {
                return false;
            }
        }
    }
}

/// Bytes of a message on the link, as far as MQTT counts them.
fn cost(prepared: &Prepared) -> u64 {
    let properties = prepared.properties.as_deref().map_or(0, |properties| {
        let own: usize =
            properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        own + properties.content_type.as_ref().map_or(0, |text| text.bytes().len() + 3)
            + properties.correlation_data.as_ref().map_or(0, |data| data.len() + 3)
    });
    // Fixed header, length of the topic, packet id, length of the properties.
    (prepared.topic.len() + prepared.payload.len() + properties + 12) as u64
}

/// The connections that run.
struct Connections {
    jobs: HashMap<Identity, mpsc::UnboundedSender<Job>>,
    tasks: JoinSet<()>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
}

impl Connections {
    /// Bounded by what [`Taken`] holds.
    fn give(&mut self, forwarder: &Forwarder, connection: &Identity, job: Job) {
        if !self.jobs.contains_key(connection) {
            self.open(forwarder, connection);
        }
        // A connection runs until the daemon stops; what it does not take then is taken again at the next start.
        if self.jobs.get(connection).is_some_and(|jobs| jobs.send(job).is_err()) {
            tracing::debug!(identity = %connection, "a message came after its connection had stopped");
        }
    }

    fn open(&mut self, forwarder: &Forwarder, of: &Identity) {
        let (jobs, taken) = mpsc::unbounded_channel();
        let is_own = of.module.is_none() && of.device == forwarder.gateway;
        let upstream = ForwardUpstream {
            identity: of.clone(),
            profile: forwarder.profile.clone(),
            address: forwarder.address.clone(),
            meter: forwarder.meter.clone(),
            jobs: taken,
            is_own,
            own: forwarder.status.subscribe(),
            messages: Messages::new(self.events.clone()),
            refusals: 0,
        };
        let reporter = Reporter {
            peer: "upstream",
            host: forwarder.address.host.clone(),
            identity: of.clone(),
            status: is_own.then(|| forwarder.status.clone()),
        };
        let (meter, stop) = (forwarder.meter.clone(), self.stop.clone());
        tasks::spawn_in(&mut self.tasks, "connection to upstream", async move {
            driver::run(upstream, reporter, meter, &stop).await;
        });
        self.jobs.insert(of.clone(), jobs);
    }
}
