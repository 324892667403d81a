//! From the first byte to a proven client: CONNECT read, checked, authenticated.

use std::net::SocketAddr;
use std::sync::Arc;

use edge_core::access::secret::Secret;
use edge_core::dialect::client::{Publish, parse_publish};
use schemas::bag::MESSAGE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::publish::bag_bytes;
use super::reason_string::fits;
use super::will::message_of;
use super::wire::{Reader, Writer};
use crate::bridge_state;
use crate::broker::will::{Will, WillRefused};
use crate::connection_slots::ConnectionSlot;
use crate::counts::count;
use crate::login::{authenticated, note_refusal};
use crate::message::TELEMETRY_TOPIC_BYTES_MAX;
use crate::mqtt_server::MqttServer;
use crate::quota::{Resource, Used};
use crate::refusals::protocol;
use crate::sanitized::Sanitized;
use crate::service::{Admitted, Client, ConnectRequest, Login, Refusal, Service, Transport};
use crate::table::LEVELS_MAX;
use mqtt::codec::error::ReadError;
use mqtt::codec::packet::{self, ConnAck, ConnAckProperties, Connect, Packet, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use mqtt::codec::write;

/// The largest CONNECT: whoever sends it has proven nothing yet.
const CONNECT_BYTES_MAX: usize = 128 * 1024;
/// The first byte of every CONNECT.
const CONNECT_BYTE: u8 = 0x10;
/// The fixed header of the largest packet.
pub(super) const FIXED_HEADER_BYTES_MAX: usize = 5;

/// A CONNECT whose sender is who it says.
pub(super) struct Proven {
    pub(super) connect: Connect,
    /// Its client id was given to it here.
    pub(super) is_assigned: bool,
    pub(super) admitted: Admitted,
    pub(super) login: Arc<Login>,
    /// Its identity's share of connections.
    pub(super) held: Option<Used>,
    /// The will that it leaves, once that is accepted.
    pub(super) will: Option<Arc<Will>>,
}

impl Proven {
    /// Gives the connection the slot of one that has proven itself, and accepts its will, within what its identity may have;
    /// false when there is none and the client was answered so, or when it lost its slot meanwhile.
    pub(super) fn has_place<S: Service, T>(
        &mut self,
        server: &MqttServer<S>,
        slot: &ConnectionSlot,
        writer: &mut Writer<T>,
        peer: SocketAddr,
    ) -> bool {
        let identity = self.admitted.identity.clone();
        // Without central nobody knows who a device is that enrols itself.
        if identity.registration_id().is_some() {
            return true;
        }
        let takes_over = server.clients.is_connected(&identity);
        let usage = server.broker.quotas.of_session(&identity.to_string());
        match usage.hold(Resource::Connections, takes_over) {
            Ok(held) => self.held = Some(held),
            Err(exceeded) => {
                count(&server.counts().quotas_exceeded);
                self.refuse_connection(server, writer, peer, Reason::QUOTA_EXCEEDED, &exceeded.to_string());
                return false;
            }
        }
        if let Some(will) = self.connect.will.take() {
            let delay_s = will.delay;
            let message = message_of(will, &identity);
            match server.broker.accept_will(&identity.to_string(), message, delay_s) {
                Ok(will) => self.will = Some(will),
                Err(refused) => {
                    if matches!(refused, WillRefused::Quota(_)) {
                        count(&server.counts().quotas_exceeded);
                    }
                    self.refuse_connection(
                        server,
                        writer,
                        peer,
                        Reason::QUOTA_EXCEEDED,
                        &refused.to_string(),
                    );
                    return false;
                }
            }
        }
        let has_place = slot.prove(takes_over);
        if !has_place && !slot.is_evicted() {
            self.refuse_connection(server, writer, peer, Reason::SERVER_UNAVAILABLE, "no slot is left");
        }
        has_place
    }

    fn refuse_connection<S: Service, T>(
        &self,
        server: &MqttServer<S>,
        writer: &mut Writer<T>,
        peer: SocketAddr,
        reason: Reason,
        why: &str,
    ) {
        count(&server.counts().connections_refused);
        warn!(client = %Sanitized(&self.connect.client_id), %peer, "connection refused: {why}");
        let reason = match self.connect.version {
            // It may try again.
            Version::V4 => Reason::SERVER_UNAVAILABLE,
            Version::V5 => reason,
        };
        refuse(writer, self.connect.version, reason, "");
    }
}

/// Reads the CONNECT and has it proven. `None` when there is to be no session; a CONNACK may wait to be written.
pub(super) async fn prove<S, T>(
    server: &Arc<MqttServer<S>>,
    reader: &mut Reader<T>,
    writer: &mut Writer<T>,
    peer: SocketAddr,
    transport: Transport,
    deadline: Instant,
) -> Option<Proven>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let connect = match tokio::time::timeout_at(deadline, read_connect(reader)).await {
        Ok(Ok(Some(connect))) => connect,
        Ok(Ok(None)) => {
            debug!(%peer, "connection ended before its CONNECT");
            return None;
        }
        Ok(Err((version, why))) => {
            match (version, &why) {
                // A bridge of mosquitto that speaks MQTT 3.1 sets the highest bit.
                (_, ReadError::Level(level)) => {
                    let version = if (level & 0x7f) < 5 { Version::V4 } else { Version::V5 };
                    refuse(writer, version, why.reason(), "");
                }
                (Some(Version::V5), why) => refuse(writer, Version::V5, why.reason(), ""),
                // MQTT-3.1.4-1: MQTT 3.1.1 has no code for it.
                (Some(Version::V4) | None, _) => {}
            }
            warn!(%peer, "connection refused: {why}");
            return None;
        }
        Err(_) => {
            warn!(%peer, "connection refused: no CONNECT within the connect timeout");
            return None;
        }
    };
    let mut connect = connect;
    let may_be_anonymous = transport.is_plain() && server.service.has_anonymous_user();
    let is_assigned = assign_client_id(&mut connect, may_be_anonymous);
    let client = Sanitized(&connect.client_id);
    let protocol = protocol(connect.version);
    if let Err((reason, why)) = check(&connect) {
        warn!(%client, %peer, "connection refused: {}", Sanitized(&why));
        note_refusal(server, &request_of(&connect, transport, peer), protocol, &why);
        let bytes_max = connect.properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize);
        // MQTT-3.2.2-19 of MQTT 5.
        let why = if fits(&why, 1, bytes_max) { &why } else { "" };
        refuse(writer, connect.version, reason, why);
        return None;
    }
    let request = request_of(&connect, transport, peer);
    let refusal = match tokio::time::timeout_at(deadline, authenticated(server, request.clone())).await {
        Ok(Ok(admitted)) => {
            let login = Login {
                client_id: connect.client_id.clone(),
                proof: admitted.proof.clone(),
                generation: admitted.generation,
            };
            let client = Client {
                identity: admitted.identity.clone(),
                // It has none yet, and none is needed to authorize it.
                connection: 0,
                peer,
                login: Arc::new(login),
            };
            match may_enter(&*server.service, &client, connect.will.as_ref()) {
                Ok(()) => {
                    let login = client.login;
                    return Some(Proven { connect, is_assigned, admitted, login, held: None, will: None });
                }
                Err(why) => Refusal::NotAuthorized(why.to_string()),
            }
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            Refusal::Unavailable("the client could not be proven within the connect timeout".to_owned())
        }
    };
    let why = refusal.to_string();
    warn!(%client, %peer, "connection refused: {}", Sanitized(&why));
    note_refusal(server, &request, protocol, &why);
    // Why goes to the log and to operators only: whoever it is has proven nothing.
    let reason = match refusal {
        Refusal::NotAuthorized(_) => Reason::NOT_AUTHORIZED,
        Refusal::Unavailable(_) => Reason::SERVER_UNAVAILABLE,
    };
    refuse(writer, connect.version, reason, "");
    None
}

