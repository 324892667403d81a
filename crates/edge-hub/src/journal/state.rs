//! What is true after the events of a journal: the durable sessions, the retained messages and the wills. The same
//! function makes it from live events and from the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Event, Kept, Published, Target};
use crate::message::Message;
use crate::subscription::Options;

/// The fold of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub sessions: BTreeMap<u64, Session>,
    /// The messages that stand in queues, by key.
    messages: HashMap<u64, Stored>,
    pub retained: HashMap<Bytes, Arc<Message>>,
    pub wills: BTreeMap<Box<str>, Will>,
    /// What the messages in queues hold in memory.
    bytes: usize,
    next_session: u64,
    next_key: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    message: Arc<Message>,
    /// The queues that hold it.
    places: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub client_id: Box<str>,
    pub expiry_s: u32,
    /// When its client left, ms of Unix time; `None` while a client has it.
    pub left_ms: Option<u64>,
    pub filters: BTreeMap<Box<str>, Options>,
    /// What waits, by key.
    pub queue: BTreeMap<u64, DeliveryOptions>,
    /// What was sent and is not settled, in the order of sending.
    pub flight: Vec<InFlight>,
    /// QoS 2 packet ids that its client has not let go.
    pub received: BTreeSet<u16>,
    pub last_id: u16,
}

/// How a session receives a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliveryOptions {
    pub qos: u8,
    pub retain: bool,
    pub ids: Option<Arc<[u32]>>,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub id: u16,
    /// The client has it; the message is not needed any more.
    pub is_taken: bool,
    pub key: u64,
    pub place: DeliveryOptions,
}

/// The will of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub message: Arc<Message>,
    pub delay_s: u32,
    /// When it is to be published, ms of Unix time; `None` while the client is here.
    pub due_ms: Option<u64>,
}

impl State {
    /// What the messages in queues hold in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A number that no session of the journal has.
    pub(crate) fn next_session(&self) -> u64 {
        self.next_session.max(1)
    }

