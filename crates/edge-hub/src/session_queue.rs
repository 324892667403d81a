//! What a session is, with or without a connection: its filters, its queue, what is in flight both ways.
//!
//! ```text
//! connected:  0 ........ soft bound ........ full ........................ hard bound
//!             everybody   QoS 0 is dropped,   a QoS 1 or 2 publisher waits  the connection is closed:
//!             may add     deliveries are      for space, as long as the      it is slow
//!                         Busy                identity may be waited for;
//!                                             then it is slow
//! slow, away: QoS 1 and 2 on free topics are kept up to the session's bound; beyond, the oldest goes and is counted
//! ```
//!
//! A session that outlives its connection is full when it holds what it may keep while it is away and the soft bound
//! beside that; any other at the soft bound. Retained messages that it asked for do not count: they hold up nobody.
//!
//! A connection has a session_queue by its number; what a connection does that was taken over touches nothing.

mod outgoing;
mod state;
mod take;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_core::dialect::client::Subscribe;
use mqtt::filter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::close_handle::CloseHandle;
use crate::delivery::NotDelivered;
use crate::flight::Flight;
use crate::message::Delivery;
use crate::quota::{QuotaExceeded, Resource, Usage, Used};
use crate::subscription::Options;
use mqtt::codec::reason::Reason;
use state::{Holder, Inner, Load, Wait};

pub(crate) use outgoing::{Budget, Copy, Outgoing, Taken};

/// Messages that wait for one connected client before senders are held back.
pub(crate) const MESSAGES_SOFT: usize = 1_000;
/// Bytes that wait for one connected client before senders are held back.
const BYTES_SOFT: usize = 1024 * 1024;
const SOFT: Load = Load { messages: MESSAGES_SOFT, bytes: BYTES_SOFT };
/// How far QoS 1 and 2 publishers, each of which waits for space, may go over the soft bounds together.
const HARD_TIMES: usize = 8;
/// Reason string for a client that is closed for being slow.
const TOO_SLOW: &str = "the client takes too slowly what is published for it";
/// A queue that is empty keeps space for so many messages.
const KEPT_MESSAGES: usize = 32;

/// A subscription that a session holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// As subscribed, `$share/...` included.
    pub filter: String,
    pub meaning: Subscribe,
    pub options: Options,
}

/// How far a sender may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Nothing is added to a full queue.
    Soft,
    /// Added whatever waits; a queue beyond its hard bound closes the connection that does not empty it.
    Hard,
}

/// What a session that is away may keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeps {
    pub messages: usize,
    pub bytes: usize,
}

/// The queue of one session.
#[derive(Debug)]
pub(crate) struct SessionQueue {
    /// Names the session in the table and the journal; never used twice.
    pub number: u64,
    pub client_id: String,
    /// Whether it outlives its connection, and is in the journal.
    pub is_durable: bool,
    keeps: Keeps,
    /// Of the identity that has it.
    pub usage: Arc<Usage>,
    /// A message was added to an empty queue.
    pub arrived: Notify,
    space: Notify,
    inner: Mutex<Inner>,
    /// With a lock of its own, taken after the queue's: what a client acknowledges does not wait for those who publish to it.
    flight: Mutex<Flight>,
    held: Mutex<Vec<Held>>,
}

/// What a push did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The queue is full now: a QoS 1 or 2 publisher waits.
    pub is_full: bool,
    /// The connection is closed: it is too slow.
    pub is_closed_as_slow: bool,
    /// Journal keys of the messages that gave way.
    pub evicted: Vec<u64>,
}

/// What a client may not have any more.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    pub queued: Vec<Delivery>,
    /// Packet ids of messages that were sent and are not settled.
    pub sent: Vec<u16>,
}

impl Drop for SessionQueue {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.usage.give_back(Resource::UnreleasedIds, inner.received.len() as u64);
    }
}

