//! What each packet of an open session does.

use std::sync::Arc;

use bytes::Bytes;
use edge_core::dialect::client::{Publish as Meaning, Subscribe, parse_publish};
use futures_util::future::{BoxFuture, join_all};
use schemas::method::MethodResponse;
use schemas::topics;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::connect::judge;
use super::end::End;
use super::pending::{Done, Pending, Work};
use super::{Session, Shown};
use crate::clients::{Connection, Held};
use crate::codec::packet::{Filter, Packet, Publish, SubAck, Version};
use crate::codec::reason::Reason;
use crate::codec::write;
use crate::delivery::NotDelivered;
use crate::door::{Door, count};
use crate::outbox::{Bound, Outgoing};
use crate::service::{Client, Rejected, Service};

/// What a pending packet holds besides its payload: its future, its places in queues.
const PENDING_BYTES: usize = 512;
/// The longest telemetry topic. Forwarding adds to the bag and encodes it anew, at worst threefold, and the topic that
/// comes of it must still fit in MQTT's 65,535 bytes.
const TELEMETRY_TOPIC_BYTES_MAX: usize = 16 * 1024;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Takes every packet that is here whole, as long as more may be taken in.
    pub(super) fn take_packets(&mut self) -> Result<(), End> {
        while self.may_take() {
            match self.reader.packet(self.door.settings.packet_bytes_max) {
                Ok(Some(packet)) => self.take(packet)?,
                Ok(None) => return Ok(()),
                Err(why) => return Err(self.refuse(None, &why.to_string())),
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(publish),
            Packet::PubAck(ack) => {
                match self.in_flight.remove(&ack.id) {
                    // Whoever waited may have gone.
                    Some(Some(done)) => drop(done.send(())),
                    Some(None) => {}
                    None => {
                        debug!(client = %Shown(&self.client_id), id = ack.id, "PUBACK for nothing in flight")
                    }
                }
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                self.subscribe(subscribe.id, subscribe.filters);
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.unsubscribe(unsubscribe.id, &unsubscribe.filters);
                Ok(())
            }
            Packet::PingReq => {
                write::pingresp(&mut self.writer.out);
                Ok(())
            }
            Packet::Disconnect(_) => Err(End::Disconnected),
            Packet::Connect(_) => Err(self.refuse(None, "a second CONNECT")),
            Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
                Err(self.refuse(None, "QoS 2 is not spoken here"))
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(self.refuse(None, "a packet that only servers send"))
            }
            Packet::Auth(_) => Err(self.refuse(None, "an AUTH without extended authentication")),
        }
    }

    /// Logs what the client may not do; the connection is then closed.
    fn refuse(&self, topic: Option<&str>, why: &str) -> End {
        let (client, peer) = (Shown(&self.client_id), self.connection.client.peer);
        match topic {
            Some(topic) => {
                warn!(%client, topic = %Shown(topic), %peer, "publish refused: {}", Shown(why));
            }
            None => warn!(%client, %peer, "packet refused: {}", Shown(why)),
        }
        End::Closed(format!("refused: {why}"))
    }

    fn publish(&mut self, publish: Publish) -> Result<(), End> {
        let topic = publish.topic();
        if publish.qos > 1 {
            return Err(self.refuse(Some(topic), "QoS 2 is not spoken here"));
        }
        let meaning = match parse_publish(topic) {
            Ok(meaning) => meaning,
            Err(error) => return Err(self.refuse(Some(topic), &error.to_string())),
        };
        let (service, client) = (&self.door.service, &self.connection.client);
        let work = match meaning {
            Meaning::Telemetry { from, bag } => {
                if from != client.identity && !service.may_speak_for(client, &from) {
                    return Err(self.refuse(Some(topic), "another identity's topic"));
                }
                match topic.len() > TELEMETRY_TOPIC_BYTES_MAX {
                    true => {
                        let why = format!("a property bag of more than {TELEMETRY_TOPIC_BYTES_MAX} bytes");
                        Work::Message(Box::pin(async { Err(Rejected::Wrong(413, why)) }))
                    }
                    false => Work::Message(service.telemetry(client, from, bag, publish.payload.clone())),
                }
            }
            Meaning::Link(operation) => {
                if !service.is_gateway(client) {
                    return Err(self.refuse(Some(topic), "the link is for gateways"));
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
            Meaning::Free => self.publish_free(&publish)?,
        };
        let (id, bytes) = (publish.id, publish.payload.len() + publish.topic.len() + PENDING_BYTES);
        if self.pending.is_empty() && matches!(work, Work::Ready) {
            return self.settle(Done { result: Ok(None), id, bytes: 0, topic: publish.topic });
        }
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { work, id, bytes, topic: publish.topic });
        Ok(())
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
            json => serde_json::from_slice(json)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(json).into_owned())),
        };
        let response = MethodResponse { status, payload };
        if !self.door.clients.answered(&self.connection.client.identity, request_id, response) {
            let request_id = Shown(request_id);
            info!(client = %Shown(&self.client_id), %request_id, "method answer dropped: nobody waits for it any more");
        }
    }

    /// Gives a message on a free topic to its subscribers.
    fn publish_free(&mut self, publish: &Publish) -> Result<Work, End> {
        if publish.retain && !self.has_logged_retain {
            self.has_logged_retain = true;
            let topic = Shown(publish.topic());
            warn!(client = %Shown(&self.client_id), %topic, "retain flag ignored: messages are not retained yet");
        }
        let full = match fan_out(&self.door, publish.topic(), &publish.topic, &publish.payload, publish.qos) {
            Ok(full) if full.is_empty() => return Ok(Work::Ready),
            Ok(full) => full,
            Err(slow) => {
                let why = format!("subscriber {} is too slow", slow.client.identity);
                return Err(self.refuse(Some(publish.topic()), &why));
            }
        };
        let timeout = self.door.settings.room_timeout;
        Ok(Work::Message(Box::pin(async move {
            let room = join_all(full.iter().map(|connection| connection.outbox.room()));
            match tokio::time::timeout(timeout, room).await {
                Ok(_) => Ok(()),
                Err(_) => {
                    let who =
                        full.iter().map(|c| c.client.identity.to_string()).collect::<Vec<_>>().join(", ");
                    Err(Rejected::Temporary(503, format!("no room in the queue of a subscriber among {who}")))
                }
            }
        })))
    }

    fn subscribe(&mut self, id: u16, filters: Vec<Filter>) {
        let connection = self.connection.clone();
        let client = &connection.client;
        let (mut reasons, mut granted) = (Vec::with_capacity(filters.len()), Vec::new());
        for Filter { path: filter, qos, .. } in filters {
            let meaning = judge(&self.door, client, &filter).and_then(|meaning| {
                let held = connection.held();
                let is_room =
                    held.len() < self.door.settings.filters_max || held.iter().any(|h| h.filter == filter);
                if is_room { Ok(meaning) } else { Err(format!("more than {} filters", held.len())) }
            });
            match meaning {
                Ok(meaning) => {
                    let held = Held { filter, meaning, qos: qos.min(1) };
                    reasons.push(Reason::granted(held.qos));
                    if held.meaning == Subscribe::Free {
                        self.door.table.subscribe(&held.filter, &connection, held.qos);
                    }
                    granted.push(held.meaning.clone());
                    let mut all = connection.held();
                    all.retain(|h| h.filter != held.filter);
                    all.push(held);
                }
                Err(why) => {
                    reasons.push(Reason::UNSPECIFIED);
                    let (id, topic, peer) = (Shown(&self.client_id), Shown(&filter), client.peer);
                    warn!(client = %id, %topic, %peer, "subscription refused: {}", Shown(&why));
                }
            }
        }
        if !granted.is_empty() {
            self.save();
        }
        write::suback(&mut self.writer.out, Version::V4, &SubAck { id, reasons, told: None });
        self.door.clients.changed();
        for meaning in granted {
            self.door.service.subscribed(client, &meaning);
        }
    }

    fn unsubscribe(&mut self, id: u16, filters: &[String]) {
        for filter in filters {
            self.door.table.unsubscribe(filter, &self.connection);
        }
        self.connection.held().retain(|held| !filters.contains(&held.filter));
        self.save();
        let answer = SubAck { id, reasons: Vec::new(), told: None };
        write::unsuback(&mut self.writer.out, Version::V4, &answer);
    }

    /// Saves the filters of a session that outlives its connection.
    fn save(&self) {
        // A newer connection of the client has the session now.
        if !self.is_clean && !self.connection.ended.is_cancelled() {
            let filters = self.connection.held().iter().map(|h| (h.filter.clone(), h.qos)).collect();
            self.door.service.save_session(&self.client_id, Some(filters));
        }
    }
}

