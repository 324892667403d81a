//! What a session is, with or without a connection: its filters, its queue, what is in flight both ways.
//!
//! ```text
//! connected:  0 ............ soft bound ............ hard bound
//!             everybody may   QoS 0 is dropped,       a QoS 1 or 2 publisher
//!             add             deliveries are Busy,    is refused
//!                             a QoS 1 or 2 publisher
//!                             waits for room
//! away:       QoS 1 and 2 on free topics are kept up to the session's bound; beyond, the oldest goes and is counted
//! ```
//!
//! A connection has a mailbox by its number; what a connection does that was taken over touches nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_core::dialect::client::Subscribe;
use edge_core::dialect::filter;
use tokio::sync::{Notify, oneshot};

use crate::delivery::NotDelivered;
use crate::flight::{Again, Flight, Settled};
use crate::message::{Delivery, Message};
use crate::table::Options;

/// Messages that wait for one connected client before senders are held back.
pub(crate) const MESSAGES_SOFT: usize = 1_000;
/// Bytes that wait for one connected client before senders are held back.
const BYTES_SOFT: usize = 1024 * 1024;
/// How far QoS 1 and 2 publishers, each of which waits for room, may go over the soft bounds together.
const HARD_TIMES: usize = 8;
/// A queue that is empty keeps room for so many messages.
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
    /// Added whatever waits: [`Mailbox::is_beyond_waiting`] was asked before, or their number is bounded elsewhere.
    None,
}

/// What a session that is away may keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeps {
    pub messages: usize,
    pub bytes: usize,
}

/// The mailbox of one session.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Names the session in the table and the journal; never used twice.
    pub number: u64,
    pub client_id: String,
    /// Whether it outlives its connection, and is in the journal.
    pub is_durable: bool,
    keeps: Keeps,
    /// A message was added to an empty queue.
    pub arrived: Notify,
    room: Notify,
    inner: Mutex<Inner>,
    held: Mutex<Vec<Held>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the connection that has it.
    connection: Option<u64>,
    is_closed: bool,
    queue: VecDeque<Delivery>,
    bytes: usize,
    flight: Flight,
    /// QoS 2 packet ids of the client that it has not let go (PUBREL).
    received: BTreeSet<u16>,
    /// Messages that gave way while the client was away.
    dropped: u64,
}

impl Inner {
    fn is_full(&self, times: usize) -> bool {
        self.queue.len() >= MESSAGES_SOFT * times || self.bytes >= BYTES_SOFT * times
    }

    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.size();
        self.queue.push_back(delivery);
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.bytes -= delivery.message.size();
        Some(delivery)
    }
}

/// What a push did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The queue is full now: a QoS 1 or 2 publisher waits.
    pub is_full: bool,
    /// Journal keys of the messages that gave way.
    pub evicted: Vec<u64>,
}

/// What one connection may be sent now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// QoS 1 and 2 messages in flight at most.
    pub window: usize,
    /// Bytes at least one message of which is given.
    pub bytes: usize,
    pub now_ms: u64,
}

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Publish(Copy),
    /// PUBREL.
    Release(u16),
}

impl Outgoing {
    /// About what its packet has.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish(copy) => copy.message.topic.len() + copy.message.payload.len() + 16,
            Self::Release(_) => 4,
        }
    }
}

/// A message to send.
#[derive(Debug)]
pub(crate) struct Copy {
    pub message: Arc<Message>,
    /// 0 for QoS 0.
    pub id: u16,
    pub qos: u8,
    pub retain: bool,
    pub is_again: bool,
    /// Of the journal; 0 for none, and when it was sent before.
    pub key: u64,
    pub ids: Option<Arc<[u32]>>,
    /// Of a QoS 0 message.
    pub done: Option<oneshot::Sender<()>>,
}

impl Copy {
    fn of(delivery: &Delivery, id: u16, is_again: bool) -> Self {
        Self {
            message: delivery.message.clone(),
            id,
            qos: delivery.qos,
            retain: delivery.retain,
            is_again,
            key: 0,
            ids: delivery.ids.clone(),
            done: None,
        }
    }
}

/// What is to be sent, and what was passed over.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub outgoing: Vec<Outgoing>,
    /// Messages that expired in the queue.
    pub expired: usize,
    /// The journal keys among them.
    pub expired_keys: Vec<u64>,
}

/// What a client may not have any more.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    pub queued: Vec<Delivery>,
    /// Packet ids of messages that were sent and are not settled.
    pub sent: Vec<u16>,
}