impl SessionQueue {
    pub(crate) fn new(
        number: u64,
        client_id: String,
        is_durable: bool,
        keeps: Keeps,
        usage: Arc<Usage>,
    ) -> Self {
        Self {
            number,
            client_id,
            is_durable,
            keeps,
            usage,
            arrived: Notify::new(),
            space: Notify::new(),
            inner: Mutex::default(),
            flight: Mutex::default(),
            held: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its journal remembers of it. Before its first connection.
    pub(crate) fn restore(
        &self,
        queue: impl Iterator<Item = Delivery>,
        sent: impl Iterator<Item = (u16, bool, Delivery)>,
        received: BTreeSet<u16>,
        last_id: u16,
    ) {
        let mut inner = self.lock();
        queue.for_each(|delivery| inner.push(delivery));
        // Lock order: the queue, then what is in flight, as everywhere in this file.
        self.flight().restore(sent, last_id);
        self.usage.add(Resource::UnreleasedIds, received.len() as u64);
        inner.received = received;
    }

    /// The filters that the session holds.
    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The QoS granted for a reserved topic, when a subscription covers it.
    pub(crate) fn granted(&self, topic: &str) -> Option<u8> {
        let held = self.held();
        let covering =
            held.iter().filter(|h| h.meaning != Subscribe::Free && filter::matches(&h.filter, topic));
        covering.map(|h| h.options.qos).max()
    }

    /// Gives the session_queue to a connection; whoever had it has it no more. Gives how many messages gave way while nobody
    /// had it.
    pub(crate) fn attach(&self, connection: u64, close: Arc<CloseHandle>) -> u64 {
        let mut inner = self.lock();
        // An older connection may not have been detached yet; what must not outlive it goes here.
        self.forget_volatile(&mut inner);
        inner.holder = Some(Holder { number: connection, close, is_slow: false });
        let dropped = std::mem::take(&mut inner.dropped);
        // What waits is sent by the connection that has it now.
        self.arrived.notify_one();
        self.end_wait(&mut inner);
        dropped
    }

    /// Ends a connection's hold, with what does not outlive it: deliveries to reserved topics, QoS 0, and what is more
    /// than the session may keep. Gives the journal keys of the latter; `None` when another connection has it.
    pub(crate) fn detach(&self, connection: u64) -> Option<Vec<u64>> {
        let mut inner = self.lock();
        inner.holder.take_if(|holder| holder.number == connection)?;
        Some(self.leave(&mut inner))
    }

    /// What becomes of the queue when its connection takes nothing more.
    fn leave(&self, inner: &mut Inner) -> Vec<u64> {
        self.forget_volatile(inner);
        let evicted = if self.is_durable { inner.trim(self.kept()) } else { Vec::new() };
        self.end_wait(inner);
        evicted
    }

    fn forget_volatile(&self, inner: &mut Inner) {
        inner.retain(|delivery| delivery.qos > 0 && !delivery.is_reserved);
        // A burst must not keep its memory while the client is away.
        inner.queue.shrink_to(KEPT_MESSAGES);
        let mut flight = self.flight();
        flight.retain(|delivery| !delivery.is_reserved);
        flight.rewind();
    }

    /// Publishers need not wait any longer.
    fn end_wait(&self, inner: &mut Inner) {
        if let Some(wait) = inner.wait.take() {
            self.usage.add_wait(Instant::now(), wait.since.elapsed());
        }
        self.space.notify_waiters();
    }

    /// What the session may keep while its client is away.
    fn kept(&self) -> Load {
        Load { messages: self.keeps.messages, bytes: self.keeps.bytes }
    }

    /// From where on publishers wait.
    fn full(&self) -> Load {
        // One that was away comes back with what it was allowed to keep, and space beside that: otherwise it would hold up publishers
        // at once, and be closed again before it has taken anything.
        if self.is_durable { self.kept().plus(SOFT) } else { SOFT }
    }

    fn hard(&self) -> Load {
        self.full().plus(SOFT.times(HARD_TIMES - 1))
    }

    /// Closes the connection, which is too slow; from now on the session is as if it were away. Gives the journal keys of
    /// what it may not keep; `None` when there is no connection to close.
    fn close_as_slow(&self, inner: &mut Inner) -> Option<Vec<u64>> {
        let holder = inner.holder.as_mut().filter(|holder| !holder.is_slow)?;
        holder.is_slow = true;
        holder.close.close(TOO_SLOW, Reason::QUOTA_EXCEEDED);
        Some(self.leave(inner))
    }

    /// Closes the connection of a session, which holds too much of what all share.
    pub(crate) fn close_as_fullest(&self) -> Option<Vec<u64>> {
        self.close_as_slow(&mut self.lock())
    }

    /// Ends the session: gives up what waits and lets nothing more in. Gives what was not settled and may be given to
    /// another member of a shared subscription: no QoS 2 message that was sent (MQTT-4.8.2-5 of MQTT 5).
    pub(crate) fn close(&self) -> Vec<Delivery> {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.holder = None;
        let mut left = self.flight().retain(|_| false);
        left.retain(|delivery| delivery.qos < 2);
        left.extend(inner.retain(|_| false));
        inner.queue = VecDeque::new();
        self.end_wait(&mut inner);
        left
    }

    /// Notes that its client was deleted.
    pub(crate) fn forget(&self) {
        self.lock().is_forgotten = true;
    }

    /// Returns true when its client was deleted.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.lock().is_forgotten
    }

    /// What waits in it, in bytes.
    pub(crate) fn queued(&self) -> usize {
        self.lock().queued().bytes
    }

    /// Whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Whether a connection has it.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().is_here()
    }

