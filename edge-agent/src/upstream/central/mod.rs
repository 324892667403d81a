//! The link to central: one MQTT connection over TLS, kept up for ever.
//!
//! ```text
//! away ── connected ──► everything sent ──► in step ── connection lost ──► away (waits, longer each time)
//! ```
//!
//! [`traffic`] is what one connection carries; its parts stand in the files beside it, and what they read and write in [`uplink`].
//!
//! Telemetry goes out from the queue's cursor in a window of unacknowledged messages; a message leaves the disk when
//! central has acknowledged it. Everything else that central must know (reported sections, who is connected, answers to
//! commands) is sent whole on every new connection and again when it changes, and what queues have lost until central has it. What central sends (children, desired
//! sections, commands) is acknowledged when it is on this gateway's disk.

mod ended;
mod losses;
mod presence;
mod telemetry;
#[cfg(test)]
pub(super) mod tests;
mod traffic;
mod updates_in;
mod updates_out;
pub mod uplink;

use edge_hub::tasks::guard;
use mqtt::client::{ClientOptions, ConnectError};
use mqtt::codec::packet::Version;
use tokio_util::sync::CancellationToken;

use self::ended::Ended;
use self::traffic::LinkTraffic;
use self::uplink::Uplink;
use crate::upstream::address::Login;
use crate::upstream::connection::{Connection, ConnectionError, Outcome};
use crate::upstream::driver::{self, Reporter, Retry, Upstream};

/// Keeps the link up until `stop`.
pub async fn run(uplink: Uplink, stop: CancellationToken) {
    let reporter = Reporter {
        peer: "central",
        host: uplink.upstream.host_name.clone(),
        identity: uplink.upstream.identity(),
        status: Some(uplink.status.clone()),
    };
    let meter = uplink.meter.clone();
    driver::run(uplink, reporter, meter, &stop).await;
}

impl Upstream for Uplink {
    type End = Ended;

    async fn needed(&mut self) -> bool {
        true
    }

    fn options(&self) -> Result<ClientOptions, ConnectError> {
        let (hub, identity) = (self.upstream.hub_name(), self.upstream.identity());
        // MQTT 5 says of each message why it is not taken.
        let login = Login::sas(Version::V5, hub, &identity, &self.upstream.shared_access_key);
        Ok(self.address.options(login))
    }

    async fn carry(&mut self, mut connection: Connection, stop: &CancellationToken) -> Outcome<Ended> {
        let mut traffic = LinkTraffic::begin(self, &mut connection.sender);
        // A panic may come from what central sent: it ends the connection, not the daemon.
        let outcome = guard("link", Box::pin(connection.carry(&mut traffic, stop))).await;
        traffic.sum_up();
        self.enrolments.linked(false);
        outcome.unwrap_or_else(|panicked| Err(panicked.into()))
    }

    fn ended(&mut self, _: &ConnectionError<Ended>) -> Retry {
        Retry::LATER
    }
}
