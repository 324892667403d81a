//! The link to central: one MQTT connection over TLS, kept up for ever.
//!
//! ```text
//! away ── connected ──► told everything ──► in step ── connection lost ──► away (waits, longer each time)
//! ```
//!
//! [`connection`] is one connection; what it carries stands in the files beside it, and what they read and write in [`uplink`].
//!
//! Telemetry goes out from the queue's cursor in a window of unacknowledged messages; a message leaves the disk when
//! central has acknowledged it. Everything else that central must know (reported sections, who is connected, answers to
//! commands) is told whole on every new connection and again when it changes, and what queues have lost until central has it. What central tells (children, desired
//! sections, commands) is acknowledged when it is on this gateway's disk.

mod connection;
mod ended;
mod losses;
mod presence;
mod telemetry;
#[cfg(test)]
mod tests;
mod updates_in;
mod updates_out;
pub mod uplink;

use std::time::Duration;

use edge_core::access::sas;
use edge_core::backoff::Backoff;
use edge_core::error_chain::chain;
use edge_core::health::facts::LinkFailure;
use edge_hub::tasks::guard;
use mqtt::client::{self, ClientOptions};
use mqtt::codec::packet::Version;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::ended::Ended;
use self::uplink::Uplink;
use crate::clock::now_ms;
use crate::upstream::status::{LinkStatus, link_failure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// As the Azure SDKs do.
const TOKEN_SECS: u64 = 3600;

/// Keeps the link up until `stop`.
pub async fn run(uplink: Uplink, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let ended = tokio::select! {
            // A panic may come from what central sent: it ends the connection, not the daemon.
            ended = guard("link", one_connection(&uplink, &mut backoff, &stop)) => ended.unwrap_or_else(|e| Err(e.into())),
            () = stop.cancelled() => Ok(()),
        };
        uplink.enrolments.linked(false);
        let Err(why) = ended else { return };
        let wait = backoff.failed(rand::random());
        let before = uplink.status.borrow().clone();
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
        uplink.status.send_replace(before.away(chain(&why).to_string(), failure));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn options(uplink: &Uplink) -> ClientOptions {
    let hub = uplink.upstream.hub_name();
    let identity = uplink.upstream.identity();
    let port = uplink.upstream.port();
    let expires_at = now_ms() / 1000 + TOKEN_SECS;
    ClientOptions {
        host: hub.to_owned(),
        port: port.unwrap_or(uplink.transport.default_port()),
        transport: uplink.transport.clone(),
        proxy: uplink.proxy.clone(),
        // It says of each message why it is not taken.
        version: Version::V5,
        client_id: identity.to_string(),
        user_name: Some(format!("{hub}/{identity}/?api-version=2021-04-12")),
        password: Some(sas::token(hub, &identity, &uplink.upstream.shared_access_key, expires_at)),
        keep_alive: uplink.keep_alive,
        connect_timeout: CONNECT_TIMEOUT,
    }
}

/// One connection from its start to its end; `Ok` when it was stopped.
async fn one_connection(
    uplink: &Uplink,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let (sender, receiver) = client::connect(&options(uplink)).await?;
    tracing::info!(central = uplink.upstream.host_name, "central connected");
    uplink.status.send_replace(LinkStatus::connected());
    let begun = Instant::now();
    let mut connection = Connection::new(uplink, sender);
    let ended = connection.run(receiver, stop).await;
    connection.sum_up();
    backoff.lasted(begun.elapsed());
    ended
}
