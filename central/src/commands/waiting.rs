//! Commands that wait for a target that is away, for as long as they are valid.
//!
//! ```text
//! requested ──► waits here ── the gateway has it on disk ──► waits there ──► called, answered ──► ended
//!               │└─ the device listens at central's own listener ──► called ───────────────────────►│
//!               └── not valid any more ─────────────────────────────────────────────────────────┘
//! ```
//!
//! A command is taken once: by a gateway, which journals it, or here, before the call. What was taken is not sent again, so
//! that a target never runs it twice; when its taker dies, it ends with "no answer".

use std::sync::Arc;
use std::time::Duration;

use edge_core::dialect::client::Subscribe;
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use edge_hub::single_flight::SingleFlight;
use edge_hub::{age_clock, tasks};
use rusqlite::Connection;
use schemas::method::{MethodFailure, MethodRequest};
use schemas::names::{DeviceId, Identity};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::request::{check, no_answer};
use super::service::{Commands, GRACE};
use crate::clock::{is_valid, now_ms, stamp_ms, steady_ms};
use crate::error::ServiceError;
use crate::gateway_sync::service::GatewaySync;
use crate::lookup::require;
use crate::store::commands::{self, Command, Outcome};
use crate::store::{Store, StoreError, devices};

/// Commands that may wait for one target, as many as IoT Hub keeps messages for one device.
const WAITING_MAX: usize = 50;
/// Bytes of the commands that may wait for one device and its modules, so many modules as it may have.
const WAITING_BYTES_MAX: u64 = 4 << 20;
/// Bytes of the commands that may wait in all.
const ALL_WAITING_BYTES_MAX: u64 = 64 << 20;
/// How long a command may wait, in seconds: a week.
const VALID_MAX: u64 = 7 * 24 * 3600;
/// What a device that listens did not take is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest time between two checks for commands that expire: a machine that slept wakes to it.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Commands that wait for their targets.
pub struct WaitingCommands {
    store: Store,
    clients: Clients,
    commands: Arc<Commands>,
    gateway_sync: Arc<GatewaySync>,
    /// Devices whose waiting commands are being run at central's own listener.
    runs: SingleFlight<DeviceId>,
    /// Woken when the next command to expire may be another one.
    changed: Arc<Notify>,
    stop: CancellationToken,
}

impl WaitingCommands {
    /// `changed` is also woken when a gateway takes a command.
    pub fn new(
        store: Store,
        clients: Clients,
        commands: Arc<Commands>,
        gateway_sync: Arc<GatewaySync>,
        changed: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        Self { store, clients, commands, gateway_sync, runs: SingleFlight::default(), changed, stop }
    }

    /// Takes a command that waits up to `valid_for` seconds for its target, and returns its current state. Its end is in the
    /// history. Commands of one target run one after the other, in the order in which they were asked for.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for an unknown target, [`ServiceError::Wrong`] for a wrong request, [`ServiceError::QueueFull`]
    /// when as many wait as may; in these cases it is not in the history.
    pub async fn keep(
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
        let (requested_ms, from_age_ms) = (now_ms(), stamp_ms());
        let valid_until_ms = requested_ms + valid_for * 1000;
        // What began to run in its last moment may take as long as it was given.
        let grace = Duration::from_secs(request.response_timeout_in_seconds) + GRACE;
        let id = uuid::Uuid::new_v4().to_string();
        let (command, row, serving_gateway) = self
            .store
            .submit(move |c| {
                let device = require(c, &target)?;
                let waiting = commands::count_waiting(c, &target)?;
                if waiting >= WAITING_MAX {
                    return Err(ServiceError::QueueFull(format!(
                        "{waiting} commands wait for `{target}` already; wait for it"
                    )));
                }
                let (of_device, of_all) = commands::waiting_bytes(c, &target.device)?;
                if of_device >= WAITING_BYTES_MAX {
                    return Err(ServiceError::QueueFull(format!(
                        "the commands that wait for `{}` and its modules take {of_device} bytes; {WAITING_BYTES_MAX} are \
                         allowed; wait for it",
                        target.device
                    )));
                }
                if of_all >= ALL_WAITING_BYTES_MAX {
                    return Err(ServiceError::QueueFull(format!(
                        "the commands that wait for all devices take {of_all} bytes; {ALL_WAITING_BYTES_MAX} are allowed"
                    )));
                }
                let command = Command {
                    id,
                    gateway: device.serving_gateway().cloned(),
                    target,
                    request,
                    requested_ms,
                    deadline_ms: valid_until_ms + u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
                    valid_until_ms: Some(valid_until_ms),
                    from_age_ms,
                    taken_ms: None,
                    ended_ms: None,
                    outcome: None,
                };
                let row = commands::insert(c, &command)?;
                Ok((command, row, device.serving_gateway().cloned()))
            })
            .await?;
        self.changed.notify_one();
        self.deliver(&command.target.device, serving_gateway.as_ref(), [row]);
        Ok(command)
    }