    /// A key that no message of the journal has.
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.max(1)
    }

    /// The message with this key.
    pub(crate) fn message(&self, key: u64) -> Option<&Arc<Message>> {
        self.messages.get(&key).map(|stored| &stored.message)
    }

    /// Makes an event true. One that names what is not there changes nothing: it is of a session that ended meanwhile.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Opened { session, client_id, expiry_s } => {
                self.next_session = self.next_session.max(session + 1);
                let entry = self.sessions.entry(*session).or_insert_with(|| Session {
                    client_id: client_id.clone(),
                    expiry_s: *expiry_s,
                    left_ms: None,
                    filters: BTreeMap::new(),
                    queue: BTreeMap::new(),
                    flight: Vec::new(),
                    received: BTreeSet::new(),
                    last_id: 0,
                });
                (entry.expiry_s, entry.left_ms) = (*expiry_s, None);
            }
            Event::Left { session, at_ms, expiry_s } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    (session.expiry_s, session.left_ms) = (*expiry_s, Some(*at_ms));
                }
            }
            Event::Ended { session } => {
                if let Some(ended) = self.sessions.remove(session) {
                    ended.queue.keys().for_each(|key| self.let_go(*key));
                    ended.flight.iter().for_each(|sent| self.let_go(sent.key));
                }
            }
            Event::Subscribed { session, filter, options } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.filters.insert(filter.clone(), *options);
                }
            }
            Event::Unsubscribed { session, filter } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.filters.remove(filter);
                }
            }
            Event::Published(published) => self.publish(published),
            Event::Received { session, id } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.received.insert(*id);
                }
            }
            Event::Released { session, id } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.received.remove(id);
                }
            }
            Event::Sent { session, keys } => {
                let Some(session) = self.sessions.get_mut(session) else { return };
                for (key, id) in keys {
                    // Without a place it is one that was taken already.
                    let gone = DeliveryOptions { qos: 2, retain: false, ids: None };
                    let place = session.queue.remove(key).unwrap_or(gone);
                    session.flight.push(InFlight { id: *id, is_taken: false, key: *key, place });
                    session.last_id = *id;
                }
            }
            Event::Taken { session, id } => {
                let Some(session) = self.sessions.get_mut(session) else { return };
                let Some(sent) = session.flight.iter_mut().find(|sent| sent.id == *id) else { return };
                sent.is_taken = true;
                let key = std::mem::take(&mut sent.key);
                self.let_go(key);
            }
            Event::Settled { session, id } => {
                let Some(session) = self.sessions.get_mut(session) else { return };
                let Some(at) = session.flight.iter().position(|sent| sent.id == *id) else { return };
                let key = session.flight.remove(at).key;
                self.let_go(key);
            }
            Event::Dropped { session, keys } => {
                let Some(session) = self.sessions.get_mut(session) else { return };
                let mut gone = Vec::with_capacity(keys.len());
                for key in keys {
                    gone.extend(session.queue.remove(key).map(|_| *key));
                }
                gone.into_iter().for_each(|key| self.let_go(key));
            }
            Event::LastId { session, id } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.last_id = *id;
                }
            }
            Event::Will { client_id, message, delay_s } => {
                let will = Will { message: message.clone(), delay_s: *delay_s, due_ms: None };
                self.wills.insert(client_id.clone(), will);
            }
            Event::WillDue { client_id, at_ms } => {
                if let Some(will) = self.wills.get_mut(client_id) {
                    will.due_ms = Some(*at_ms);
                }
            }
            Event::WillGone { client_id } => {
                self.wills.remove(client_id);
            }
        }
    }

    fn publish(&mut self, published: &Published) {
        let Published { key, message, retained, received, targets } = published;
        self.next_key = self.next_key.max(key + 1);
        match retained {
            Kept::Not => {}
            Kept::Set => {
                self.retained.insert(message.topic.clone(), message.clone());
            }
            Kept::Cleared => {
                self.retained.remove(&message.topic);
            }
        }
        if let Some((session, id)) = received
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.received.insert(*id);
        }
        let mut places = 0;
        for Target { session, qos, retain, ids } in targets {
            if let Some(session) = self.sessions.get_mut(session) {
                let place = DeliveryOptions { qos: *qos, retain: *retain, ids: ids.clone() };
                places += usize::from(session.queue.insert(*key, place).is_none());
            }
        }
        if places > 0 {
            self.bytes += message.size();
            self.messages.insert(*key, Stored { message: message.clone(), places });
        }
    }

    fn let_go(&mut self, key: u64) {
        let Some(stored) = self.messages.get_mut(&key) else { return };
        stored.places -= 1;
        if stored.places == 0 {
            self.bytes -= stored.message.size();
            self.messages.remove(&key);
        }
    }

    /// The events that make this state from nothing.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        let sessions = self.sessions.iter().flat_map(|(number, session)| session.opening(*number));
        let messages = self.stored().into_iter().map(|(key, message, targets)| {
            let retained = Kept::Not;
            Event::Published(Box::new(Published { key, message, retained, received: None, targets }))
        });
        let sent = self.sessions.iter().flat_map(|(number, session)| session.sent(*number));
        let retained = self.retained.values().map(|message| {
            let (message, retained) = (message.clone(), Kept::Set);
            Event::Published(Box::new(Published {
                key: 0,
                message,
                retained,
                received: None,
                targets: Vec::new(),
            }))
        });
        let wills = self.wills.iter().flat_map(|(client_id, will)| {
            let (message, delay_s) = (will.message.clone(), will.delay_s);
            let set = Event::Will { client_id: client_id.clone(), message, delay_s };
            let due = will.due_ms.map(|at_ms| Event::WillDue { client_id: client_id.clone(), at_ms });
            std::iter::once(set).chain(due)
        });
        sessions.chain(messages).chain(sent).chain(retained).chain(wills)
    }

    /// Every message of a queue, with the queues that hold it, by key.
    fn stored(&self) -> Vec<(u64, Arc<Message>, Vec<Target>)> {
        let mut targets: BTreeMap<u64, Vec<Target>> = BTreeMap::new();
        for (number, session) in &self.sessions {
            let waiting = session.queue.iter().map(|(key, place)| (*key, place));
            let sent = session.flight.iter().filter(|s| !s.is_taken).map(|sent| (sent.key, &sent.place));
            for (key, place) in waiting.chain(sent) {
                let DeliveryOptions { qos, retain, ids } = place.clone();
                targets.entry(key).or_default().push(Target { session: *number, qos, retain, ids });
            }
        }
        let stored = targets.into_iter();
        stored.filter_map(|(key, targets)| Some((key, self.message(key)?.clone(), targets))).collect()
    }
}

impl Session {
    fn opening(&self, session: u64) -> impl Iterator<Item = Event> {
        let expiry_s = self.expiry_s;
        let opened = Event::Opened { session, client_id: self.client_id.clone(), expiry_s };
        let left = self.left_ms.map(|at_ms| Event::Left { session, at_ms, expiry_s });
        let filters = self.filters.iter().map(move |(filter, options)| Event::Subscribed {
            session,
            filter: filter.clone(),
            options: *options,
        });
        let received = self.received.iter().map(move |id| Event::Received { session, id: *id });
        std::iter::once(opened).chain(left).chain(filters).chain(received)
    }

    fn sent(&self, session: u64) -> impl Iterator<Item = Event> {
        let keys = self.flight.iter().map(|sent| (sent.key, sent.id)).collect::<Vec<_>>();
        let sent = (!keys.is_empty()).then_some(Event::Sent { session, keys });
        let taken = self.flight.iter().filter(|sent| sent.is_taken);
        let taken = taken.map(move |sent| Event::Taken { session, id: sent.id });
        let last = (self.last_id != 0).then_some(Event::LastId { session, id: self.last_id });
        sent.into_iter().chain(taken).chain(last)
    }
}
