//! How a connection ends: its identities leave, what was taken in is stored and answered, and the transport is closed in order.

use futures_util::stream::StreamExt as _;
use schemas::names::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::state::{Driver, End};
use crate::sanitized::Sanitized;
use crate::service::Service;
use crate::session::wire::close;

impl<S, T> Driver<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn finish(mut self) {
        let deadline = Instant::now() + self.server.settings.finish_timeout;
        let Some(End { why, error }) = self.end.take() else { return };
        let (peer, messages) = (self.caller.peer, self.pending.len());
        debug!(%peer, why = %Sanitized(&why), messages, "AMQP connection ends");
        let present: Vec<Identity> = self.members.keys().cloned().collect();
        for identity in present {
            self.leave(&identity, &why);
        }
        // What was taken in is stored, even if nobody awaits its outcome any more.
        while let Ok(Some(stored)) = timeout_at(deadline, self.pending.next()).await {
            self.settle(stored);
        }
        if !self.pending.is_empty() {
            let messages = self.pending.len();
            warn!(%peer, messages, "AMQP connection closed before everything was stored; not accepted");
        }
        if error.is_some() {
            self.engine.close(Instant::now().into_std(), error);
        }
        self.collect_output();
        close(&mut self.reader, &mut self.writer, deadline).await;
    }
}
