//! The sessions of a door and what passes between them: who has which, who receives what, what is kept for whom.
//!
//! ```text
//! PUBLISH ─> route (table) ─┬─> durable sessions, retained: one record of the journal
//!                           └─> mailbox of each receiver ─> its connection, when it has one
//! ```
//!
//! Lock order: sessions, then the journal or a mailbox; neither of these is held while another is taken.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_core::dialect::client::{Subscribe, parse_subscribe};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::delivery::NotDelivered;
use crate::door::{Counts, DoorSettings, add, count};
use crate::journal::event::{Event, Kept, Published, Target};
use crate::journal::state::State;
use crate::journal::{Journal, Stored};
use crate::mailbox::{Bound, Held, Keeps, Mailbox};
use crate::message::{Delivery, Message, unix_ms};
use crate::retained::{Retained, RetainedMax};
use crate::shown::Shown;
use crate::table::{Options, Route, Served, Table, split_share};

/// A session that never ends by itself.
pub(crate) const FOR_EVER: u32 = u32::MAX;

/// The part of a door that does not know the program behind it.
pub(crate) struct Broker {
    pub table: Table,
    pub retained: Retained,
    pub journal: Journal,
    pub counts: Counts,
    settings: DoorSettings,
    sessions: Mutex<Sessions>,
    next_session: AtomicU64,
    next_key: AtomicU64,
    /// Something is due earlier than before.
    pub sooner: Notify,
}

#[derive(Default)]
struct Sessions {
    by_client: HashMap<Box<str>, Entry>,
    /// Wills that wait for their time, by client id. Some clients have no session any more.
    wills: HashMap<Box<str>, (Arc<Message>, u64)>,
    /// When something may be due, and whose; what is not true any more is passed over.
    due: BTreeSet<(u64, Box<str>)>,
    durable: usize,
}

struct Entry {
    mailbox: Arc<Mailbox>,
    expiry_s: u32,
    /// When its client left, ms of Unix time; `None` while a client has it.
    left_ms: Option<u64>,
    /// The client that is here has a will.
    has_will: bool,
}

impl Entry {
    fn ends_ms(&self) -> Option<u64> {
        match self.expiry_s {
            FOR_EVER => None,
            seconds => Some(self.left_ms?.saturating_add(u64::from(seconds) * 1_000)),
        }
    }
}

/// The will of a client that is here.
#[derive(Debug)]
pub(crate) struct Will {
    pub message: Arc<Message>,
    pub delay_s: u32,
}

/// How a connection leaves its session.
pub(crate) enum Parting {
    /// The client said goodbye: its will is void.
    Goodbye,
    /// The connection ended otherwise.
    Lost(Option<Will>),
    /// The door closes: the will waits for the next opening.
    Stopped,
}

/// A session that a connection has now.
pub(crate) struct Entered {
    pub mailbox: Arc<Mailbox>,
    /// Whether it was there before.
    pub is_present: bool,
    /// What it keeps to, in seconds: 0 when it cannot outlive its connection.
    pub expiry_s: u32,
}

/// What became of a message.
pub(crate) struct Given {
    /// Sessions whose queue is full now: a QoS 1 or 2 publisher waits for room.
    pub full: Vec<Arc<Mailbox>>,
    /// Ends when the message is on disk, where it must be.
    pub stored: Option<Stored>,
    /// Whether anybody receives it.
    pub has_receivers: bool,
    /// It should have been retained, and there was no room.
    pub is_not_retained: bool,
}

/// A subscriber takes nothing more, and a QoS 1 or 2 message must not be acknowledged.
#[derive(Debug)]
pub(crate) struct TooSlow {
    pub client_id: String,
}

