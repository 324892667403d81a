//! What the task of an AMQP connection owns. Each of the other files adds what it does with it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use amqp::codec::definitions::{AmqpError, MessageId};
use amqp::codec::performative::Attach;
use amqp::engine::connection::Connection as Engine;
use amqp::engine::event::{DeliveryId, LinkId};
use amqp::engine::settings::Settings;
use bytes::Bytes;
use edge_buffer::Fence;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use mqtt::codec::reason::Reason;
use schemas::names::Identity;
use tokio::time::Instant;

use super::window::Window;
use crate::clients::Connection;
use crate::connection_slots::ConnectionSlot;
use crate::mqtt_server::MqttServer;
use crate::quota::Used;
use crate::service::{Admitted, ConnectRequest, Login, Refusal, Rejected, Transport};
use crate::session::wire::{Reader, Writer};

/// Where a connection comes from.
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) transport: Transport,
}

pub(super) struct Driver<S, T> {
    pub(super) server: Arc<MqttServer<S>>,
    pub(super) caller: Caller,
    pub(super) slot: Arc<ConnectionSlot>,
    pub(super) engine: Engine,
    pub(super) reader: Reader<T>,
    pub(super) writer: Writer<T>,
    /// Links that were accepted.
    pub(super) links: BTreeMap<LinkId, Link>,
    /// Who the client has proven to be.
    pub(super) members: BTreeMap<Identity, Member>,
    pub(super) logins: Logins,
    pub(super) tokens: TokenAnswers,
    /// Messages that are being stored.
    pub(super) pending: FuturesUnordered<BoxFuture<'static, Stored>>,
    pub(super) pending_bytes: usize,
    /// Ends of attachments that somebody else closes.
    pub(super) closings: FuturesUnordered<BoxFuture<'static, Closing>>,
    /// Nothing is read until then: an identity is over a rate.
    pub(super) paused_until: Option<Instant>,
    /// While nothing is proven: a proof must have been shown by then.
    pub(super) deadline: Instant,
    /// When the first of the proofs is worth nothing any more.
    pub(super) expires_at: Option<Instant>,
    pub(super) stall_check_at: Instant,
    /// Bytes written at the last check, when more was waiting.
    pub(super) written_at_check: Option<u64>,
    /// Why the connection ends, once it does.
    pub(super) end: Option<End>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) struct End {
    pub(super) why: String,
    /// What the client is sent, unless it has closed or is gone.
    pub(super) error: Option<AmqpError>,
}

/// A link that was accepted.
#[derive(Debug)]
pub(super) enum Link {
    /// The client sends tokens.
    TokenRequests(Window),
    /// The client receives the answers.
    TokenAnswers,
    /// The client sends telemetry of an identity.
    Telemetry { from: Identity, window: Window },
}

/// An identity that the client has proven.
pub(super) struct Member {
    pub(super) login: Arc<Login>,
    /// When the proof is worth nothing any more.
    pub(super) ends_at: Option<Instant>,
    /// While it has links.
    pub(super) attachment: Option<Attachment>,
}

/// An identity with links: what an MQTT connection is for it.
pub(super) struct Attachment {
    pub(super) connection: Arc<Connection>,
    pub(super) links: usize,
    /// Set when a message was not stored: nothing further of the identity is taken in, and its links are detached.
    pub(super) fence: Fence,
    /// When there was no space for a message, and that was logged.
    pub(super) full_since: Option<Instant>,
    /// Its share of connections.
    pub(super) _held: Used,
}

/// An attachment that somebody else closes: its identity and number, and why; `None` when the server stops.
pub(super) struct Closing {
    pub(super) identity: Identity,
    pub(super) number: u64,
    pub(super) why: Option<(String, Reason)>,
}

/// A delivery of telemetry whose fate is known.
pub(super) struct Stored {
    pub(super) delivery: DeliveryId,
    /// The client awaits no outcome.
    pub(super) is_settled: bool,
    pub(super) from: Identity,
    /// Number of the attachment.
    pub(super) number: u64,
    pub(super) result: Result<(), Rejected>,
    /// What it held in memory.
    pub(super) bytes: usize,
}

/// Logins of the connection, one at a time.
#[derive(Default)]
pub(super) struct Logins {
    pub(super) waiting: VecDeque<LoginAttempt>,
    pub(super) running: Option<BoxFuture<'static, LoginDone>>,
}

pub(super) struct LoginAttempt {
    pub(super) request: ConnectRequest,
    pub(super) purpose: LoginPurpose,
}

/// What awaits the result of a login.
pub(super) enum LoginPurpose {
    /// SASL PLAIN.
    Sasl,
    /// A token to `$cbs`.
    Token { requests: LinkId, message_id: Option<MessageId> },
    /// A link of an identity that the client certificate may prove.
    Attach { link: LinkId, attach: Box<Attach>, from: Identity },
}

pub(super) struct LoginDone {
    pub(super) attempt: LoginAttempt,
    pub(super) result: Result<Admitted, Refusal>,
}

/// Answers to token requests.
#[derive(Debug, Default)]
pub(super) struct TokenAnswers {
    /// The newest link that takes them.
    pub(super) link: Option<LinkId>,
    /// Those that wait for credit, each with the link of its request.
    pub(super) waiting: VecDeque<(LinkId, Bytes)>,
    /// For tags that differ.
    pub(super) sent: u128,
}

impl<S, T> Driver<S, T> {
    pub(super) fn new(
        server: Arc<MqttServer<S>>,
        engine: Arc<Settings>,
        caller: Caller,
        slot: Arc<ConnectionSlot>,
        (reader, writer): (Reader<T>, Writer<T>),
        deadline: Instant,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine: Engine::new(engine, now.into_std()),
            stall_check_at: now + server.settings.write_timeout,
            server,
            caller,
            slot,
            reader,
            writer,
            links: BTreeMap::new(),
            members: BTreeMap::new(),
            logins: Logins::default(),
            tokens: TokenAnswers::default(),
            pending: FuturesUnordered::new(),
            pending_bytes: 0,
            closings: FuturesUnordered::new(),
            paused_until: None,
            deadline,
            expires_at: None,
            written_at_check: None,
            end: None,
        }
    }
}
