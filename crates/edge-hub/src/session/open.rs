//! Opens the connection of a client that has proven itself: its session, its subscriptions, CONNACK.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemas::names::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connect::{FIXED_HEADER_BYTES_MAX, Proven};
use super::pending::PendingQueue;
use super::publish::{passed_on, receive_max};
use super::rate::Rates;
use super::state::{Peer, Session};
use super::subscribe::meaning_of;
use super::wire::{Reader, Writer};
use crate::bridge_state;
use crate::broker::presence::Arrival;
use crate::broker::will::Will;
use crate::clock;
use crate::close_handle::CloseHandle;
use crate::counts::count;
use crate::message::{FOR_EVER, Message};
use crate::mqtt_server::MqttServer;
use crate::sanitized::Sanitized;
use crate::service::{Client, Service};
use mqtt::codec::packet::{self, ConnAck, ConnAckProperties, Connect, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use mqtt::codec::write;

/// Writes the CONNACK and opens the connection: the client has its session, old or new.
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
    let Proven { connect, is_assigned, admitted, login, held: connection_held } = proven;
    let Connect { version, client_id, is_clean, is_bridge, keep_alive, will, properties, .. } = connect;
    // Nothing of a device that enrols itself outlives its connection: it may not even be proven yet.
    let is_enrolling = admitted.identity.registration_id().is_some();
    let (is_clean, will) = (is_clean || is_enrolling, will.filter(|_| !is_enrolling));
    let assigned_client_id = is_assigned.then(|| Text::from(&*client_id));
    let client_id = if admitted.identity.is_local() {
        // Its client id must not meet a device's: neither its connection nor its session.
        admitted.identity.to_string()
    } else {
        client_id
    };
    let asked_expiry_s = match version {
        Version::V4 if is_clean => 0,
        Version::V4 => FOR_EVER,
        Version::V5 if is_enrolling => 0,
        Version::V5 => properties.session_expiry.unwrap_or(0),
    };
    let will = will.map(|will| Box::new(will_of(will, &admitted.identity)));
    let number = || server.clients.number();
    let close = Arc::new(CloseHandle::new(stop));
    let arrival = Arrival {
        client_id: &client_id,
        is_clean,
        expiry_s: asked_expiry_s,
        will: will.as_deref(),
        close: close.clone(),
    };
    let entered = server.broker.enter(number, arrival);
    let client = Client { identity: admitted.identity, connection: entered.connection, peer, login };
    let connection = server.clients.enter(client, version, entered.session_queue.clone(), close);
    // What the session's filters mean, and whether the client may still have them, is authenticated anew; those that it may not
    // have are dropped before anybody is closed for holding one. Who may not stay is closed, and its session stays as it is.
    let rights = connection.authorize(|identity, login| server.service.authorize(identity, login));
    // Who was deleted between its proof and now leaves no session behind that the next client of its name would find.
    let outlives_s = if rights.is_none() && !entered.is_present { 0 } else { entered.expiry_s };
    let client = &connection.client;

    let held = if rights.is_some() { connection.session_queue.held().clone() } else { Vec::new() };
    let mut granted = Vec::new();
    for held in held {
        match meaning_of(&server, &connection, &held.filter) {
            Ok(meaning) => granted.push(meaning),
            Err((_, why)) => {
                let (client, topic, why) = (Sanitized(&client_id), Sanitized(&held.filter), Sanitized(&why));
                warn!(%client, %topic, %peer, "subscription of an earlier connection refused: {why}");
                if let Some(Some(stored)) = server.broker.unsubscribe(&connection.session_queue, &held.filter)
                {
                    stored.unawaited();
                }
            }
        }
    }
    if let Some(rights) = rights {
        // What waits was queued for filters that it may have had then.
        let may_read = |topic: &str| bridge_state::is_kept(topic) || rights.may_subscribe(topic);
        server.broker.take_back(&connection.session_queue, may_read);
    }
    let is_present = entered.is_present;
    let session_expiry_s = entered.expiry_s;
    info!(client = %Sanitized(&client_id), %peer, version = ?version, is_present, session_expiry_s, filters = granted.len(), "client connected");
    reader.version = version;
    let settings = &server.settings;
    let properties_out = match version {
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
    let connack =
        ConnAck { is_session_present: is_present, reason: Reason::SUCCESS, properties: properties_out };
    write::connack(&mut writer.out, version, &connack);

    server.clients.changed();
    count(&server.broker.counts.connects);
    server.service.connected(client);
    for meaning in granted {
        server.service.subscribed(client, &meaning);
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
        stall_check_at: now + server.settings.write_timeout,
        server,
        connection,
        peer,
        will,
        reader,
        writer,
        pending: PendingQueue::default(),
        pending_bytes: 0,
        fence: None,
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
    Instant::now() + Duration::from_secs(unix_secs).saturating_sub(clock::since_epoch()).min(FAR)
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
