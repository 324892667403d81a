//! A message on a free topic, from its publisher to who receives it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tracing::{debug, warn};

use super::Broker;
use crate::counts::{add, count};
use crate::delivery::NotDelivered;
use crate::journal::Stored;
use crate::journal::event::{Event, Kept, Published, Target};
use crate::message::{Delivery, Message, Share};
use crate::quota::Usage;
use crate::retained::NotRetained;
use crate::sanitized::Sanitized;
use crate::session_queue::{Bound, SessionQueue};
use crate::table::{Group, Route, Served};

/// How many members of a shared subscription are tried that close, one after the other, while they are chosen.
const TRIES_MAX: usize = 16;

/// What became of a message.
#[derive(Default)]
pub(crate) struct Given {
    /// Sessions whose queue is full now: a QoS 1 or 2 publisher waits for space.
    pub full: Vec<Arc<SessionQueue>>,
    /// Ends when the message is on disk, where it must be.
    pub stored: Option<Stored>,
    /// It should have been retained, and there was no space.
    pub not_retained: Option<NotRetained>,
}

impl Given {
    /// For a message that nobody waits for.
    pub(super) fn unawaited(self) {
        if let Some(stored) = self.stored {
            stored.unawaited();
        }
    }
}

type Copy = (Arc<SessionQueue>, Delivery);

impl Broker {
    /// Gives a message on a free topic to who receives it, and retains it when it asks for that. `received` names the
    /// durable session of a QoS 2 publisher, and the packet id. No subscriber keeps a message from being taken: one that is
    /// too slow for it is closed.
    pub(crate) fn publish(
        &self,
        route: &Route,
        message: Message,
        received: Option<(u64, u16)>,
        publisher: &Arc<Usage>,
    ) -> Given {
        let mut given = Given::default();
        // Held to the end: of two messages on one topic, the one that is retained must also be the later one in the journal.
        let _retaining = message.retain.then(|| self.retaining());
        // A subscription that was entered since the route was looked up has what was retained before.
        let is_stale = message.retain && !self.table.is_current(route);
        let newer = is_stale.then(|| self.table.route(message.topic()));
        let route = newer.as_ref().unwrap_or(route);
        let mut is_stored = message.retain || received.is_some();
        // A QoS 0 message that nobody keeps needs no look at its receivers before it is given to them.
        if message.qos > 0 || is_stored || !route.groups.is_empty() {
            for receiver in &route.receivers {
                let Some(served) = receiver.serves(message.publisher) else { continue };
                is_stored |= served.qos.min(message.qos) > 0 && receiver.session_queue.is_durable;
            }
        }
        let mut members = Vec::new();
        for group in &route.groups {
            if let Some((session_queue, served)) = member(group, &message) {
                is_stored |= session_queue.is_durable && served.qos.min(message.qos) > 0;
                members.push((session_queue, served, group.share.clone()));
            }
        }
        // What is kept must not keep the whole packet, and all that came with it, in memory.
        let message = Arc::new(if is_stored { message.detached() } else { message });
        let retained = self.retain(&message, publisher, &mut given);
        let receivers = route.receivers.iter();
        let receivers = receivers.filter_map(|r| Some((&r.session_queue, r.serves(message.publisher)?)));
        if !is_stored && members.is_empty() {
            // The way of most messages: no record, no list.
            for (session_queue, served) in receivers {
                self.put(session_queue, delivery(served, &message, None), &mut given);
            }
            return given;
        }
        let mut copies: Vec<Copy> =
            receivers.map(|(session_queue, served)| copy(session_queue, served, &message, None)).collect();
        copies.extend(
            members
                .into_iter()
                .map(|(session_queue, served, share)| copy(&session_queue, &served, &message, Some(share))),
        );
        self.give(message, copies, retained, received, &mut given);
        given
    }