/// Puts a message in the queues of its subscribers; gives those that are full now, for which a QoS 1 publisher waits.
///
/// # Errors
/// A subscriber whose queue is full beyond waiting: the message must not be acknowledged.
pub(super) fn fan_out<S>(
    door: &Door<S>,
    topic: &str,
    shared_topic: &Bytes,
    payload: &Bytes,
    qos: u8,
) -> Result<Vec<Arc<Connection>>, Arc<Connection>> {
    let mut full = Vec::new();
    for subscriber in door.table.receivers(topic) {
        let qos = qos.min(subscriber.qos);
        let copy = Outgoing { topic: shared_topic.clone(), payload: payload.clone(), qos, done: None };
        let outbox = &subscriber.connection.outbox;
        match (qos, outbox.push(copy, if qos == 0 { Bound::Soft } else { Bound::Hard })) {
            (1, Ok(true)) => full.push(subscriber.connection),
            (0, Err(NotDelivered::Busy)) => count(&door.counts.copies_dropped),
            (_, Err(NotDelivered::Busy)) => return Err(subscriber.connection),
            // Whoever has just gone receives nothing any more.
            _ => {}
        }
    }
    Ok(full)
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

async fn report<S: Service>(
    service: Arc<S>,
    client: Client,
    request_id: Option<String>,
    payload: Bytes,
) -> Option<(String, Bytes)> {
    let done = match edge_core::twin::parse_patch(&payload) {
        Ok(patch) => service.report(&client, patch).await,
        Err(error) => Err(Rejected::Wrong(400, error.to_string())),
    };
    if let Err(rejected) = &done {
        let why = rejected.to_string();
        warn!(client = %client.identity, peer = %client.peer, "reported patch refused: {}", Shown(&why));
    }
    let request_id = request_id?;
    Some(match done {
        Ok(version) => (topics::twin_response(204, &request_id, Some(version)), Bytes::new()),
        Err(rejected) => rejection(&request_id, &rejected),
    })
}

/// The answer to a twin request that failed. Azure's Node SDK looks at the body only, the Python SDK at the status.
fn rejection(request_id: &str, rejected: &Rejected) -> (String, Bytes) {
    let (Rejected::Wrong(status, message) | Rejected::Temporary(status, message)) = rejected;
    let body = json!({"errorCode": status, "message": message});
    (topics::twin_response(*status, request_id, None), body.to_string().into())
}
