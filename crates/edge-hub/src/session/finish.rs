//! How a connection ends: its session goes on without it or ends too, what it had taken in is stored and acknowledged, and
//! it is closed in order. A reset would make Azure's Node SDK stay away; a FIN makes it come again.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::end::End;
use super::pending;
use super::reason_string::fits;
use super::state::Session;
use super::wire::close;
use crate::broker::presence::Parting;
use crate::counts::count;
use crate::sanitized::Sanitized;
use crate::service::Service;
use mqtt::codec::packet::{Disconnect, Version};
use mqtt::codec::text::Text;
use mqtt::codec::write;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn finish(mut self, end: End) {
        let deadline = Instant::now() + self.server.settings.finish_timeout;
        // Nothing is read any more that names one; the identity has their bytes back before the client sees the end.
        self.aliases.clear();
        let was_current = self.server.clients.leave(&self.connection);
        count(&self.server.broker.counts.disconnects);
        info!(client = %Sanitized(self.client_id()), why = %Sanitized(end.why()), "client disconnected");
        // Whoever waits for an acknowledgement of this client learns that it will not come.
        let parting = match end {
            End::Disconnected => Parting::Goodbye,
            End::Stopped => Parting::Stopped,
            End::Lost(_) | End::Closed(..) => {
                let will = self.will.take();
                Parting::Lost(will.filter(|_| !self.server.service.is_removed(&self.connection.client)))
            }
        };
        let (session_queue, connection) =
            (self.connection.session_queue.clone(), self.connection.client.connection);
        self.server.broker.leave(&session_queue, connection, self.peer.expiry_s, parting);
        if was_current {
            self.server.service.disconnected(&self.connection.client, end.why());
        }
        self.settle_rest(deadline).await;
        if let (Version::V5, Some(reason)) = (self.peer.version, end.reason()) {
            let is_explained = fits(end.why(), 1, self.peer.packet_bytes_max);
            let reason_string = is_explained.then(|| Text::from(end.why()));
            let disconnect = Disconnect { reason_string, ..Disconnect::because(reason) };
            write::disconnect(&mut self.writer.out, self.peer.version, &disconnect);
        }
        if !matches!(end, End::Lost(_)) {
            close(&mut self.reader, &mut self.writer, deadline).await;
        }
    }

    /// Waits for what was taken in. A report may not even have begun, and is not lost because its client left.
    async fn settle_rest(&mut self, deadline: Instant) {
        while !self.requests.is_empty() {
            let Ok(reply) = timeout_at(deadline, pending::ready(&mut self.requests)).await else { break };
            if self.answer_ready(reply).is_err() {
                break;
            }
        }
        while let Ok(Some(done)) = timeout_at(deadline, self.pending.next()).await {
            if self.settle_ready(done).is_err() {
                // Nothing behind a message that was not acknowledged may be.
                return;
            }
            // A client that is gone gets no answer; its messages are stored all the same.
            let _ = timeout_at(deadline, self.writer.write()).await;
        }
        if !self.pending.is_empty() {
            let messages = self.pending.len();
            warn!(client = %Sanitized(self.client_id()), messages, "connection closed before everything was stored; not acknowledged");
        }
    }
}