    /// Retains a message that asks for that, or takes away what was retained.
    fn retain(&self, message: &Arc<Message>, publisher: &Arc<Usage>, given: &mut Given) -> Kept {
        match message.retain {
            false => Kept::Not,
            true if message.payload.is_empty() => {
                if self.retained.clear(message.topic()) {
                    Kept::Cleared
                } else {
                    Kept::Not
                }
            }
            true => match self.retained.set(message, Some(publisher)) {
                Ok(()) => Kept::Set,
                Err(why) => {
                    count(&self.counts.not_retained);
                    if matches!(why, NotRetained::Quota(_)) {
                        count(&self.counts.quotas_exceeded);
                    }
                    given.not_retained = Some(why);
                    Kept::Not
                }
            },
        }
    }

    /// Puts copies in the queues, after they are in the journal where they must be. A member of a shared subscription that
    /// has closed meanwhile does not take its copy with it: another one is given it.
    pub(super) fn give(
        &self,
        message: Arc<Message>,
        copies: Vec<Copy>,
        retained: Kept,
        received: Option<(u64, u16)>,
        given: &mut Given,
    ) {
        for share in self.give_once(message.clone(), copies, retained, received, given) {
            self.give_to_another(&message, &share, given);
        }
    }

    /// Gives a message of a shared subscription to the member whose turn it is.
    pub(super) fn give_to_another(&self, message: &Arc<Message>, share: &Arc<Share>, given: &mut Given) {
        for _ in 0..TRIES_MAX {
            let group = self.table.group(share);
            let Some((session_queue, served)) = group.and_then(|group| member(&group, message)) else {
                break;
            };
            let copy = copy(&session_queue, &served, message, Some(share.clone()));
            if self.give_once(message.clone(), vec![copy], Kept::Not, None, given).is_empty() {
                return;
            }
        }
        debug!(topic = %Sanitized(message.topic()), group = %Sanitized(&share.group), "no member is there for a shared message");
    }

    /// Gives the shared subscriptions whose copy found nobody.
    fn give_once(
        &self,
        message: Arc<Message>,
        copies: Vec<Copy>,
        retained: Kept,
        received: Option<(u64, u16)>,
        given: &mut Given,
    ) -> Vec<Arc<Share>> {
        let targets: Vec<Target> = copies
            .iter()
            .filter(|(session_queue, delivery)| session_queue.is_durable && delivery.qos > 0)
            .map(|(session_queue, delivery)| Target {
                session: session_queue.number,
                qos: delivery.qos,
                retain: delivery.retain,
                ids: delivery.ids.clone(),
            })
            .collect();
        let mut key = 0;
        let is_queued = !targets.is_empty();
        if is_queued || retained != Kept::Not || received.is_some() {
            // Before the queues: a receiver that acknowledges at once must find the key in the journal.
            let (new_key, stored) = self.write(message, targets, retained, received);
            key = new_key;
            given.stored = Some(stored.and(given.stored.take()));
        }
        let mut lost = Vec::new();
        for (session_queue, mut delivery) in copies {
            if session_queue.is_durable && delivery.qos > 0 {
                delivery.key = key;
            }
            let share = delivery.share.clone();
            if !self.put(&session_queue, delivery, given) {
                lost.extend(share);
            }
        }
        // After the message was taken: its publisher is not the one who holds too much.
        if is_queued && self.journal.bytes() > self.settings.queued_bytes_max {
            self.relieve();
        }
        lost
    }

