//! How what was taken in is answered, when it is done.

use std::time::Duration;

use bytes::Bytes;
use edge_buffer::AppendError;
use futures_util::FutureExt as _;
use schemas::topics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{info, warn};

use super::end::End;
use super::pending::{Done, Failed, Pending, Reply, Request, Work};
use super::reason_string::fits;
use super::state::Session;
use crate::counts::count;
use crate::journal::Stored;
use crate::sanitized::Sanitized;
use crate::service::{Rejected, Service};
use mqtt::codec::packet::{Ack, ReasonProperties, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::text::Text;
use mqtt::codec::write::{self, AckKind};

/// What a pending packet holds besides its payload: its future, its slots in queues.
const PENDING_BYTES: usize = 512;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Answers a message when its work is done and what came before it is answered.
    pub(super) fn answer_after(
        &mut self,
        work: Work,
        reply: Reply,
        topic: Bytes,
        bytes: usize,
    ) -> Result<(), End> {
        // Nothing waits before it: a QoS 0 message on an idle connection allocates nothing.
        if self.pending.is_empty() && matches!(work, Work::Ready) {
            return self.settle(Done { result: Ok(None), reply, bytes: 0, topic });
        }
        let bytes = bytes + topic.len() + PENDING_BYTES;
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { work, reply, bytes, topic });
        Ok(())
    }

    /// Answers a packet when the journal has what it did.
    pub(super) fn answer_stored(&mut self, stored: Option<Stored>, reply: Reply) -> Result<(), End> {
        // Answers leave in the order of the requests, also when this one has nothing to store.
        if stored.is_none() && self.requests.is_empty() {
            return self.reply(reply, None);
        }
        self.requests.push_back(Request { stored, reply });
        Ok(())
    }

    /// Answers the first of those that waited for the journal.
    pub(super) fn answer_ready(&mut self, reply: Result<Reply, AppendError>) -> Result<(), End> {
        match reply {
            Ok(reply) => self.reply(reply, None),
            Err(error) => Err(End::Closed(format!("not written to disk: {error}"), Reason::SERVER_BUSY)),
        }
    }

    /// Settles what has ended, and everything behind it that has ended too: their answers leave in one write.
    pub(super) fn settle_ready(&mut self, done: Done) -> Result<(), End> {
        self.settle(done)?;
        // One sync ends many messages at once: their PUBACKs share a write.
        while let Some(Some(done)) = self.pending.next().now_or_never() {
            self.settle(done)?;
        }
        Ok(())
    }

    /// Answers what was done, or ends the connection without an answer.
    fn settle(&mut self, done: Done) -> Result<(), End> {
        self.pending_bytes -= done.bytes;
        let (answer, failure) = match done.result {
            Ok(answer) => (answer, None),
            Err(Failed::Refused(reason, why)) => (None, Some((reason, why))),
            Err(Failed::Rejected(Rejected::Wrong(status, why))) => {
                count(&self.server.counts().messages_wrong);
                self.log_refused(&done.topic, &format!("{status}, dropped: {why}"));
                // MQTT 3.1.1 has no word for it, and a client that is not answered sends it for ever.
                (None, (self.peer.version == Version::V5).then(|| (reason_of(status), why)))
            }
            Err(Failed::Rejected(Rejected::Full(why))) => {
                count(&self.server.counts().messages_without_space);
                self.note_full(&done.topic, &why);
                match self.peer.version {
                    Version::V5 => (None, Some((Reason::QUOTA_EXCEEDED, why))),
                    // No PUBACK: what is behind it may have been taken, and is acknowledged all the same.
                    Version::V4 => return Ok(()),
                }
            }
            Err(Failed::Rejected(Rejected::Temporary(status, why))) => {
                self.log_refused(&done.topic, &format!("{status}, for now, not acknowledged: {why}"));
                // A QoS 2 message keeps its id: its subscribers may have it, and it must not be given to them again.
                let why = "a message could not be taken now".to_owned();
                return Err(End::Closed(why, Reason::SERVER_BUSY));
            }
        };
        self.reply(done.reply, failure)?;
        match answer {
            Some((topic, body)) => self.answer_twin(topic, body),
            None => Ok(()),
        }
    }

    /// Logs the first message that there is no space for, and one a minute: a disk that is full must not get a line for each.
    fn note_full(&mut self, topic: &Bytes, why: &str) {
        /// Between two lines of one client.
        const SILENCE: Duration = Duration::from_secs(60);
        let is_first = self.full_since.is_none_or(|since| since.elapsed() >= SILENCE);
        if is_first {
            self.log_refused(topic, &format!("it does not fit: {why}"));
            self.full_since = Some(Instant::now());
        }
    }

    fn log_refused(&self, topic: &Bytes, why: &str) {
        let (client, peer) = (Sanitized(self.client_id()), self.connection.client.peer);
        let topic = std::str::from_utf8(topic).unwrap_or_default();
        warn!(%client, topic = %Sanitized(topic), %peer, "message refused: {}", Sanitized(why));
    }

    fn reply(&mut self, reply: Reply, failure: Option<(Reason, String)>) -> Result<(), End> {
        let (reason, properties) = match failure {
            None => (Reason::SUCCESS, None),
            Some((reason, why)) => (reason, self.reason_properties(&why, 1)),
        };
        let (kind, id, reason) = match reply {
            Reply::Nothing => return Ok(()),
            Reply::PubAck(id) => (AckKind::PubAck, id, reason),
            Reply::PubRec(id) => {
                if reason.is_failure() {
                    // The id is free again.
                    self.connection.session_queue.release(id);
                }
                (AckKind::PubRec, id, reason)
            }
            Reply::PubRel(id, reason) => (AckKind::PubRel, id, reason),
            Reply::PubComp(id, reason) => (AckKind::PubComp, id, reason),
            Reply::SubAck(subscribed) => return self.subscribed(*subscribed),
            Reply::UnsubAck(answer) => {
                write::unsuback(&mut self.writer.out, self.peer.version, &answer);
                return Ok(());
            }
        };
        let is_the_end = match kind {
            AckKind::PubAck | AckKind::PubComp => true,
            AckKind::PubRec => reason.is_failure(),
            AckKind::PubRel => false,
        };
        if is_the_end {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        write::ack(&mut self.writer.out, self.peer.version, kind, &Ack { id, reason, properties });
        Ok(())
    }

    /// A reason string beside so many reason codes, for a client that may be sent one. One that makes the packet larger
    /// than the client takes is left out (MQTT-3.4.2-2 and its like of MQTT 5).
    pub(super) fn reason_properties(&self, why: &str, codes: usize) -> Option<Box<ReasonProperties>> {
        let is_requested = self.peer.version == Version::V5
            && self.peer.wants_reasons
            && fits(why, codes, self.peer.packet_bytes_max);
        is_requested.then(|| {
            Box::new(ReasonProperties { reason_string: Some(Text::from(why)), ..ReasonProperties::default() })
        })
    }

    /// Sends the answer to a twin request, when the client has subscribed to them.
    fn answer_twin(&mut self, topic: String, body: Bytes) -> Result<(), End> {
        use crate::delivery::NotDelivered;
        match self.connection.send(topic, body) {
            Ok(_) => Ok(()),
            Err(NotDelivered::Busy) => {
                let why = "the client requests more than it reads or acknowledges".to_owned();
                Err(End::Closed(why, Reason::QUOTA_EXCEEDED))
            }
            Err(NotDelivered::NotSubscribed) => {
                let client = Sanitized(self.client_id());
                info!(%client, filter = topics::TWIN_RESPONSES, "twin answer dropped: no subscription");
                Ok(())
            }
            // The connection ends.
            Err(NotDelivered::NotConnected | NotDelivered::Gone) => Ok(()),
        }
    }
}

/// Reason string for a client of MQTT 5, of an HTTP-like status.
fn reason_of(status: u16) -> Reason {
    match status {
        // MQTT 5 has no codes for most of these; a client that knows only the code still sees whether to try again.
        401 | 403 => Reason::NOT_AUTHORIZED,
        404 => Reason::TOPIC_NAME_INVALID,
        413 | 429 => Reason::QUOTA_EXCEEDED,
        400 | 415 | 422 => Reason::PAYLOAD_FORMAT_INVALID,
        _ => Reason::IMPLEMENTATION_SPECIFIC,
    }
}
