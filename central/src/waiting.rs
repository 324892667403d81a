//! Commands that wait for a target that is away, for as long as they are valid.
//!
//! ```text
//! asked ──► waits here ──── the gateway has it on disk ──► waits there ──► called, answered ──► ended
//!               │└─ the device listens at central's own listener ──► called ───────────────────────►│
//!               └── not valid any more ─────────────────────────────────────────────────────────┘
//! ```
//!
//! A command is taken once: by a gateway, which journals it, or here, before the call. What was taken is not sent again, so
//! that a target never runs it twice; when its taker dies, it ends with "no answer".

use edge_core::error_chain::chain;
use edge_hub::tasks;
use std::sync::Arc;
use std::time::Duration;

use edge_core::dialect::client::Subscribe;
use schemas::method::{MethodFailure, MethodRequest};
use schemas::names::{DeviceId, Identity};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::commands::{GRACE, check, no_answer};
use crate::error::ServiceError;
use crate::fleet::Fleet;
use crate::lookup::require;
use crate::store::StoreError;
use crate::store::commands::{self, Command, Outcome};

/// Commands that may wait for one target, as many as IoT Hub keeps messages for one device.
const WAITING_MAX: usize = 50;
/// How long a command may wait, in seconds: a week.
const VALID_MAX: u64 = 7 * 24 * 3600;
/// What a device that listens did not take is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Looks at the clock at least so often: it may jump.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Fleet {
    /// Takes a command that waits up to `valid_for` seconds for its target, and gives it as it stands now. Its end is in the
    /// history. Commands of one target run one after the other, in the order in which they were asked for.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for an unknown target, [`ServiceError::Wrong`] for a wrong request, [`ServiceError::QueueFull`]
    /// when as many wait as may; in these cases it is not in the history.
    pub async fn keep_command(
        self: &Arc<Self>,
        target: Identity,
        request: MethodRequest,
        valid_for: u64,
    ) -> Result<Command, ServiceError> {
        check(&request)?;
        if !(1..=VALID_MAX).contains(&valid_for) {
            return Err(ServiceError::Wrong(format!(
                "validFor: found {valid_for}; write 1 to {VALID_MAX} seconds"
            )));
        }
        if request.connect_timeout_in_seconds > 0 {
            return Err(ServiceError::Wrong(
                "connectionTimeout: leave it out beside validFor, which says how long the target is waited for".into(),
            ));
        }
        let asked_ms = now_ms();
        let valid_until_ms = asked_ms + valid_for * 1000;
        // What began to run in its last moment may take as long as it was given.
        let grace = Duration::from_secs(request.response_timeout_in_seconds) + GRACE;
        let id = uuid::Uuid::new_v4().to_string();
        let (command, row, carrier) = self
            .store
            .submit(move |c| {
                let device = require(c, &target)?;
                let waiting = commands::count_waiting(c, &target)?;
                if waiting >= WAITING_MAX {
                    return Err(ServiceError::QueueFull(format!(
                        "{waiting} commands wait for `{target}` already; wait for it"
                    )));
                }
                let command = Command {
                    id,
                    gateway: device.carrier().cloned(),
                    target,
                    request,
                    asked_ms,
                    deadline_ms: valid_until_ms + u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
                    valid_until_ms: Some(valid_until_ms),
                    taken_ms: None,
                    ended_ms: None,
                    outcome: None,
                };
                let row = commands::insert(c, &command)?;
                Ok((command, row, device.carrier().cloned()))
            })
            .await?;
        self.waiting_changed.notify_one();
        self.carry_on(&command.target.device, carrier.as_ref(), [row]);
        Ok(command)
    }

    /// Sends the waiting commands of a device on their way: to its session at central's own listener, or to its gateway.
    pub(crate) fn carry_on(
        self: &Arc<Self>,
        device: &DeviceId,
        carrier: Option<&DeviceId>,
        rows: impl IntoIterator<Item = u64>,
    ) {
        match carrier {
            Some(gateway) if gateway == device || !self.listens_here(device) => {
                self.tell_commands(gateway, rows)
            }
            _ => self.run_waiting(device.clone()),
        }
    }

    fn listens_here(&self, device: &DeviceId) -> bool {
        self.clients.has_subscribed(&Identity::device(device.clone()), &Subscribe::MethodCalls)
    }

    /// Runs what waits for a device that listens at central's own listener. Called when it begins to listen, too.
    pub(crate) fn run_waiting(self: &Arc<Self>, device: DeviceId) {
        if !self.command_rounds.begin(&device) {
            return;
        }
        let (fleet, recovering, of) = (self.clone(), self.clone(), device.clone());
        let rounds = async move {
            loop {
                if let Err(error) = fleet.round(&device).await {
                    // They wait on, for the device to listen anew.
                    tracing::error!(%device, error = %chain(&error), "a waiting command was not run");
                }
                if !fleet.command_rounds.goes_on(&device, false) {
                    return;
                }
            }
        };
        tasks::spawn_recovering(None, "waiting commands", rounds, move || {
            recovering.command_rounds.give_up(&of);
        });
    }

    /// Runs the waiting commands of a device, one after the other, while it listens here.
    async fn round(self: &Arc<Self>, device: &DeviceId) -> Result<(), ServiceError> {
        while self.listens_here(device) && !self.stop.is_cancelled() {
            let (of, now_ms) = (device.clone(), now_ms());
            let next = self.store.submit(move |c| {
                let next = commands::next_waiting(c, &of, now_ms)?;
                if let Some(command) = &next {
                    // On disk before the call: it is never called twice.
                    commands::take(c, &command.id, None, now_ms)?;
                }
                Ok::<_, ServiceError>(next)
            });
            let Some(command) = next.await? else { return Ok(()) };
            let outcome = tokio::select! {
                outcome = self.clients.call(&command.target, &command.request) => outcome,
                () = self.stop.cancelled() => return Ok(()),
            };
            if matches!(outcome, Err(MethodFailure::NotConnected { .. })) {
                // It went away between: it was not called, and waits on.
                let id = command.id;
                self.store.submit(move |c| Ok::<_, StoreError>(commands::give_back(c, &id)?)).await?;
                // Or it takes too slowly what it is sent.
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => continue,
                    () = self.stop.cancelled() => return Ok(()),
                }
            }
            self.end(command.id, None, outcome).await?;
        }
        Ok(())
    }

    pub(crate) async fn note_command_taken(self: &Arc<Self>, gateway: DeviceId, id: String) {
        let now_ms = now_ms();
        let noted = self
            .store
            .submit(move |c| Ok::<_, StoreError>(commands::take(c, &id, Some(&gateway), now_ms)?))
            .await;
        match noted {
            Ok(_) => self.waiting_changed.notify_one(),
            // The gateway knows the command when it is told again.
            Err(error) => {
                tracing::warn!(error = %chain(&error), "that a gateway took a command was not stored")
            }
        }
    }

    /// Ends waiting commands whose time is over, until `stop`.
    pub(crate) async fn expire_commands(self: &Arc<Self>, stop: CancellationToken) {
        loop {
            let now = now_ms();
            let (over, next) = match self
                .store
                .read(move |c| Ok::<_, StoreError>(commands::overdue(c, now)?))
                .await
            {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "commands whose time is over could not be read");
                    (Vec::new(), None)
                }
            };
            for command in over {
                tracing::warn!(command = command.id, target = %command.target, "command expired before it was answered");
                if let Err(error) = self.end(command.id.clone(), None, time_is_over(&command)).await {
                    tracing::error!(command = command.id, error = %chain(&error), "the end of a command was not stored");
                }
            }
            let wait =
                next.map_or(LOOK_EVERY, |at| Duration::from_millis(at.saturating_sub(now)).min(LOOK_EVERY));
            tokio::select! {
                // At least a little: a command that could not be ended is not tried again in a whirl.
                () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
                () = self.waiting_changed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// How a waiting command ends when its time is over.
fn time_is_over(command: &Command) -> Outcome {
    match command.taken_ms {
        // It may have been called.
        Some(_) => no_answer(command),
        None => {
            let valid_ms = command.valid_until_ms.unwrap_or_default().saturating_sub(command.asked_ms);
            Err(MethodFailure::Expired { target: command.target.to_string(), seconds: valid_ms / 1000 })
        }
    }
}
