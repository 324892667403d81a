//! Who is connected, and what a program tells them: deliveries, method calls, desired patches, the link's topics.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use edge_core::access::authorization::Rights;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkDown;
use futures_util::future::BoxFuture;
use mqtt::filter;
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::Identity;
use schemas::topics;
use serde_json::{Map, Value};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::close_handle::CloseHandle;
use crate::delivery::NotDelivered;
use crate::inbox;
use crate::message::{Delivery, Message};
use crate::service::{Client, Login};
use crate::session_queue::{Bound, SessionQueue};
use crate::takeovers::{Conflict, Takeovers};
use mqtt::codec::packet::Version;
use mqtt::codec::reason::Reason;

/// The clients of one program's MQTT servers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Clients(Arc<Inner>);

struct Inner {
    connections: Mutex<HashMap<Identity, Arc<Connection>>>,
    /// Calls that wait for their answer, by request id; each entry belongs to one running [`Clients::call`].
    calls: Mutex<HashMap<String, (Identity, oneshot::Sender<MethodResponse>)>>,
    takeovers: Mutex<Takeovers>,
    /// Every running [`Clients::call`]: whom it calls, and what ends it.
    running_calls: Mutex<HashMap<u64, (Identity, CancellationToken)>>,
    next_connection: AtomicU64,
    next_call: AtomicU64,
    /// Notified when somebody connects or subscribes.
    changed: watch::Sender<()>,
    /// Their sessions; `None` without a server.
    broker: Option<Arc<Broker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why it is not on disk that a client was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// These clients are those of no server ([`Clients::new`]).
    #[error("the MQTT sessions are not open")]
    NotOpen,
    /// The journal was not written.
    #[error("the end of an MQTT session was not saved: {0}")]
    NotSaved(edge_buffer::AppendError),
}

/// A connection as the rest of the program sees it; its session holds the other end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub client: Client,
    pub version: Version,
    pub since_ms: u64,
    pub session_queue: Arc<SessionQueue>,
    pub close: Arc<CloseHandle>,
    /// What the client may do on free topics; nothing until it was checked.
    pub rights: Mutex<Arc<Rights>>,
}

impl Connection {
    /// Closes the connection; the first reason stays.
    pub(crate) fn end(&self, why: &str, reason: Reason) {
        self.close.close(why, reason);
    }