    /// Whether one more QoS 1 or 2 message closes its connection.
    pub(crate) fn is_at_hard_bound(&self) -> bool {
        let inner = self.lock();
        inner.is_here() && inner.load.reaches(self.hard())
    }

    /// Whether a shared subscription may choose it: it is here, and less waits than the soft bound.
    pub(crate) fn has_space(&self) -> bool {
        let inner = self.lock();
        !inner.is_closed && inner.is_here() && !inner.load.reaches(SOFT)
    }

    /// Whether so many retained messages wait that it asked for, and more than it can have asked for by mistake.
    pub(crate) fn is_beyond_replay(&self, messages: usize, bytes: usize) -> bool {
        let bound = Load { messages, bytes }.plus(SOFT.times(HARD_TIMES));
        self.lock().replayed.reaches(bound)
    }

    /// Takes out what waits on free topics that may not be read, before it is sent, or sent again. What the client has
    /// already (PUBREC) is brought to its end.
    pub(crate) fn take_back(&self, may_read: impl Fn(&str) -> bool) -> TakenBack {
        let mut inner = self.lock();
        let may_stay = |delivery: &Delivery| delivery.is_reserved || may_read(delivery.message.topic());
        let sent = self.flight().take_back(may_stay);
        let taken = TakenBack { queued: inner.retain(may_stay), sent };
        self.end_wait(&mut inner);
        taken
    }

