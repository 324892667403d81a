//! The life of a connection: takes frames, answers what is stored, until there is a reason to end.

use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use edge_core::dialect::amqp::error_condition::ErrorCondition;

use super::settings::LOGINS_MAX;
use super::state::{Driver, End, LoginDone, Logins};
use crate::service::Service;
use crate::session::wire::OUT_BYTES_MAX;

impl<S, T> Driver<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        while self.end.is_none() {
            self.take();
            self.start_login();
            self.send_answers();
            self.collect_output();
            if self.end.is_some() {
                return;
            }
            let may_take = self.may_take();
            let next = self.next_tick();
            let has_slot = self.slot.is_proven();
            // All of these lose nothing when dropped. Not biased: a busy one must not starve the others.
            tokio::select! {
                () = stop.cancelled() => {
                    self.close(ErrorCondition::ConnectionForced, "the server stops");
                }
                () = self.slot.evicted(), if !has_slot => {
                    self.server.evicted(self.caller.peer);
                    self.close(ErrorCondition::ResourceLimit, "others need its slot more");
                }
                written = self.writer.write(), if self.writer.has_output() => {
                    if let Err(error) = written {
                        self.lost(error.to_string());
                    }
                }
                Some(closing) = self.closings.next(), if !self.closings.is_empty() => self.closed_elsewhere(closing),
                Some(stored) = self.pending.next(), if !self.pending.is_empty() => {
                    self.settle(stored);
                    // One sync ends many messages at once: their outcomes share frames and a write.
                    while let Some(Some(stored)) = self.pending.next().now_or_never() {
                        self.settle(stored);
                    }
                }
                done = login(&mut self.logins), if self.logins.running.is_some() => self.login_ended(done),
                read = self.reader.fill(), if may_take => match read {
                    Ok(0) => self.lost("the client closed the transport without a close".to_owned()),
                    Ok(_) => {}
                    Err(error) => self.lost(error.to_string()),
                },
                () = tokio::time::sleep_until(next) => self.tick(),
            }
        }
    }

    /// Takes every frame that is here whole, as long as more may be taken in.
    fn take(&mut self) {
        while self.end.is_none() && self.may_take() {
            let now = Instant::now().into_std();
            let Some(event) = self.engine.receive(now, self.reader.buffer()) else { return };
            self.on(event);
        }
    }

    /// Whether more may be taken in from the client.
    fn may_take(&self) -> bool {
        let settings = &self.server.settings;
        self.pending.len() < settings.pending_max
            && self.pending_bytes < settings.pending_bytes_max
            && self.logins.waiting.len() < LOGINS_MAX
            && self.writer.out.len() + self.engine.output_bytes() < OUT_BYTES_MAX
            && self.paused_until.is_none()
    }

    pub(super) fn collect_output(&mut self) {
        let output = self.engine.output(Instant::now().into_std());
        self.writer.out.extend_from_slice(&output);
    }

    /// The transport is gone.
    fn lost(&mut self, why: String) {
        self.end.get_or_insert(End { why, error: None });
    }

    fn next_tick(&self) -> Instant {
        let unproven = self.members.is_empty().then_some(self.deadline);
        let times = [unproven, self.expires_at, self.paused_until, Some(self.stall_check_at)];
        times.into_iter().flatten().fold(Instant::from_std(self.engine.deadline()), Instant::min)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if !self.may_take() {
            self.engine.pause(now.into_std());
        }
        self.engine.expire(now.into_std());
        self.paused_until.take_if(|until| *until <= now);
        if self.members.is_empty() && self.deadline <= now {
            let peer = self.caller.peer;
            warn!(%peer, "connection refused: nothing was proven over AMQP within the connect timeout");
            return self.close(ErrorCondition::Unauthorized, "nothing was proven within the connect timeout");
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            self.expire_members(now);
        }
        if self.stall_check_at <= now {
            let waiting = self.writer.has_output().then_some(self.writer.written);
            if waiting.is_some() && waiting == self.written_at_check {
                return self.lost("the client does not read what is sent to it".to_owned());
            }
            self.written_at_check = waiting;
            self.stall_check_at = now + self.server.settings.write_timeout;
            self.reader.give_back_memory();
        }
    }
}

/// Ends with the login that runs.
async fn login(logins: &mut Logins) -> LoginDone {
    let Some(running) = &mut logins.running else { return std::future::pending().await };
    let done = running.await;
    logins.running = None;
    done
}
