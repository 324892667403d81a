//! Wills: what a client leaves to be said when it is gone. One that is due is published by a task of the server, which knows
//! the program: on a free topic to its subscribers and the program's routes, on the client's own telemetry topic as
//! telemetry, with the property that IoT Hub gives it. It stays in the journal until that is done, so a kill in between
//! publishes it twice rather than never.
//!
//! ```text
//! CONNECT ─> journal ── connection lost, delay over ──> due ──> published ──> gone from the journal
//!                   └─ DISCONNECT, the client is back, or was deleted ─────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use edge_core::dialect::client::{Publish, parse_publish};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Broker;
use super::will::{DueWill, Will, WillRefused};
use crate::age_clock::steady_ms;
use crate::inbox;
use crate::journal::event::Event;
use crate::message::Message;
use crate::sanitized::Sanitized;
use crate::service::{Rejected, Service};

/// How long a will waits that the program could not take, before it is offered again.
const PAUSE: Duration = Duration::from_secs(5);
/// What IoT Hub says of a telemetry message that is a will ("Communicate with your IoT hub using the MQTT protocol").
const TYPE_PROPERTY: &str = "iothub-MessageType";
const TYPE: &str = "Will";

impl Broker {
    /// Accepts the will of a client in place of the one that it has.
    ///
    /// # Errors
    /// [`WillRefused`] when it is beyond what its identity or all identities may leave.
    pub(crate) fn accept_will(
        &self,
        client_id: &str,
        message: Message,
        delay_s: u32,
    ) -> Result<Arc<Will>, WillRefused> {
        let own = self.quotas.of_session(client_id);
        // Under the lock: what it replaces is not given back before it is counted as replaced.
        let sessions = self.sessions();
        let before = sessions.will_of(client_id).map(|will| &**will);
        Will::accepted(message, delay_s, before, &own, &self.quotas.all).map(Arc::new)
    }

    /// Has a will published.
    pub(super) fn will_is_due(&self, client_id: &str, will: Arc<Will>) {
        // Without a receiver the server is closing, and the journal keeps the will for its next opening.
        let _ = self.due_wills.send(DueWill { client_id: client_id.into(), will });
    }

    /// Returns true when its client was deleted while it was being published.
    pub(super) fn is_void(&self, due: &DueWill) -> bool {
        self.sessions().is_void(&due.client_id, &due.will)
    }

    /// A will was published, and is gone from the journal unless the client has another one by now.
    pub(super) fn will_is_published(&self, due: &DueWill) {
        let mut sessions = self.sessions();
        if sessions.published(&due.client_id, &due.will) {
            self.journal.note(&Event::WillGone { client_id: due.client_id.clone() });
        }
    }

    /// Gives a will to the subscribers of its topic, and retains it when it asks for that; ends when it is on disk where
    /// it must be.
    async fn give_will(&self, client_id: &str, message: &Message) -> Result<(), Rejected> {
        let route = self.table.route(message.topic());
        let mut message = Message::clone(message);
        if let Some(seconds) = message.properties.as_mut().and_then(|p| p.message_expiry.take()) {
            message.expires_ms = Some(steady_ms().saturating_add(u64::from(seconds) * 1_000));
        }
        let publisher = self.quotas.of_session(client_id);
        match self.publish(&route, message, None, &publisher).stored {
            None => Ok(()),
            Some(stored) => stored
                .await
                .map_err(|error| Rejected::Temporary(503, format!("not written to disk: {error}"))),
        }
    }
}

