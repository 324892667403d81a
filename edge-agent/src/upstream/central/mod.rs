//! The link to central: one MQTT connection over TLS, kept up for ever.
//!
//! ```text
//! away ── connected ──► told everything ──► in step ── connection lost ──► away (waits, longer each time)
//! ```
//!
//! [`connection`] is the machine of one connection; what goes over it is in the rooms beside it.
//!
//! Telemetry goes out from the queue's cursor in a window of unacknowledged messages; a message leaves the disk when
//! central has acknowledged it. Everything else that central must know (reported sections, who is connected, answers to
//! commands) is told whole on every new connection and again when it changes, and what queues have lost until central has it. What central tells (children, desired
//! sections, commands) is acknowledged when it is on this gateway's disk.

mod connection;
mod losses;
mod presence;
mod telemetry;
#[cfg(test)]
mod tests;
mod updates_in;
mod updates_out;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_core::access::sas;
use edge_core::backoff::Backoff;
use edge_core::error_chain::chain;
use edge_core::health::facts::LinkFailure;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use edge_hub::tasks::{Panicked, guard};
use mqtt::client::{self, ClientOptions, Proxy, Transport};
use mqtt::codec::packet::Version;
use schemas::connection_string::ConnectionString;
use schemas::generation::Generation;
use schemas::link::{GENERATIONS, Loss};
use schemas::names::Identity;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use crate::access::authorizer::Authorizer;
use crate::access::enrolments::Enrolments;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::clock::now_ms;
use crate::commands::Commands;
use crate::deployment::deployments::Deployments;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::messages::twins::Twins;
use crate::upstream::meter::Meter;
use crate::upstream::presence::PresenceChanges;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// As the Azure SDKs do.
const TOKEN_SECS: u64 = 3600;

/// Whether central can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub is_connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    pub why: String,
    /// What kind of reason that is; `None` while it is connected or was never tried.
    pub failure: Option<LinkFailure>,
}

impl LinkStatus {
    /// Connected from now on.
    pub fn connected() -> Self {
        Self { is_connected: true, since_ms: now_ms(), why: String::new(), failure: None }
    }

    /// Not connected, for this reason; since when this status says so, if it does.
    pub fn away(&self, why: String, failure: LinkFailure) -> Self {
        let is_new = self.is_connected || self.why.is_empty();
        let since_ms = if is_new { now_ms() } else { self.since_ms };
        Self { is_connected: false, since_ms, why, failure: Some(failure) }
    }
}