    /// Puts a message to a reserved topic in the queue; the receiver gets a value when it was acknowledged.
    pub(crate) fn send(&self, topic: String, payload: Bytes) -> Result<oneshot::Receiver<()>, NotDelivered> {
        // No subscription covers what is no topic; the longest one that is fits in a packet.
        let qos = filter::check_topic(&topic).ok().and_then(|()| self.session_queue.granted(&topic));
        let qos = qos.ok_or(NotDelivered::NotSubscribed)?;
        let (done, outcome) = oneshot::channel();
        let properties = match self.version {
            Version::V4 => None,
            Version::V5 => inbox::properties(&topic),
        };
        let message = Message {
            topic: topic.into(),
            payload,
            qos,
            retain: false,
            publisher: 0,
            expires_ms: None,
            properties,
        };
        let delivery =
            Delivery { is_reserved: true, done: Some(done), ..Delivery::new(Arc::new(message), qos) };
        self.session_queue.push(delivery, Bound::Soft)?;
        Ok(outcome)
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

impl Clients {
    /// The clients of a program that opens no server: there will never be any. Those of a server are
    /// [`crate::sessions::Sessions::clients`].
    pub fn new() -> Self {
        Self::with(None)
    }

    /// The clients that have these sessions.
    pub(crate) fn of(broker: Arc<Broker>) -> Self {
        Self::with(Some(broker))
    }

    fn with(broker: Option<Arc<Broker>>) -> Self {
        Self(Arc::new(Inner {
            connections: Mutex::default(),
            calls: Mutex::default(),
            takeovers: Mutex::default(),
            running_calls: Mutex::default(),
            next_connection: AtomicU64::new(1),
            // Not 1: an answer to a call of the program's last run must not fit one of this run.
            next_call: AtomicU64::new(now_ms() << 16),
            changed: watch::channel(()).0,
            broker,
        }))
    }

    /// Whether somebody is connected under this identity.
    pub fn is_connected(&self, who: &Identity) -> bool {
        lock(&self.0.connections).contains_key(who)
    }

    /// Everybody who is connected, each with the time since when, in milliseconds since the Unix epoch.
    pub fn connected(&self) -> Vec<(Identity, u64)> {
        lock(&self.0.connections).iter().map(|(who, c)| (who.clone(), c.since_ms)).collect()
    }

    /// Since when somebody is connected, in milliseconds since the Unix epoch; `None` when it is not.
    pub fn since(&self, who: &Identity) -> Option<u64> {
        self.get(who).map(|connection| connection.since_ms)
    }

    /// Whether two clients seem to use this identity: in the last five minutes they took it from each other.
    pub fn conflict(&self, over: &Identity) -> Option<Conflict> {
        lock(&self.0.takeovers).conflict(over, now_ms())
    }

    /// Whether a client is connected and holds such a subscription.
    pub fn has_subscribed(&self, who: &Identity, to: &Subscribe) -> bool {
        self.get(who).is_some_and(|c| c.session_queue.held().iter().any(|held| held.meaning == *to))
    }

    /// Sends a message on a topic that a subscription of the client covers. Its place in the order of messages to that
    /// client is fixed before this returns. The future ends when the client acknowledged; for a subscription that was
    /// granted at QoS 0, when the message was written.
    ///
    /// # Errors
    /// [`NotDelivered`]; after [`NotDelivered::Gone`] the client may have the message.
    pub fn deliver(
        &self,
        to: &Identity,
        topic: String,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), NotDelivered>> {
        let placed = self.get(to).ok_or(NotDelivered::NotConnected).and_then(|c| c.send(topic, payload));
        Box::pin(async move { placed?.await.map_err(|_| NotDelivered::Gone) })
    }

    /// Calls a direct method: waits up to the request's connect timeout for the target to be connected and to listen,
    /// calls it once, and waits up to the response timeout for its answer. A later answer is dropped and logged.
    ///
    /// # Errors
    /// [`MethodFailure::NotConnected`] when it was not called, [`MethodFailure::NoAnswer`] when it was.
    pub async fn call(
        &self,
        to: &Identity,
        request: &MethodRequest,
    ) -> Result<MethodResponse, MethodFailure> {
        let not_connected = || MethodFailure::NotConnected { target: to.to_string() };
        let number = self.0.next_call.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{number:x}");
        let (answer, answered) = oneshot::channel();
        let ended = CancellationToken::new();
        lock(&self.0.running_calls).insert(number, (to.clone(), ended.clone()));
        lock(&self.0.calls).insert(request_id.clone(), (to.clone(), answer));
        let _entry = CallEntry { clients: self, number, request_id: &request_id };
        let connect_timeout = Duration::from_secs(request.connect_timeout_in_seconds);
        let listens =
            tokio::time::timeout(connect_timeout, self.until_subscribed(to, &Subscribe::MethodCalls));
        tokio::select! {
            // Who was deleted is not called, nor who has its name now.
            biased;
            () = ended.cancelled() => return Err(not_connected()),
            listens = listens => listens.map_err(|_| not_connected())?,
        }

        let topic = topics::method_call(&request.method_name, &request_id);
        let is_one_level = !request.method_name.is_empty() && !request.method_name.contains('/');
        if !is_one_level || filter::check_topic(&topic).is_err() {
            warn!(client = %to, method = ?request.method_name, "method not called: its name does not fit in a topic");
            return Err(not_connected());
        }
        let body = serde_json::to_vec(&request.payload).expect("a JSON value always serialises");
        let sent = self.get(to).ok_or(NotDelivered::NotConnected).and_then(|c| c.send(topic, body.into()));
        if let Err(why) = sent {
            warn!(client = %to, method = %request.method_name, %why, "method not called");
            return Err(not_connected());
        }
        let seconds = request.response_timeout_in_seconds;
        let answered = tokio::time::timeout(Duration::from_secs(seconds), answered);
        let answered = tokio::select! {
            answered = answered => answered.ok().and_then(Result::ok),
            () = ended.cancelled() => None,
        };
        match answered {
            Some(answer) => Ok(answer),
            None => Err(MethodFailure::NoAnswer { target: to.to_string(), seconds }),
        }
    }

    /// Sends a desired patch, `$version` added, to a client that has subscribed to them. For any other client it is
    /// dropped: it asks for its twin when it needs it.
    pub fn send_desired(&self, to: &Identity, version: u64, patch: &Map<String, Value>) {
        let Some(connection) = self.get(to) else { return };
        let mut patch = patch.clone();
        patch.insert("$version".to_owned(), version.into());
        let body = serde_json::to_vec(&patch).expect("a JSON object always serialises");
        match connection.send(topics::twin_desired(version), body.into()) {
            Ok(_) => {}
            // A client that misses a patch would go on with an old section; one that reconnects reads its twin.
            Err(NotDelivered::Busy) => {
                connection.end("too slow to take a desired patch", Reason::QUOTA_EXCEEDED);
            }
            Err(why) => debug!(client = %to, version, %why, "desired patch dropped"),
        }
    }

    /// Sends to a gateway on its link. Same rules as for [`Clients::deliver`].
    ///
    /// # Errors
    /// [`NotDelivered`].
    pub fn send_link(
        &self,
        gateway: &Identity,
        operation: &LinkDown,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), NotDelivered>> {
        self.deliver(gateway, operation.to_string(), payload)
    }

    /// Closes a client's connection; it may come again.
    pub fn disconnect(&self, who: &Identity, why: &str) {
        if let Some(connection) = self.get(who) {
            connection.end(why, Reason::ADMINISTRATIVE_ACTION);
        }
    }

    /// Ends the connections, the sessions, the wills and the calls of clients that do not come back. The future ends when
    /// that is on disk.
    ///
    /// # Errors
    /// [`ForgetError`]; in memory all of it has ended then, but a session may be there again after a restart.
    pub fn forget(
        &self,
        is_gone: impl Fn(&Identity) -> bool,
        why: &str,
    ) -> BoxFuture<'static, Result<(), ForgetError>> {
        for (of, ended) in lock(&self.0.running_calls).values() {
            if is_gone(of) {
                ended.cancel();
            }
        }
        let broker = self.0.broker.as_ref();
        let is_gone = &is_gone;
        let mut last = broker.and_then(|broker| broker.forget_bridge_states(is_gone));
        if let Some(broker) = broker {
            for client_id in broker.client_ids() {
                if Identity::of_session(&client_id).is_some_and(|who| is_gone(&who)) {
                    let before = last.replace(broker.forget(&client_id));
                    if let Some(before) = before {
                        before.unawaited();
                    }
                }
            }
        }
        // After their sessions: the will of a session that is forgotten is void.
        for connection in self.all() {
            if is_gone(&connection.client.identity) {
                connection.end(why, Reason::ADMINISTRATIVE_ACTION);
            }
        }
        let is_open = broker.is_some();
        Box::pin(async move {
            if !is_open {
                return Err(ForgetError::NotOpen);
            }
            match last {
                // What was written before the last is on disk with it.
                Some(last) => last.await.map_err(ForgetError::NotSaved),
                None => Ok(()),
            }
        })
    }

    /// The clients that are connected, or have a session or a will without being connected.
    pub fn known(&self) -> BTreeSet<Identity> {
        let mut known: BTreeSet<Identity> = lock(&self.0.connections).keys().cloned().collect();
        if let Some(broker) = &self.0.broker {
            known.extend(broker.client_ids().iter().filter_map(|id| Identity::of_session(id)));
        }
        known
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.0.connections).values().cloned().collect()
    }

