//! What the task of a connection owns. Each of the other files adds what it does with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_buffer::Fence;
use mqtt::codec::packet::Version;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::gate::Gate;
use super::pending::{PendingQueue, Request};
use super::rate::Rates;
use super::wire::{Reader, Writer};
use crate::broker::will::Will;
use crate::clients::Connection;
use crate::mqtt_server::MqttServer;
use crate::quota::Used;
use crate::table::Route;

pub(super) struct Session<S, T> {
    pub(super) server: Arc<MqttServer<S>>,
    pub(super) connection: Arc<Connection>,
    /// What the client said of itself.
    pub(super) peer: Peer,
    pub(super) will: Option<Arc<Will>>,
    pub(super) reader: Reader<T>,
    pub(super) writer: Writer<T>,
    /// Messages that were taken in and are not answered yet, in the order of arrival.
    pub(super) pending: PendingQueue,
    pub(super) pending_bytes: usize,
    /// Set when one of them was not stored: nothing further is taken in, and the connection ends.
    pub(super) fence: Option<Fence>,
    /// What is answered when the journal has it.
    pub(super) requests: VecDeque<Request>,
    /// QoS 1 and 2 messages of the client that are not acknowledged to it yet.
    pub(super) unanswered: usize,
    /// SUBSCRIBEs that wait for their SUBACK. Nothing is taken from the queue meanwhile.
    pub(super) subscribing: usize,
    /// Twin requests run one after the other: the next one waits for this.
    pub(super) twin_turn: Option<oneshot::Receiver<()>>,
    /// Messages whose packet ids must be on disk before they are sent.
    pub(super) gate: Option<Box<Gate>>,
    /// Who receives on the topics that the client publishes to: few, so that comparing is faster than hashing.
    pub(super) routes: BTreeMap<Bytes, Arc<Route>>,
    /// Topic aliases of the client.
    pub(super) aliases: BTreeMap<u16, Alias>,
    /// The client is closed when it is silent for so long.
    pub(super) silence_max: Option<Duration>,
    /// How much more the client may send.
    pub(super) rates: Rates,
    /// When its proof is worth nothing any more.
    pub(super) ends_at: Option<Instant>,
    pub(super) last_read: Instant,
    pub(super) stall_check_at: Instant,
    /// Bytes written at the last check, when more was waiting.
    pub(super) written_at_check: Option<u64>,
    /// When there was no space for a message of the client, and that was logged.
    pub(super) full_since: Option<Instant>,
    /// Its identity's share of connections.
    pub(super) _held: Option<Used>,
}

/// What an alias holds in memory beside its topic, about.
pub(super) const ALIAS_OVERHEAD_BYTES: usize = 64;

/// The topic of an alias, and its share of what the identity's aliases may take.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) topic: Bytes,
    pub(super) share: Used,
}

impl<S, T> Session<S, T> {
    /// A session that has received nothing yet: without a will, a limit of silence, or an end of its proof.
    pub(super) fn new(
        server: Arc<MqttServer<S>>,
        connection: Arc<Connection>,
        peer: Peer,
        reader: Reader<T>,
        writer: Writer<T>,
    ) -> Self {
        let now = Instant::now();
        Self {
            stall_check_at: now + server.settings.write_timeout,
            server,
            connection,
            peer,
            will: None,
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
            silence_max: None,
            rates: Rates::default(),
            ends_at: None,
            last_read: now,
            written_at_check: None,
            full_since: None,
            _held: None,
        }
    }
}

/// What a client said of itself in its CONNECT.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) version: Version,
    /// Whether it is a bridge of mosquitto, by its protocol level.
    pub(super) is_bridge: bool,
    /// How long its session outlives the connection, in seconds.
    pub(super) expiry_s: u32,
    /// QoS 1 and 2 messages that it takes at once.
    pub(super) window: usize,
    /// Bytes of the largest packet that it takes.
    pub(super) packet_bytes_max: usize,
    /// Whether reason strings may be sent in any packet.
    pub(super) wants_reasons: bool,
}
