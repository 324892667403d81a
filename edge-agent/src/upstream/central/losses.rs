//! What the queues and the quarantine have lost, on its way to central: every loss record of a ledger, until central has it on its disk.
//!
//! A first loss is reported within a second. While a queue goes on losing, it is reported at ever longer intervals, each time as one
//! loss record for each cause and sender: the ledger joins them meanwhile.

use edge_core::error_chain::chain;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use edge_buffer::{Log, LossRecord};
use edge_core::link::snapshot::{self, PART_BYTES_MAX};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemas::link::{Loss, Losses};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::clock::shown_ms;
use crate::messages::quarantine::Quarantine;
use crate::messages::quarantine::entry::sender_of_tag;
use crate::messages::queues::Queues;
use crate::messages::queues::name::QueueName;

/// How often the ledgers are looked at: in memory, and only while central is there.
const CHECK: Duration = Duration::from_secs(1);
/// The longest pause of a queue that goes on losing.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How losses of the quarantine are reported to central.
const QUARANTINE: &str = "quarantine";

/// Loss records of a log that do not grow any more.
pub(super) struct Found {
    log: Log,
    name: String,
    loss_records: Vec<LossRecord>,
}

/// Loss records in flight: central has them when it acknowledges.
pub(super) struct Sent {
    log: Log,
    number: u64,
}

/// When a log that has reported something reports again.
struct Pause {
    length: Duration,
    until: Instant,
}

/// The losses of one connection to central.
pub(super) struct Losing {
    checks: Interval,
    /// The ledgers are being written.
    fixing: Option<BoxFuture<'static, Vec<Found>>>,
    found: Vec<Found>,
    /// By the ids of logs.
    in_flight: HashSet<Uuid>,
    pauses: HashMap<Uuid, Pause>,
}

impl Losing {
    /// Of a new connection: what was sent on the last one and not acknowledged is sent again.
    pub(super) fn new() -> Self {
        let mut checks = tokio::time::interval(CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { checks, fixing: None, found: Vec::new(), in_flight: HashSet::new(), pauses: HashMap::new() }
    }

    /// Waits until there is something to tell. Nothing is lost when the future is dropped.
    pub(super) async fn due(&mut self, queues: &Queues, quarantine: &Quarantine) {
        while self.found.is_empty() {
            if let Some(fixing) = &mut self.fixing {
                self.found = fixing.await;
                self.fixing = None;
                continue;
            }
            self.checks.tick().await;
            let due = self.due_logs(queues, quarantine);
            if !due.is_empty() {
                self.fixing = Some(ask(due).boxed());
            }
        }
    }

    /// The logs that have something to tell now.
    fn due_logs(&mut self, queues: &Queues, quarantine: &Quarantine) -> Vec<(String, Log)> {
        let now = Instant::now();
        let mut due: Vec<_> =
            queues.all().into_iter().map(|(name, queue)| (name, queue.log.clone())).collect();
        due.push((QUARANTINE.to_owned(), quarantine.log().clone()));
        due.retain(|(_, log)| {
            let id = log.id();
            if self.in_flight.contains(&id) || self.pauses.get(&id).is_some_and(|p| now < p.until) {
                return false;
            }
            let has_loss_records = log.has_loss_records();
            if !has_loss_records {
                self.pauses.remove(&id);
            }
            has_loss_records
        });
        due
    }

    /// What to tell next.
    pub(super) fn next_unsent(&mut self) -> Option<(Losses, Sent)> {
        let Found { log, name, loss_records } = self.found.pop()?;
        // The numbers of a message are of one epoch.
        let epoch = loss_records.first()?.epoch;
        let of_epoch = loss_records.into_iter().take_while(|loss| loss.epoch == epoch);
        let mut parts = snapshot::split(of_epoch.map(loss), PART_BYTES_MAX);
        let losses = parts.swap_remove(0);
        let number = losses.last()?.number;
        self.in_flight.insert(log.id());
        // The rest is found again when central has these.
        Some((
            Losses { queue: QueueName { id: log.id(), epoch }.to_string(), name, losses },
            Sent { log, number },
        ))
    }

    pub(super) fn acknowledged(&mut self, sent: Sent) {
        sent.log.losses_reported(sent.number);
        let id = sent.log.id();
        self.in_flight.remove(&id);
        let before = self.pauses.get(&id).map_or(CHECK, |pause| pause.length * 2);
        let length = before.min(PAUSE_MAX);
        self.pauses.insert(id, Pause { length, until: Instant::now() + length });
    }
}

/// Fixes the loss records of these logs on disk.
async fn ask(due: Vec<(String, Log)>) -> Vec<Found> {
    let mut found = Vec::with_capacity(due.len());
    for (name, log) in due {
        match log.losses_to_report().await {
            Ok(loss_records) if loss_records.is_empty() => {}
            Ok(loss_records) => found.push(Found { log, name, loss_records }),
            // They stay in the ledger, and are looked at again.
            Err(error) => {
                tracing::warn!(queue = name, error = %chain(&error), "reporting the losses of a queue failed")
            }
        }
    }
    found
}

fn loss(loss: LossRecord) -> Loss {
    let (generation, sender) = sender_of_tag(&loss.tag);
    Loss {
        number: loss.number,
        cause: loss.cause.name().to_owned(),
        sender: sender.to_owned(),
        first: loss.first,
        last: loss.last,
        count: loss.count,
        from_ms: shown_ms(loss.from_ms),
        until_ms: shown_ms(loss.until_ms),
        generation,
    }
}
