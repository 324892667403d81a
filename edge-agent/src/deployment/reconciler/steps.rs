//! The steps of modules that are being done, each module's in a task of its own: one whose container takes a minute to stop holds
//! up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use edge_core::deploy::plan::Action;
use edge_core::deploy::schedule::{Batch, BatchKind, Running};
use edge_core::error_chain::chain;
use edge_hub::tasks;
use schemas::names::ModuleId;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::deployment::docker::executor::Executor;
use crate::deployment::docker::{DockerError, Finality};

/// How the steps of one module ended.
pub(super) struct Ended {
    pub(super) module: ModuleId,
    pub(super) kind: BatchKind,
    /// Those that were done, in order.
    pub(super) done: Vec<Action>,
    /// Why the one after them was not.
    pub(super) failure: Option<Failure>,
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) why: String,
    pub(super) finality: Finality,
}

impl From<&DockerError> for Failure {
    fn from(error: &DockerError) -> Self {
        Self { why: chain(error).to_string(), finality: error.finality() }
    }
}

/// The modules whose steps are being done, for those who hear of their containers meanwhile.
pub(super) type Busy = Arc<Mutex<BTreeSet<ModuleId>>>;

#[derive(Default)]
pub(super) struct Steps {
    tasks: JoinSet<(Vec<Action>, Option<Failure>)>,
    by_task: BTreeMap<Id, ModuleId>,
    running: Running,
    busy: Busy,
}

impl Steps {
    /// None yet; `busy` has always the modules whose steps are being done.
    pub(super) fn new(busy: Busy) -> Self {
        Self { busy, ..Self::default() }
    }

    /// What is being done.
    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    /// Begins the steps of a module of which none is being done. They end after the present one when `stop` is cancelled.
    pub(super) fn begin(&mut self, executor: Arc<Executor>, batch: Batch, stop: CancellationToken) {
        let Batch { module, kind, actions } = batch;
        let span = tracing::info_span!("steps", %module);
        let steps = run(executor, actions, stop).instrument(span);
        let task = tasks::spawn_in(&mut self.tasks, "module steps", steps);
        self.by_task.insert(task.id(), module.clone());
        self.lock_busy().insert(module.clone());
        self.running.insert(module, kind);
    }

    /// The next module whose steps have ended; `None` at once when no step is being done. Loses nothing when it is dropped.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let module = self.by_task.remove(&id).expect("each task has a module");
        let kind = self.running.remove(&module).expect("what is being done is noted");
        self.lock_busy().remove(&module);
        let (done, failure) = match ended {
            Ok((_, ended)) => ended,
            Err(error) => {
                let why = chain(&error).to_string();
                (Vec::new(), Some(Failure { why, finality: Finality::Passing }))
            }
        };
        Some(Ended { module, kind, done, failure })
    }

    fn lock_busy(&self) -> std::sync::MutexGuard<'_, BTreeSet<ModuleId>> {
        self.busy.lock().expect("nothing panics while it holds it")
    }
}

async fn run(
    executor: Arc<Executor>,
    actions: Vec<Action>,
    stop: CancellationToken,
) -> (Vec<Action>, Option<Failure>) {
    let mut done = Vec::with_capacity(actions.len());
    for action in actions {
        if stop.is_cancelled() {
            break;
        }
        if let Err(error) = executor.apply(&action).await {
            return (done, Some(Failure::from(&error)));
        }
        tracing::info!(step = %action, "step done");
        done.push(action);
    }
    (done, None)
}