/// Publishes wills as they become due. When stopped, it goes on with those that are due already, for as long as `finish`.
pub(crate) async fn publish<S: Service>(
    broker: Arc<Broker>,
    service: Arc<S>,
    mut due: mpsc::UnboundedReceiver<DueWill>,
    stop: CancellationToken,
    finish: Duration,
) {
    let mut publishing = FuturesUnordered::new();
    loop {
        tokio::select! {
            // They leave in the order in which they came.
            biased;
            Some(will) = due.recv() => publishing.push(published(&broker, &service, will)),
            Some(()) = publishing.next(), if !publishing.is_empty() => {}
            () = stop.cancelled() => break,
        }
    }
    while let Ok(will) = due.try_recv() {
        publishing.push(published(&broker, &service, will));
    }
    // What is not done by then waits in the journal.
    let _ = tokio::time::timeout(finish, async { while publishing.next().await.is_some() {} }).await;
}

/// Publishes a will, however often that must be tried.
async fn published<S: Service>(broker: &Broker, service: &Arc<S>, due: DueWill) {
    let topic = due.will.message.topic();
    let mut is_given = false;
    loop {
        if broker.is_void(&due) {
            break;
        }
        let done = match parse_publish(topic) {
            Ok(Publish::Telemetry { from, bag }) => {
                report(service, &due.client_id, from, bag, &due.will.message).await
            }
            Ok(Publish::Free) => free(broker, service, &due, &mut is_given).await,
            Ok(Publish::BridgeState) => bridge_state(broker, service, &due).await,
            // CONNECT lets no others in; a journal of another version might.
            _ => Err(Rejected::Wrong(400, "no topic for a will".to_owned())),
        };
        let (client, topic) = (Sanitized(&due.client_id), Sanitized(topic));
        match done {
            Ok(()) => break,
            Err(Rejected::Wrong(status, why)) => {
                warn!(%client, %topic, status, "will dropped: {}", Sanitized(&why));
                break;
            }
            Err(Rejected::Temporary(_, why) | Rejected::Full(why)) => {
                warn!(%client, %topic, "will not taken for now, and tried again: {}", Sanitized(&why));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    broker.will_is_published(&due);
}

/// A will on the client's telemetry topic.
async fn report<S: Service>(
    service: &Arc<S>,
    client_id: &str,
    from: Identity,
    mut bag: PropertyBag,
    message: &Message,
) -> Result<(), Rejected> {
    if let Some(properties) = &message.properties {
        inbox::add_to_bag(&mut bag, properties);
    }
    bag.set(TYPE_PROPERTY, TYPE);
    let left_by = Identity::of_session(client_id)
        .ok_or_else(|| Rejected::Wrong(403, "its client has no identity".to_owned()))?;
    service.telemetry_will(&left_by, from, bag, message.payload.clone()).await
}

/// The will of a bridge: its state, for the clients of its own account.
async fn bridge_state<S: Service>(broker: &Broker, service: &Arc<S>, due: &DueWill) -> Result<(), Rejected> {
    let of = Identity::of_session(&due.client_id)
        .ok_or_else(|| Rejected::Wrong(403, "its client has no identity".to_owned()))?;
    service
        .may_leave_will(&of, due.will.message.topic())
        .map_err(|why| Rejected::Wrong(403, why.to_string()))?;
    broker.give_will(&due.client_id, &due.will.message).await
}

/// A will on a free topic. Its subscribers are given it once, however often the program cannot take it.
async fn free<S: Service>(
    broker: &Broker,
    service: &Arc<S>,
    due: &DueWill,
    is_given: &mut bool,
) -> Result<(), Rejected> {
    let message = &due.will.message;
    let of = Identity::of_session(&due.client_id)
        .ok_or_else(|| Rejected::Wrong(403, "its client has no identity".to_owned()))?;
    service.may_leave_will(&of, message.topic()).map_err(|why| Rejected::Wrong(403, why.to_string()))?;
    if !std::mem::replace(is_given, true) {
        broker.give_will(&due.client_id, message).await?;
    }
    if !service.takes_free() {
        return Ok(());
    }
    let mut bag = PropertyBag::new();
    if let Some(properties) = &message.properties {
        inbox::add_to_bag(&mut bag, properties);
    }
    service.free_will(&of, message.topic(), bag, message.payload.clone()).await
}
