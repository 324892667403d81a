//! Keeps one identity connected to an upstream until the stop: connects, tells whether it is connected, and waits longer after each
//! failure.
//!
//! ```text
//! needed ──► connecting ──► connected ──► lost ──► waiting ──► needed …
//!                │                                    ▲
//!                └────────────── failed ──────────────┘
//! ```

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use edge_core::backoff::Backoff;
use edge_core::error_chain::chain;
use edge_core::health::facts::LinkFailure;
use edge_hub::tasks::guard;
use mqtt::client::{self, ClientOptions, ConnectError};
use schemas::names::Identity;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, ConnectionError, Outcome};
use super::meter::Meter;
use super::status::{LinkStatus, link_failure};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a connection may take to end after the stop. What it awaits may be a disk that does not answer.
const STOPPING_MAX: Duration = Duration::from_secs(5);

/// What differs between upstreams, over all the connections of one identity.
pub(super) trait Upstream: Send {
    /// Why the gateway itself ends a connection that works.
    type End: Error + Send + 'static;

    /// Waits until a connection is needed; false when none will be.
    fn needed(&mut self) -> impl Future<Output = bool> + Send;

    /// Where and as whom to connect, made anew for each attempt: tokens expire.
    ///
    /// # Errors
    /// Why there is nothing to log in with.
    fn options(&self) -> Result<ClientOptions, ConnectError>;

    /// Carries what there is until the connection ends.
    fn carry(
        &mut self,
        connection: Connection,
        stop: &CancellationToken,
    ) -> impl Future<Output = Outcome<Self::End>> + Send;

    /// Takes note of why a connection ended or did not begin, and tells when the next attempt follows.
    fn ended(&mut self, why: &ConnectionError<Self::End>) -> Retry;
}

/// When the next connection is attempted.
pub(super) enum Retry {
    /// As soon as it is needed: nothing was wrong.
    AtOnce,
    /// After a wait that grows with each failure, up to `at_most`.
    Later { at_most: Duration },
}

impl Retry {
    /// The usual wait.
    pub(super) const LATER: Self = Self::Later { at_most: LONGEST_WAIT };
}

/// Keeps `upstream` connected until `stop`.
pub(super) async fn run<U: Upstream>(
    mut upstream: U,
    reporter: Reporter,
    meter: Meter,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    while is_needed(&mut upstream, stop).await {
        // Both futures are large and on the heap: each layer around them would take their size on the stack once more.
        let connecting = Box::pin(connect(&upstream, &reporter, &meter));
        let connected = tokio::select! {
            connected = connecting => connected,
            () = stop.cancelled() => return,
        };
        let outcome = match connected {
            Ok(connection) => {
                reporter.connected();
                let began = Instant::now();
                let outcome = tokio::select! {
                    outcome = Box::pin(upstream.carry(connection, stop)) => outcome,
                    // `carry` ends by itself after a stop, in order; this is for one that cannot.
                    () = stopped_long_ago(stop) => return,
                };
                // A connection that works for a while ends a row of failures; one that is closed at once does not.
                backoff.lasted(began.elapsed());
                outcome
            }
            Err(why) => Err(why),
        };
        let Err(why) = outcome else { return };
        let Retry::Later { at_most } = upstream.ended(&why) else { continue };
        // With jitter: after a power cut every gateway of a site connects at the same moment.
        let wait = backoff.failed(rand::random()).min(at_most);
        let failure = match &why {
            ConnectionError::Connect(error) => link_failure(error),
            _ => LinkFailure::Unreachable,
        };
        reporter.away(chain(&why).to_string(), failure, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn is_needed<U: Upstream>(upstream: &mut U, stop: &CancellationToken) -> bool {
    tokio::select! {
        is_needed = upstream.needed() => is_needed,
        () = stop.cancelled() => false,
    }
}

async fn connect<U: Upstream>(
    upstream: &U,
    reporter: &Reporter,
    meter: &Meter,
) -> Result<Connection, ConnectionError<U::End>> {
    let options = upstream.options().map_err(ConnectionError::Connect)?;
    // A panic may come from what the server sent: it ends the attempt, not the daemon.
    let connected = guard("link", Box::pin(client::connect(&options))).await?;
    let (sender, receiver) = connected.map_err(ConnectionError::Connect)?;
    let keep_alive = options.keep_alive;
    Ok(Connection { sender, receiver, keep_alive, peer: reporter.peer, meter: meter.clone() })
}

async fn stopped_long_ago(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOPPING_MAX).await;
}

/// Tells the log and the rest of the daemon whether an upstream is connected.
pub(super) struct Reporter {
    /// What messages call the upstream.
    pub(super) peer: &'static str,
    pub(super) host: String,
    pub(super) identity: Identity,
    /// Of the gateway's own connection.
    pub(super) status: Option<watch::Sender<LinkStatus>>,
}

impl Reporter {
    fn connected(&self) {
        let Self { peer, host, identity, status } = self;
        let Some(status) = status else {
            tracing::info!(%identity, "connected to upstream as itself");
            return;
        };
        tracing::info!(host, "{peer} connected");
        status.send_replace(LinkStatus::connected());
    }

    fn away(&self, why: String, failure: LinkFailure, wait: Duration) {
        let Self { peer, identity, status, .. } = self;
        let Some(status) = status else {
            tracing::info!(%identity, why, ?wait, "not connected to upstream");
            return;
        };
        let before = status.borrow().clone();
        if before.is_connected || before.why.is_empty() {
            tracing::warn!(why, ?wait, "{peer} is away");
        } else {
            tracing::info!(why, ?wait, "{peer} is still away");
        }
        status.send_replace(before.away(why, failure));
    }
}
