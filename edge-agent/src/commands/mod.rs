//! Commands from central: each is called once and gets exactly one answer, the target's own or why there is none.
//!
//! ```text
//! central ─► waiting ── its target listens ──► running ── answer, or none by the deadline ──► answered ─► reported
//!               └── not valid any more, or its device left ───────────────────────────────────►┘
//! ```
//!
//! Guarantees: a command that comes twice is not run twice. A command that ran when the daemon ended is answered
//! "no answer" after its restart, not run again. An answer is kept on disk until central has acknowledged it. A command that
//! central gave a time to be valid waits on disk for a target that is away ([`waiting`]); another runs at once.

pub mod daemon;
mod journal;
pub mod methods;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use edge_hub::clients::Clients;
use edge_hub::single_flight::SingleFlight;
use edge_hub::tasks;
use futures_util::future::BoxFuture;
use schemas::link::{CommandDown, TakenCommands};
use schemas::method::{MethodFailure, MethodRequest};
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::daemon::DaemonMethods;
pub use self::journal::{Answer, Counts};
use self::journal::{Entered, Journal};
use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::clock::{save_soon, steady_ms};
use crate::state::{Saved, State, StateError};

/// The commands under way. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    gateway: DeviceId,
    journal: Arc<Mutex<Journal>>,
    answered: Arc<Notify>,
    /// Notified when the next command to expire may be another one.
    waiting_changed: Arc<Notify>,
    /// Targets whose waiting commands are being run.
    runs: Arc<SingleFlight<Identity>>,
    clients: Clients,
    daemon: DaemonMethods,
    running: TaskTracker,
    stop: CancellationToken,
}

fn no_answer(target: &Identity, request: &MethodRequest) -> MethodFailure {
    let seconds = request.connect_timeout_in_seconds + request.response_timeout_in_seconds;
    MethodFailure::NoAnswer { target: target.to_string(), seconds }
}

