//! Commands: written to the history, carried to their target, and ended exactly once.
//!
//! A command is on disk before it is sent. Its one end is the target's answer, "not connected", or "no answer by the
//! deadline", whichever is written first; an answer that comes later is logged and changes nothing. central waits a
//! little longer than the gateway, which counts the same seconds from when it received the command.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge_core::dialect::link::LinkDown;
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use edge_hub::delivery::NotDelivered;
use edge_hub::tasks;
use rusqlite::Connection;
use schemas::method::{MethodFailure, MethodRequest};
use schemas::names::{DeviceId, Identity};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::request::{check, no_answer};
use crate::access::authorize::{Statement, authorize};
use crate::clock::{now_ms, stamp_ms, steady_ms};
use crate::error::ServiceError;
use crate::lookup::require;
use crate::store::Store;
use crate::store::commands::{self, Command, Outcome};

/// Commands that may wait for their answers at once.
const RUNNING_MAX: usize = 1000;
/// Gateways that are remembered for the log.
const UNKNOWN_LOGGED_MAX: usize = 10_000;
/// How much longer central waits than the gateway: the way there and back.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// What stays of a command that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remains {
    InHistory,
    Nothing,
}

/// Commands that are called now, and the ends of all commands.
pub struct Commands {
    store: Store,
    clients: Clients,
    /// What ends the wait of each command that is called now, by dropping it.
    running: Mutex<HashMap<String, oneshot::Sender<()>>>,
    /// Ends of commands that ended earlier are repetitions: gateways repeat what they reported to a store that was opened anew.
    started_ms: u64,
    /// The gateways of which a repetition was logged that no command in the history belongs to.
    unknown_logged: Mutex<HashSet<DeviceId>>,
    stop: CancellationToken,
}

impl Commands {
    pub fn new(store: Store, clients: Clients, stop: CancellationToken) -> Self {
        let (running, unknown_logged) = (Mutex::default(), Mutex::default());
        Self { store, clients, running, started_ms: now_ms(), unknown_logged, stop }
    }

    /// Runs a command and returns it with its end. It runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for an unknown target, [`ServiceError::Wrong`] for a wrong request,
    /// [`ServiceError::Busy`] when too many run; in these cases it is not in the history.
    pub async fn call(
        self: &Arc<Self>,
        target: Identity,
        request: MethodRequest,
    ) -> Result<Command, ServiceError> {
        self.run(target, request, Remains::InHistory).await
    }

    /// Reads something by a command, which leaves the history with its end: it changed nothing, and its answer is for its reader
    /// alone (decision 0099).
    ///
    /// # Errors
    /// Those of [`Commands::call`].
    pub async fn read(
        self: &Arc<Self>,
        target: Identity,
        request: MethodRequest,
    ) -> Result<Outcome, ServiceError> {
        let ended = self.run(target, request, Remains::Nothing).await?;
        Ok(ended.outcome.clone().unwrap_or_else(|| no_answer(&ended)))
    }

    async fn run(
        self: &Arc<Self>,
        target: Identity,
        request: MethodRequest,
        remains: Remains,
    ) -> Result<Command, ServiceError> {
        check(&request)?;
        let (requested_ms, from_age_ms) = (now_ms(), stamp_ms());
        let wait =
            Duration::from_secs(request.connect_timeout_in_seconds + request.response_timeout_in_seconds);
        let id = uuid::Uuid::new_v4().to_string();
        let ended = self.wait_for(&id)?;
        let inserted = self.store.submit({
            let id = id.clone();
            move |c| {
                let device = require(c, &target)?;
                let gateway = device.serving_gateway().cloned();
                let deadline_ms =
                    requested_ms + u64::try_from((wait + GRACE).as_millis()).unwrap_or(u64::MAX);
                let command = Command {
                    id,
                    gateway,
                    target,
                    request,
                    requested_ms,
                    deadline_ms,
                    valid_until_ms: None,
                    from_age_ms,
                    taken_ms: None,
                    ended_ms: None,
                    outcome: None,
                };
                commands::insert(c, &command)?;
                Ok::<_, ServiceError>(command)
            }
        });
        let command = match inserted.await {
            Ok(command) => command,
            Err(error) => {
                self.forget_running(&id);
                return Err(error);
            }
        };
        let this = self.clone();
        let run = tasks::spawn("command", async move {
            let carried = tasks::guard("call of a target", this.carry(&command, ended, wait + GRACE)).await;
            match carried {
                Ok(carried) => carried?,
                // Each command has an end.
                Err(_panicked) => this.end(command.id.clone(), None, no_answer(&command)).await?,
            }
            let id = command.id;
            match remains {
                Remains::InHistory => this.store.read(move |c| ended_command(c, &id)).await,
                Remains::Nothing => {
                    let taken = this.store.submit(move |c| {
                        let ended = ended_command(c, &id)?;
                        commands::forget(c, &id)?;
                        Ok::<_, ServiceError>(ended)
                    });
                    taken.await
                }
            }
        });
        run.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    /// Takes up the commands that ran when central last stopped: their answers may still come. One that was to wait and ran
    /// at central's own listener has none.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub async fn resume(self: &Arc<Self>) -> Result<(), ServiceError> {
        let (running, interrupted) = self
            .store
            .read(|c| Ok::<_, ServiceError>((commands::running(c)?, commands::taken_here(c)?)))
            .await?;
        for command in interrupted {
            self.end(command.id.clone(), None, no_answer(&command)).await?;
        }
        for command in running {
            let left = Duration::from_millis(command.lifetime().until_ms.saturating_sub(steady_ms()));
            let this = self.clone();
            tasks::spawn("end of a command", async move {
                let stopped = this.stop.clone();
                tokio::select! {
                    () = tokio::time::sleep(left) => {
                        if let Err(error) = this.end(command.id.clone(), None, no_answer(&command)).await {
                            tracing::error!(command = command.id, error = %chain(&error), "storing the end of a command failed");
                        }
                    }
                    () = stopped.cancelled() => {}
                }
            });
        }
        Ok(())
    }

