//! From the first byte to an open connection: CONNECT read, proven, answered.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_core::access::enrolment;
use edge_core::access::secret::Secret;
use edge_core::dialect::client::{Publish, parse_publish};
use schemas::bag::MESSAGE_BYTES_MAX;
use schemas::names::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::answer::fits;
use super::pending::PendingQueue;
use super::publish::{TELEMETRY_TOPIC_BYTES_MAX, bag_bytes, passed_on, receive_max};
use super::rate::Rates;
use super::subscribe::judge;
use super::wire::{Reader, Writer};
use super::{Peer, Session};
use crate::bridge_state;
use crate::broker::presence::Arrival;
use crate::broker::wills::Will;
use crate::close_handle::CloseHandle;
use crate::codec::error::ReadError;
use crate::codec::packet::{self, ConnAck, ConnAckProperties, Connect, Packet, Version};
use crate::codec::reason::Reason;
use crate::codec::text::Text;
use crate::codec::write;
use crate::counts::count;
use crate::door::Door;
use crate::message::FOR_EVER;
use crate::message::{Message, unix_ms};
use crate::places::Place;
use crate::quota::{Resource, Used};
use crate::refusals::{Refusing, proof, protocol};
use crate::service::{Admitted, Client, ConnectRequest, Login, Refusal, Service, Transport};
use crate::shown::Shown;
use crate::table::LEVELS_MAX;

/// The largest CONNECT: whoever sends it has proven nothing yet.
const CONNECT_BYTES_MAX: usize = 128 * 1024;
/// The first byte of every CONNECT.
const CONNECT_BYTE: u8 = 0x10;
/// The fixed header of the largest packet.
const FIXED_HEADER_BYTES_MAX: usize = 5;

/// A CONNECT whose sender is who it says.
pub(super) struct Proven {
    connect: Connect,
    /// Its client id was given to it here.
    is_assigned: bool,
    admitted: Admitted,
    login: Arc<Login>,
    /// Its identity's share of connections.
    held: Option<Used>,
}

impl Proven {
    /// Gives the connection the place of one that has proven itself, within what its identity may have; false when there is
    /// none and the client was told, or when it lost its place meanwhile.
    pub(super) fn has_place<S: Service, T>(
        &mut self,
        door: &Door<S>,
        place: &Place,
        writer: &mut Writer<T>,
        peer: SocketAddr,
    ) -> bool {
        let identity = &self.admitted.identity;
        // Without central nobody knows who a device is that enrols itself.
        if identity.registration_id().is_some() {
            return true;
        }
        let takes_over = door.clients.is_connected(identity);
        let usage = door.broker.quotas.of_session(&identity.to_string());
        match usage.hold(Resource::Connections, takes_over) {
            Ok(held) => self.held = Some(held),
            Err(exceeded) => {
                count(&door.counts().quotas_exceeded);
                self.refuse_connection(door, writer, peer, Reason::QUOTA_EXCEEDED, &exceeded.to_string());
                return false;
            }
        }
        let has_place = place.prove(takes_over);
        if !has_place && !place.is_evicted() {
            self.refuse_connection(door, writer, peer, Reason::SERVER_UNAVAILABLE, "no place is left");
        }
        has_place
    }

