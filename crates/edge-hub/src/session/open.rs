//! Opens the connection of a client that has proven its identity: its session, its subscriptions, CONNACK.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_core::access::authorization::Rights;
use edge_core::dialect::client::Subscribe;
use schemas::names::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connect::{FIXED_HEADER_BYTES_MAX, Proven};
use super::publish::receive_max;
use super::state::{Peer, Session};
use super::subscribe::meaning_of;
use super::wire::{Reader, Writer};
use crate::bridge_state;
use crate::broker::presence::{Arrival, Entered};
use crate::clients::Connection;
use crate::close_handle::CloseHandle;
use crate::counts::count;
use crate::login::from_now;
use crate::message::FOR_EVER;
use crate::mqtt_server::MqttServer;
use crate::sanitized::Sanitized;
use crate::service::{Client, Service};
use crate::settings::MqttServerSettings;
use mqtt::codec::packet::{ConnAck, ConnAckProperties, Connect, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use mqtt::codec::write;

/// What a CONNECT asks for that concerns the session, within what the client's identity may have.
struct Requested {
    client_id: String,
    /// The client id that CONNACK names, if the client sent none.
    assigned_client_id: Option<Text>,
    is_clean: bool,
    /// Seconds that the session shall outlive the connection.
    expiry_s: u32,
}

impl Requested {
    fn new(connect: &mut Connect, is_assigned: bool, identity: &Identity) -> Self {
        // Nothing of a device that enrols itself outlives its connection: it may not even have proven its identity yet.
        let is_enrolling = identity.registration_id().is_some();
        let is_clean = connect.is_clean || is_enrolling;
        let client_id = std::mem::take(&mut connect.client_id);
        Self {
            assigned_client_id: is_assigned.then(|| Text::from(&*client_id)),
            // A local user chooses its client id, which must reach neither the connection nor the session of a device.
            client_id: if identity.is_local() { identity.to_string() } else { client_id },
            is_clean,
            expiry_s: match connect.version {
                Version::V4 if is_clean => 0,
                Version::V4 => FOR_EVER,
                Version::V5 if is_enrolling => 0,
                Version::V5 => connect.properties.session_expiry.unwrap_or(0),
            },
        }
    }
}

/// Opens the connection of a client with its session, old or new, and writes CONNACK.
pub(super) fn open<S, T>(
    server: Arc<MqttServer<S>>,
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
    let Proven { mut connect, is_assigned, admitted, login, held, will } = proven;
    let requested = Requested::new(&mut connect, is_assigned, &admitted.identity);
    let close = Arc::new(CloseHandle::new(stop));
    let arrival = Arrival {
        client_id: &requested.client_id,
        is_clean: requested.is_clean,
        expiry_s: requested.expiry_s,
        will: will.as_ref(),
        close: close.clone(),
    };
    // From here on an older connection of this client id has lost the session and is being closed.
    let entered = server.broker.enter(|| server.clients.number(), arrival);
    let client = Client { identity: admitted.identity, connection: entered.connection, peer, login };
    let connection = server.clients.enter(client, connect.version, entered.session_queue.clone(), close);
    // Rights may have changed since the client proved its identity. The connection is among those that a review checks by now, so no
    // change falls between the two.
    let rights = connection.authorize(|identity, login| server.service.authorize(identity, login));
    // A client that was deleted since then leaves no session behind that the next client of its name would find.
    let outlives_s = if rights.is_none() && !entered.is_present { 0 } else { entered.expiry_s };
    let granted = restore_subscriptions(&server, &connection, rights.as_deref());
    let (client, version) = (Sanitized(&requested.client_id), connect.version);
    let (is_present, session_expiry_s, filters) = (entered.is_present, entered.expiry_s, granted.len());
    info!(%client, %peer, ?version, is_present, session_expiry_s, filters, "client connected");
    reader.version = version;
    let connack = connack(&server.settings, version, &requested, &entered);
    write::connack(&mut writer.out, version, &connack);

    server.clients.changed();
    count(&server.broker.counts.connects);
    server.service.connected(&connection.client);
    for meaning in granted {
        server.service.subscribed(&connection.client, &meaning);
    }
    let peer = Peer { expiry_s: outlives_s, ..peer_of(&connect, server.settings.in_flight_max) };
    // MQTT-3.1.2-22 (3.1.1): one and a half times the keep-alive; 0 turns it off.
    let silence_max = Duration::from_millis(1_500) * u32::from(connect.keep_alive);
    Session {
        will,
        silence_max: Some(silence_max).filter(|max| !max.is_zero()),
        ends_at: admitted.ends_at.map(from_now),
        _held: held,
        ..Session::new(server, connection, peer, reader, writer)
    }
}

/// Authorizes the filters and the queued messages that a resumed session holds. What the client may not have any more is removed, before a
/// review closes the client for holding it. Returns the meaning of each filter that stays. The session of a client without any rights is
/// left as it is: the client is being closed.
fn restore_subscriptions<S: Service>(
    server: &MqttServer<S>,
    connection: &Connection,
    rights: Option<&Rights>,
) -> Vec<Subscribe> {
    let Some(rights) = rights else { return Vec::new() };
    let session_queue = &connection.session_queue;
    let held = session_queue.held().clone();
    let mut granted = Vec::new();
    for held in held {
        match meaning_of(server, connection, &held.filter) {
            Ok(meaning) => granted.push(meaning),
            Err((_, why)) => {
                let (client, peer) = (Sanitized(&session_queue.client_id), connection.client.peer);
                let (topic, why) = (Sanitized(&held.filter), Sanitized(&why));
                warn!(%client, %topic, %peer, "subscription of an earlier connection refused: {why}");
                if let Some(Some(stored)) = server.broker.unsubscribe(session_queue, &held.filter) {
                    // No answer depends on it, so nothing waits for the disk.
                    stored.unawaited();
                }
            }
        }
    }
    // Messages were queued by the rights of that time.
    server
        .broker
        .take_back(session_queue, |topic| bridge_state::is_kept(topic) || rights.may_subscribe(topic));
    granted
}

fn connack(
    settings: &MqttServerSettings,
    version: Version,
    requested: &Requested,
    entered: &Entered,
) -> ConnAck {
    let properties = match version {
        Version::V4 => ConnAckProperties::default(),
        Version::V5 => ConnAckProperties {
            // MQTT 5, 3.2.2.3.2: named only if it is not the one that the client asked for.
            session_expiry: (entered.expiry_s != requested.expiry_s).then_some(entered.expiry_s),
            receive_max: Some(receive_max(settings)),
            packet_bytes_max: u32::try_from(settings.packet_bytes_max + FIXED_HEADER_BYTES_MAX).ok(),
            topic_alias_max: Some(settings.topic_aliases_max),
            assigned_client_id: requested.assigned_client_id.clone(),
            ..ConnAckProperties::default()
        },
    };
    ConnAck { is_session_present: entered.is_present, reason: Reason::SUCCESS, properties }
}

/// What the client said of itself in CONNECT.
fn peer_of(connect: &Connect, in_flight_max: usize) -> Peer {
    let properties = &connect.properties;
    Peer {
        version: connect.version,
        is_bridge: connect.is_bridge,
        expiry_s: 0,
        window: in_flight_max.min(properties.receive_max.map_or(usize::MAX, usize::from)),
        packet_bytes_max: properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
        wants_reasons: properties.wants_problem_information,
    }
}
