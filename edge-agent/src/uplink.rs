//! The link to central: one MQTT connection over TLS, kept up for ever.
//!
//! ```text
//! away ── connected ──► told everything ──► in step ── connection lost ──► away (waits, longer each time)
//! ```
//!
//! Telemetry goes out from the queue's cursor in a window of unacknowledged messages; a message leaves the disk when
//! central has acknowledged it. Everything else that central must know (reported sections, who is connected, answers to
//! commands) is told whole on every new connection and again when it changes. What central tells (children, desired
//! sections, commands) is acknowledged when it is on this gateway's disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_core::access::sas;
use edge_core::backoff::Backoff;
use edge_core::dialect::link::{LinkDown, LinkUp};
use edge_core::link::window::Windows;
use edge_hub::client::{self, ClientOptions, Incoming, Receiver, Sender};
use edge_hub::clients::Clients;
use edge_hub::postman::Postman;
use futures_util::FutureExt as _;
use schemas::bag::system;
use schemas::cloud_message::CloudMessage;
use schemas::connection_string::ConnectionString;
use schemas::link::{Children, ClientPresence, Presence, Purges};
use schemas::method::MethodRequest;
use schemas::names::{DeviceId, Identity};
use schemas::provisioning::EnrolmentAnswer;
use schemas::twin::Section;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::commands::Commands;
use crate::deployments::Deployments;
use crate::enrolments::Enrolments;
use crate::mailbox::Mailbox;
use crate::queues::Queues;
use crate::queues::place::Queue;
use crate::record;
use crate::standing::Standing;
use crate::twins::Twins;

/// Telemetry in flight. At 100 ms to central it allows 10,000 messages per second.
const WINDOW: usize = 1000;
/// Messages that go into one write.
const BATCH: usize = 128;
/// Other messages in flight.
const OTHERS_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A write that central does not take for so long means that the line is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// As the Azure SDKs do.
const TOKEN_SECS: u64 = 3600;

/// Whether central can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Now.
    pub is_connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why not.
    pub why: String,
}

