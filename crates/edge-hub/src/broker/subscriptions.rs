//! The filters that a session holds, the retained messages that a new one is given, and what was kept for one that its
//! client may not have any more.

use std::sync::Arc;

use tracing::warn;

use super::Broker;
use super::publish::Given;
use crate::age_clock::steady_ms;
use crate::counts::add;
use crate::journal::Stored;
use crate::journal::event::{Event, Kept};
use crate::message::Delivery;
use crate::quota::{QuotaExceeded, Resource, subscription_bytes};
use crate::sanitized::Sanitized;
use crate::session_queue::{Held, SessionQueue};
use crate::subscription::Options;
use crate::table::split_share;
use mqtt::codec::packet::RetainHandling;

/// A subscription that was entered.
pub(crate) struct SubscriptionEntered {
    /// Ends when it is on disk, where it must be.
    pub stored: Option<Stored>,
    /// Whether all retained messages wait in its queue that it is to be given.
    pub is_within_replay: bool,
}

impl Broker {
    /// Enters a subscription of a session, and before it the retained messages that its filter matches: they stand in the
    /// queue before every message that arrives by the subscription, so that no older value follows a newer one.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when its identity has too many bytes of subscriptions.
    pub(crate) fn subscribe(
        &self,
        session_queue: &Arc<SessionQueue>,
        new: Held,
        handling: RetainHandling,
    ) -> Result<SubscriptionEntered, QuotaExceeded> {
        let (filter, options) = (new.filter.clone(), new.options);
        let is_free = new.meaning.is_between_clients();
        let is_new = {
            let mut held = session_queue.held();
            match held.iter_mut().find(|held| held.filter == filter) {
                Some(old) => {
                    *old = new;
                    false
                }
                None => {
                    session_queue.usage.take(Resource::SubscriptionBytes, subscription_bytes(&filter))?;
                    held.push(new);
                    true
                }
            }
        };
        let mut is_within_replay = true;
        if is_free {
            let wants_retained = split_share(&filter).is_none()
                && match handling {
                    RetainHandling::Send => true,
                    RetainHandling::SendIfNew => is_new,
                    RetainHandling::DoNotSend => false,
                };
            // Whoever retains a message meanwhile is before both, or after both and gives it to the subscription.
            let _retaining = wants_retained.then(|| self.retaining());
            is_within_replay = !wants_retained || self.give_retained(session_queue, &filter, options);
            self.table.subscribe(&filter, session_queue, options);
        }
        let stored = session_queue.is_durable.then(|| {
            let (session, filter) = (session_queue.number, filter.into_boxed_str());
            self.journal.write(&Event::Subscribed { session, filter, options })
        });
        Ok(SubscriptionEntered { stored, is_within_replay })
    }

    /// Takes a subscription out; `None` when it was not held.
    pub(crate) fn unsubscribe(
        &self,
        session_queue: &Arc<SessionQueue>,
        filter: &str,
    ) -> Option<Option<Stored>> {
        let mut held = session_queue.held();
        let at = held.iter().position(|held| held.filter == filter)?;
        held.remove(at);
        drop(held);
        session_queue.usage.give_back(Resource::SubscriptionBytes, subscription_bytes(filter));
        self.table.unsubscribe(filter, session_queue);
        Some(session_queue.is_durable.then(|| {
            let (session, filter) = (session_queue.number, filter.into());
            self.journal.write(&Event::Unsubscribed { session, filter })
        }))
    }

    /// Gives a session the retained messages that a filter of it matches; false when it has not taken what it was given
    /// for filters before. What is retained does not change meanwhile.
    fn give_retained(&self, session_queue: &Arc<SessionQueue>, filter: &str, options: Options) -> bool {
        for message in self.retained.matching(filter, steady_ms()) {
            // A client may be given all there is once, and not again and again while it reads nothing.
            if session_queue
                .is_beyond_replay(self.settings.retained_messages_max, self.settings.retained_bytes_max)
            {
                return false;
            }
            let qos = options.qos.min(message.qos);
            let ids = options.id.map(|id| Arc::from([id]));
            let mut given = Given::default();
            let copy =
                Delivery { retain: true, is_replayed: true, ids, ..Delivery::new(message.clone(), qos) };
            self.give(message, vec![(session_queue.clone(), copy)], Kept::Not, None, &mut given);
            given.unawaited();
        }
        true
    }

    /// Takes out of a session what waits on topics that its client may not read any more, sent or not. What was given to
    /// it of a shared subscription goes to another member.
    pub(crate) fn take_back(&self, session_queue: &SessionQueue, may_read: impl Fn(&str) -> bool) {
        let taken = session_queue.take_back(may_read);
        let messages = taken.queued.len() + taken.sent.len();
        if messages == 0 {
            return;
        }
        add(&self.counts.copies_forbidden, messages as u64);
        let client = Sanitized(&session_queue.client_id);
        warn!(%client, messages, "messages dropped that waited for the client: it may not read their topics any more");
        if session_queue.is_durable {
            let keys = taken.queued.iter().map(|delivery| delivery.key).filter(|key| *key != 0).collect();
            self.journal.note(&Event::Dropped { session: session_queue.number, keys });
            for id in taken.sent {
                self.journal.note(&Event::Settled { session: session_queue.number, id });
            }
        }
        for delivery in taken.queued {
            if let Some(share) = &delivery.share {
                let mut given = Given::default();
                self.give_to_another(&delivery.message, share, &mut given);
                given.unawaited();
            }
        }
    }
}
