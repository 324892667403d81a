//! The queues that lead to one place, one for each priority and what is dropped when it is full, and what reads them in the
//! order of their priorities.

use edge_core::error_chain::chain;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_buffer::{Append, Fence, Log, OpenError, ReadError, Reader, Record};
use edge_core::link::turns::Turns;
use edge_core::route::QueueClass;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use schemas::link::Stored;
use tokio::sync::watch;
use uuid::Uuid;

use super::limits::{Limits, suffix};
use super::name::QueueName;
use crate::clock::{stamp_ms, steady_ms};

pub struct Queue {
    /// Names it while the daemon runs.
    pub key: u64,
    /// Its priority, and what is dropped when it is full.
    pub class: QueueClass,
    pub log: Log,
    /// Whether a route leads to it. One without drains, and its files go when the daemon stops.
    is_used: AtomicBool,
}

/// Sequences of a log, both included, that central had confirmed and has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    pub queue: Uuid,
    pub first: u64,
    pub last: u64,
}

/// The queues of one place, the highest priority first.
type Queues = Arc<Vec<Arc<Queue>>>;

/// A place that messages go to.
pub struct Destination {
    /// `upstream`, or `inputs/{module}`.
    name: String,
    /// Where the queue of the default class is. That of priority 3 is beside it, with `@3` behind its name.
    dir: PathBuf,
    limits: Limits,
    /// Names the store of the central that confirms; `None` before it said so, and of upstreams that do not. Held while queues
    /// are added or compared: a queue that comes while central is connected must know who confirms its first record.
    origin: Mutex<Option<Uuid>>,
    queues: watch::Sender<Queues>,
}

static KEYS: AtomicU64 = AtomicU64::new(0);

impl Destination {
    /// Opens the queues that are there, so that they drain. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be opened.
    pub fn open(name: String, dir: PathBuf, limits: Limits) -> Result<Self, OpenError> {
        let place = Self {
            name,
            dir,
            limits,
            origin: Mutex::default(),
            queues: watch::Sender::new(Queues::default()),
        };
        for class in place.limits.classes() {
            let dir = place.dir_of(class);
            // One whose directory is gone is known by the copy of its ledger.
            if dir.is_dir() || place.limits.ledger_of(&dir).is_some_and(|ledger| ledger.is_file()) {
                place.add(class, false)?;
            }
        }
        Ok(place)
    }

    fn dir_of(&self, class: QueueClass) -> PathBuf {
        let mut name = self.dir.file_name().unwrap_or_default().to_owned();
        name.push(suffix(class));
        self.dir.with_file_name(name)
    }

    /// The name of one of its queues.
    pub fn name_of(&self, class: QueueClass) -> String {
        format!("{}{}", self.name, suffix(class))
    }

    fn origin(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.origin.lock().expect("nothing panics while it holds who confirms")
    }

