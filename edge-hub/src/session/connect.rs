//! From the first byte to an open session: CONNECT read, proven, answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_core::access::secret::Secret;
use edge_core::dialect::client::{Publish, Subscribe, parse_publish, parse_subscribe};
use futures_util::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::wire::{Reader, Writer};
use super::{Session, Shown};
use crate::clients::Held;
use crate::codec::error::ReadError;
use crate::codec::packet::{ConnAck, ConnAckProperties, Connect, Packet, Version, Will};
use crate::codec::reason::Reason;
use crate::codec::write;
use crate::door::Door;
use crate::service::{Admitted, Client, ClientCert, ConnectRequest, Login, Refusal, Service};

/// The largest CONNECT: whoever sends it has proven nothing yet.
const CONNECT_BYTES_MAX: usize = 128 * 1024;
/// The first byte of every CONNECT.
const CONNECT_BYTE: u8 = 0x10;
/// The deepest free filter: the table of free topics is walked level by level.
const LEVELS_MAX: usize = 128;

/// A CONNECT whose sender is who it says.
pub(super) struct Proven {
    connect: Connect,
    admitted: Admitted,
}

/// Reads the CONNECT and has it proven. `None` when there is to be no session; a CONNACK may wait to be written.
pub(super) async fn prove<S, T>(
    door: &Arc<Door<S>>,
    reader: &mut Reader<T>,
    writer: &mut Writer<T>,
    peer: SocketAddr,
    client_cert: Option<ClientCert>,
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
        Ok(Err(why)) => {
            if let ReadError::Level(_) = why {
                write_connack(writer, Version::V4, false, Reason::UNSUPPORTED_PROTOCOL_VERSION);
            }
            warn!(%peer, "connection refused: {why}");
            return None;
        }
        Err(_) => {
            warn!(%peer, "connection refused: no CONNECT within the connect timeout");
            return None;
        }
    };
    let client = Shown(&connect.client_id);
    if connect.version == Version::V5 {
        warn!(%client, %peer, "connection refused: MQTT 5 is not spoken yet");
        write_connack(writer, Version::V4, false, Reason::UNSUPPORTED_PROTOCOL_VERSION);
        return None;
    }
    let mut refuse = |reason| write_connack(writer, connect.version, false, reason);
    if connect.client_id.is_empty() {
        warn!(%client, %peer, "connection refused: an empty client id");
        refuse(Reason::CLIENT_ID_NOT_VALID);
        return None;
    }
    if let Some(will) = connect.will.as_ref().filter(|will| !is_allowed_will(will)) {
        let topic = Shown(&will.topic);
        warn!(%client, %topic, %peer, "connection refused: a will goes to a free topic at QoS 0 or 1");
        refuse(Reason::NOT_AUTHORIZED);
        return None;
    }
    let request = ConnectRequest {
        client_id: connect.client_id.clone(),
        user_name: connect.user_name.clone(),
        password: connect.password.clone().map(Secret::new),
        client_cert,
        peer,
    };
    let refusal = match tokio::time::timeout_at(deadline, door.service.authenticate(request)).await {
        Ok(Ok(admitted)) => return Some(Proven { connect, admitted }),
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            Refusal::Unavailable("the client could not be proven within the connect timeout".to_owned())
        }
    };
    let why = refusal.to_string();
    warn!(%client, %peer, "connection refused: {}", Shown(&why));
    refuse(match refusal {
        Refusal::NotAuthorized(_) => Reason::NOT_AUTHORIZED,
        Refusal::Unavailable(_) => Reason::SERVER_UNAVAILABLE,
    });
    None
}

/// The CONNECT; `None` when the connection ends before it is whole.
async fn read_connect<T: AsyncRead + Unpin>(reader: &mut Reader<T>) -> Result<Option<Connect>, ReadError> {
    loop {
        match reader.packet(CONNECT_BYTES_MAX)? {
            Some(Packet::Connect(connect)) => return Ok(Some(*connect)),
            Some(_) => return Err(ReadError::Malformed("the first packet is no CONNECT")),
            // What speaks another protocol is not waited for.
            None if reader.first_byte().is_some_and(|byte| byte != CONNECT_BYTE) => {
                return Err(ReadError::Malformed("the first bytes are no CONNECT"));
            }
            None => {}
        }
        if !matches!(reader.fill().await, Ok(1..)) {
            return Ok(None);
        }
    }
}

