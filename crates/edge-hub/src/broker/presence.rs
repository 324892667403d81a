//! Clients that come to their sessions and leave them, and sessions that end.

use std::sync::Arc;

use tracing::{info, warn};

use super::Broker;
use super::publish::Given;
use super::sessions::Entry;
use super::will::Will;
use crate::age_clock::steady_ms;
use crate::close_handle::CloseHandle;
use crate::counts::count;
use crate::journal::Stored;
use crate::journal::event::Event;
use crate::quota::{Resource, subscription_bytes};
use crate::sanitized::Sanitized;
use crate::session_queue::{Keeps, SessionQueue};

/// How a connection leaves its session.
pub(crate) enum Parting {
    /// The client said goodbye: its will is void.
    Goodbye,
    /// The connection ended otherwise.
    Lost(Option<Arc<Will>>),
    /// The server stops: the will waits for the next opening.
    Stopped,
}

/// A client that comes to its session.
pub(crate) struct Arrival<'a> {
    pub client_id: &'a str,
    /// It wants a new session.
    pub is_clean: bool,
    /// How long the session is to outlive the connection, in seconds.
    pub expiry_s: u32,
    pub will: Option<&'a Arc<Will>>,
    pub close: Arc<CloseHandle>,
}

/// A session that a connection has now.
pub(crate) struct Entered {
    pub session_queue: Arc<SessionQueue>,
    /// The number of the connection.
    pub connection: u64,
    /// Whether it was there before.
    pub is_present: bool,
    /// What it keeps to, in seconds: 0 when it cannot outlive its connection.
    pub expiry_s: u32,
}

impl Broker {
    /// Gives a client its session: the one that it had, unless it wants a new one. The connection gets its number when it
    /// gets the session, so that of two at once the one with the higher number has it.
    pub(crate) fn enter(&self, number: impl FnOnce() -> u64, arrival: Arrival<'_>) -> Entered {
        let Arrival { client_id, is_clean, expiry_s, will, close } = arrival;
        // Under the lock of all sessions: the events of two connections of one client id reach the journal in the order in which they
        // got the session.
        let mut sessions = self.sessions();
        let connection = number();
        let waiting_will = sessions.take_will(client_id);
        let before = sessions.leave(client_id);
        let had_will = waiting_will.is_some() || before.as_ref().is_some_and(|entry| entry.will.is_some());
        let (resumed, ended) = match before {
            Some(entry) if !is_clean && entry.session_queue.is_durable => (Some(entry), None),
            other => (None, other),
        };
        let is_present = resumed.is_some();
        let (session_queue, expiry_s) = match resumed {
            Some(Entry { session_queue, .. }) => (session_queue, expiry_s),
            None => self.new_session(client_id, expiry_s, sessions.durable()),
        };
        let dropped = session_queue.attach(connection, close);
        if session_queue.is_durable {
            let (session, client_id) = (session_queue.number, client_id.into());
            self.journal.note(&Event::Opened { session, client_id, expiry_s });
        }
        match will {
            Some(will) => {
                let (message, delay_s) = (will.message.clone(), will.delay_s);
                self.journal.note(&Event::Will { client_id: client_id.into(), message, delay_s });
                sessions.superseded(client_id);
            }
            None if had_will => {
                self.journal.note(&Event::WillGone { client_id: client_id.into() });
                sessions.superseded(client_id);
            }
            None => {}
        }
        let entry =
            Entry { session_queue: session_queue.clone(), expiry_s, left_ms: None, will: will.cloned() };
        sessions.enter(client_id.into(), entry);
        // A new connection to a session keeps its will from being published (MQTT 5.0 section 3.1.3.2.2); the session's end
        // does not.
        let due_will = waiting_will.filter(|_| ended.is_some());
        if let Some(will) = &due_will {
            sessions.publishing(client_id.into(), will.clone(), false);
        }
        drop(sessions);
        if dropped > 0 {
            let client = Sanitized(client_id);
            warn!(%client, messages = dropped, "the oldest messages for the client gave way while it was away");
        }
        if let Some(ended) = ended {
            // Outside of the lock: ending a session gives shared messages to other members, which takes their locks.
            self.end(&ended.session_queue);
        }
        if let Some(will) = due_will {
            self.will_is_due(client_id, will);
        }
        Entered { session_queue, connection, is_present, expiry_s }
    }

    /// The queue of a connection without an MQTT session: it ends with the connection, and the client's MQTT session stays as it is.
    pub(crate) fn queue_of_connection(&self, client_id: &str) -> Arc<SessionQueue> {
        self.new_session(client_id, 0, 0).0
    }

    /// A session that nobody had before, and how long it outlives its connection.
    fn new_session(&self, client_id: &str, expiry_s: u32, durable: usize) -> (Arc<SessionQueue>, u32) {
        let sessions_max = self.settings.sessions_max;
        let usage = self.quotas.of_session(client_id);
        let mut is_durable = expiry_s > 0 && durable < sessions_max;
        if expiry_s > 0 && !is_durable {
            count(&self.counts.sessions_refused);
            let client = Sanitized(client_id);
            warn!(%client, sessions_max, "session ends with its connection: there are too many that outlive theirs");
        }
        if is_durable && let Err(exceeded) = usage.take(Resource::Sessions, 1) {
            is_durable = false;
            count(&self.counts.sessions_refused);
            count(&self.counts.quotas_exceeded);
            let client = Sanitized(client_id);
            warn!(%client, "session ends with its connection: {exceeded}");
        }
        let keeps =
            Keeps { messages: self.settings.session_messages_max, bytes: self.settings.session_bytes_max };
        let session_queue =
            SessionQueue::new(self.session_number(), client_id.to_owned(), is_durable, keeps, usage);
        (Arc::new(session_queue), if is_durable { expiry_s } else { 0 })
    }