    fn refuse_connection<S: Service, T>(
        &self,
        door: &Door<S>,
        writer: &mut Writer<T>,
        peer: SocketAddr,
        reason: Reason,
        why: &str,
    ) {
        count(&door.counts().connections_refused);
        warn!(client = %Shown(&self.connect.client_id), %peer, "connection refused: {why}");
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
    door: &Arc<Door<S>>,
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
    let may_be_anonymous = transport.is_plain() && door.service.has_anonymous_user();
    let is_assigned = assign_client_id(&mut connect, may_be_anonymous);
    let client = Shown(&connect.client_id);
    let protocol = protocol(connect.version);
    if let Err((reason, why)) = check(&connect) {
        warn!(%client, %peer, "connection refused: {}", Shown(&why));
        note_refusal(door, &request_of(&connect, transport, peer), protocol, &why);
        let bytes_max = connect.properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize);
        // MQTT-3.2.2-19 of MQTT 5.
        let why = if fits(&why, 1, bytes_max) { &why } else { "" };
        refuse(writer, connect.version, reason, why);
        return None;
    }
    let request = request_of(&connect, transport, peer);
    let refusal = match tokio::time::timeout_at(deadline, judged(door, request.clone())).await {
        Ok(Ok(admitted)) => {
            let login = Login {
                client_id: connect.client_id.clone(),
                proof: admitted.proof.clone(),
                generation: admitted.generation,
            };
            let client = Client {
                identity: admitted.identity.clone(),
                // It has none yet, and none is needed to judge it.
                connection: 0,
                peer,
                login: Arc::new(login),
            };
            match may_enter(&*door.service, &client, connect.will.as_ref()) {
                Ok(()) => {
                    return Some(Proven { connect, is_assigned, admitted, login: client.login, held: None });
                }
                Err(why) => Refusal::NotAuthorized(why),
            }
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            Refusal::Unavailable("the client could not be proven within the connect timeout".to_owned())
        }
    };
    let why = refusal.to_string();
    warn!(%client, %peer, "connection refused: {}", Shown(&why));
    note_refusal(door, &request, protocol, &why);
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

/// Keeps a refusal for whoever asks why a client is not connected.
fn note_refusal<S: Service>(door: &Door<S>, request: &ConnectRequest, protocol: &'static str, why: &str) {
    let identity = match request.user_name.as_deref() {
        Some(name) if !name.is_empty() && !name.contains('/') => format!("user {name}"),
        _ => request.client_id.clone(),
    };
    let proof = proof(request);
    let refusing = Refusing {
        identity: &identity,
        is_known: door.service.knows(request),
        address: request.peer.ip(),
        why,
        protocol,
        proof: proof.as_deref(),
    };
    door.refusals.note(unix_ms(), refusing);
}

/// Has a CONNECT judged when it is its turn.
async fn judged<S: Service>(door: &Arc<Door<S>>, request: ConnectRequest) -> Result<Admitted, Refusal> {
    if !door.service.is_guessable(&request) {
        let result = door.service.authenticate(request).await;
        if let Err(Refusal::NotAuthorized(_)) = result {
            count(&door.counts().logins_failed);
        }
        return result;
    }
    let address = request.peer.ip();
    let claimed = match request.user_name.as_deref() {
        // A local user's client id is free: another one does not make another identity of it.
        Some(name) if !name.contains('/') => format!("$user:{name}"),
        // Whoever guesses at the enrolment of a device shall not slow the device itself, which may long be there.
        Some(name) if enrolment::claim(&request.client_id, name).is_some() => {
            format!("$dps:{}", request.client_id)
        }
        _ => request.client_id.clone(),
    };
    door.attempts.turn(address, &claimed, door.counts()).await?;
    let result = door.service.authenticate(request).await;
    door.attempts.ended(address, &claimed, &result, door.counts());
    result
}

/// Whether a client that was proven may come in, with this will.
fn may_enter<S: Service>(service: &S, client: &Client, will: Option<&packet::Will>) -> Result<(), String> {
    let rights = service.standing(&client.identity, &client.login)?;
    let Some(topic) = will.map(|will| &*will.topic) else { return Ok(()) };
    match parse_publish(topic) {
        Ok(Publish::Telemetry { from, .. }) => {
            match from == client.identity || service.may_speak_for(client, &from) {
                true => Ok(()),
                false => Err(format!("the topic of its will, {topic}, is another identity's")),
            }
        }
        Ok(Publish::BridgeState) => match bridge_state::kept(&client.identity, topic) {
            Some(_) => Ok(()),
            None => Err("the topic of its will is too long".to_owned()),
        },
        _ if rights.may_publish(topic) => Ok(()),
        _ => Err(format!("no rule allows it to publish on the topic of its will, {topic}")),
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

/// Writes the CONNACK and opens the connection: the client has its session, old or new.
pub(super) fn open<S, T>(
    door: Arc<Door<S>>,
    proven: Proven,
    peer: SocketAddr,
    mut reader: Reader<T>,
    mut writer: Writer<T>,
    stop: &CancellationToken,
) -> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Proven { connect, is_assigned, admitted, login, held: connection_held } = proven;
    let Connect { version, client_id, is_clean, is_bridge, keep_alive, will, properties, .. } = connect;
    // Nothing of a device that enrols itself outlives its connection: it may not even be proven yet.
    let is_enrolling = admitted.identity.registration_id().is_some();
    let (is_clean, will) = (is_clean || is_enrolling, will.filter(|_| !is_enrolling));
    let assigned_client_id = is_assigned.then(|| Text::from(&*client_id));
    let client_id = match admitted.identity.is_local() {
        // Its client id must not meet a device's: neither its connection nor its session.
        true => admitted.identity.to_string(),
        false => client_id,
    };
    let asked_expiry_s = match version {
        Version::V4 if is_clean => 0,
        Version::V4 => FOR_EVER,
        Version::V5 if is_enrolling => 0,
        Version::V5 => properties.session_expiry.unwrap_or(0),
    };
    let will = will.map(|will| Box::new(will_of(will, &admitted.identity)));
    let number = || door.clients.number();
    let close = Arc::new(CloseHandle::new(stop));
    let arrival = Arrival {
        client_id: &client_id,
        is_clean,
        expiry_s: asked_expiry_s,
        will: will.as_deref(),
        close: close.clone(),
    };
    let entered = door.broker.enter(number, arrival);
    let client = Client { identity: admitted.identity, connection: entered.connection, peer, login };
    let connection = door.clients.enter(client, version, entered.mailbox.clone(), close);
    // What the session's filters mean, and whether the client may still have them, is judged anew; those that it may not
    // have are dropped before anybody is closed for holding one. Who may not stay is closed, and its session stays as it is.
    let rights = connection.judge(|identity, login| door.service.standing(identity, login));
    // Who was deleted between its proof and now leaves no session behind that the next client of its name would find.
    let outlives_s = if rights.is_none() && !entered.is_present { 0 } else { entered.expiry_s };
    let client = &connection.client;

    let held = if rights.is_some() { connection.mailbox.held().clone() } else { Vec::new() };
    let mut granted = Vec::new();
    for held in held {
        match judge(&door, &connection, &held.filter) {
            Ok(meaning) => granted.push(meaning),
            Err((_, why)) => {
                let (client, topic, why) = (Shown(&client_id), Shown(&held.filter), Shown(&why));
                warn!(%client, %topic, %peer, "subscription of an earlier connection refused: {why}");
                if let Some(Some(stored)) = door.broker.unsubscribe(&connection.mailbox, &held.filter) {
                    stored.unawaited();
                }
            }
        }
    }
    if let Some(rights) = rights {
        // What waits was queued for filters that it may have had then.
        let may_read = |topic: &str| bridge_state::is_kept(topic) || rights.may_subscribe(topic);
        door.broker.take_back(&connection.mailbox, may_read);
    }
    let is_present = entered.is_present;
    let session_expiry_s = entered.expiry_s;
    info!(client = %Shown(&client_id), %peer, version = ?version, is_present, session_expiry_s, filters = granted.len(), "client connected");
    reader.version = version;
    let settings = &door.settings;
    let told = match version {
        Version::V4 => ConnAckProperties::default(),
        Version::V5 => ConnAckProperties {
            session_expiry: (entered.expiry_s != asked_expiry_s).then_some(entered.expiry_s),
            receive_max: Some(receive_max(settings)),
            packet_bytes_max: u32::try_from(settings.packet_bytes_max + FIXED_HEADER_BYTES_MAX).ok(),
            topic_alias_max: Some(settings.topic_aliases_max),
            assigned_client_id,
            ..ConnAckProperties::default()
        },
    };
    let connack = ConnAck { is_session_present: is_present, reason: Reason::SUCCESS, properties: told };
    write::connack(&mut writer.out, version, &connack);

    door.clients.changed();
    door.service.connected(client);
    for meaning in granted {
        door.service.subscribed(client, &meaning);
    }
    let now = Instant::now();
    let silence_max = Some(Duration::from_millis(1_500) * u32::from(keep_alive)).filter(|max| !max.is_zero());
    let asked_window = properties.receive_max.map_or(usize::MAX, usize::from);
    let peer = Peer {
        version,
        is_bridge,
        expiry_s: outlives_s,
        window: settings.in_flight_max.min(asked_window),
        packet_bytes_max: properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
        wants_reasons: properties.wants_problem_information,
    };
    Session {
        rates: Rates::default(),
        stall_check_at: now + door.settings.write_timeout,
        door,
        connection,
        peer,
        will,
        reader,
        writer,
        pending: PendingQueue::default(),
        pending_bytes: 0,
        requests: VecDeque::new(),
        unanswered: 0,
        subscribing: 0,
        twin_turn: None,
        gate: None,
        routes: BTreeMap::new(),
        aliases: BTreeMap::new(),
        silence_max,
        ends_at: admitted.ends_at.map(from_now),
        last_read: now,
        written_at_check: None,
        full_since: None,
        _held: connection_held,
    }
}

/// When a time of the wall clock will be.
fn from_now(unix_secs: u64) -> Instant {
    // Farther than any connection lives, and an Instant cannot hold all that a token can say.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Instant::now() + Duration::from_secs(unix_secs).saturating_sub(since).min(FAR)
}

fn will_of(will: packet::Will, identity: &Identity) -> Will {
    let properties = will.properties.map(|properties| {
        // Its expiry counts from its publication on.
        let message_expiry = properties.message_expiry;
        let mut properties = passed_on(Some(properties)).unwrap_or_default();
        properties.message_expiry = message_expiry;
        properties
    });
    let message = Message {
        topic: bridge_state::kept(identity, &will.topic).unwrap_or(will.topic).into(),
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        publisher: 0,
        expires_ms: None,
        properties,
    };
    Will { message: Arc::new(message), delay_s: will.delay }
}