impl Broker {
    /// What a journal holds, as it was.
    pub(crate) fn restore(journal: Journal, state: &State, settings: DoorSettings) -> Self {
        let retained_max =
            RetainedMax { messages: settings.retained_messages_max, bytes: settings.retained_bytes_max };
        let broker = Self {
            table: Table::default(),
            retained: Retained::new(retained_max),
            journal,
            counts: Counts::default(),
            settings,
            sessions: Mutex::default(),
            next_session: AtomicU64::new(state.next_session()),
            next_key: AtomicU64::new(state.next_key()),
            sooner: Notify::new(),
        };
        for message in state.retained.values() {
            if !broker.retained.set(message) {
                count(&broker.counts.not_retained);
            }
        }
        let now_ms = unix_ms();
        let mut sessions = broker.sessions();
        for (number, session) in &state.sessions {
            let client_id = session.client_id.to_string();
            let mailbox = Arc::new(Mailbox::new(*number, client_id, true, broker.keeps()));
            let delivery = |key: u64, place: &crate::journal::state::Place| {
                let message = state.message(key)?.clone();
                let (qos, retain, ids) = (place.qos, place.retain, place.ids.clone());
                // The client may have it: that it was sent may not have reached the disk.
                Some(Delivery { retain, ids, key, is_again: true, ..Delivery::new(message, qos) })
            };
            let queue = session.queue.iter().filter_map(|(key, place)| delivery(*key, place));
            let sent = session.flight.iter().filter_map(|sent| {
                let delivery = match sent.is_taken {
                    false => delivery(sent.key, &sent.place)?,
                    true => Delivery { key: u64::MAX, ..Delivery::new(Arc::new(Message::empty()), 2) },
                };
                Some((sent.id, sent.is_taken, delivery))
            });
            mailbox.restore(queue, sent, session.received.clone(), session.last_id);
            for (filter, options) in &session.filters {
                let meaning = match split_share(filter) {
                    Some(_) => Ok(Subscribe::Free),
                    None => parse_subscribe(filter),
                };
                let Ok(meaning) = meaning else { continue };
                if meaning == Subscribe::Free {
                    broker.table.subscribe(filter, &mailbox, *options);
                }
                mailbox.held().push(Held { filter: filter.to_string(), meaning, options: *options });
            }
            let left_ms = session.left_ms.unwrap_or_else(|| {
                // The daemon was killed while the client was here.
                let expiry_s = session.expiry_s;
                broker.journal.note(&Event::Left { session: *number, at_ms: now_ms, expiry_s });
                now_ms
            });
            let entry =
                Entry { mailbox, expiry_s: session.expiry_s, left_ms: Some(left_ms), has_will: false };
            sessions.enter(session.client_id.clone(), entry);
        }
        for (client_id, will) in &state.wills {
            let due_ms = will.due_ms.unwrap_or_else(|| {
                // Its client was here when the daemon ended, and gets the time to come back.
                let delay_ms = u64::from(will.delay_s) * 1_000;
                now_ms + delay_ms.max(broker.settings.will_grace.as_millis() as u64)
            });
            sessions.put_will(client_id.clone(), will.message.clone(), due_ms);
        }
        drop(sessions);
        broker
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeps(&self) -> Keeps {
        Keeps { messages: self.settings.session_messages_max, bytes: self.settings.session_bytes_max }
    }

    /// Gives a client its session: the one that it had, unless it wants a new one. `expiry_s` is how long it is to outlive
    /// the connection.
    pub(crate) fn enter(
        &self,
        client_id: &str,
        connection: u64,
        is_clean: bool,
        expiry_s: u32,
        will: Option<&Will>,
    ) -> Entered {
        let mut sessions = self.sessions();
        let waiting_will = sessions.wills.remove(client_id);
        let before = sessions.leave(client_id);
        let had_will = waiting_will.is_some() || before.as_ref().is_some_and(|entry| entry.has_will);
        let (resumed, ended) = match before {
            Some(entry) if !is_clean && entry.mailbox.is_durable => (Some(entry), None),
            other => (None, other),
        };
        let entered = match resumed {
            Some(Entry { mailbox, .. }) => Entered { mailbox, is_present: true, expiry_s },
            None => {
                let is_durable = expiry_s > 0 && sessions.durable < self.settings.sessions_max;
                if expiry_s > 0 && !is_durable {
                    count(&self.counts.sessions_refused);
                    let sessions_max = self.settings.sessions_max;
                    let client = Shown(client_id);
                    warn!(%client, sessions_max, "session ends with its connection: there are too many that outlive theirs");
                }
                let number = self.next_session.fetch_add(1, Ordering::Relaxed);
                let mailbox = Mailbox::new(number, client_id.to_owned(), is_durable, self.keeps());
                let expiry_s = if is_durable { expiry_s } else { 0 };
                Entered { mailbox: Arc::new(mailbox), is_present: false, expiry_s }
            }
        };
        let dropped = entered.mailbox.attach(connection);
        let (mailbox, expiry_s) = (entered.mailbox.clone(), entered.expiry_s);
        if mailbox.is_durable {
            self.journal.note(&Event::Opened {
                session: mailbox.number,
                client_id: client_id.into(),
                expiry_s,
            });
        }
        match will {
            Some(will) => {
                let (message, delay_s) = (will.message.clone(), will.delay_s);
                self.journal.note(&Event::Will { client_id: client_id.into(), message, delay_s });
            }
            None if had_will => self.journal.note(&Event::WillGone { client_id: client_id.into() }),
            None => {}
        }
        sessions
            .enter(client_id.into(), Entry { mailbox, expiry_s, left_ms: None, has_will: will.is_some() });
        drop(sessions);
        if dropped > 0 {
            let client = Shown(client_id);
            warn!(%client, messages = dropped, "the oldest messages for the client gave way while it was away");
        }
        if let Some(ended) = ended {
            self.end(&ended.mailbox);
            // A new connection to a session keeps its will from being published (MQTT 5.0 section 3.1.3.2.2); the
            // session's end does not.
            if let Some((message, _)) = waiting_will {
                self.publish_will(&message);
            }
        }
        entered
    }

    /// A connection leaves its session, which outlives it by `expiry_s` seconds.
    pub(crate) fn leave(&self, mailbox: &Arc<Mailbox>, connection: u64, expiry_s: u32, parting: Parting) {
        let client_id = &*mailbox.client_id;
        let now_ms = unix_ms();
        let mut sessions = self.sessions();
        let is_current = mailbox.detach(connection);
        let mut ended = None;
        let mut had_will = false;
        let stays = is_current && mailbox.is_durable && expiry_s > 0;
        if is_current {
            let before = sessions.leave(client_id);
            had_will = before.as_ref().is_some_and(|entry| entry.has_will);
            if stays {
                let entry =
                    Entry { mailbox: mailbox.clone(), expiry_s, left_ms: Some(now_ms), has_will: false };
                sessions.enter(client_id.into(), entry);
                self.journal.note(&Event::Left { session: mailbox.number, at_ms: now_ms, expiry_s });
            } else {
                ended = before;
            }
        }
        let mut at_once = None;
        let is_will_over = match parting {
            Parting::Stopped => false,
            Parting::Lost(Some(will)) if stays && will.delay_s > 0 => {
                let at_ms = now_ms + u64::from(will.delay_s.min(expiry_s)) * 1_000;
                self.journal.note(&Event::WillDue { client_id: client_id.into(), at_ms });
                sessions.put_will(client_id.into(), will.message, at_ms);
                false
            }
            // The client is here again, with its session: there will be another end for its will.
            Parting::Lost(Some(will)) if !is_current && !mailbox.is_closed() && will.delay_s > 0 => false,
            Parting::Lost(Some(will)) => {
                at_once = Some(will.message);
                true
            }
            Parting::Lost(None) | Parting::Goodbye => true,
        };
        drop(sessions);
        self.sooner.notify_one();
        if let Some(ended) = ended {
            self.end(&ended.mailbox);
        }
        if let Some(message) = at_once {
            self.publish_will(&message);
        }
        if had_will && is_will_over {
            self.forget_will(client_id);
        }
    }

    fn forget_will(&self, client_id: &str) {
        self.journal.note(&Event::WillGone { client_id: client_id.into() });
    }

    /// Ends the session of a client that does not come back: it was deleted.
    pub(crate) fn forget(&self, client_id: &str) {
        let mut sessions = self.sessions();
        let will = sessions.wills.remove(client_id);
        let ended = sessions.leave(client_id);
        drop(sessions);
        if will.is_some() {
            self.forget_will(client_id);
        }
        if let Some(ended) = ended {
            self.end(&ended.mailbox);
        }
    }

    fn end(&self, mailbox: &Arc<Mailbox>) {
        for held in mailbox.held().drain(..).filter(|held| held.meaning == Subscribe::Free) {
            self.table.unsubscribe(&held.filter, mailbox);
        }
        let left = mailbox.close();
        if mailbox.is_durable {
            self.journal.note(&Event::Ended { session: mailbox.number });
        }
        for delivery in left {
            if let Some(share) = &delivery.share
                && delivery.qos > 0
                && let Some(group) = self.table.group(share)
            {
                let mut given = Given::nothing();
                let message = delivery.message;
                if let Some((mailbox, served)) = Self::member(&group, message.publisher) {
                    let copy = Self::copy(&mailbox, &served, &message, Some(share.clone()));
                    self.give(message, vec![copy], Kept::Not, None, &mut given);
                }
            }
        }
    }

    /// Does what is due, and says when the next thing is, ms of Unix time.
    pub(crate) fn tick(&self, now_ms: u64) -> Option<u64> {
        let (mut ended, mut wills) = (Vec::new(), Vec::new());
        let mut sessions = self.sessions();
        let next = loop {
            let Some((at_ms, client_id)) = sessions.due.first().cloned() else { break None };
            if at_ms > now_ms {
                break Some(at_ms);
            }
            sessions.due.pop_first();
            let is_over = |entry: &Entry| entry.ends_ms().is_some_and(|ends_ms| ends_ms <= now_ms);
            if sessions.by_client.get(&client_id).is_some_and(is_over) {
                ended.extend(sessions.leave(&client_id));
                // The session's end is the last time for its will.
                if let Some(will) = sessions.wills.get_mut(&client_id) {
                    will.1 = now_ms;
                }
            }
            if sessions.wills.get(&client_id).is_some_and(|(_, due_ms)| *due_ms <= now_ms) {
                wills.extend(sessions.wills.remove(&client_id).map(|(message, _)| (client_id, message)));
            }
        };
        drop(sessions);
        for entry in ended {
            info!(client = %Shown(&entry.mailbox.client_id), "session expired");
            count(&self.counts.sessions_expired);
            self.end(&entry.mailbox);
        }
        for (client_id, message) in wills {
            self.publish_will(&message);
            self.forget_will(&client_id);
        }
        next
    }

    /// Lets retained messages go that are expired.
    pub(crate) fn drop_expired_retained(&self, now_ms: u64) {
        for message in self.retained.expired(now_ms) {
            // A newer one may have come meanwhile.
            if self.retained.clear_if(message.topic(), |current| current.is_expired(now_ms)) {
                self.write(message, Vec::new(), Kept::Cleared, None).1.unawaited();
            }
        }
    }

    /// Publishes a will.
    pub(crate) fn publish_will(&self, message: &Arc<Message>) {
        let route = self.table.route(message.topic());
        let topic = Shown(message.topic()).to_string();
        let mut message = Message::clone(message);
        if let Some(seconds) = message.properties.as_mut().and_then(|p| p.message_expiry.take()) {
            message.expires_ms = Some(unix_ms().saturating_add(u64::from(seconds) * 1_000));
        }
        if let Err(slow) = self.publish(&route, message, None) {
            let subscriber = Shown(&slow.client_id);
            warn!(%topic, %subscriber, "will not given to every subscriber: one is too slow");
        }
    }

    /// Gives a message on a free topic to who receives it, and retains it when it asks for that. `received` names the
    /// durable session of a QoS 2 publisher, and the packet id.
    ///
    /// # Errors
    /// [`TooSlow`]: nobody was given the message.
    pub(crate) fn publish(
        &self,
        route: &Route,
        message: Message,
        received: Option<(u64, u16)>,
    ) -> Result<Given, TooSlow> {
        let mut given = Given::nothing();
        let mut copies = Vec::new();
        let mut is_stored = message.retain || received.is_some();
        if message.qos > 0 || is_stored || !route.groups.is_empty() {
            for receiver in &route.receivers {
                let Some(served) = receiver.serves(message.publisher) else { continue };
                if served.qos.min(message.qos) > 0 {
                    if receiver.mailbox.is_beyond_waiting() {
                        return Err(TooSlow { client_id: receiver.mailbox.client_id.clone() });
                    }
                    is_stored |= receiver.mailbox.is_durable;
                }
            }
        }
        let members: Vec<_> = route
            .groups
            .iter()
            .filter_map(|group| Some((Self::member(group, message.publisher)?, group.share.clone())))
            .collect();
        is_stored |= members
            .iter()
            .any(|((mailbox, served), _)| mailbox.is_durable && served.qos.min(message.qos) > 0);
        // What is kept must not keep the whole packet, and all that came with it, in memory.
        let message = Arc::new(if is_stored { message.detached() } else { message });
        let retained = match message.retain {
            false => Kept::Not,
            true if message.payload.is_empty() => match self.retained.clear(message.topic()) {
                true => Kept::Cleared,
                false => Kept::Not,
            },
            true => match self.retained.set(&message) {
                true => Kept::Set,
                false => {
                    count(&self.counts.not_retained);
                    given.is_not_retained = true;
                    Kept::Not
                }
            },
        };
        let receivers = route.receivers.iter();
        let receivers = receivers.filter_map(|r| Some((&r.mailbox, r.serves(message.publisher)?)));
        if !is_stored && members.is_empty() {
            // The way of most messages: no record, no list.
            for (mailbox, served) in receivers {
                let (_, delivery) = Self::copy(mailbox, served, &message, None);
                self.put(mailbox, delivery, &mut given);
            }
            return Ok(given);
        }
        copies.extend(receivers.map(|(mailbox, served)| Self::copy(mailbox, served, &message, None)));
        copies.extend(
            members
                .iter()
                .map(|((mailbox, served), share)| Self::copy(mailbox, served, &message, Some(share.clone()))),
        );
        self.give(message, copies, retained, received, &mut given);
        Ok(given)
    }

    /// The member of a shared subscription that receives the next message: one that is here and has room; else one whose
    /// session keeps it.
    fn member(group: &crate::table::Group, publisher: u64) -> Option<(Arc<Mailbox>, Served)> {
        let mut keeper = None;
        for member in group.in_turn() {
            let Some(served) = member.serves(publisher) else { continue };
            if member.mailbox.has_room() {
                return Some((member.mailbox.clone(), served.clone()));
            }
            if keeper.is_none() && (member.mailbox.is_durable || member.mailbox.is_connected()) {
                keeper = Some((member.mailbox.clone(), served.clone()));
            }
        }
        keeper
    }

    fn copy(
        mailbox: &Arc<Mailbox>,
        served: &Served,
        message: &Arc<Message>,
        share: Option<Arc<crate::message::Share>>,
    ) -> (Arc<Mailbox>, Delivery) {
        let qos = served.qos.min(message.qos);
        let retain = served.retain_as_published && message.retain;
        let delivery =
            Delivery { retain, ids: served.ids.clone(), share, ..Delivery::new(message.clone(), qos) };
        (mailbox.clone(), delivery)
    }

    /// Puts copies in the queues, after they are in the journal where they must be.
    fn give(
        &self,
        message: Arc<Message>,
        copies: Vec<(Arc<Mailbox>, Delivery)>,
        retained: Kept,
        received: Option<(u64, u16)>,
        given: &mut Given,
    ) {
        let targets: Vec<Target> = copies
            .iter()
            .filter(|(mailbox, delivery)| mailbox.is_durable && delivery.qos > 0)
            .map(|(mailbox, delivery)| Target {
                session: mailbox.number,
                qos: delivery.qos,
                retain: delivery.retain,
                ids: delivery.ids.clone(),
            })
            .collect();
        let mut key = 0;
        let is_queued = !targets.is_empty();
        if is_queued || retained != Kept::Not || received.is_some() {
            let (new_key, stored) = self.write(message, targets, retained, received);
            key = new_key;
            given.stored = Some(stored);
        }
        for (mailbox, mut delivery) in copies {
            if mailbox.is_durable && delivery.qos > 0 {
                delivery.key = key;
            }
            self.put(&mailbox, delivery, given);
        }
        if is_queued && self.journal.bytes() > self.settings.queued_bytes_max {
            self.relieve();
        }
    }

    fn write(
        &self,
        message: Arc<Message>,
        targets: Vec<Target>,
        retained: Kept,
        received: Option<(u64, u16)>,
    ) -> (u64, Stored) {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let published = Published { key, message, retained, received, targets };
        (key, self.journal.write(&Event::Published(Box::new(published))))
    }

    fn put(&self, mailbox: &Arc<Mailbox>, delivery: Delivery, given: &mut Given) {
        let qos = delivery.qos;
        let bound = if qos == 0 { Bound::Soft } else { Bound::None };
        match mailbox.push(delivery, bound) {
            Ok(pushed) => {
                given.has_receivers = true;
                if pushed.is_full && qos > 0 {
                    given.full.push(mailbox.clone());
                }
                self.evicted(mailbox, pushed.evicted);
            }
            Err(NotDelivered::Busy) => count(&self.counts.copies_dropped),
            // Whoever has just gone receives nothing any more.
            Err(_) => {}
        }
    }

    fn evicted(&self, mailbox: &Mailbox, keys: Vec<u64>) {
        if keys.is_empty() {
            return;
        }
        add(&self.counts.messages_dropped_away, keys.len() as u64);
        debug!(client = %Shown(&mailbox.client_id), messages = keys.len(), "the oldest messages for an absent client gave way");
        self.journal.note(&Event::Dropped { session: mailbox.number, keys });
    }

    /// Makes room when the queues of all durable sessions hold too much together: the one that is away and holds the most
    /// gives half.
    fn relieve(&self) {
        let most = self
            .sessions()
            .by_client
            .values()
            .filter(|entry| entry.left_ms.is_some())
            .max_by_key(|entry| entry.mailbox.queued())
            .map(|entry| entry.mailbox.clone());
        let Some(most) = most else { return };
        let keys = most.evict_half();
        let client = Shown(&most.client_id);
        warn!(%client, messages = keys.len(), "messages of an absent client gave way: all queues together hold too much");
        self.evicted(&most, keys);
    }

    /// Enters a subscription of a session; ends when it is on disk. Gives whether it is new.
    pub(crate) fn subscribe(&self, mailbox: &Arc<Mailbox>, new: Held) -> (bool, Option<Stored>) {
        let (filter, options) = (new.filter.clone(), new.options);
        let is_free = new.meaning == Subscribe::Free;
        let is_new = {
            let mut held = mailbox.held();
            match held.iter_mut().find(|held| held.filter == filter) {
                Some(old) => {
                    *old = new;
                    false
                }
                None => {
                    held.push(new);
                    true
                }
            }
        };
        if is_free {
            self.table.subscribe(&filter, mailbox, options);
        }
        let stored = mailbox.is_durable.then(|| {
            let (session, filter) = (mailbox.number, filter.into_boxed_str());
            self.journal.write(&Event::Subscribed { session, filter, options })
        });
        (is_new, stored)
    }

    /// Takes a subscription out; `None` when it was not held.
    pub(crate) fn unsubscribe(&self, mailbox: &Arc<Mailbox>, filter: &str) -> Option<Option<Stored>> {
        let mut held = mailbox.held();
        let at = held.iter().position(|held| held.filter == filter)?;
        held.remove(at);
        drop(held);
        self.table.unsubscribe(filter, mailbox);
        Some(mailbox.is_durable.then(|| {
            let (session, filter) = (mailbox.number, filter.into());
            self.journal.write(&Event::Unsubscribed { session, filter })
        }))
    }

    /// Gives a session the retained messages that a filter of it matches.
    pub(crate) fn give_retained(&self, mailbox: &Arc<Mailbox>, filter: &str, options: Options) {
        for message in self.retained.matching(filter, unix_ms()) {
            let qos = options.qos.min(message.qos);
            let ids = options.id.map(|id| Arc::from([id]));
            let mut given = Given::nothing();
            let copy = Delivery { retain: true, ids, ..Delivery::new(message.clone(), qos) };
            self.give(message, vec![(mailbox.clone(), copy)], Kept::Not, None, &mut given);
        }
    }
}

impl Given {
    fn nothing() -> Self {
        Self { full: Vec::new(), stored: None, has_receivers: false, is_not_retained: false }
    }
}

impl Sessions {
    fn enter(&mut self, client_id: Box<str>, entry: Entry) {
        self.durable += usize::from(entry.mailbox.is_durable);
        if let Some(ends_ms) = entry.ends_ms() {
            self.due.insert((ends_ms, client_id.clone()));
        }
        self.by_client.insert(client_id, entry);
    }

    fn leave(&mut self, client_id: &str) -> Option<Entry> {
        let (client_id, entry) = self.by_client.remove_entry(client_id)?;
        self.durable -= usize::from(entry.mailbox.is_durable);
        if let Some(ends_ms) = entry.ends_ms() {
            self.due.remove(&(ends_ms, client_id));
        }
        Some(entry)
    }

    fn put_will(&mut self, client_id: Box<str>, message: Arc<Message>, due_ms: u64) {
        self.due.insert((due_ms, client_id.clone()));
        self.wills.insert(client_id, (message, due_ms));
    }
}