    pub(crate) fn get(&self, who: &Identity) -> Option<Arc<Connection>> {
        lock(&self.0.connections).get(who).cloned()
    }

    async fn until_subscribed(&self, who: &Identity, to: &Subscribe) {
        let mut changed = self.0.changed.subscribe();
        while !self.has_subscribed(who, to) {
            // Fails only without a sender, and `self` holds it.
            let _ = changed.changed().await;
        }
    }

    /// A number that no connection had before.
    pub(crate) fn number(&self) -> u64 {
        self.0.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters a connection and closes the one that it takes over from: the older of the two, by their numbers.
    pub(crate) fn enter(
        &self,
        client: Client,
        version: Version,
        session_queue: Arc<SessionQueue>,
        close: Arc<CloseHandle>,
    ) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            client,
            version,
            since_ms: now_ms(),
            session_queue,
            close,
            rights: Mutex::default(),
        });
        let older = match lock(&self.0.connections).entry(connection.client.identity.clone()) {
            // A newer one came between: it has the session already.
            Entry::Occupied(newer) if newer.get().client.connection > connection.client.connection => {
                Some(connection.clone())
            }
            Entry::Occupied(mut older) => Some(older.insert(connection.clone())),
            Entry::Vacant(free) => {
                free.insert(connection.clone());
                None
            }
        };
        if let Some(older) = older {
            self.note_takeover(&older.client, &connection.client);
            older.end("taken over by a newer connection of the same client", Reason::SESSION_TAKEN_OVER);
        }
        connection
    }

    /// Replaces the login of a connection whose client has proven its identity again. `None` when a newer connection has taken over.
    pub(crate) fn renew(&self, connection: &Arc<Connection>, login: Arc<Login>) -> Option<Arc<Connection>> {
        match lock(&self.0.connections).entry(connection.client.identity.clone()) {
            Entry::Occupied(mut entry) if Arc::ptr_eq(entry.get(), connection) => {
                let renewed = Arc::new(Connection {
                    client: Client { login, ..connection.client.clone() },
                    version: connection.version,
                    since_ms: connection.since_ms,
                    session_queue: connection.session_queue.clone(),
                    close: connection.close.clone(),
                    rights: Mutex::new(connection.rights()),
                });
                entry.insert(renewed.clone());
                Some(renewed)
            }
            _ => None,
        }
    }

    fn note_takeover(&self, older: &Client, newer: &Client) {
        let conflict = lock(&self.0.takeovers).note(&newer.identity, older.peer, newer.peer, now_ms());
        let Some(Conflict { takeovers, addresses, is_proven, .. }) = conflict else { return };
        let client = &newer.identity;
        if is_proven {
            warn!(%client, takeovers, ?addresses, "two clients with one identity end each other's connection; stop one, or give it an identity of its own");
        } else {
            warn!(%client, takeovers, ?addresses, "a client took over its own connection again and again; two clients use one identity, or its line breaks");
        }
    }

    /// Takes a connection out; false when a newer one had taken over.
    pub(crate) fn leave(&self, connection: &Arc<Connection>) -> bool {
        match lock(&self.0.connections).entry(connection.client.identity.clone()) {
            Entry::Occupied(entry) if Arc::ptr_eq(entry.get(), connection) => {
                entry.remove();
                true
            }
            _ => false,
        }
    }

    /// Tells those who wait that somebody connected or subscribed.
    pub(crate) fn changed(&self) {
        self.0.changed.send_replace(());
    }

    /// Gives a method's answer to its call; false when nobody waits for it (any more).
    pub(crate) fn answered(&self, from: &Identity, request_id: &str, response: MethodResponse) -> bool {
        match lock(&self.0.calls).entry(request_id.to_owned()) {
            Entry::Occupied(entry) if entry.get().0 == *from => entry.remove().1.send(response).is_ok(),
            _ => false,
        }
    }
}

/// Takes a call out of the map however it ends.
struct CallEntry<'a> {
    clients: &'a Clients,
    number: u64,
    request_id: &'a str,
}

impl Drop for CallEntry<'_> {
    fn drop(&mut self) {
        lock(&self.clients.0.calls).remove(self.request_id);
        lock(&self.clients.0.running_calls).remove(&self.number);
    }
}