fn request_of(connect: &Connect, transport: Transport, peer: SocketAddr) -> ConnectRequest {
    ConnectRequest {
        client_id: connect.client_id.clone(),
        user_name: connect.user_name.clone(),
        password: connect.password.clone().map(Secret::new),
        transport,
        peer,
    }
}

/// Why a client that was proven gets no session.
#[derive(Debug, thiserror::Error)]
enum EntryError<D> {
    #[error("{0}")]
    Denied(D),
    #[error("the topic of its will, {topic}, is another identity's")]
    WillOfAnother { topic: String },
    #[error("the topic of its will is too long")]
    WillTopicTooLong,
    #[error("no rule allows it to publish on the topic of its will, {topic}")]
    WillNotAllowed { topic: String },
}

/// Returns an error for a client that was proven and may have no session with this will.
fn may_enter<S: Service>(
    service: &S,
    client: &Client,
    will: Option<&packet::Will>,
) -> Result<(), EntryError<S::Denied>> {
    let rights = service.authorize(&client.identity, &client.login).map_err(EntryError::Denied)?;
    let Some(topic) = will.map(|will| &*will.topic) else { return Ok(()) };
    match parse_publish(topic) {
        Ok(Publish::Telemetry { from, .. }) => {
            if from == client.identity || service.may_speak_for(client, &from) {
                Ok(())
            } else {
                Err(EntryError::WillOfAnother { topic: topic.to_owned() })
            }
        }
        Ok(Publish::BridgeState) => match bridge_state::kept(&client.identity, topic) {
            Some(_) => Ok(()),
            None => Err(EntryError::WillTopicTooLong),
        },
        _ if rights.may_publish(topic) => Ok(()),
        _ => Err(EntryError::WillNotAllowed { topic: topic.to_owned() }),
    }
}