fn write_connack<T>(writer: &mut Writer<T>, version: Version, is_session_present: bool, reason: Reason) {
    let properties = ConnAckProperties::default();
    write::connack(&mut writer.out, version, &ConnAck { is_session_present, reason, properties });
}

/// When a time of the wall clock will be.
fn from_now(unix_secs: u64) -> Instant {
    // Farther than any connection lives, and an Instant cannot hold all that a token can say.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Instant::now() + Duration::from_secs(unix_secs).saturating_sub(since).min(FAR)
}

fn is_allowed_will(will: &Will) -> bool {
    will.qos < 2 && parse_publish(&will.topic) == Ok(Publish::Free)
}

/// Writes the CONNACK and opens the session; what its filters were when it was here before, they are again.
pub(super) fn open<S, T>(
    door: Arc<Door<S>>,
    proven: Proven,
    peer: SocketAddr,
    reader: Reader<T>,
    mut writer: Writer<T>,
) -> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Proven { mut connect, admitted } = proven;
    let login = Login {
        client_id: connect.client_id.clone(),
        user_name: connect.user_name.take().unwrap_or_default(),
        proof: admitted.proof,
    };
    if admitted.identity.is_user() {
        // Its client id is free, and must not meet a device's: neither its connection nor its session.
        connect.client_id = admitted.identity.to_string();
    }
    // Entered first, so that an older connection of the client is over before its session is read.
    let client = Client {
        identity: admitted.identity,
        connection: door.clients.number(),
        peer,
        login: Arc::new(login),
    };
    let connection = door.clients.enter(client, Vec::new());
    let client = &connection.client;
    let kept = match connect.is_clean {
        true => None,
        false => door.service.session(&connect.client_id),
    };
    let is_present = kept.is_some();
    if !is_present {
        let fresh = (!connect.is_clean).then(Vec::new);
        door.service.save_session(&connect.client_id, fresh);
    }
    let mut held = Vec::new();
    for (filter, qos) in kept.unwrap_or_default().into_iter().take(door.settings.filters_max) {
        match judge(&door, client, &filter) {
            Ok(meaning) => held.push(Held { filter, meaning, qos: qos.min(1) }),
            Err(why) => {
                let (client, topic, why) = (Shown(&connect.client_id), Shown(&filter), Shown(&why));
                warn!(%client, %topic, %peer, "subscription of an earlier session refused: {why}");
            }
        }
    }
    info!(client = %connect.client_id, %peer, is_clean = connect.is_clean, filters = held.len(), "client connected");
    write_connack(&mut writer, connect.version, is_present, Reason::SUCCESS);
    for free in held.iter().filter(|held| held.meaning == Subscribe::Free) {
        door.table.subscribe(&free.filter, &connection, free.qos);
    }
    *connection.held() = held.clone();
    door.clients.changed();
    door.service.connected(client);
    for held in held {
        door.service.subscribed(client, &held.meaning);
    }
    let now = Instant::now();
    let silence_max =
        Some(Duration::from_millis(1_500) * u32::from(connect.keep_alive)).filter(|max| !max.is_zero());
    Session {
        stall_check_at: now + door.settings.write_timeout,
        door,
        connection,
        client_id: connect.client_id,
        is_clean: connect.is_clean,
        will: connect.will,
        reader,
        writer,
        pending: FuturesOrdered::new(),
        pending_bytes: 0,
        twin_turn: None,
        in_flight: HashMap::new(),
        last_id: 0,
        silence_max,
        ends_at: admitted.ends_at.map(from_now),
        last_read: now,
        written_at_check: None,
        has_logged_retain: false,
    }
}

/// What a filter means for this client, or why it may not have it.
pub(super) fn judge<S: Service>(door: &Door<S>, client: &Client, filter: &str) -> Result<Subscribe, String> {
    match parse_subscribe(filter) {
        Err(error) => Err(error.to_string()),
        Ok(Subscribe::Inbox { of }) if of != client.identity => Err("another identity's messages".to_owned()),
        Ok(Subscribe::Link) if !door.service.is_gateway(client) => Err("the link is for gateways".to_owned()),
        Ok(Subscribe::Free) if filter.split('/').count() > LEVELS_MAX => {
            Err(format!("more than {LEVELS_MAX} levels"))
        }
        Ok(meaning) => Ok(meaning),
    }
}