impl Mailbox {
    pub(crate) fn new(number: u64, client_id: String, is_durable: bool, keeps: Keeps) -> Self {
        Self {
            number,
            client_id,
            is_durable,
            keeps,
            arrived: Notify::new(),
            room: Notify::new(),
            inner: Mutex::default(),
            held: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
        inner.flight.restore(sent, last_id);
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

    /// Gives the mailbox to a connection; whoever had it has it no more. Gives how many messages gave way while nobody
    /// had it.
    pub(crate) fn attach(&self, connection: u64) -> u64 {
        let mut inner = self.lock();
        Self::forget_volatile(&mut inner);
        inner.connection = Some(connection);
        let dropped = std::mem::take(&mut inner.dropped);
        drop(inner);
        // What waits is sent by the connection that has it now.
        self.arrived.notify_one();
        self.room.notify_waiters();
        dropped
    }

    /// Ends a connection's hold, with what does not outlive it: deliveries to reserved topics, and QoS 0. False when
    /// another connection has it.
    pub(crate) fn detach(&self, connection: u64) -> bool {
        let mut inner = self.lock();
        if inner.connection != Some(connection) {
            return false;
        }
        inner.connection = None;
        Self::forget_volatile(&mut inner);
        drop(inner);
        self.room.notify_waiters();
        true
    }

    fn forget_volatile(inner: &mut Inner) {
        let waiting = std::mem::take(&mut inner.queue);
        inner.bytes = 0;
        for delivery in waiting {
            if delivery.qos > 0 && !delivery.is_reserved {
                inner.push(delivery);
            }
        }
        inner.queue.shrink_to(KEPT_MESSAGES);
        inner.flight.retain(|delivery| !delivery.is_reserved);
        inner.flight.rewind();
    }

    /// Ends the session: gives up what waits and lets nothing more in. Gives what was not settled and may be given to
    /// another member of a shared subscription: no QoS 2 message that was sent (MQTT-4.8.2-5 of MQTT 5).
    pub(crate) fn close(&self) -> Vec<Delivery> {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.connection = None;
        inner.bytes = 0;
        let mut left = inner.flight.retain(|_| false);
        left.retain(|delivery| delivery.qos < 2);
        left.extend(std::mem::take(&mut inner.queue));
        drop(inner);
        self.room.notify_waiters();
        left
    }

    /// What waits in it, in bytes.
    pub(crate) fn queued(&self) -> usize {
        self.lock().bytes
    }

    /// Whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Whether a connection has it.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().connection.is_some()
    }

    /// Whether it takes nothing more from a QoS 1 or 2 publisher, who is refused then.
    pub(crate) fn is_beyond_waiting(&self) -> bool {
        let inner = self.lock();
        inner.connection.is_some() && inner.is_full(self.hard_times())
    }

    /// Whether a shared subscription passes it over for now.
    pub(crate) fn has_room(&self) -> bool {
        let inner = self.lock();
        !inner.is_closed && inner.connection.is_some() && !inner.is_full(1)
    }

    /// Whether so much waits in it beside what publishers may bring it to.
    pub(crate) fn is_beyond(&self, messages: usize, bytes: usize) -> bool {
        let (inner, times) = (self.lock(), self.hard_times());
        inner.queue.len() >= MESSAGES_SOFT * times + messages || inner.bytes >= BYTES_SOFT * times + bytes
    }

    /// Takes out what waits on free topics that may not be read, before it is sent, or sent again. What the client has
    /// already (PUBREC) is brought to its end.
    pub(crate) fn take_back(&self, may_read: impl Fn(&str) -> bool) -> TakenBack {
        let mut inner = self.lock();
        let may_stay = |delivery: &Delivery| delivery.is_reserved || may_read(delivery.message.topic());
        let mut taken = TakenBack { queued: Vec::new(), sent: inner.flight.take_back(may_stay) };
        inner.bytes = 0;
        for delivery in std::mem::take(&mut inner.queue) {
            if may_stay(&delivery) {
                inner.push(delivery);
            } else {
                taken.queued.push(delivery);
            }
        }
        drop(inner);
        self.room.notify_waiters();
        taken
    }

    fn hard_times(&self) -> usize {
        // A session that was away comes back with what it was allowed to keep, and more may arrive before it is sent.
        match self.is_durable {
            true => {
                HARD_TIMES + (self.keeps.messages / MESSAGES_SOFT).max(self.keeps.bytes.div_ceil(BYTES_SOFT))
            }
            false => HARD_TIMES,
        }
    }

    /// Adds a message at the end.
    pub(crate) fn push(&self, delivery: Delivery, bound: Bound) -> Result<Pushed, NotDelivered> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(NotDelivered::NotConnected);
        }
        let mut pushed = Pushed::default();
        let is_connected = inner.connection.is_some();
        if is_connected {
            let is_refused = match bound {
                Bound::Soft => inner.is_full(1),
                Bound::None => false,
            };
            if is_refused {
                return Err(NotDelivered::Busy);
            }
        } else if delivery.qos == 0 || delivery.is_reserved {
            return Err(NotDelivered::NotConnected);
        }
        let was_empty = inner.queue.is_empty();
        inner.push(delivery);
        if is_connected {
            pushed.is_full = inner.is_full(1);
        } else {
            while inner.queue.len() > self.keeps.messages || inner.bytes > self.keeps.bytes {
                let Some(oldest) = inner.pop() else { break };
                inner.dropped += 1;
                pushed.evicted.push(oldest.key);
            }
        }
        drop(inner);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(pushed)
    }

    /// Lets the oldest half of what waits give way, while nobody has the mailbox; their journal keys.
    pub(crate) fn evict_half(&self) -> Vec<u64> {
        let mut inner = self.lock();
        if inner.connection.is_some() {
            return Vec::new();
        }
        let half = inner.queue.len().div_ceil(2);
        let evicted: Vec<u64> = (0..half).map_while(|_| inner.pop()).map(|delivery| delivery.key).collect();
        inner.dropped += evicted.len() as u64;
        evicted
    }

    /// Takes what its connection may send now: first what is to be sent again, then what waits.
    pub(crate) fn take(&self, connection: u64, budget: Budget) -> Taken {
        let mut taken = Taken::default();
        let mut inner = self.lock();
        if inner.connection != Some(connection) || (inner.queue.is_empty() && inner.flight.is_empty()) {
            return taken;
        }
        let was_full = inner.is_full(1);
        let mut bytes = 0;
        while inner.flight.on_wire() < budget.window && bytes < budget.bytes {
            taken.outgoing.push(match inner.flight.again() {
                Some(Again::Publish(id, delivery)) => {
                    bytes += delivery.message.size();
                    Outgoing::Publish(Copy::of(delivery, id, true))
                }
                Some(Again::Release(id)) => Outgoing::Release(id),
                None => break,
            });
        }
        while bytes < budget.bytes {
            let Some(next) = inner.queue.front() else { break };
            if next.message.is_expired(budget.now_ms) {
                taken.expired += 1;
                if let Some(delivery) = inner.pop()
                    && delivery.key != 0
                {
                    taken.expired_keys.push(delivery.key);
                }
                continue;
            }
            if next.qos > 0 && inner.flight.on_wire() >= budget.window {
                break;
            }
            let Some(mut delivery) = inner.pop() else { break };
            bytes += delivery.message.size();
            if delivery.qos == 0 {
                let done = delivery.done.take();
                taken.outgoing.push(Outgoing::Publish(Copy { done, ..Copy::of(&delivery, 0, false) }));
                continue;
            }
            let mut copy = Copy::of(&delivery, 0, delivery.is_again);
            copy.key = delivery.key;
            copy.id = inner.flight.enter(delivery);
            taken.outgoing.push(Outgoing::Publish(copy));
        }
        if inner.queue.is_empty() {
            // An idle client keeps no memory of a busy hour.
            inner.queue.shrink_to(KEPT_MESSAGES);
        }
        let has_room = was_full && !inner.is_full(1);
        drop(inner);
        if has_room {
            self.room.notify_waiters();
        }
        taken
    }

    /// PUBACK (`qos` 1), or what ends QoS 2: PUBCOMP, or a PUBREC that refuses.
    pub(crate) fn settle(&self, id: u16, qos: u8) -> Option<Settled> {
        self.lock().flight.settle(id, qos)
    }

    /// PUBREC; the message's journal key.
    pub(crate) fn taken(&self, id: u16) -> Option<u64> {
        self.lock().flight.take(id)
    }

    /// A QoS 2 message with this id arrived; false when it is here already.
    pub(crate) fn receive(&self, id: u16) -> bool {
        self.lock().received.insert(id)
    }

    /// Whether a QoS 2 message with this id is here.
    pub(crate) fn has_received(&self, id: u16) -> bool {
        self.lock().received.contains(&id)
    }

    /// Its id is free again; false when it was.
    pub(crate) fn release(&self, id: u16) -> bool {
        self.lock().received.remove(&id)
    }

    /// Ends when the queue is not full, or nobody reads it any more.
    pub(crate) async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            let has_room = {
                let inner = self.lock();
                inner.is_closed || inner.connection.is_none() || !inner.is_full(1)
            };
            if has_room {
                return;
            }
            room.await;
        }
    }
}