    fn add(&self, class: QueueClass, is_used: bool) -> Result<(), OpenError> {
        let dir = self.dir_of(class);
        let mut options = self.limits.options(&self.name_of(class), class);
        options.mirror = self.limits.ledger_of(&dir);
        let log = Log::open(&dir, options)?;
        if let Some(known) = self.limits.known() {
            known.opened(&dir);
        }
        let origin = self.origin();
        if let Some(origin) = *origin {
            log.reconcile(origin, |_| None, false, stamp_ms());
        }
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue { key, class, log, is_used: AtomicBool::new(is_used) });
        self.queues.send_modify(|queues| {
            let mut all = queues.to_vec();
            all.push(queue);
            all.sort_by_key(|queue| queue.class);
            *queues = Arc::new(all);
        });
        Ok(())
    }

    /// Opens the queues of these classes; the others take nothing more in and drain. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be opened; those before it are open.
    pub fn need(&self, classes: impl IntoIterator<Item = QueueClass>) -> Result<(), OpenError> {
        let before = self.queues();
        let mut needed = Vec::new();
        for class in classes {
            let class = self.limits.resolved(class);
            if !before.iter().any(|queue| queue.class == class) && !needed.contains(&class) {
                self.add(class, true)?;
            }
            needed.push(class);
        }
        for queue in self.queues().iter() {
            queue.is_used.store(needed.contains(&queue.class), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The queues, the highest priority first.
    pub fn queues(&self) -> Queues {
        self.queues.borrow().clone()
    }

    /// Puts a record into a queue, for who awaits that at once; into the last one when routes have just changed and there is
    /// none of that class.
    pub fn append(
        &self,
        class: QueueClass,
        record: bytes::Bytes,
        expires_ms: Option<u64>,
        fence: Option<&Fence>,
    ) -> Option<Append> {
        let (queues, class) = (self.queues.borrow(), self.limits.resolved(class));
        let queue = queues.iter().find(|queue| queue.class == class).or(queues.last())?;
        Some(queue.log.append_fenced(record, stamp_ms(), expires_ms, fence.cloned()))
    }

    /// central has the queues up to these sequences: that much is done with. Gives what it had confirmed and does not have any
    /// more, which is counted as lost.
    pub fn is_stored(&self, stored: &Stored) -> Vec<LostRange> {
        let mut confirming = self.origin();
        *confirming = stored.origin.as_deref().and_then(|origin| origin.parse::<Uuid>().ok());
        let origin = *confirming;
        let mut lost = Vec::new();
        for queue in self.queues().iter() {
            let log = &queue.log;
            let name = |epoch| QueueName { id: log.id(), epoch }.to_string();
            let up_to = |epoch| stored.queues.get(&name(epoch)).copied();
            let highest = |epoch| {
                let name = name(epoch);
                stored.highest.get(&name).or_else(|| stored.queues.get(&name)).copied()
            };
            // A log of which central has nothing at all proves that by itself, whatever central has forgotten of the others.
            let is_unknown = || !stored.queues.keys().any(|name| QueueName::is_of(name, log.id()));
            let is_complete = stored.is_complete || (stored.names_all_logs && is_unknown());
            if stored.queues.is_empty() {
                // It never had anything of this gateway, or the gateway was registered anew and central forgot.
                log.reconcile(Uuid::nil(), |_| None, false, stamp_ms());
            }
            if let Some(origin) = origin {
                for (first, last) in log.reconcile(origin, highest, is_complete, stamp_ms()) {
                    let queue = self.name_of(queue.class);
                    tracing::error!(
                        queue,
                        first,
                        last,
                        "central had confirmed messages and lost them; it was restored from a backup"
                    );
                    lost.push(LostRange { queue: log.id(), first, last });
                }
            }
            log.advance_stored(up_to);
            log.settle();
        }
        lost
    }

    /// Reads all of them from where each is done with.
    pub fn reader(&self) -> DestinationReader {
        DestinationReader {
            changes: self.queues.subscribe(),
            followed: Queues::default(),
            heads: Vec::new(),
            turns: Turns::default(),
        }
    }

    /// Commits everything that was handed in and closes the queues. Those that no route leads to and that are empty are
    /// removed, except for what central confirmed: only the ledger can say that a central that is restored from a backup lost it.
    /// There are at most three of each priority, empty ones with two small files.
    pub async fn close(&self) {
        for queue in self.queues().iter() {
            queue.log.close().await;
            if queue.is_over() && !queue.log.has_confirmed() {
                let dir = self.dir_of(queue.class);
                if let Some(known) = self.limits.known()
                    && let Err(error) = known.removed(&dir, queue.log.stats().lost).await
                {
                    tracing::warn!(dir = %dir.display(), error = %chain(&error), "the removal of a queue was not saved; its files stay");
                    continue;
                }
                remove(&dir, self.limits.ledger_of(&dir));
            }
        }
    }

    /// Gives up everything that waits; how much that was. Blocking.
    pub fn give_up(&self) -> u64 {
        let mut waiting = 0;
        for queue in self.queues().iter() {
            waiting += queue.log.stats().records;
            queue.log.give_up_all(stamp_ms());
        }
        waiting
    }
}

impl Queue {
    /// Whether no route leads to it, nothing waits in it, and it has nothing to report.
    pub fn is_over(&self) -> bool {
        !self.is_used.load(Ordering::Relaxed) && self.log.stats().records == 0 && !self.log.has_loss_records()
    }
}

fn remove(dir: &Path, ledger: Option<PathBuf>) {
    // First what would tell that the directory is missing.
    let removed = ledger.map_or(Ok(()), std::fs::remove_file).and_then(|()| std::fs::remove_dir_all(dir));
    if let Err(error) = removed {
        tracing::warn!(dir = %dir.display(), error = %chain(&error), "a queue's files were not removed");
    }
}

/// Reads the queues of a place as one: the highest priority first, lower ones in their turn.
pub struct DestinationReader {
    changes: watch::Receiver<Queues>,
    /// The queues that the heads are of.
    followed: Queues,
    heads: Vec<QueueHead>,
    turns: Turns,
}

/// A queue, and its next record when that has been read.
struct QueueHead {
    queue: Arc<Queue>,
    reader: Reader,
    head: Option<Record>,
}

impl DestinationReader {
    /// One of the same place that has read nothing.
    pub fn anew(&self) -> Self {
        Self {
            changes: self.changes.clone(),
            followed: Queues::default(),
            heads: Vec::new(),
            turns: Turns::default(),
        }
    }

    /// Waits for the next record. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ReadError`] of the queue that cannot be read.
    pub async fn next(&mut self) -> Result<(Arc<Queue>, Record), ReadError> {
        loop {
            self.follow_changes();
            // The usual case: one priority, nothing to choose.
            if let [queue_head] = &mut self.heads[..] {
                if let Some(head) = queue_head.head.take() {
                    queue_head.reader.unread(head);
                }
                if let Some(record) = queue_head.reader.next_present(steady_ms).await? {
                    return Ok((queue_head.queue.clone(), record));
                }
                self.wait().await?;
                continue;
            }
            // A higher priority is waited for as long as the disk takes; a lower one is not while there is something to send.
            let mut highest = u32::MAX;
            for queue_head in &mut self.heads {
                let now_ms = steady_ms();
                if let Some(expired) =
                    queue_head.head.take_if(|head| head.expires_ms.is_some_and(|at| at <= now_ms))
                {
                    // It waited for its turn too long; the reader counts it.
                    queue_head.reader.unread(expired);
                }
                if queue_head.head.is_none() {
                    let read = queue_head.reader.next_present(|| now_ms);
                    queue_head.head = if highest < queue_head.queue.class.priority {
                        read.now_or_never().transpose()?.flatten()
                    } else {
                        read.await?
                    };
                }
                if queue_head.head.is_some() {
                    highest = highest.min(queue_head.queue.class.priority);
                }
            }
            let mut heads: Vec<&mut QueueHead> =
                self.heads.iter_mut().filter(|queue_head| queue_head.head.is_some()).collect();
            // Of those of one priority, what waits longest.
            heads.sort_by_key(|queue_head| {
                (queue_head.queue.class.priority, queue_head.head.as_ref().map(|head| head.enqueued_ms))
            });
            heads.dedup_by_key(|queue_head| queue_head.queue.class.priority);
            let waiting: Vec<u64> = heads
                .iter()
                .filter_map(|queue_head| queue_head.head.as_ref().map(|head| head.enqueued_ms))
                .collect();
            if let Some(index) = self.turns.next(steady_ms(), &waiting)
                && let Some(head) = heads[index].head.take()
            {
                return Ok((heads[index].queue.clone(), head));
            }
            self.wait().await?;
        }
    }

    /// Waits until a queue has more, or there are other queues.
    async fn wait(&mut self) -> Result<(), ReadError> {
        let heads =
            select_all(self.heads.iter_mut().map(|queue_head| queue_head.reader.more().boxed()).chain([
                // There is always one to wait for.
                std::future::pending().boxed(),
            ]));
        tokio::select! {
            (more, ..) = heads => more,
            changed = self.changes.changed() => changed.map_err(|_| ReadError::Closed),
        }
    }

    /// Goes back to the first record of each queue that is not done with.
    pub fn rewind(&mut self) {
        for queue_head in &mut self.heads {
            queue_head.head = None;
            queue_head.reader.rewind();
        }
    }

    fn follow_changes(&mut self) {
        let queues = {
            let queues = self.changes.borrow_and_update();
            if Arc::ptr_eq(&queues, &self.followed) {
                return;
            }
            queues.clone()
        };
        self.followed = queues.clone();
        self.heads.retain(|queue_head| queues.iter().any(|queue| queue.key == queue_head.queue.key));
        for queue in queues.iter() {
            if !self.heads.iter().any(|queue_head| queue_head.queue.key == queue.key) {
                let reader = queue.log.reader();
                self.heads.push(QueueHead { queue: queue.clone(), reader, head: None });
            }
        }
        self.heads.sort_by_key(|queue_head| queue_head.queue.class);
    }
}

#[cfg(test)]
mod tests;
