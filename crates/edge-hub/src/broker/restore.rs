//! A broker as its journal remembers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_core::dialect::client::{Subscribe, parse_subscribe};
use tokio::sync::{Notify, mpsc};

use super::Broker;
use super::sessions::{Entry, Sessions};
use super::will::{DueWill, Will};
use crate::age_clock::steady_ms;
use crate::counts::{Counts, count};
use crate::journal::Journal;
use crate::journal::event::Event;
use crate::journal::state::{DeliveryOptions, Session, State};
use crate::message::{Delivery, Message};
use crate::quota::{Quotas, Resource, subscription_bytes};
use crate::retained::{Retained, RetainedMax};
use crate::session_queue::{Held, Keeps, SessionQueue};
use crate::settings::MqttServerSettings;
use crate::table::{Table, split_share};

impl Broker {
    /// What a journal holds, as it was, and where the wills come that are due.
    pub(crate) fn restore(
        journal: Journal,
        state: &State,
        settings: MqttServerSettings,
    ) -> (Self, mpsc::UnboundedReceiver<DueWill>) {
        let retained_max =
            RetainedMax { messages: settings.retained_messages_max, bytes: settings.retained_bytes_max };
        let (due_wills, due) = mpsc::unbounded_channel();
        let broker = Self {
            table: Table::default(),
            retained: Retained::new(retained_max),
            journal,
            counts: Counts::default(),
            quotas: Quotas::new(&settings),
            settings,
            sessions: Sessions::default().into(),
            next_session: AtomicU64::new(state.next_session()),
            next_key: AtomicU64::new(state.next_key()),
            retaining: ().into(),
            sooner: Notify::new(),
            due_wills,
        };
        for message in state.retained.values() {
            // Whose they are is not in the journal: they count for nobody, until they are replaced.
            if broker.retained.set(message, None).is_err() {
                count(&broker.counts.not_retained);
            }
        }
        let now_ms = steady_ms();
        let mut sessions = broker.sessions();
        for (number, session) in &state.sessions {
            let session_queue = broker.restored(*number, session, state);
            let left_ms = session.left_ms.unwrap_or_else(|| {
                // The daemon was killed while the client was here.
                let expiry_s = session.expiry_s;
                broker.journal.note(&Event::Left { session: *number, at_ms: now_ms, expiry_s });
                now_ms
            });
            let entry =
                Entry { session_queue, expiry_s: session.expiry_s, left_ms: Some(left_ms), will: None };
            sessions.enter(session.client_id.clone(), entry);
        }
        for (client_id, will) in &state.wills {
            let due_ms = will.due_ms.unwrap_or_else(|| {
                // Its client was here when the daemon ended, and gets the time to come back.
                let delay_ms = u64::from(will.delay_s) * 1_000;
                now_ms + delay_ms.max(broker.settings.will_grace.as_millis() as u64)
            });
            let own = broker.quotas.of_session(client_id);
            let will = Will::restored(will.message.clone(), will.delay_s, &own, &broker.quotas.all);
            sessions.put_will(client_id.clone(), Arc::new(will), due_ms);
        }
        drop(sessions);
        (broker, due)
    }

    /// A session with its filters, its queue and what is in flight.
    fn restored(&self, number: u64, session: &Session, state: &State) -> Arc<SessionQueue> {
        let keeps =
            Keeps { messages: self.settings.session_messages_max, bytes: self.settings.session_bytes_max };
        let (client_id, usage) = (session.client_id.to_string(), self.quotas.of_session(&session.client_id));
        usage.add(Resource::Sessions, 1);
        let session_queue = Arc::new(SessionQueue::new(number, client_id, true, keeps, usage));
        let delivery = |key: u64, place: &DeliveryOptions| {
            let message = state.message(key)?.clone();
            let (qos, retain, ids) = (place.qos, place.retain, place.ids.clone());
            // The client may have it: that it was sent may not have reached the disk.
            Some(Delivery { retain, ids, key, is_again: true, ..Delivery::new(message, qos) })
        };
        let queue = session.queue.iter().filter_map(|(key, place)| delivery(*key, place));
        let sent = session.flight.iter().filter_map(|sent| {
            let delivery = if sent.is_taken {
                Delivery { key: u64::MAX, ..Delivery::new(Arc::new(Message::empty()), 2) }
            } else {
                delivery(sent.key, &sent.place)?
            };
            Some((sent.id, sent.is_taken, delivery))
        });
        session_queue.restore(queue, sent, session.received.clone(), session.last_id);
        for (filter, options) in &session.filters {
            let meaning = match split_share(filter) {
                Some(_) => Ok(Subscribe::Free),
                None => parse_subscribe(filter),
            };
            let Ok(meaning) = meaning else { continue };
            if meaning.is_between_clients() {
                self.table.subscribe(filter, &session_queue, *options);
            }
            session_queue.usage.add(Resource::SubscriptionBytes, subscription_bytes(filter));
            session_queue.held().push(Held { filter: filter.to_string(), meaning, options: *options });
        }
        session_queue
    }

    /// A number that no session had before.
    pub(super) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}
