//! What a PUBLISH of the client does: an operation of the service by its topic, or free publish/subscribe.

use std::sync::Arc;

use bytes::Bytes;
use edge_core::dialect::client::{Publish as Meaning, parse_publish};
use edge_core::dialect::provisioning;
use futures_util::future::BoxFuture;
use schemas::bag::{MESSAGE_BYTES_MAX, PropertyBag};
use schemas::method::MethodResponse;
use schemas::topics;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::end::End;
use super::pending::{Reply, Work};
use super::state::{ALIAS_OVERHEAD_BYTES, Alias, Session};
use crate::age_clock::steady_ms;
use crate::bridge_state;
use crate::broker::publish::Given;
use crate::counts::count;
use crate::inbox;
use crate::journal::event::Event;
use crate::message::{Message, TELEMETRY_TOPIC_BYTES_MAX};
use crate::quota::{Resource, Used};
use crate::sanitized::Sanitized;
use crate::service::{Client, Rejected, Service};
use crate::settings::MqttServerSettings;
use crate::table::{LEVELS_MAX, Route};
use mqtt::codec::packet::{Publish, PublishProperties, Version};
use mqtt::codec::reason::Reason;

/// Topics of a publisher whose receivers are remembered.
const ROUTES_MAX: usize = 64;
/// The longest topic whose receivers are remembered: 64 of them are no more than what a connection reads at once.
const ROUTE_TOPIC_BYTES_MAX: usize = 1024;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        if publish.qos > 0 {
            self.unanswered += 1;
            // MQTT-3.3.4-7 of MQTT 5. MQTT 3.1.1 has no such limit: there, reading stops while too much is pending.
            if self.peer.version == Version::V5 && self.unanswered > self.receive_max() {
                return Err(
                    self.refuse(Reason::RECEIVE_MAXIMUM_EXCEEDED, "more messages at once than allowed")
                );
            }
        }
        if publish.properties.as_ref().is_some_and(|properties| !properties.subscription_ids.is_empty()) {
            // MQTT-3.3.4-6 of MQTT 5.
            return Err(
                self.refuse(Reason::PROTOCOL_ERROR, "a subscription identifier in a client's PUBLISH")
            );
        }
        self.resolve_alias(&mut publish)?;
        let reply = match publish.qos {
            0 => Reply::Nothing,
            1 => Reply::PubAck(publish.id),
            _ => Reply::PubRec(publish.id),
        };
        let (topic, bytes) = (publish.topic.clone(), publish.payload.len());
        let work = if publish.qos == 2 && self.connection.session_queue.has_received(publish.id) {
            // It came before (MQTT-4.3.3-2): only its acknowledgement was lost.
            self.after_what_came(publish.id)
        } else {
            match self.connection.session_queue.share_of_id(publish.qos) {
                Ok(share) => {
                    // A client that publishes nothing has no memory for it.
                    self.fence.get_or_insert_default();
                    self.operation(publish, share)?
                }
                Err(exceeded) => {
                    count(&self.server.counts().quotas_exceeded);
                    self.may_not(&publish, Reason::QUOTA_EXCEEDED, exceeded.to_string())?
                }
            }
        };
        self.answer_after(work, reply, topic, bytes)
    }

    /// QoS 1 and 2 messages that a client of MQTT 5 may send before one of them is acknowledged.
    pub(super) fn receive_max(&self) -> usize {
        receive_max(&self.server.settings).into()
    }

    /// Puts the topic in the slot of its alias.
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.properties.as_ref().and_then(|properties| properties.topic_alias) else {
            return if publish.topic.is_empty() {
                Err(self.refuse(Reason::PROTOCOL_ERROR, "neither a topic nor an alias of one"))
            } else {
                Ok(())
            };
        };
        if alias > self.server.settings.topic_aliases_max {
            return Err(self.refuse(Reason::TOPIC_ALIAS_INVALID, "a topic alias beyond the maximum"));
        }
        // A topic and an alias: the alias names this topic from now on (MQTT 5, section 3.3.2.3.4).
        if !publish.topic.is_empty() {
            let before = self.aliases.get(&alias).map_or(0, |alias| alias.share.amount());
            let bytes = (ALIAS_OVERHEAD_BYTES + publish.topic.len()) as u64;
            let usage = &self.connection.session_queue.usage;
            let share = usage.hold_in_place_of(Resource::AliasBytes, before, bytes).map_err(|exceeded| {
                count(&self.server.counts().quotas_exceeded);
                self.refuse(Reason::QUOTA_EXCEEDED, &exceeded.to_string())
            })?;
            self.aliases.insert(alias, Alias { topic: Bytes::copy_from_slice(&publish.topic), share });
            return Ok(());
        }
        match self.aliases.get(&alias) {
            Some(alias) => {
                publish.topic = alias.topic.clone();
                Ok(())
            }
            None => Err(self.refuse(Reason::PROTOCOL_ERROR, "a topic alias that was not set")),
        }
    }

    /// Waits until a QoS 2 message is on disk that came before, on this connection or another.
    fn after_what_came(&self, id: u16) -> Work {
        let session_queue = &self.connection.session_queue;
        if session_queue.is_durable {
            // What the journal is handed now reaches the disk after it.
            Work::Stored(
                self.server.broker.journal.write(&Event::Received { session: session_queue.number, id }),
            )
        } else {
            Work::Ready
        }
    }

    fn operation(&mut self, publish: Publish, share: Option<Used>) -> Result<Work, End> {
        // Every PUBLISH is parsed and authorized here, by topic alone; only the branches below know the service.
        let topic = publish.topic();
        let meaning = match parse_publish(topic) {
            Ok(meaning) => meaning,
            Err(error) => return self.may_not(&publish, Reason::TOPIC_NAME_INVALID, error.to_string()),
        };
        if let Err(why) = self.may_say(&meaning, topic) {
            return self.may_not(&publish, Reason::NOT_AUTHORIZED, why.to_owned());
        }
        let (service, client) = (&self.server.service, &self.connection.client);
        let is_enrolling = client.identity.registration_id().is_some();
        let work = match meaning {
            Meaning::Provisioning(request) if is_enrolling => {
                let answer = enrol(service.clone(), client.clone(), request);
                Work::Twin(self.in_turn(answer))
            }
            Meaning::Provisioning(_) => {
                let why = "the provisioning topics are for devices that enrol themselves".to_owned();
                return self.may_not(&publish, Reason::NOT_AUTHORIZED, why);
            }
            _ if is_enrolling => {
                let why = "a device that enrols itself has the provisioning topics only".to_owned();
                return self.may_not(&publish, Reason::NOT_AUTHORIZED, why);
            }
            Meaning::Free if service.takes_free() => return self.publish_taken(publish, share),
            Meaning::Free => return self.publish_free(publish, share),
            Meaning::BridgeState => return self.publish_bridge_state(publish, share),
            Meaning::Telemetry { from, mut bag } => {
                // A gateway sends for the devices behind it, and nobody else may name another sender.
                if from != client.identity && !service.may_speak_for(client, &from) {
                    return self.may_not(
                        &publish,
                        Reason::NOT_AUTHORIZED,
                        "another identity's topic".to_owned(),
                    );
                }
                if from == client.identity {
                    // As edgeHub does: the flags are forwarded and have no effect.
                    for (key, _) in [("mqtt-retain", publish.retain), ("mqtt-dup", publish.dup)]
                        .into_iter()
                        .filter(|(_, is_set)| *is_set)
                    {
                        bag.set(key, "true");
                    }
                }
                if let Some(properties) = &publish.properties {
                    inbox::add_to_bag(&mut bag, properties);
                }
                let bytes = topic.len() + publish.properties.as_deref().map_or(0, bag_bytes);
                // A gateway adds to the bag of what it has taken, and encodes it anew.
                let is_gateway = service.is_gateway(client);
                if !is_gateway && bag.message_bytes(&publish.payload) > MESSAGE_BYTES_MAX {
                    let why = format!("a message of more than {MESSAGE_BYTES_MAX} bytes");
                    return self.may_not(&publish, Reason::QUOTA_EXCEEDED, why);
                }
                if bytes > TELEMETRY_TOPIC_BYTES_MAX && !is_gateway {
                    let why = format!("a property bag of more than {TELEMETRY_TOPIC_BYTES_MAX} bytes");
                    return self.may_not(&publish, Reason::QUOTA_EXCEEDED, why);
                }
                Work::Message(service.telemetry(
                    client,
                    from,
                    bag,
                    publish.payload.clone(),
                    self.fence.as_ref(),
                ))
            }
            Meaning::Link(operation) => {
                if !service.is_gateway(client) {
                    return self.may_not(
                        &publish,
                        Reason::NOT_AUTHORIZED,
                        "the link is for gateways".to_owned(),
                    );
                }
                Work::Message(service.link(client, operation, publish.payload.clone()))
            }
            Meaning::TwinGet { request_id } => {
                let answer = twin(service.clone(), client.clone(), request_id);
                Work::Twin(self.in_turn(answer))
            }
            Meaning::TwinReported { request_id } => {
                let payload = publish.payload.clone();
                let answer = report(service.clone(), client.clone(), request_id, payload);
                Work::Twin(self.in_turn(answer))
            }
            Meaning::MethodResponse { status, request_id } => {
                self.method_answered(status, &request_id, &publish.payload);
                Work::Ready
            }
        };
        let Some(share) = share else { return Ok(work) };
        Ok(self.received_after(publish.id, share, work))
    }

    /// Whether the client may say this at all, whoever it speaks for.
    fn may_say(&self, meaning: &Meaning, topic: &str) -> Result<(), &'static str> {
        match meaning {
            Meaning::Free if !self.connection.rights().may_publish(topic) => {
                Err("no rule of the manifest allows it")
            }
            Meaning::Free | Meaning::BridgeState | Meaning::Telemetry { .. } => Ok(()),
            _ if self.connection.client.identity.is_user() => {
                Err("a user has free topics, and its device's telemetry")
            }
            _ => Ok(()),
        }
    }

    /// An operation at QoS 2: its packet id is remembered when it is done, so that it is not done again.
    fn received_after(&self, id: u16, share: Used, work: Work) -> Work {
        let (session_queue, journal) =
            (self.connection.session_queue.clone(), self.server.broker.journal.clone());
        let remember = async move |share| {
            // In memory first: a repetition that comes before the sync must find the id.
            session_queue.receive(id, share);
            if !session_queue.is_durable {
                return Ok(());
            }
            let stored = journal.write(&Event::Received { session: session_queue.number, id }).await;
            stored.map_err(|error| Rejected::Temporary(503, format!("not written to disk: {error}")))
        };
        match work {
            Work::Message(work) => Work::Message(Box::pin(async move {
                work.await?;
                remember(share).await
            })),
            work => {
                // Their answers are messages of their own, and doing them twice changes nothing.
                self.connection.session_queue.receive(id, share);
                work
            }
        }
    }

    /// Refuses a message: MQTT 5 has a word for that, MQTT 3.1.1 can only close.
    fn may_not(&self, publish: &Publish, reason: Reason, why: String) -> Result<Work, End> {
        count(&self.server.counts().publishes_refused);
        let (client, peer) = (Sanitized(self.client_id()), self.connection.client.peer);
        warn!(%client, topic = %Sanitized(publish.topic()), %peer, "publish refused: {}", Sanitized(&why));
        match self.peer.version {
            Version::V4 => Err(End::Closed(format!("refused: {why}"), reason)),
            Version::V5 => Ok(Work::Refused(reason, why)),
        }
    }

    /// Runs after the twin request before it: patches apply in the order in which they came.
    fn in_turn<O: Send + 'static>(
        &mut self,
        work: impl Future<Output = O> + Send + 'static,
    ) -> BoxFuture<'static, O> {
        let (turn, next) = oneshot::channel::<()>();
        let before = self.twin_turn.replace(next);
        Box::pin(async move {
            if let Some(before) = before {
                // It ends by being dropped, with the request before this one.
                let _ = before.await;
            }
            let done = work.await;
            drop(turn);
            done
        })
    }

    fn method_answered(&self, status: i64, request_id: &str, payload: &[u8]) {
        let payload = match payload {
            b"" => Value::Null,
            // What is no JSON, or nested too deep to be kept and passed on, is a text.
            json => schemas::json::from_outside(json)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(json).into_owned())),
        };
        let response = MethodResponse { status, payload };
        if !self.server.clients.answered(&self.connection.client.identity, request_id, response) {
            let request_id = Sanitized(request_id);
            info!(client = %Sanitized(self.client_id()), %request_id, "method answer dropped: nobody waits for it any more");
        }
    }

    /// Gives a message on a free topic to its subscribers and to the service.
    fn publish_taken(&mut self, publish: Publish, share: Option<Used>) -> Result<Work, End> {
        let (qos, id) = (publish.qos, publish.id);
        let (topic, payload) = (publish.topic.clone(), publish.payload.clone());
        let mut bag = PropertyBag::new();
        if let Some(properties) = &publish.properties {
            inbox::add_to_bag(&mut bag, properties);
        }
        let work = self.publish_free(publish, share)?;
        if matches!(work, Work::Refused(..)) {
            return Ok(work);
        }
        let topic = std::str::from_utf8(&topic).unwrap_or_default();
        // One with QoS 0 is not sent again: whether it was stored or not, what follows may be.
        let fence = self.fence.as_ref().filter(|_| qos > 0);
        let taken = self.server.service.free(&self.connection.client, topic, bag, payload, fence);
        if qos == 0 {
            // It has its slot in the queue, and nobody waits for more.
            return Ok(work);
        }
        let session_queue = self.connection.session_queue.clone();
        Ok(Work::Message(Box::pin(async move {
            let unwritten = |error| Rejected::Temporary(503, format!("not written to disk: {error}"));
            match work {
                Work::Message(given) => given.await?,
                Work::Stored(stored) => stored.await.map_err(unwritten)?,
                _ => {}
            }
            let taken = taken.await;
            if qos == 2 && matches!(taken, Err(Rejected::Temporary(..) | Rejected::Full(_))) {
                // It is sent again, and must not pass for one that came before.
                session_queue.release(id);
            }
            taken
        })))
    }

    /// Gives the state of a bridge to the clients of its own account. Routes of the manifest do not take it.
    fn publish_bridge_state(&mut self, publish: Publish, share: Option<Used>) -> Result<Work, End> {
        match bridge_state::kept(&self.connection.client.identity, publish.topic()) {
            Some(kept) => self.publish_free(Publish { topic: kept.into(), ..publish }, share),
            None => self.may_not(&publish, Reason::TOPIC_NAME_INVALID, "the topic is too long".to_owned()),
        }
    }

    /// Gives a message on a free topic to its subscribers.
    fn publish_free(&mut self, publish: Publish, share: Option<Used>) -> Result<Work, End> {
        let topic = publish.topic();
        if publish.retain && topic.split('/').count() > LEVELS_MAX {
            let why = format!("a retained topic of more than {LEVELS_MAX} levels");
            return self.may_not(&publish, Reason::TOPIC_NAME_INVALID, why);
        }
        let route = self.route(&publish.topic);
        let session_queue = self.connection.session_queue.clone();
        let received =
            (publish.qos == 2 && session_queue.is_durable).then_some((session_queue.number, publish.id));
        let (qos, id) = (publish.qos, publish.id);
        let message = message(publish, session_queue.number);
        if let Some(share) = share {
            session_queue.receive(id, share);
        }
        let Given { full, stored, not_retained } =
            self.server.broker.publish(&route, message, received, &session_queue.usage);
        if let Some(why) = not_retained {
            let why = format!("the message was given to its subscribers, and not retained: {why}");
            warn!(client = %Sanitized(self.client_id()), "{why}");
            if self.peer.version == Version::V5 && stored.is_none() {
                return Ok(Work::Refused(Reason::QUOTA_EXCEEDED, why));
            }
        }
        // QoS 0 promises nothing and waits for nothing.
        let work = match (stored, full.is_empty()) {
            (Some(stored), _) if qos == 0 => {
                stored.unawaited();
                Work::Ready
            }
            (None, true) => Work::Ready,
            (Some(stored), true) => Work::Stored(stored),
            (stored, false) => {
                let broker = self.server.broker.clone();
                Work::Message(Box::pin(async move {
                    if let Some(stored) = stored {
                        let unwritten =
                            |error| Rejected::Temporary(503, format!("not written to disk: {error}"));
                        stored.await.map_err(unwritten)?;
                    }
                    broker.wait_for_space(&full).await;
                    Ok(())
                }))
            }
        };
        Ok(work)
    }

    /// Who receives on a topic.
    fn route(&mut self, topic: &Bytes) -> Arc<Route> {
        let table = &self.server.broker.table;
        if let Some(route) = self.routes.get(topic).filter(|route| table.is_current(route)) {
            return route.clone();
        }
        let route = Arc::new(table.route(std::str::from_utf8(topic).unwrap_or_default()));
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        if topic.len() <= ROUTE_TOPIC_BYTES_MAX {
            self.routes.insert(Bytes::copy_from_slice(topic), route.clone());
        }
        route
    }
}

