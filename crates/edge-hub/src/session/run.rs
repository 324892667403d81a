//! The life of an open connection: takes packets, sends what waits, answers what is stored, until there is a reason to end.

use std::collections::BTreeMap;
use std::pin::pin;

use edge_buffer::Fence;
use futures_util::FutureExt as _;
use mqtt::codec::packet::Version;
use mqtt::codec::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::end::End;
use super::state::Session;
use super::wire::OUT_BYTES_MAX;
use super::{gate, pending};
use crate::service::Service;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn run(&mut self) -> End {
        let connection = self.connection.clone();
        let mut timer = pin!(tokio::time::sleep_until(self.next_tick()));
        loop {
            // Looked at first: what was read before a pause is taken when it is over.
            self.rates.paused_until();
            if let Err(end) = self.take_packets() {
                return end;
            }
            if self.is_fenced() && self.pending.is_empty() {
                let why = "a message of the client was not stored";
                return End::Closed(why.to_owned(), Reason::SERVER_BUSY);
            }
            self.send_waiting();
            // Nothing else announces the end of a pause, or of the patience with a full queue.
            let due = [self.rates.paused_until(), self.closes_at()].into_iter().flatten().min();
            if let Some(at) = due.filter(|at| *at < timer.deadline()) {
                timer.as_mut().reset(at);
            }
            let may_take = self.may_take();
            let may_send = self.may_send();
            let is_congested = self.server.broker.journal.is_congested();
            // All of these lose nothing when dropped. Not biased: a busy one must not starve the others.
            let step = tokio::select! {
                end = connection.close.closed() => Err(end.map_or(End::Stopped, |(why, reason)| {
                    End::Closed(why.to_owned(), reason)
                })),
                written = self.writer.write(), if self.writer.has_output() => {
                    written.map_err(|error| End::Lost(error.to_string()))
                }
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.settle_ready(done),
                reply = pending::ready(&mut self.requests), if !self.requests.is_empty() => self.answer_ready(reply),
                stored = gate::opened(&mut self.gate), if self.gate.is_some() => self.open_gate(stored),
                () = connection.session_queue.arrived.notified(), if may_send => Ok(()),
                () = self.server.broker.journal.decongested(), if is_congested => Ok(()),
                read = self.reader.fill(), if may_take => match read {
                    Ok(0) => Err(End::Lost("the client closed the connection without a DISCONNECT".to_owned())),
                    Ok(_) => {
                        self.last_read = Instant::now();
                        Ok(())
                    }
                    Err(error) => Err(End::Lost(error.to_string())),
                },
                () = &mut timer => {
                    let ticked = self.tick();
                    timer.as_mut().reset(self.next_tick());
                    ticked
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.connection.session_queue.client_id
    }

    /// Whether a message of the client was not stored.
    fn is_fenced(&self) -> bool {
        self.fence.as_ref().is_some_and(Fence::is_set)
    }

    /// Whether more may be taken in from the client.
    pub(super) fn may_take(&self) -> bool {
        !self.is_fenced()
            && self.pending.len() + self.requests.len() < self.server.settings.pending_max
            && self.pending_bytes < self.server.settings.pending_bytes_max
            && self.writer.out.len() < OUT_BYTES_MAX
            && !self.rates.is_paused()
            && !self.server.broker.journal.is_congested()
    }

    /// When a client is closed that waits for a PUBACK which will not come.
    fn closes_at(&self) -> Option<Instant> {
        let is_waiting = self.peer.version == Version::V4;
        self.full_since.filter(|_| is_waiting).map(|since| since + self.server.settings.full_timeout)
    }

    fn next_tick(&self) -> Instant {
        let silent_at = self.silence_max.map(|max| self.last_read + max);
        [silent_at, self.ends_at, self.closes_at()]
            .into_iter()
            .flatten()
            .fold(self.stall_check_at, Instant::min)
    }

    /// Checks whether the client still reads and still speaks.
    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.ends_at.is_some_and(|at| now >= at) {
            let why = self.connection.client.login.proof.expired();
            return Err(End::Closed(why.to_owned(), Reason::MAXIMUM_CONNECT_TIME));
        }
        if self.closes_at().is_some_and(|at| now >= at) {
            let why =
                "a message of the client was refused because a queue was full; the client must send it again";
            return Err(End::Closed(why.to_owned(), Reason::QUOTA_EXCEEDED));
        }
        if !self.may_take() {
            // Its silence is ours: nothing is read.
            self.last_read = now;
        }
        if now >= self.stall_check_at {
            let mut waiting = self.writer.has_output().then_some(self.writer.written);
            if waiting.is_some() && waiting == self.written_at_check {
                waiting = self.written_now();
            }
            if waiting.is_some() && waiting == self.written_at_check {
                let why = "the client does not read what is sent to it";
                return Err(End::Closed(why.to_owned(), Reason::UNSPECIFIED));
            }
            self.written_at_check = waiting;
            self.stall_check_at = now + self.server.settings.write_timeout;
            if now.duration_since(self.last_read) >= self.server.settings.write_timeout {
                self.reader.give_back_memory();
                self.routes = BTreeMap::new();
                self.pending.give_back_memory();
                self.fence.take_if(|fence| !fence.is_set() && self.pending.is_empty());
                self.connection.session_queue.usage.give_back_memory(now);
            }
        }
        match self.silence_max {
            Some(max) if now.duration_since(self.last_read) >= max => {
                if self.has_spoken() {
                    self.last_read = now;
                    return Ok(());
                }
                let why = "the client was silent for one and a half times its keep-alive";
                Err(End::Closed(why.to_owned(), Reason::KEEP_ALIVE_TIMEOUT))
            }
            _ => Ok(()),
        }
    }
    /// Whether something of the client waits to be read; it is then. A machine that stood still finds the silence over and what came
    /// meanwhile at the same moment.
    fn has_spoken(&mut self) -> bool {
        matches!(unconstrained(self.reader.fill()).now_or_never(), Some(Ok(1..)))
    }

    /// Bytes written once what the client takes now is written, as [`Session::written_at_check`]; for the same reason.
    fn written_now(&mut self) -> Option<u64> {
        // An error is found by the next write too.
        let _ = unconstrained(self.writer.write()).now_or_never();
        self.writer.has_output().then_some(self.writer.written)
    }
}