    pub(super) fn write(
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

    /// False when the session does not take it: it has ended, or is away and the message is not kept, or it is full.
    fn put(&self, session_queue: &Arc<SessionQueue>, delivery: Delivery, given: &mut Given) -> bool {
        let qos = delivery.qos;
        // MQTT lets a server drop QoS 0; a QoS 1 or 2 message that was taken may only be lost with its connection.
        let bound = if qos == 0 { Bound::Soft } else { Bound::Hard };
        match session_queue.push(delivery, bound) {
            Ok(pushed) => {
                if pushed.is_full {
                    given.full.push(session_queue.clone());
                }
                if pushed.is_closed_as_slow {
                    self.closed_as_slow(session_queue, pushed.evicted)
                } else {
                    self.evicted(session_queue, pushed.evicted)
                }
                true
            }
            Err(NotDelivered::Busy) => {
                count(&self.counts.copies_dropped);
                false
            }
            // Whoever has just gone receives nothing any more.
            Err(_) => false,
        }
    }

    /// Ends when there is space in all of these queues, or their connections are closed because they made none.
    pub(crate) async fn wait_for_space(&self, full: &[Arc<SessionQueue>]) {
        join_all(full.iter().map(async |session_queue| {
            if let Some(evicted) = session_queue.space().await {
                self.closed_as_slow(session_queue, evicted);
            }
        }))
        .await;
    }

    fn closed_as_slow(&self, session_queue: &SessionQueue, evicted: Vec<u64>) {
        count(&self.counts.subscribers_closed);
        let (client, messages) = (Sanitized(&session_queue.client_id), evicted.len());
        warn!(%client, messages, "slow subscriber disconnected: its queue stayed full; the oldest messages gave way");
        self.evicted(session_queue, evicted);
    }

    /// Notes that the oldest messages of a session gave way.
    pub(super) fn evicted(&self, session_queue: &SessionQueue, keys: Vec<u64>) {
        if keys.is_empty() {
            return;
        }
        add(&self.counts.messages_dropped_away, keys.len() as u64);
        debug!(client = %Sanitized(&session_queue.client_id), messages = keys.len(), "the oldest messages for an absent client gave way");
        self.journal.note(&Event::Dropped { session: session_queue.number, keys });
    }

    /// Frees space when the queues of all durable sessions hold too much together: the one that holds the most gives half.
    /// When its client is here, it is too slow and closed first.
    fn relieve(&self) {
        let Some(most) = self.sessions().fullest() else { return };
        if let Some(evicted) = most.close_as_fullest() {
            self.closed_as_slow(&most, evicted);
        }
        let keys = most.evict_half();
        if !keys.is_empty() {
            let client = Sanitized(&most.client_id);
            warn!(%client, messages = keys.len(), "messages of an absent client gave way: all queues together hold too much");
            self.evicted(&most, keys);
        }
    }
}

/// The member of a shared subscription that receives the next message: one that is here and has space; else, with QoS 1
/// and 2, one whose session keeps it; else one that is closed by it, because it is slow as all the others are.
fn member(group: &Group, message: &Message) -> Option<(Arc<SessionQueue>, Served)> {
    let mut keeper = None;
    let mut slow = None;
    for member in group.in_turn() {
        let Some(served) = member.serves(message.publisher).cloned() else { continue };
        let session_queue = member.session_queue;
        if session_queue.has_space() {
            return Some((session_queue, served));
        }
        if keeper.is_some() || served.qos.min(message.qos) == 0 || session_queue.is_closed() {
            continue;
        }
        if session_queue.is_at_hard_bound() {
            slow.get_or_insert((session_queue, served));
        } else if session_queue.is_durable || session_queue.is_connected() {
            keeper = Some((session_queue, served));
        }
    }
    keeper.or(slow)
}

pub(super) fn copy(
    session_queue: &Arc<SessionQueue>,
    served: &Served,
    message: &Arc<Message>,
    share: Option<Arc<Share>>,
) -> Copy {
    (session_queue.clone(), delivery(served, message, share))
}

fn delivery(served: &Served, message: &Arc<Message>, share: Option<Arc<Share>>) -> Delivery {
    let qos = served.qos.min(message.qos);
    let retain = served.retain_as_published && message.retain;
    Delivery { retain, ids: served.ids.clone(), share, ..Delivery::new(message.clone(), qos) }
}