    /// Adds a message at the end.
    pub(crate) fn push(&self, delivery: Delivery, bound: Bound) -> Result<Pushed, NotDelivered> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(NotDelivered::NotConnected);
        }
        let mut pushed = Pushed::default();
        let is_here = inner.is_here();
        let is_kept = self.is_durable && delivery.qos > 0 && !delivery.is_reserved;
        if !is_here && !is_kept {
            return Err(NotDelivered::NotConnected);
        }
        // Retained messages that the client subscribed to come at once and are bounded by `is_beyond_replay`.
        if is_here && bound == Bound::Soft && !delivery.is_replayed && inner.load.reaches(SOFT) {
            return Err(NotDelivered::Busy);
        }
        let was_empty = inner.queue.is_empty();
        inner.push(delivery);
        if !is_here {
            pushed.evicted = inner.trim(self.kept());
        } else if bound == Bound::Hard && inner.load.exceeds(self.hard()) {
            if let Some(evicted) = self.close_as_slow(&mut inner) {
                pushed = Pushed { is_full: false, is_closed_as_slow: true, evicted };
            }
        } else if bound == Bound::Hard && inner.load.reaches(self.full()) {
            pushed.is_full = true;
            if inner.wait.is_none() {
                let since = Instant::now();
                inner.wait = Some(Box::new(Wait { since, until: since + self.usage.wait_left(since) }));
            }
        }
        // The task of the connection wakes at once and takes the lock.
        drop(inner);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(pushed)
    }

    /// Takes out what has expired, which otherwise is noticed by who comes for it. Gives how many that were, and their journal
    /// keys.
    pub(crate) fn take_expired(&self, now_ms: u64) -> (usize, Vec<u64>) {
        let mut inner = self.lock();
        if inner.first_expiry_ms > now_ms {
            return (0, Vec::new());
        }
        // What stays is pushed again, and says when it expires.
        inner.first_expiry_ms = u64::MAX;
        let expired = inner.retain(|delivery| !delivery.message.is_expired(now_ms));
        if inner.wait.is_some() && !inner.load.reaches(self.full()) {
            self.end_wait(&mut inner);
        }
        let keys = expired.iter().map(|delivery| delivery.key).filter(|key| *key != 0).collect();
        (expired.len(), keys)
    }

    /// Drops the oldest half of what waits, while nobody has the session_queue; their journal keys.
    pub(crate) fn evict_half(&self) -> Vec<u64> {
        let mut inner = self.lock();
        if inner.is_here() {
            return Vec::new();
        }
        let half = inner.queue.len().div_ceil(2);
        let evicted: Vec<u64> = (0..half).map_while(|_| inner.pop()).map(|delivery| delivery.key).collect();
        inner.dropped += evicted.len() as u64;
        evicted
    }

    /// PUBACK (`qos` 1), or what ends QoS 2: PUBCOMP, or a PUBREC that refuses.
    pub(crate) fn settle(&self, id: u16, qos: u8) -> Option<Delivery> {
        self.flight().settle(id, qos)
    }

    /// PUBREC; the message's journal key.
    pub(crate) fn taken(&self, id: u16) -> Option<u64> {
        self.flight().take(id)
    }

    /// The share of the packet id of a message that arrives with this QoS, until it is received or refused.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when the identity has too many that it does not release.
    pub(crate) fn share_of_id(&self, qos: u8) -> Result<Option<Used>, QuotaExceeded> {
        (qos == 2).then(|| self.usage.hold(Resource::UnreleasedIds, false)).transpose()
    }

    /// A QoS 2 message with this id is taken; its share is given back when the id is released.
    pub(crate) fn receive(&self, id: u16, share: Used) {
        if self.lock().received.insert(id) {
            share.keep();
        }
    }

    /// Whether a QoS 2 message with this id is here.
    pub(crate) fn has_received(&self, id: u16) -> bool {
        self.lock().received.contains(&id)
    }

    /// Its id is free again; false when it was.
    pub(crate) fn release(&self, id: u16) -> bool {
        let was_here = self.lock().received.remove(&id);
        if was_here {
            self.usage.give_back(Resource::UnreleasedIds, 1);
        }
        was_here
    }

    /// Ends when publishers need not wait: there is space, or nobody reads the queue any more. A connection that makes no
    /// space in the time for which publishers may wait is closed; gives the journal keys of what the session may not keep
    /// then.
    pub(crate) async fn space(&self) -> Option<Vec<u64>> {
        loop {
            let mut space = std::pin::pin!(self.space.notified());
            // Registered before the look at `wait`: space that is freed in between is not missed.
            space.as_mut().enable();
            let until = self.lock().wait.as_ref()?.until;
            if timeout_at(until, space).await.is_err() {
                let mut inner = self.lock();
                // Others may have closed it, or space was freed and used up again meanwhile.
                if inner.wait.as_ref().is_some_and(|wait| wait.until <= Instant::now()) {
                    return self.close_as_slow(&mut inner);
                }
            }
        }
    }
}