    /// A connection leaves its session, which outlives it by `expiry_s` seconds.
    pub(crate) fn leave(
        &self,
        session_queue: &Arc<SessionQueue>,
        connection: u64,
        expiry_s: u32,
        parting: Parting,
    ) {
        let client_id = &*session_queue.client_id;
        let now_ms = steady_ms();
        let mut sessions = self.sessions();
        let detached = session_queue.detach(connection);
        let is_current = detached.is_some();
        let mut ended = None;
        let mut had_will = false;
        let stays = is_current && session_queue.is_durable && expiry_s > 0;
        if is_current {
            let before = sessions.leave(client_id);
            had_will = before.as_ref().is_some_and(|entry| entry.will.is_some());
            if stays {
                let entry = Entry {
                    session_queue: session_queue.clone(),
                    expiry_s,
                    left_ms: Some(now_ms),
                    will: None,
                };
                sessions.enter(client_id.into(), entry);
                self.journal.note(&Event::Left { session: session_queue.number, at_ms: now_ms, expiry_s });
            } else {
                ended = before;
            }
        }
        let mut due_will = None;
        match parting {
            Parting::Stopped => {}
            Parting::Lost(Some(will)) if stays && will.delay_s > 0 => {
                let at_ms = now_ms + u64::from(will.delay_s.min(expiry_s)) * 1_000;
                self.journal.note(&Event::WillDue { client_id: client_id.into(), at_ms });
                sessions.put_will(client_id.into(), will, at_ms);
            }
            // Who sees it would take it for one of the next client of its name.
            Parting::Lost(Some(_)) if session_queue.is_forgotten() => {}
            // The client is here again, with its session: there will be another end for its will.
            Parting::Lost(Some(will)) if !is_current && !session_queue.is_closed() && will.delay_s > 0 => {}
            Parting::Lost(Some(will)) => {
                sessions.publishing(client_id.into(), will.clone(), had_will);
                due_will = Some(will);
            }
            Parting::Lost(None) | Parting::Goodbye if had_will => {
                self.journal.note(&Event::WillGone { client_id: client_id.into() });
            }
            Parting::Lost(None) | Parting::Goodbye => {}
        }
        drop(sessions);
        self.sooner.notify_one();
        self.evicted(session_queue, detached.unwrap_or_default());
        if let Some(ended) = ended {
            self.end(&ended.session_queue);
        }
        if let Some(will) = due_will {
            self.will_is_due(client_id, will);
        }
    }

    /// The clients that have a session, or a will that waits or is being published.
    pub(crate) fn client_ids(&self) -> Vec<Box<str>> {
        self.sessions().client_ids()
    }

    /// Ends the session of a client that does not come back: it was deleted. Its wills are void: those that wait, those that
    /// are being published, and that of its connection. The future ends when the journal has it on disk.
    pub(crate) fn forget(&self, client_id: &str) -> Stored {
        let mut sessions = self.sessions();
        sessions.take_will(client_id);
        // A will that is being published just now is voided too: authorizing it may take a while.
        sessions.void(client_id);
        let ended = sessions.leave(client_id);
        drop(sessions);
        if let Some(ended) = ended {
            ended.session_queue.forget();
            self.end(&ended.session_queue);
        }
        // Behind all else of the client: when this is on disk, so is that.
        self.journal.write(&Event::WillGone { client_id: client_id.into() })
    }

    /// Ends a session. What it leaves behind of a shared subscription goes to another member.
    fn end(&self, session_queue: &Arc<SessionQueue>) {
        for held in session_queue.held().drain(..) {
            session_queue.usage.give_back(Resource::SubscriptionBytes, subscription_bytes(&held.filter));
            if held.meaning.is_between_clients() {
                self.table.unsubscribe(&held.filter, session_queue);
            }
        }
        for delivery in session_queue.close() {
            if let Some(share) = &delivery.share
                && delivery.qos > 0
            {
                let mut given = Given::default();
                self.give_to_another(&delivery.message, share, &mut given);
                given.unawaited();
            }
        }
        // Last: killed in between, a message is given twice and not lost.
        if session_queue.is_durable {
            session_queue.usage.give_back(Resource::Sessions, 1);
            self.journal.note(&Event::Ended { session: session_queue.number });
        }
    }

    /// Does what is due, and says when the next thing is, ms of Unix time.
    pub(crate) fn tick(&self, now_ms: u64) -> Option<u64> {
        let mut sessions = self.sessions();
        let due = sessions.due(now_ms);
        for (client_id, will) in &due.wills {
            sessions.publishing(client_id.clone(), will.clone(), true);
        }
        drop(sessions);
        for entry in due.ended {
            info!(client = %Sanitized(&entry.session_queue.client_id), "session expired");
            count(&self.counts.sessions_expired);
            self.end(&entry.session_queue);
        }
        for (client_id, will) in due.wills {
            self.will_is_due(&client_id, will);
        }
        due.next_ms
    }
}