/// QoS 1 and 2 messages that a client of MQTT 5 may send before one of them is acknowledged.
pub(super) fn receive_max(settings: &MqttServerSettings) -> u16 {
    settings.receive_max.unwrap_or_else(|| u16::try_from(settings.pending_max).unwrap_or(u16::MAX)).max(1)
}

/// The message in a PUBLISH.
fn message(publish: Publish, publisher: u64) -> Message {
    let expiry_s = publish.properties.as_ref().and_then(|properties| properties.message_expiry);
    Message {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos,
        retain: publish.retain,
        publisher,
        expires_ms: expiry_s.map(|seconds| steady_ms().saturating_add(u64::from(seconds) * 1_000)),
        properties: passed_on(publish.properties),
    }
}

/// The properties that receivers see; `None` when there are none.
pub(super) fn passed_on(properties: Option<Box<PublishProperties>>) -> Option<Box<PublishProperties>> {
    let mut properties = properties?;
    (properties.topic_alias, properties.message_expiry) = (None, None);
    (*properties != PublishProperties::default()).then_some(properties)
}

/// What the properties of a telemetry message add to its topic, at most.
pub(super) fn bag_bytes(properties: &PublishProperties) -> usize {
    let text = properties.content_type.as_ref().map_or(0, |text| text.bytes().len());
    let correlation = properties.correlation_data.as_ref().map_or(0, Bytes::len);
    let own: usize =
        properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    text + correlation + own
}

