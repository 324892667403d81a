//! A connection's task: it owns one connection, from its CONNECT to its last byte, and has the client's session meanwhile.
//!
//! ```text
//! accepted ── CONNECT proven ──> open ── DISCONNECT, error, silence, take-over, stop ──> finishing ──> closed
//!     └ refused: CONNACK with why, or nothing                       what was taken in is stored and acknowledged
//! ```
//!
//! Guarantees: a PUBACK or PUBREC is written only after the message is where it must be, and in the order of arrival; a
//! connection that cannot go on taking things in stops reading instead of queueing them.

mod answer;
mod connect;
mod end;
mod finish;
mod gate;
mod open;
mod packets;
mod pending;
mod publish;
mod rate;
mod reason_string;
mod run;
mod send;
mod state;
mod subscribe;
mod will;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use mqtt::codec::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Level, debug_span, enabled};

use crate::connection_slots::ConnectionSlot;
use crate::mqtt_server::MqttServer;
use crate::sanitized::Sanitized;
use crate::service::{Service, Transport};
use end::End;
use state::Session;
use wire::{Reader, Writer};

/// Serves one connection to its end.
pub(crate) async fn hold<S, T>(
    server: Arc<MqttServer<S>>,
    stream: T,
    peer: SocketAddr,
    transport: Transport,
    slot: Arc<ConnectionSlot>,
    deadline: Instant,
    stop: CancellationToken,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    // What a connection does once is boxed: its task is as large as what it waits in for days.
    let begun = Box::pin(begin(server, stream, peer, transport, &slot, deadline, stop)).await;
    let Some(mut session) = begun else { return };
    let end = if slot.is_proven() && !enabled!(Level::DEBUG) {
        session.run().await
    } else {
        // Off at the default level: a span would be entered for each message.
        let span = debug_span!("connection", client = %Sanitized(session.client_id()), %peer);
        let run = async {
            tokio::select! {
                end = session.run() => end,
                // A device that enrols itself.
                () = slot.evicted(), if !slot.is_proven() => {
                    session.server.evicted(peer);
                    End::Closed("others need its slot more".to_owned(), Reason::SERVER_BUSY)
                }
            }
        };
        Box::pin(run.instrument(span)).await
    };
    Box::pin(session.finish(end)).await;
}

/// From the first byte to an open connection; `None` when there is none.
async fn begin<S, T>(
    server: Arc<MqttServer<S>>,
    stream: T,
    peer: SocketAddr,
    transport: Transport,
    slot: &ConnectionSlot,
    deadline: Instant,
    stop: CancellationToken,
) -> Option<Box<Session<S, T>>>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    let proven = tokio::select! {
        proven = connect::prove(&server, &mut reader, &mut writer, peer, transport, deadline) => proven,
        () = stop.cancelled() => None,
        () = slot.evicted() => None,
    };
    let proven =
        proven.and_then(|mut proven| proven.has_place(&server, slot, &mut writer, peer).then_some(proven));
    let Some(proven) = proven else {
        // What was written is the CONNACK of the refusal.
        let deadline = Instant::now() + server.settings.finish_timeout;
        tokio::select! {
            () = wire::close(&mut reader, &mut writer, deadline) => {}
            () = slot.evicted() => server.evicted(peer),
        }
        return None;
    };
    Some(Box::new(open::open(server, proven, peer, reader, writer, &stop)))
}
