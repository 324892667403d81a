//! An AMQP connection: many devices and modules on one transport, before the same service as MQTT's sessions.
//!
//! ```text
//! accepted ── SASL PLAIN, a token to $cbs, or a link with a certificate ──► trusted ── close, silence, stop ──► finishing ──► closed
//!     └ nothing proven by the deadline: closed
//!
//! member (identity with a proof) ── first link ──► attachment ── last link, take-over, block, end of the proof ──► member, or gone
//! ```
//!
//! An attachment is for its identity what a connection is over MQTT: it is entered into `Clients`, it has a share of the identity's
//! quotas, and a newer connection of the identity ends it, whatever that one speaks. The transport goes on for the others.
//!
//! Guarantees: accepted is sent only after the message is on disk. After a message that could not be stored for now, nothing further
//! of its identity is stored on the connection. Whoever has not proven anything has few links and little time.

mod attachments;
mod events;
mod finish;
mod logins;
mod run;
pub(crate) mod settings;
mod state;
mod telemetry;
mod tokens;
mod window;

use std::sync::Arc;

use amqp::engine::settings::Settings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection_slots::ConnectionSlot;
use crate::mqtt_server::MqttServer;
use crate::service::Service;
use crate::session::wire::{Reader, Writer};
use state::Driver;

pub(crate) use state::Caller;

/// Serves one connection to its end.
pub(crate) async fn hold<S, T>(
    server: Arc<MqttServer<S>>,
    engine: Arc<Settings>,
    stream: T,
    caller: Caller,
    slot: Arc<ConnectionSlot>,
    deadline: Instant,
    stop: CancellationToken,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let halves = (Reader::new(reader), Writer::new(writer));
    let mut driver = Driver::new(server, engine, caller, slot, halves, deadline);
    driver.run(&stop).await;
    Box::pin(driver.finish()).await;
}
