//! What the queues have lost, on its way to central: every gap of a ledger, until central has it on its disk.
//!
//! A first loss is told within a second. While a queue goes on losing, it is told in ever longer pauses, each time as one
//! gap for each cause and sender: the ledger joins them meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use edge_buffer::Gap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemas::link::{Loss, Losses};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::queues::Queues;
use crate::queues::place::Queue;

/// How often the ledgers are looked at: in memory, and only while central is there.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause of a queue that goes on losing.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A queue's gaps that do not grow any more.
pub(super) struct Found {
    queue: Arc<Queue>,
    name: String,
    gaps: Vec<Gap>,
}

/// A queue's gaps in flight: central has them when it acknowledges.
pub(super) struct Sent {
    queue: Arc<Queue>,
    number: u64,
}

/// When a queue that has told something tells again.
struct Pause {
    length: Duration,
    until: Instant,
}

/// The losses of one connection to central.
pub(super) struct Losing {
    looks: Interval,
    /// The ledgers are being written.
    asked: Option<BoxFuture<'static, Vec<Found>>>,
    found: Vec<Found>,
    in_flight: HashSet<u64>,
    pauses: HashMap<u64, Pause>,
}

impl Losing {
    /// Of a new connection: what was told on the last one and not acknowledged is told again.
    pub(super) fn new() -> Self {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { looks, asked: None, found: Vec::new(), in_flight: HashSet::new(), pauses: HashMap::new() }
    }

    /// Waits until there is something to tell. Nothing is lost when the future is dropped.
    pub(super) async fn due(&mut self, queues: &Queues) {
        while self.found.is_empty() {
            if let Some(asked) = &mut self.asked {
                self.found = asked.await;
                self.asked = None;
                continue;
            }
            self.looks.tick().await;
            let due = self.look(queues);
            if !due.is_empty() {
                self.asked = Some(ask(due).boxed());
            }
        }
    }

    /// The queues that have something to tell now.
    fn look(&mut self, queues: &Queues) -> Vec<(String, Arc<Queue>)> {
        let now = Instant::now();
        let mut due = queues.all();
        due.retain(|(_, queue)| {
            if self.in_flight.contains(&queue.key)
                || self.pauses.get(&queue.key).is_some_and(|p| now < p.until)
            {
                return false;
            }
            let has_gaps = queue.log.has_gaps();
            if !has_gaps {
                self.pauses.remove(&queue.key);
            }
            has_gaps
        });
        due
    }

    /// What to tell next.
    pub(super) fn next_unsent(&mut self) -> Option<(Losses, Sent)> {
        let Found { queue, name, gaps } = self.found.pop()?;
        let number = gaps.last()?.number;
        let losses =
            Losses { queue: queue.log.id().to_string(), name, losses: gaps.into_iter().map(loss).collect() };
        self.in_flight.insert(queue.key);
        Some((losses, Sent { queue, number }))
    }

    /// central has it.
    pub(super) fn acknowledged(&mut self, sent: Sent) {
        sent.queue.log.gaps_told(sent.number);
        self.in_flight.remove(&sent.queue.key);
        let before = self.pauses.get(&sent.queue.key).map_or(LOOK, |pause| pause.length * 2);
        let length = before.min(PAUSE_MAX);
        self.pauses.insert(sent.queue.key, Pause { length, until: Instant::now() + length });
    }
}

/// Fixes the gaps of these queues on disk.
async fn ask(due: Vec<(String, Arc<Queue>)>) -> Vec<Found> {
    let mut found = Vec::with_capacity(due.len());
    for (name, queue) in due {
        match queue.log.gaps_to_tell().await {
            Ok(gaps) if gaps.is_empty() => {}
            Ok(gaps) => found.push(Found { queue, name, gaps }),
            // They stay in the ledger, and are looked at again.
            Err(error) => tracing::warn!(queue = name, %error, "what a queue lost could not be told"),
        }
    }
    found
}

fn loss(gap: Gap) -> Loss {
    Loss {
        number: gap.number,
        cause: gap.cause.name().to_owned(),
        sender: gap.tag,
        first: gap.first,
        last: gap.last,
        count: gap.count,
        from_ms: gap.from_ms,
        until_ms: gap.until_ms,
    }
}
