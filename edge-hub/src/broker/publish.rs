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
use crate::mailbox::{Bound, Mailbox};
use crate::message::{Delivery, Message, Share};
use crate::quota::Usage;
use crate::retained::NotRetained;
use crate::shown::Shown;
use crate::table::{Group, Route, Served};

/// How many members of a shared subscription are tried that close, one after the other, while they are chosen.
const TRIES_MAX: usize = 16;

/// What became of a message.
#[derive(Default)]
pub(crate) struct Given {
    /// Sessions whose queue is full now: a QoS 1 or 2 publisher waits for room.
    pub full: Vec<Arc<Mailbox>>,
    /// Ends when the message is on disk, where it must be.
    pub stored: Option<Stored>,
    /// It should have been retained, and there was no room.
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

type Copy = (Arc<Mailbox>, Delivery);

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
        let _retaining = message.retain.then(|| self.retaining());
        // A subscription that was entered since the route was looked up has what was retained before.
        let is_stale = message.retain && !self.table.is_current(route);
        let newer = is_stale.then(|| self.table.route(message.topic()));
        let route = newer.as_ref().unwrap_or(route);
        let mut is_stored = message.retain || received.is_some();
        if message.qos > 0 || is_stored || !route.groups.is_empty() {
            for receiver in &route.receivers {
                let Some(served) = receiver.serves(message.publisher) else { continue };
                is_stored |= served.qos.min(message.qos) > 0 && receiver.mailbox.is_durable;
            }
        }
        let mut members = Vec::new();
        for group in &route.groups {
            if let Some((mailbox, served)) = member(group, &message) {
                is_stored |= mailbox.is_durable && served.qos.min(message.qos) > 0;
                members.push((mailbox, served, group.share.clone()));
            }
        }
        // What is kept must not keep the whole packet, and all that came with it, in memory.
        let message = Arc::new(if is_stored { message.detached() } else { message });
        let retained = self.retain(&message, publisher, &mut given);
        let receivers = route.receivers.iter();
        let receivers = receivers.filter_map(|r| Some((&r.mailbox, r.serves(message.publisher)?)));
        if !is_stored && members.is_empty() {
            // The way of most messages: no record, no list.
            for (mailbox, served) in receivers {
                self.put(mailbox, delivery(served, &message, None), &mut given);
            }
            return given;
        }
        let mut copies: Vec<Copy> =
            receivers.map(|(mailbox, served)| copy(mailbox, served, &message, None)).collect();
        copies.extend(
            members
                .into_iter()
                .map(|(mailbox, served, share)| copy(&mailbox, &served, &message, Some(share))),
        );
        self.give(message, copies, retained, received, &mut given);
        given
    }

    /// Retains a message that asks for that, or takes away what was retained.
    fn retain(&self, message: &Arc<Message>, publisher: &Arc<Usage>, given: &mut Given) -> Kept {
        match message.retain {
            false => Kept::Not,
            true if message.payload.is_empty() => match self.retained.clear(message.topic()) {
                true => Kept::Cleared,
                false => Kept::Not,
            },
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
            let Some((mailbox, served)) = group.and_then(|group| member(&group, message)) else { break };
            let copy = copy(&mailbox, &served, message, Some(share.clone()));
            if self.give_once(message.clone(), vec![copy], Kept::Not, None, given).is_empty() {
                return;
            }
        }
        debug!(topic = %Shown(message.topic()), group = %Shown(&share.group), "no member is there for a shared message");
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
            given.stored = Some(stored.and(given.stored.take()));
        }
        let mut lost = Vec::new();
        for (mailbox, mut delivery) in copies {
            if mailbox.is_durable && delivery.qos > 0 {
                delivery.key = key;
            }
            let share = delivery.share.clone();
            if !self.put(&mailbox, delivery, given) {
                lost.extend(share);
            }
        }
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
    fn put(&self, mailbox: &Arc<Mailbox>, delivery: Delivery, given: &mut Given) -> bool {
        let qos = delivery.qos;
        let bound = if qos == 0 { Bound::Soft } else { Bound::Hard };
        match mailbox.push(delivery, bound) {
            Ok(pushed) => {
                if pushed.is_full {
                    given.full.push(mailbox.clone());
                }
                match pushed.is_closed_as_slow {
                    true => self.closed_as_slow(mailbox, pushed.evicted),
                    false => self.evicted(mailbox, pushed.evicted),
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

    /// Ends when there is room in all of these queues, or their connections are closed because they made none.
    pub(crate) async fn wait_for_room(&self, full: &[Arc<Mailbox>]) {
        join_all(full.iter().map(async |mailbox| {
            if let Some(evicted) = mailbox.room().await {
                self.closed_as_slow(mailbox, evicted);
            }
        }))
        .await;
    }

    fn closed_as_slow(&self, mailbox: &Mailbox, evicted: Vec<u64>) {
        count(&self.counts.subscribers_closed);
        let (client, messages) = (Shown(&mailbox.client_id), evicted.len());
        warn!(%client, messages, "slow subscriber disconnected: its queue stayed full; the oldest messages gave way");
        self.evicted(mailbox, evicted);
    }

    /// Notes that the oldest messages of a session gave way.
    pub(super) fn evicted(&self, mailbox: &Mailbox, keys: Vec<u64>) {
        if keys.is_empty() {
            return;
        }
        add(&self.counts.messages_dropped_away, keys.len() as u64);
        debug!(client = %Shown(&mailbox.client_id), messages = keys.len(), "the oldest messages for an absent client gave way");
        self.journal.note(&Event::Dropped { session: mailbox.number, keys });
    }

    /// Makes room when the queues of all durable sessions hold too much together: the one that holds the most gives half.
    /// When its client is here, it is too slow and closed first.
    fn relieve(&self) {
        let Some(most) = self.sessions().fullest() else { return };
        if let Some(evicted) = most.close_as_fullest() {
            self.closed_as_slow(&most, evicted);
        }
        let keys = most.evict_half();
        if !keys.is_empty() {
            let client = Shown(&most.client_id);
            warn!(%client, messages = keys.len(), "messages of an absent client gave way: all queues together hold too much");
            self.evicted(&most, keys);
        }
    }
}

/// The member of a shared subscription that receives the next message: one that is here and has room; else, with QoS 1
/// and 2, one whose session keeps it; else one that is closed by it, because it is slow as all the others are.
fn member(group: &Group, message: &Message) -> Option<(Arc<Mailbox>, Served)> {
    let mut keeper = None;
    let mut slow = None;
    for member in group.in_turn() {
        let Some(served) = member.serves(message.publisher).cloned() else { continue };
        let mailbox = member.mailbox;
        if mailbox.has_room() {
            return Some((mailbox, served));
        }
        if keeper.is_some() || served.qos.min(message.qos) == 0 || mailbox.is_closed() {
            continue;
        }
        if mailbox.is_at_hard_bound() {
            slow.get_or_insert((mailbox, served));
        } else if mailbox.is_durable || mailbox.is_connected() {
            keeper = Some((mailbox, served));
        }
    }
    keeper.or(slow)
}

pub(super) fn copy(
    mailbox: &Arc<Mailbox>,
    served: &Served,
    message: &Arc<Message>,
    share: Option<Arc<Share>>,
) -> Copy {
    (mailbox.clone(), delivery(served, message, share))
}

fn delivery(served: &Served, message: &Arc<Message>, share: Option<Arc<Share>>) -> Delivery {
    let qos = served.qos.min(message.qos);
    let retain = served.retain_as_published && message.retain;
    Delivery { retain, ids: served.ids.clone(), share, ..Delivery::new(message.clone(), qos) }
}