async fn twin<S: Service>(service: Arc<S>, client: Client, request_id: String) -> Option<(String, Bytes)> {
    Some(match service.twin(&client).await {
        Ok(twin) => {
            let body = serde_json::to_vec(&twin).expect("a twin always serialises");
            (topics::twin_response(200, &request_id, None), body.into())
        }
        Err(rejected) => rejection(&request_id, &rejected),
    })
}

async fn enrol<S: Service>(
    service: Arc<S>,
    client: Client,
    request: provisioning::Request,
) -> Option<(String, Bytes)> {
    let provisioning::Request { request_id, request } = request;
    let answer = service.enrol(&client, request).await;
    let body = match &answer.body {
        Value::Null => Bytes::new(),
        body => body.to_string().into(),
    };
    Some((provisioning::response_topic(answer.status, &request_id, answer.retry_after), body))
}

async fn report<S: Service>(
    service: Arc<S>,
    client: Client,
    request_id: Option<String>,
    payload: Bytes,
) -> Option<(String, Bytes)> {
    let done = match edge_core::twin::parse_patch(&payload) {
        Ok(patch) => service.report(&client, patch).await,
        Err(error) => Err(Rejected::Wrong(error.status(), error.to_string())),
    };
    if let Err(rejected) = &done {
        let why = rejected.to_string();
        warn!(client = %client.identity, peer = %client.peer, "reported patch refused: {}", Sanitized(&why));
    }
    let request_id = request_id?;
    Some(match done {
        Ok(version) => (topics::twin_response(204, &request_id, Some(version)), Bytes::new()),
        Err(rejected) => rejection(&request_id, &rejected),
    })
}

/// The answer to a twin request that failed. Azure's Node SDK reads the body only, the Python SDK at the status.
fn rejection(request_id: &str, rejected: &Rejected) -> (String, Bytes) {
    let (status, message) = match rejected {
        Rejected::Wrong(status, message) | Rejected::Temporary(status, message) => (*status, message),
        Rejected::Full(message) => (503, message),
    };
    let body = json!({"errorCode": status, "message": message});
    (topics::twin_response(status, request_id, None), body.to_string().into())
}