    /// Sends the waiting commands of a device on their way: to its session at central's own listener, or to its gateway.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        device: &DeviceId,
        serving_gateway: Option<&DeviceId>,
        rows: impl IntoIterator<Item = u64>,
    ) {
        match serving_gateway {
            Some(gateway) if gateway == device || !self.listens_here(device) => {
                self.gateway_sync.send_commands(gateway, rows)
            }
            _ => self.run(device.clone()),
        }
    }

    fn listens_here(&self, device: &DeviceId) -> bool {
        self.clients.has_subscribed(&Identity::device(device.clone()), &Subscribe::MethodCalls)
    }

    /// Runs what waits for a device that listens at central's own listener. Called when it begins to listen, too.
    pub(crate) fn run(self: &Arc<Self>, device: DeviceId) {
        if !self.runs.begin(&device) {
            return;
        }
        let (this, recovering, of) = (self.clone(), self.clone(), device.clone());
        let runs = async move {
            loop {
                if let Err(error) = this.run_all(&device).await {
                    // They wait on, for the device to listen anew.
                    tracing::error!(%device, error = %chain(&error), "running a waiting command failed");
                }
                if !this.runs.goes_on(&device, false) {
                    return;
                }
            }
        };
        tasks::spawn_recovering(None, "waiting commands", runs, move || {
            recovering.runs.give_up(&of);
        });
    }

    /// Runs the waiting commands of a device, one after the other, while it listens here.
    async fn run_all(self: &Arc<Self>, device: &DeviceId) -> Result<(), ServiceError> {
        while self.listens_here(device) && !self.stop.is_cancelled() {
            let (of, now_ms) = (device.clone(), now_ms());
            let next = self.store.submit(move |c| {
                let next = commands::next_waiting(c, &of, is_valid)?;
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
            self.commands.end(command.id, None, outcome).await?;
        }
        Ok(())
    }

    /// Ends waiting commands that have expired, until `stop`.
    pub(crate) async fn expire(self: &Arc<Self>, stop: CancellationToken) {
        let mut settings = age_clock::settings();
        loop {
            let now = steady_ms();
            let (over, next) =
                match self.store.read(move |c| Ok::<_, StoreError>(commands::overdue(c, now)?)).await {
                    Ok(read) => read,
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "reading expired commands failed");
                        (Vec::new(), None)
                    }
                };
            for command in over {
                tracing::warn!(command = command.id, target = %command.target, "command expired before it was answered");
                if let Err(error) = self.commands.end(command.id.clone(), None, expired(&command)).await {
                    tracing::error!(command = command.id, error = %chain(&error), "storing the end of a command failed");
                }
            }
            let wait =
                next.map_or(CHECK_EVERY, |at| Duration::from_millis(at.saturating_sub(now)).min(CHECK_EVERY));
            tokio::select! {
                // At least a little: a command that could not be ended is not tried again in a whirl.
                () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
                () = self.changed.notified() => {}
                _ = settings.changed() => self.deliver_all().await,
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends all that waits: what was held may be valid by the wall clock as it was set.
    async fn deliver_all(self: &Arc<Self>) {
        match self.store.read(waiting_for_all).await {
            Ok(waiting) => {
                for (device, serving_gateway, rows) in waiting {
                    self.deliver(&device, serving_gateway.as_ref(), rows);
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "reading the commands that wait failed; gateways get them with their next connection");
            }
        }
    }
}

/// A device, the gateway that serves it if there is one, and the rows of the commands that wait for it and its modules.
type WaitingOfDevice = (DeviceId, Option<DeviceId>, Vec<u64>);

/// The commands that wait here.
fn waiting_for_all(c: &Connection) -> Result<Vec<WaitingOfDevice>, StoreError> {
    let mut waiting = Vec::new();
    for device in commands::devices_waited_for(c)? {
        if let Some(known) = devices::get(c, &device)? {
            let rows = commands::waiting(c, &device)?;
            waiting.push((device, known.serving_gateway().cloned(), rows));
        }
    }
    Ok(waiting)
}

/// The end of a waiting command that has expired.
fn expired(command: &Command) -> Outcome {
    match command.taken_ms {
        // It may have been called.
        Some(_) => no_answer(command),
        None => {
            let valid_ms = command.valid_until_ms.unwrap_or_default().saturating_sub(command.requested_ms);
            Err(MethodFailure::Expired { target: command.target.to_string(), seconds: valid_ms / 1000 })
        }
    }
}
