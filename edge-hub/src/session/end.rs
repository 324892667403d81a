//! How a session ends: it is taken out, what it had taken in is stored and acknowledged, and the connection is closed
//! in order. A reset would make Azure's Node SDK stay away; a FIN makes it come again.

use std::time::Duration;

use bytes::Bytes;
use edge_core::dialect::client::Subscribe;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::packets::fan_out;
use super::wire::{Reader, Writer};
use super::{Session, Shown};
use crate::service::Service;

/// How long a client that was told "nothing follows" may take to close its side.
const DRAIN: Duration = Duration::from_secs(2);

/// Why an open session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client said DISCONNECT: its will is not published.
    Disconnected,
    /// The connection broke, or the client closed it without a word.
    Lost(String),
    /// Closed from here.
    Closed(String),
    /// The door closes.
    Stopped,
}

impl End {
    fn why(&self) -> &str {
        match self {
            Self::Disconnected => "the client disconnected",
            Self::Lost(why) | Self::Closed(why) => why,
            Self::Stopped => "the door closes",
        }
    }
}

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn finish(mut self, end: End) {
        let deadline = Instant::now() + self.door.settings.finish_timeout;
        let was_current = self.door.clients.leave(&self.connection);
        for free in self.connection.held().iter().filter(|held| held.meaning == Subscribe::Free) {
            self.door.table.unsubscribe(&free.filter, &self.connection);
        }
        // Whoever waits for an acknowledgement of this client learns that it will not come.
        self.connection.outbox.close();
        self.in_flight.clear();
        info!(client = %Shown(&self.client_id), why = %Shown(end.why()), "client disconnected");
        if was_current {
            self.door.service.disconnected(&self.connection.client, end.why());
        }
        if !matches!(end, End::Disconnected | End::Stopped) {
            self.publish_will();
        }
        self.settle_rest(deadline).await;
        if !matches!(end, End::Lost(_)) {
            close(&mut self.reader, &mut self.writer, deadline).await;
        }
    }

    /// Waits for what was taken in. A report may not even have begun, and is not lost because its client left.
    async fn settle_rest(&mut self, deadline: Instant) {
        while let Ok(Some(done)) = timeout_at(deadline, self.pending.next()).await {
            if self.settle_ready(done).is_err() {
                // Nothing behind a message that was not acknowledged may be.
                return;
            }
            // A client that is gone cannot be told; its messages are stored all the same.
            let _ = timeout_at(deadline, self.writer.write()).await;
        }
        if !self.pending.is_empty() {
            let messages = self.pending.len();
            warn!(client = %Shown(&self.client_id), messages, "session closed before everything was stored; not acknowledged");
        }
    }

    fn publish_will(&mut self) {
        let Some(will) = self.will.take() else { return };
        let topic = Bytes::from(will.topic.clone());
        if let Err(slow) = fan_out(&self.door, &will.topic, &topic, &will.payload, will.qos) {
            let subscriber = &slow.client.identity;
            warn!(client = %Shown(&self.client_id), %subscriber, "will not given to every subscriber: one is too slow");
        }
    }
}

/// Writes what waits, says that nothing follows, and reads until the client has closed too, so that no unread byte turns
/// the FIN into a reset.
pub(super) async fn close<T>(reader: &mut Reader<T>, writer: &mut Writer<T>, deadline: Instant)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok(Ok(())) = timeout_at(deadline, writer.shut_down()).await {
        let _ = timeout_at(deadline.min(Instant::now() + DRAIN), reader.drain()).await;
    }
}