/// Who must act when a connection to upstream fails in this way.
pub fn link_failure(error: &client::ConnectError) -> LinkFailure {
    use mqtt::codec::reason::Reason;
    match error {
        client::ConnectError::Tls(_) => LinkFailure::Untrusted,
        client::ConnectError::Refused {
            reason: Reason::NOT_AUTHORIZED | Reason::BAD_USER_NAME_OR_PASSWORD | Reason::BANNED,
            ..
        } => LinkFailure::NotAuthorized,
        _ => LinkFailure::Unreachable,
    }
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
    #[error("central said nothing for {0:?}")]
    Silent(Duration),
    #[error("the queue cannot be read: {0}")]
    Queue(#[from] edge_buffer::ReadError),
    #[error("a message could not be set aside: {0}")]
    Quarantine(#[from] crate::messages::quarantine::QuarantineError),
    #[error("what central told could not be saved: {0}")]
    State(#[from] crate::state::StateError),
    #[error("central's list of devices: {0}")]
    Devices(#[from] edge_core::link::snapshot::OutOfOrder),
    #[error("what an identity left could not be removed: {0}")]
    Removal(#[from] crate::access::removals::RemovalError),
    #[error("a task of the daemon ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// The link and the rooms that it joins with central.
pub struct Uplink {
    /// Where central is, and as whom to speak.
    pub upstream: ConnectionString,
    /// A line that says nothing for so long is dead.
    pub keep_alive: Duration,
    /// How it is reached, and whom to trust.
    pub transport: Transport,
    /// What stands in between.
    pub proxy: Option<Proxy>,
    pub queues: Arc<Queues>,
    /// What central will not take.
    pub quarantine: Arc<Quarantine>,
    /// What the link may cost.
    pub meter: Meter,
    /// Desired and reported sections.
    pub twins: Twins,
    /// The leaf devices, and the authorizer of those that are connected.
    pub authorizer: Authorizer,
    pub deployments: Arc<Deployments>,
    pub commands: Commands,
    pub cloud_messages: CloudMessageStore,
    pub dispatcher: CloudMessageDispatcher<CloudMessageStore>,
    /// Devices that enrol themselves.
    pub enrolments: Enrolments,
    /// Who is connected here.
    pub clients: Clients,
    /// Who came or went.
    pub presence: PresenceChanges,
    /// Whether central can be reached.
    pub status: watch::Sender<LinkStatus>,
    /// Version of the link that central speaks, as it told on this connection or the one before.
    pub central_version: AtomicU32,
    /// central does not say which store it has.
    pub is_store_unnamed: AtomicBool,
}

impl Uplink {
    /// Returns true if central takes generations, which an older one would take for properties.
    fn takes_generations(&self) -> bool {
        self.central_version.load(Ordering::Relaxed) >= GENERATIONS
    }

    /// Which of the devices or modules of its name an identity is now, for a central that takes that.
    fn generation(&self, of: &Identity) -> Option<Generation> {
        self.takes_generations().then(|| self.authorizer.generation(of)).flatten()
    }

    /// Which of the devices of its name sent a message of a queue, for a central that takes that.
    fn generation_of(&self, queue: &Queue, sequence: u64, payload: &Bytes) -> Option<Generation> {
        if !self.takes_generations() {
            return None;
        }
        let sender = Identity::of_session(&crate::messages::record::sender(payload)?)?;
        let now = || self.authorizer.generation(&sender);
        self.authorizer.removals.generations().of(&sender, queue, sequence, now)
    }

    /// Which of the senders of its name a loss is of; the earliest, where it is of more than one.
    fn generation_of_loss(&self, name: &str, loss: &Loss) -> Option<Generation> {
        let sender = Identity::of_session(&loss.sender).filter(|_| self.takes_generations())?;
        let now = || self.authorizer.generation(&sender);
        let queues = self.queues.all();
        let log = name.split('.').next().unwrap_or_default();
        match queues.iter().find(|(_, queue)| queue.log.id().to_string() == log) {
            Some((_, queue)) => self.authorizer.removals.generations().of(&sender, queue, loss.first, now),
            // Of the quarantine, which tells it with the sender.
            None => loss.generation,
        }
    }

    /// Keeps the link up until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let ended = tokio::select! {
                // A panic may come from what central sent: it ends the connection, not the daemon.
                ended = guard("link", self.connection(&mut backoff, &stop)) => ended.unwrap_or_else(|e| Err(e.into())),
                () = stop.cancelled() => Ok(()),
            };
            self.enrolments.linked(false);
            let Err(why) = ended else { return };
            let wait = backoff.failed(rand::random());
            let before = self.status.borrow().clone();
            let is_news = before.is_connected || before.why.is_empty();
            if is_news {
                tracing::warn!(why = %chain(&why), ?wait, "central is away");
            } else {
                tracing::info!(why = %chain(&why), ?wait, "central is still away");
            }
            let failure = match &why {
                Ended::Connect(error) => link_failure(error),
                _ => LinkFailure::Unreachable,
            };
            self.status.send_replace(before.away(chain(&why).to_string(), failure));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn options(&self) -> ClientOptions {
        let hub = self.upstream.hub_name();
        let identity = self.upstream.identity();
        let port = self.upstream.port();
        let expires_at = now_ms() / 1000 + TOKEN_SECS;
        ClientOptions {
            host: hub.to_owned(),
            port: port.unwrap_or(self.transport.default_port()),
            transport: self.transport.clone(),
            proxy: self.proxy.clone(),
            // It says of each message why it is not taken.
            version: Version::V5,
            client_id: identity.to_string(),
            user_name: Some(format!("{hub}/{identity}/?api-version=2021-04-12")),
            password: Some(sas::token(hub, &identity, &self.upstream.shared_access_key, expires_at)),
            keep_alive: self.keep_alive,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// One connection from its start to its end; `Ok` when it was stopped.
    async fn connection(&self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), Ended> {
        let (sender, receiver) = client::connect(&self.options()).await?;
        tracing::info!(central = self.upstream.host_name, "central connected");
        self.status.send_replace(LinkStatus::connected());
        let begun = Instant::now();
        let mut connection = Connection::new(self, sender);
        let ended = connection.run(receiver, stop).await;
        connection.sum_up();
        backoff.lasted(begun.elapsed());
        ended
    }
}