/// The CONNECT; `None` when the connection ends before it is whole.
/// With an error comes the version of a CONNECT that is wrong.
async fn read_connect<T: AsyncRead + Unpin>(
    reader: &mut Reader<T>,
) -> Result<Option<Connect>, (Option<Version>, ReadError)> {
    loop {
        // What speaks another protocol is not waited for.
        if reader.first_byte().is_some_and(|byte| byte >> 4 != CONNECT_BYTE >> 4) {
            return Err((None, ReadError::Malformed("the first bytes are no CONNECT")));
        }
        let version = reader.connect_version();
        match reader.packet(CONNECT_BYTES_MAX).map_err(|why| (version, why))? {
            Some(Packet::Connect(connect)) => return Ok(Some(*connect)),
            Some(_) => return Err((None, ReadError::Malformed("the first packet is no CONNECT"))),
            None => {}
        }
        if !matches!(reader.fill().await, Ok(1..)) {
            return Ok(None);
        }
    }
}

/// What is refused whoever asks.
fn check(connect: &Connect) -> Result<(), (Reason, String)> {
    if connect.client_id.is_empty() {
        let why = "an empty client id: a device or module is named by it, and with MQTT 3.1.1 it needs a clean session";
        return Err((Reason::CLIENT_ID_NOT_VALID, why.to_owned()));
    }
    if let Some(method) = &connect.properties.authentication_method {
        let why = format!("authentication method {} is not known here", method.as_str());
        return Err((Reason::BAD_AUTHENTICATION_METHOD, why));
    }
    let Some(will) = &connect.will else { return Ok(()) };
    let invalid = |why: String| Err((Reason::TOPIC_NAME_INVALID, why));
    match parse_publish(&will.topic) {
        Ok(Publish::Free | Publish::BridgeState)
            if will.retain && will.topic.split('/').count() > LEVELS_MAX =>
        {
            invalid(format!("a retained will topic of more than {LEVELS_MAX} levels"))
        }
        Ok(Publish::Free | Publish::BridgeState) => Ok(()),
        Ok(Publish::Telemetry { bag, .. }) => {
            let properties = will.properties.as_deref().map_or(0, bag_bytes);
            if will.topic.len() + properties > TELEMETRY_TOPIC_BYTES_MAX {
                invalid(format!("a will's property bag of more than {TELEMETRY_TOPIC_BYTES_MAX} bytes"))
            } else if bag.message_bytes(&will.payload) + properties > MESSAGE_BYTES_MAX {
                let why = format!("a will on a telemetry topic of more than {MESSAGE_BYTES_MAX} bytes");
                Err((Reason::PACKET_TOO_LARGE, why))
            } else {
                Ok(())
            }
        }
        _ => {
            let why =
                format!("a will goes to a free topic or to the client's telemetry, not to {}", will.topic);
            Err((Reason::NOT_AUTHORIZED, why))
        }
    }
}

/// Gives a client an id that has none, where its user name alone says who it is (MQTT-3.1.3-6 of both versions). With MQTT
/// 3.1.1 only for a clean session: nothing would tell the client which session is its own.
fn assign_client_id(connect: &mut Connect, may_be_anonymous: bool) -> bool {
    let is_user = match connect.user_name.as_deref().unwrap_or_default() {
        "" => may_be_anonymous,
        name => !name.contains('/'),
    };
    let may_be_assigned = connect.version == Version::V5 || connect.is_clean;
    if !connect.client_id.is_empty() || !is_user || !may_be_assigned {
        return false;
    }
    connect.client_id = format!("auto-{}", Uuid::new_v4().simple());
    true
}

fn refuse<T>(writer: &mut Writer<T>, version: Version, reason: Reason, why: &str) {
    let reason_string = (!why.is_empty()).then(|| Text::from(why));
    let properties = ConnAckProperties { reason_string, ..ConnAckProperties::default() };
    let connack = ConnAck { is_session_present: false, reason, properties };
    write::connack(&mut writer.out, version, &connack);
}