/// Why a connection ended. Each of them leads to the next attempt.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("could not connect: {0}")]
    Connect(#[from] client::ConnectError),
    #[error("connection lost: {0}")]
    Receive(#[from] client::ReceiveError),
    #[error("connection lost while writing: {0}")]
    Write(#[from] std::io::Error),
    #[error("central took nothing for {WRITE_TIMEOUT:?}")]
    Stalled,
    #[error("central said nothing for {0:?}")]
    Silent(Duration),
    #[error("the queue cannot be read: {0}")]
    Queue(#[from] edge_buffer::ReadError),
    #[error("what central told could not be saved: {0}")]
    State(#[from] crate::state::StateError),
    #[error("a task of the daemon ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What travels beside telemetry, by packet id.
enum Other {
    Told,
    Presence,
    Answer(String),
    Settled((DeviceId, u64)),
}

/// The link and the rooms that it joins with central.
pub struct Uplink {
    /// Where central is, and as whom to speak.
    pub upstream: ConnectionString,
    /// Whom to trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// The telemetry.
    pub queues: Arc<Queues>,
    /// Desired and reported sections.
    pub twins: Twins,
    /// The leaf devices, and the standing of those that are connected.
    pub standing: Standing,
    /// The deployment.
    pub deployments: Arc<Deployments>,
    /// The commands.
    pub commands: Commands,
    /// Cloud-to-device messages.
    pub mailbox: Mailbox,
    /// Who brings them.
    pub postman: Postman<Mailbox>,
    /// Devices that enrol themselves.
    pub enrolments: Enrolments,
    /// Who is connected here.
    pub clients: Clients,
    /// Told when somebody came or went.
    pub presence: Arc<Notify>,
    /// Whether central can be reached.
    pub status: watch::Sender<LinkStatus>,
}

impl Uplink {
    /// Keeps the link up until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let ended = tokio::select! {
                ended = self.connection(&mut backoff, &stop) => ended,
                () = stop.cancelled() => Ok(()),
            };
            self.enrolments.linked(false);
            let Err(why) = ended else { return };
            let wait = backoff.failed(rand::random());
            let before = self.status.borrow().clone();
            let is_news = before.is_connected || before.why.is_empty();
            if is_news {
                tracing::warn!(%why, ?wait, "central is away");
            } else {
                tracing::info!(%why, ?wait, "central is still away");
            }
            let since_ms = if is_news { now_ms() } else { before.since_ms };
            self.status.send_replace(LinkStatus { is_connected: false, since_ms, why: why.to_string() });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn options(&self) -> ClientOptions {
        let hub = self.upstream.hub_name();
        let identity = self.upstream.identity();
        let port = self.upstream.host_name.split_once(':').and_then(|(_, port)| port.parse().ok());
        let expires_at = now_ms() / 1000 + TOKEN_SECS;
        ClientOptions {
            host: hub.to_owned(),
            port: port.unwrap_or(8883),
            tls: self.tls.clone(),
            client_id: identity.to_string(),
            user_name: format!("{hub}/{identity}/?api-version=2021-04-12"),
            password: sas::token(hub, &identity, &self.upstream.shared_access_key, expires_at),
            keep_alive: KEEP_ALIVE,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// One connection from its start to its end; `Ok` when it was stopped.
    async fn connection(&self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), Ended> {
        let (sender, receiver) = client::connect(&self.options()).await?;
        backoff.succeeded();
        tracing::info!(central = self.upstream.host_name, "central connected");
        self.status.send_replace(LinkStatus { is_connected: true, since_ms: now_ms(), why: String::new() });
        let connection = Connection {
            link: self,
            sender,
            window: Windows::new(WINDOW),
            queues: HashMap::new(),
            others: HashMap::new(),
            is_presence_in_flight: false,
            is_presence_due: true,
        };
        connection.run(receiver, stop).await
    }
}

struct Connection<'a> {
    link: &'a Uplink,
    sender: Sender,
    window: Windows,
    /// The queues with something in the window.
    queues: HashMap<u64, Arc<Queue>>,
    others: HashMap<u16, Other>,
    is_presence_in_flight: bool,
    is_presence_due: bool,
}

impl Connection<'_> {
    async fn run(mut self, mut receiver: Receiver, stop: &CancellationToken) -> Result<(), Ended> {
        let link = self.link;
        self.sender.subscribe(schemas::topics::LINK);
        link.twins.all_unsent();
        link.commands.all_unsent();
        link.mailbox.all_unsent();
        link.enrolments.linked(true);
        let mut reader = link.queues.upstream().reader();
        let mut ping = tokio::time::interval_at(Instant::now() + KEEP_ALIVE / 2, KEEP_ALIVE / 2);
        let mut heard = Instant::now();
        loop {
            self.tell();
            match tokio::time::timeout(WRITE_TIMEOUT, self.sender.flush()).await {
                Ok(written) => written?,
                Err(_) => return Err(Ended::Stalled),
            }
            let has_room = self.others.len() < OTHERS_MAX;
            tokio::select! {
                () = stop.cancelled() => {
                    self.sender.disconnect();
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.sender.flush()).await;
                    return Ok(());
                }
                incoming = receiver.next() => {
                    heard = Instant::now();
                    self.hear(incoming?).await?;
                    // What came in the same read is heard before anything is written.
                    while let Some(incoming) = receiver.next().now_or_never() {
                        self.hear(incoming?).await?;
                    }
                }
                next = reader.next(), if self.window.free() > 0 => {
                    let (queue, next) = next?;
                    self.send(&queue, next);
                    for _ in 1..BATCH.min(self.window.free() + 1) {
                        let Some(next) = reader.next().now_or_never() else { break };
                        let (queue, next) = next?;
                        self.send(&queue, next);
                    }
                }
                // Each of these has left its work in its room: `tell` takes it up.
                () = link.twins.has_unsent(), if has_room => {}
                () = link.commands.has_unsent(), if has_room => {}
                () = link.mailbox.has_unsent(), if has_room => {}
                () = link.enrolments.has_unsent(), if has_room => {}
                () = link.presence.notified() => self.is_presence_due = true,
                _ = ping.tick() => {
                    if heard.elapsed() > KEEP_ALIVE * 2 {
                        return Err(Ended::Silent(heard.elapsed()));
                    }
                    self.sender.ping();
                }
            }
        }
    }

    /// Writes one queued message, with what makes it known again at central.
    fn send(&mut self, queue: &Arc<Queue>, queued: edge_buffer::Record) {
        let sequence = queued.sequence;
        let Some((topic, body)) = record::decode(&queued.payload) else {
            // Nothing else will ever read it either.
            tracing::error!(sequence, "a queued message could not be read and was skipped");
            queue.log.advance(sequence);
            return;
        };
        let joint = if topic.ends_with('/') { "" } else { "&" };
        let key = |name: &'static str| name.replace('$', "%24");
        let topic = format!(
            "{topic}{joint}{}={}&{}={sequence}&{}={}",
            key(system::LINESIDE_QUEUE),
            queue.log.id(),
            key(system::LINESIDE_SEQUENCE),
            key(system::LINESIDE_ENQUEUED_MS),
            queued.enqueued_ms,
        );
        let packet_id = self.sender.publish(&topic, &body);
        self.window.sent(packet_id, queue.key, sequence);
        self.queues.entry(queue.key).or_insert_with(|| queue.clone());
    }

    /// Writes what central does not know yet, as far as there is room.
    fn tell(&mut self) {
        while self.others.len() < OTHERS_MAX {
            let (topic, payload, other) = if self.is_presence_due && !self.is_presence_in_flight {
                self.is_presence_due = false;
                self.is_presence_in_flight = true;
                (LinkUp::Presence, to_json(&self.presence()), Other::Presence)
            } else if let Some((id, answer)) = self.link.commands.next_unsent() {
                (LinkUp::Answer { command_id: id.clone() }, to_json(&answer), Other::Answer(id))
            } else if let Some((request_id, enrolment)) = self.link.enrolments.next_unsent() {
                (LinkUp::Enrol { request_id }, to_json(&enrolment), Other::Told)
            } else if let Some((of, settlement)) = self.link.mailbox.next_unsent() {
                let operation = LinkUp::Settled { device: of.0.clone(), sequence: of.1 };
                (operation, to_json(&settlement), Other::Settled(of))
            } else if let Some((identity, section)) = self.link.twins.next_unsent() {
                (LinkUp::Reported(identity), to_json(&section), Other::Told)
            } else {
                break;
            };
            let packet_id = self.sender.publish(&topic.to_string(), &payload);
            self.others.insert(packet_id, other);
        }
    }

    fn presence(&self) -> Presence {
        // central knows nothing of clients that only this gateway knows.
        let clients = self.link.clients.connected().into_iter().filter(|(identity, _)| !identity.is_local());
        Presence {
            is_complete: true,
            clients: clients
                .map(|(identity, since_ms)| ClientPresence { identity, is_connected: true, since_ms })
                .collect(),
        }
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<(), Ended> {
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                self.sender.acknowledged(packet_id);
                match self.others.remove(&packet_id) {
                    Some(Other::Told) => {}
                    Some(Other::Presence) => self.is_presence_in_flight = false,
                    Some(Other::Answer(id)) => self.link.commands.acknowledged(&id),
                    Some(Other::Settled(of)) => self.link.mailbox.acknowledged(&of),
                    None => {
                        if let Some((key, sequence)) = self.window.acknowledged(packet_id)
                            && let Some(queue) = self.queues.get(&key)
                        {
                            queue.log.advance(sequence);
                        }
                    }
                }
            }
            Incoming::Subscribed(_) | Incoming::Pong => {}
            Incoming::Message { topic, payload, packet_id } => {
                self.link.told(&topic, &payload).await?;
                if let Some(packet_id) = packet_id {
                    self.sender.acknowledge(packet_id);
                }
            }
        }
        Ok(())
    }
}

impl Uplink {
    /// Takes what central tells; `Ok` when it is on disk, or can never be taken.
    async fn told(&self, topic: &str, payload: &Bytes) -> Result<(), Ended> {
        match LinkDown::parse(topic) {
            Some(LinkDown::Children) => {
                let Some(list) = from_json::<Children>(topic, payload) else { return Ok(()) };
                let saved = self.standing.devices.told(list);
                // At once: the disk may be slow, and who was blocked must not wait for it.
                self.standing.review();
                saved.durable().await?;
                self.mailbox.keep_only(|device| self.standing.devices.get(device).is_some());
            }
            Some(LinkDown::Desired(identity)) => {
                let Some(section) = from_json::<Section>(topic, payload) else { return Ok(()) };
                self.desired(identity, section).await?;
            }
            Some(LinkDown::Command { command_id, target }) => {
                let Some(request) = from_json::<MethodRequest>(topic, payload) else { return Ok(()) };
                self.commands.take(command_id, target, request).await?;
            }
            Some(LinkDown::Message { device, sequence }) => {
                let Some(message) = from_json::<CloudMessage>(topic, payload) else { return Ok(()) };
                self.mailbox.take(&device, sequence, message).await?;
                self.postman.wake(&device);
            }
            Some(LinkDown::Enrolled { request_id }) => {
                if let Some(answer) = from_json::<EnrolmentAnswer>(topic, payload) {
                    self.enrolments.answered(&request_id, answer);
                }
            }
            Some(LinkDown::Purges) => {
                if let Some(purges) = from_json::<Purges>(topic, payload) {
                    self.mailbox.purge(&purges);
                }
            }
            None => tracing::warn!(topic, "central said something that this version does not know"),
        }
        Ok(())
    }

    async fn desired(&self, identity: Identity, section: Section) -> Result<(), Ended> {
        let (change, saved) = self.twins.desired_from_central(&identity, section);
        if let Some(saved) = saved {
            saved.durable().await?;
        }
        let Some(change) = change else { return Ok(()) };
        if self.is_own_system_module(&identity) {
            let deployments = self.deployments.clone();
            tokio::task::spawn_blocking(move || deployments.consider()).await?;
        } else {
            self.clients.send_desired(&identity, change.version, &change.patch);
        }
        Ok(())
    }

    fn is_own_system_module(&self, identity: &Identity) -> bool {
        let gateway: &DeviceId = &self.upstream.device_id;
        identity.device == *gateway
            && identity.module.as_ref().is_some_and(schemas::names::ModuleId::is_system)
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("words of the link have a JSON form")
}

/// `None`, and a line in the log, for what can never be read: it is acknowledged, or central would send it for ever.
fn from_json<T: serde::de::DeserializeOwned>(topic: &str, payload: &Bytes) -> Option<T> {
    serde_json::from_slice(payload)
        .map_err(|error| tracing::error!(topic, %error, "what central told could not be read"))
        .ok()
}
