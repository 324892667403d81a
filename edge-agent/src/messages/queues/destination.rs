//! The queues that lead to one place, one for each priority and what is dropped when it is full, and what reads them in the
//! order of their priorities.

use edge_core::error_chain::chain;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    queues: watch::Sender<Queues>,
}

static KEYS: AtomicU64 = AtomicU64::new(0);

impl Destination {
    /// Opens the queues that are there, so that they drain. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be opened.
    pub fn open(name: String, dir: PathBuf, limits: Limits) -> Result<Self, OpenError> {
        let place = Self { name, dir, limits, queues: watch::Sender::new(Queues::default()) };
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

    fn add(&self, class: QueueClass, is_used: bool) -> Result<(), OpenError> {
        let dir = self.dir_of(class);
        let mut options = self.limits.options(&self.name_of(class), class);
        options.mirror = self.limits.ledger_of(&dir);
        let log = Log::open(&dir, options)?;
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
        let origin = stored.origin.as_deref().and_then(|origin| origin.parse::<Uuid>().ok());
        let mut lost = Vec::new();
        for queue in self.queues().iter() {
            let log = &queue.log;
            let name = |epoch| QueueName { id: log.id(), epoch }.to_string();
            let up_to = |epoch| stored.queues.get(&name(epoch)).copied();
            let highest = |epoch| {
                let name = name(epoch);
                stored.highest.get(&name).or_else(|| stored.queues.get(&name)).copied()
            };
            if stored.queues.is_empty() {
                // It never had anything of this gateway, or the gateway was registered anew and central forgot.
                log.reconcile(Uuid::nil(), |_| None, false, stamp_ms());
            }
            if let Some(origin) = origin {
                for (first, last) in log.reconcile(origin, highest, stored.is_complete, stamp_ms()) {
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
    /// removed.
    pub async fn close(&self) {
        for queue in self.queues().iter() {
            queue.log.close().await;
            if queue.is_over() {
                let dir = self.dir_of(queue.class);
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
        !self.is_used.load(Ordering::Relaxed) && self.log.stats().records == 0 && !self.log.has_gaps()
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
mod tests {
    use super::*;
    use bytes::Bytes;
    use schemas::manifest::{PRIORITY_DEFAULT, WhenFull};

    fn of(priority: u32) -> QueueClass {
        QueueClass { priority, full: None }
    }

    async fn put(place: &Destination, priority: u32, text: &'static str) {
        place.append(of(priority), Bytes::from_static(text.as_bytes()), None, None).unwrap().await.unwrap();
    }

    async fn take(reader: &mut DestinationReader, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..count {
            let (queue, record) = reader.next().await.unwrap();
            queue.log.advance(record.sequence);
            all.push(String::from_utf8(record.payload.to_vec()).unwrap());
        }
        all
    }

    fn place(dir: &Path) -> Destination {
        Destination::open("upstream".into(), dir.join("upstream"), Limits::default()).unwrap()
    }

    fn lost(place: &Destination, stored: &Stored) -> u64 {
        place.is_stored(stored).iter().map(|lost| lost.last - lost.first + 1).sum()
    }

    /// central's word on the epochs of the default queue.
    fn stored(place: &Destination, origin: &str, up_to: &[(edge_buffer::Epoch, u64)]) -> Stored {
        let id = place.queues()[0].log.id();
        let name = |epoch| QueueName { id, epoch }.to_string();
        let queues = up_to.iter().map(|(epoch, up_to)| (name(*epoch), *up_to)).collect();
        Stored { queues, origin: Some(origin.into()), is_complete: true, ..Stored::default() }
    }

    #[tokio::test]
    async fn what_central_confirmed_and_lost_is_a_loss_and_another_central_or_a_refusal_is_none() {
        let (one, other) = ("00000000000000000000000000000001", "00000000000000000000000000000002");
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.need([QueueClass::DEFAULT]).unwrap();
        assert_eq!(lost(&place, &stored(&place, one, &[])), 0);
        for text in ["1", "2", "3", "4"] {
            put(&place, PRIORITY_DEFAULT, text).await;
        }
        let log = place.queues()[0].log.clone();
        let epoch = log.epoch_of(1).unwrap();
        assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 0);
        assert_eq!(log.stats().cursor, 1);
        log.confirm(2, Some(2));
        log.confirm(4, None);
        // It refused the third, so its word ends before that, and it has the fourth.
        let mut refused = stored(&place, one, &[(epoch, 2)]);
        refused.highest = refused.queues.keys().map(|name| (name.clone(), 4)).collect();
        assert_eq!(lost(&place, &refused), 0);
        assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 3, "it was restored");
        assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 0, "counted once");
        log.confirm(4, Some(4));
        assert_eq!(lost(&place, &stored(&place, other, &[(epoch, 1)])), 0, "another one owes nothing");
        log.confirm(4, None);
        assert_eq!(lost(&place, &stored(&place, other, &[])), 0, "the gateway was registered anew");
        let gaps = log.gaps();
        assert_eq!((gaps.len(), gaps[0].cause.name(), gaps[0].count), (1, "central-restored", 3));
        place.close().await;
    }

    #[tokio::test]
    async fn the_highest_priority_leaves_first_and_each_in_its_own_order() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.need([PRIORITY_DEFAULT, 3, 0].map(of)).unwrap();
        for (priority, text) in
            [(PRIORITY_DEFAULT, "c1"), (3, "b1"), (PRIORITY_DEFAULT, "c2"), (0, "a1"), (3, "b2"), (0, "a2")]
        {
            put(&place, priority, text).await;
        }
        let mut reader = place.reader();
        assert_eq!(take(&mut reader, 4).await, ["a1", "a2", "b1", "b2"]);
        // A head of the default queue was read already: an alarm still overtakes it.
        put(&place, 0, "a3").await;
        assert_eq!(take(&mut reader, 2).await, ["a3", "c1"]);
        let (queue, unsent) = reader.next().await.unwrap();
        assert_eq!((&unsent.payload[..], queue.class), (&b"c2"[..], QueueClass::DEFAULT));
        reader.rewind();
        assert_eq!(take(&mut reader, 1).await, ["c2"], "what was not done with is read again");
        assert!(reader.next().now_or_never().is_none());
        place.close().await;
    }

    #[tokio::test]
    async fn a_queue_that_no_route_leads_to_drains_and_its_files_go_when_the_daemon_stops() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("upstream@3");
        let opened = place(dir.path());
        opened.need([PRIORITY_DEFAULT, 3].map(of)).unwrap();
        put(&opened, 3, "old").await;
        opened.need([QueueClass::DEFAULT]).unwrap();
        opened.close().await;
        assert!(old.is_dir(), "something still waits there");

        let opened = place(dir.path());
        opened.need([QueueClass::DEFAULT]).unwrap();
        let mut reader = opened.reader();
        put(&opened, PRIORITY_DEFAULT, "new").await;
        assert_eq!(take(&mut reader, 2).await, ["old", "new"]);
        // A message that was routed a moment before the routes changed is not lost either.
        put(&opened, 7, "late").await;
        assert_eq!(take(&mut reader, 1).await, ["late"]);
        drop(reader);
        opened.close().await;
        assert!(!old.is_dir() && dir.path().join("upstream").is_dir());
    }

    #[tokio::test]
    async fn a_reader_follows_when_routes_bring_a_new_priority() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.need([QueueClass::DEFAULT]).unwrap();
        let mut reader = place.reader();
        let (next, ()) = tokio::join!(reader.next(), async {
            place.need([PRIORITY_DEFAULT, 1].map(of)).unwrap();
            put(&place, 1, "first").await;
        });
        assert_eq!(next.unwrap().0.class.priority, 1);
        place.close().await;
    }

    #[tokio::test]
    async fn a_route_that_refuses_has_a_queue_of_its_own_which_has_equal_turns_with_the_other_of_its_priority()
     {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let refusing = QueueClass { priority: 3, full: Some(WhenFull::Refuse) };
        // What the gateway does anyway is no class of its own.
        let dropping = QueueClass { priority: 3, full: Some(WhenFull::DropOldest) };
        place.need([of(3), refusing, dropping]).unwrap();
        let names: Vec<String> = place.queues().iter().map(|queue| place.name_of(queue.class)).collect();
        assert_eq!(names, ["upstream@3", "upstream@3.refuse"]);
        for n in 0..6 {
            let class = if n % 2 == 0 { refusing } else { dropping };
            place.append(class, Bytes::from(n.to_string()), None, None).unwrap().await.unwrap();
            let now = stamp_ms();
            while stamp_ms() == now {
                tokio::task::yield_now().await;
            }
        }
        let mut reader = place.reader();
        assert_eq!(take(&mut reader, 6).await, ["0", "1", "2", "3", "4", "5"]);
        place.close().await;
    }

    #[tokio::test]
    async fn a_message_that_expires_while_it_waits_for_its_turn_is_counted_and_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.need([PRIORITY_DEFAULT, 0].map(of)).unwrap();
        let soon = steady_ms() + 300;
        let short = Bytes::from_static(b"short");
        place.append(QueueClass::DEFAULT, short, Some(soon), None).unwrap().await.unwrap();
        put(&place, 0, "alarm").await;
        put(&place, 0, "alarm 2").await;
        let mut reader = place.reader();
        assert_eq!(take(&mut reader, 1).await, ["alarm"]);
        while steady_ms() <= soon {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(take(&mut reader, 1).await, ["alarm 2"]);
        assert!(reader.next().now_or_never().is_none());
        let expired: u64 = place.queues().iter().map(|queue| queue.log.stats().expired).sum();
        assert_eq!(expired, 1);
        place.close().await;
    }
}