impl Commands {
    /// The journal as last saved. What ran then has no answer now.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be used.
    pub fn load(
        state: State,
        clients: Clients,
        gateway: DeviceId,
        daemon: DaemonMethods,
    ) -> Result<Self, StateError> {
        let (journal, interrupted) = Journal::load(state, steady_ms())?;
        let commands = Self {
            gateway,
            journal: Arc::new(Mutex::new(journal)),
            answered: Arc::default(),
            waiting_changed: Arc::default(),
            runs: Arc::default(),
            clients,
            daemon,
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        for (id, target, seconds) in interrupted {
            tracing::warn!(command = id, target, "a command ran when the daemon ended; it has no answer");
            commands.answer(&id, Err(MethodFailure::NoAnswer { target, seconds })).later();
        }
        commands.all_unsent();
        // The daemon's own never begin to listen.
        for target in [
            Identity::device(commands.gateway.clone()),
            Identity::module(commands.gateway.clone(), ModuleId::edge_agent()),
        ] {
            commands.wake(&target);
        }
        Ok(commands)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("nothing panics while it holds the journal")
    }

    /// Takes a command from central. `Ok` when it is journaled: it may be acknowledged then. `is_here` is called while nothing
    /// can be forgotten: a command for somebody who is not here is answered at once.
    ///
    /// # Errors
    /// [`StateError`] when the journal was not saved; nothing was called.
    pub async fn take(
        &self,
        id: String,
        target: Identity,
        command: CommandDown,
        is_here: impl Fn() -> bool,
    ) -> Result<(), StateError> {
        let CommandDown { request, valid_for_in_seconds } = command;
        let entered = {
            let mut journal = self.journal();
            match valid_for_in_seconds {
                _ if !is_here() => journal.known(&id).unwrap_or_else(|| {
                    Entered::Not(MethodFailure::NotConnected { target: target.to_string() })
                }),
                Some(seconds) => journal.enter_waiting(&id, &target, &request, seconds, steady_ms()),
                None => journal.enter_running(&id, &target, &request),
            }
        };
        let saved = match entered {
            Entered::New(saved) => saved,
            Entered::Known => return Ok(()),
            Entered::Answered => {
                self.answered.notify_one();
                return Ok(());
            }
            Entered::Not(failure) => {
                tracing::error!(command = id, %target, %failure, "a command was not taken, and is not run");
                return self.answer(&id, Err(failure)).durable().await;
            }
        };
        if let Err(error) = saved.durable().await {
            self.journal().forget(&id, valid_for_in_seconds.is_some());
            return Err(error);
        }
        if valid_for_in_seconds.is_some() {
            save_soon();
            tracing::info!(command = id, %target, method = request.method_name, "command is kept for its target");
            self.waiting_changed.notify_one();
            self.wake(&target);
            return Ok(());
        }
        // Bounded: the deadline of the request ends it, and the journal's length bounds their number.
        let commands = self.clone();
        tasks::spawn_tracked(&self.running, "command", async move {
            let answer = commands.run_guarded(&id, &target, &request).await;
            commands.answer(&id, answer).later();
        });
        Ok(())
    }

    /// As [`Commands::run`]; a panic is no answer, since each command gets one.
    async fn run_guarded(&self, id: &str, target: &Identity, request: &MethodRequest) -> Answer {
        let span = tracing::info_span!("command", command = %id, %target);
        let ran = tasks::guard("call of a target", self.run(id, target, request).instrument(span)).await;
        ran.unwrap_or_else(|_| Err(no_answer(target, request)))
    }

    /// Calls, unless the daemon stops meanwhile: then there is no answer.
    async fn run(&self, id: &str, target: &Identity, request: &MethodRequest) -> Answer {
        let ended = self.journal().ended(id);
        let end = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                // Its target was removed: the next one of its name is not called.
                () = ended.cancelled() => {}
            }
        };
        let answer = tokio::select! {
            biased;
            () = end => Err(no_answer(target, request)),
            answer = self.call(target, request) => answer,
        };
        let method = request.method_name.as_str();
        match &answer {
            Ok(response) => {
                tracing::info!(command = id, %target, method, status = response.status, "command answered");
            }
            Err(failure) => tracing::warn!(command = id, %target, method, %failure, "command failed"),
        }
        answer
    }

    fn is_daemon(&self, target: &Identity) -> bool {
        target.device == self.gateway
            && target.module.as_ref().is_none_or(|module| *module == ModuleId::edge_agent())
    }

    /// Calls a method of a module, a leaf device, or the daemon itself (`$edgeAgent`).
    ///
    /// # Errors
    /// [`MethodFailure`] when the target gave no answer.
    pub async fn call(&self, target: &Identity, request: &MethodRequest) -> Answer {
        if self.is_daemon(target) {
            return Ok(self.daemon.call(request).await);
        }
        self.clients.call(target, request).await
    }

    fn answer(&self, id: &str, answer: Answer) -> Saved {
        let saved = self.journal().answer(id, answer);
        self.answered.notify_one();
        saved
    }

    /// Compares with what this gateway has taken, as central knows: what is not here was lost with its state, and central is sent
    /// that instead of an answer.
    ///
    /// # Errors
    /// [`StateError`] when that was not saved.
    pub async fn report_lost(&self, taken: TakenCommands) -> Result<(), StateError> {
        let lost = self.journal().answer_lost(taken.commands);
        for (id, saved) in lost {
            tracing::error!(
                command = id,
                "a command that this gateway had taken is not known here: its state has lost changes"
            );
            self.answered.notify_one();
            saved.durable().await?;
        }
        Ok(())
    }

    /// Marks every answer as not sent: a new link tells central again.
    pub fn all_unsent(&self) {
        self.journal().all_unsent();
        self.answered.notify_one();
    }

    /// Waits until there is an answer to send. For one waiter.
    pub async fn has_unsent(&self) {
        self.answered.notified().await;
    }

    /// Takes the next answer that central does not have.
    pub fn next_unsent(&self) -> Option<(String, Answer)> {
        self.journal().next_unsent()
    }

    /// How many commands stand where.
    pub fn counts(&self) -> Counts {
        self.journal().counts()
    }

    /// central has the answer; only that the command was here is remembered, for a while.
    pub fn acknowledged(&self, id: &str) {
        self.journal().note_acknowledged(id, steady_ms());
    }

    /// The targets of commands that wait.
    pub fn targets(&self) -> BTreeSet<Identity> {
        self.journal().targets()
    }

    /// Ends the calls that run, each with "no answer", and gives the state back.
    pub async fn close(&self) {
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
        self.daemon.close().await;
    }
}

impl IdentityState for Commands {
    fn identities(&self) -> BTreeSet<Identity> {
        self.targets()
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        let ended = self.journal().end_of(removed);
        if !ended.is_empty() {
            self.answered.notify_one();
        }
        Box::pin(async move {
            for (id, target, saved) in ended {
                tracing::warn!(command = id, %target, "a command waited for somebody who is not here any more");
                saved.durable().await?;
            }
            Ok(())
        })
    }
}