    /// Sends a command and sees to it that it ends.
    async fn carry(
        self: &Arc<Self>,
        command: &Command,
        mut ended: oneshot::Receiver<()>,
        wait: Duration,
    ) -> Result<(), ServiceError> {
        let until = tokio::time::Instant::now() + wait;
        let is_direct = self.clients.is_connected(&command.target)
            && command.gateway.as_ref() != Some(&command.target.device);
        let outcome = match &command.gateway {
            Some(gateway) if !is_direct => {
                let operation =
                    LinkDown::Command { command_id: command.id.clone(), target: command.target.clone() };
                let payload = serde_json::to_vec(&command.request).expect("a request has text keys only");
                let gateway = Identity::device(gateway.clone());
                let sending = self.clients.send_link(&gateway, &operation, Bytes::from(payload));
                tokio::select! {
                    // The answer may come before the gateway's acknowledgement.
                    _ = &mut ended => return Ok(()),
                    sent = sending => match sent {
                        // A gateway that went away with it may have it, and answers when it comes back.
                        Ok(()) | Err(NotDelivered::Gone) => None,
                        Err(_) => Some(Err(MethodFailure::NotConnected { target: gateway.to_string() })),
                    },
                    () = tokio::time::sleep_until(until) => Some(no_answer(command)),
                    () = self.stop.cancelled() => return Err(stopping()),
                }
            }
            _ => tokio::select! {
                answer = self.clients.call(&command.target, &command.request) => Some(answer),
                () = self.stop.cancelled() => return Err(stopping()),
            },
        };
        if let Some(outcome) = outcome {
            return self.end(command.id.clone(), None, outcome).await;
        }
        tokio::select! {
            _ = &mut ended => Ok(()),
            () = tokio::time::sleep_until(until) => self.end(command.id.clone(), None, no_answer(command)).await,
            () = self.stop.cancelled() => Err(stopping()),
        }
    }

    /// Ends a command. `by` is the gateway whose answer it is; the command must be one that it carries.
    pub(crate) fn end(
        self: &Arc<Self>,
        id: String,
        by: Option<DeviceId>,
        outcome: Outcome,
    ) -> futures_util::future::BoxFuture<'static, Result<(), ServiceError>> {
        let (this, now_ms, command_id) = (self.clone(), now_ms(), id.clone());
        let its = self.clone();
        self.store.submit_then(
            1024,
            move |c| {
                if let Some(gateway) = by {
                    match commands::get(c, &id)? {
                        Some(command) if command.gateway.as_ref() == Some(&gateway) => {}
                        // It answers faster than it is noted that it took the command.
                        Some(command) if commands::take(c, &id, Some(&gateway), now_ms)? => {
                            authorize(c, &gateway, &command.target, Statement::Answer, None)?;
                        }
                        Some(_) => {
                            return Err(ServiceError::Forbidden(format!(
                                "gateway `{gateway}` does not carry command `{id}`"
                            )));
                        }
                        None => its.log_unknown(&id, gateway),
                    }
                }
                if !commands::end(c, &id, &outcome, now_ms)?
                    && let Some(ended) = commands::get(c, &id)?
                {
                    its.log_second_end(&ended);
                }
                Ok(())
            },
            move |()| this.forget_running(&command_id),
        )
    }

    fn log_second_end(&self, ended: &Command) {
        let command = &ended.id;
        if ended.ended_ms.is_some_and(|ended_ms| ended_ms < self.started_ms) {
            tracing::debug!(command, "the end of a command was reported again");
        } else {
            tracing::warn!(command, "a second end of a command was left out");
        }
    }

    /// Logs one line for a gateway: it repeats up to a thousand of them to each opening of the store.
    fn log_unknown(&self, id: &str, gateway: DeviceId) {
        let mut logged = self.unknown_logged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if logged.contains(&gateway) || logged.len() >= UNKNOWN_LOGGED_MAX {
            tracing::debug!(command = id, %gateway, "answer to a command that is not in the history");
        } else {
            tracing::info!(command = id, %gateway, "answers to commands that are not in the history are left out; this is the first one");
            logged.insert(gateway);
        }
    }

    fn wait_for(&self, id: &str) -> Result<oneshot::Receiver<()>, ServiceError> {
        let mut running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if running.len() >= RUNNING_MAX {
            return Err(ServiceError::Busy(format!(
                "{RUNNING_MAX} commands wait for their answers; try again"
            )));
        }
        let (end, ended) = oneshot::channel();
        running.insert(id.to_owned(), end);
        Ok(ended)
    }

    /// Ends the wait of [`Commands::call`] for a command.
    fn forget_running(&self, id: &str) {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(id);
    }
}

fn ended_command(c: &Connection, id: &str) -> Result<Command, ServiceError> {
    commands::get(c, id)?
        .ok_or_else(|| ServiceError::Busy("the history was trimmed before the command's end was read".into()))
}

fn stopping() -> ServiceError {
    ServiceError::Stopping("central is stopping; the history will have the command's end".into())
}
