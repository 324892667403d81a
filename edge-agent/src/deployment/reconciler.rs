//! Makes what runs what the deployment in force wants, again and again.
//!
//! ```text
//!   woken by: another deployment · an event of the engine · a pull that ended · a wait that is over · once a minute
//!      │
//!      ▼
//!   look (observe) ──► plan ──► nothing to do: tell, and sleep
//!                        │
//!                        └──► begin the steps that are due; when one ends well, those that waited for it; then look again
//! ```
//!
//! Nothing is touched before there is a deployment. The steps of each module are done in a task of its own, and what waits for
//! what is in [`schedule`]: modules are supervised while images are pulled and while other modules are being stopped. A step
//! that fails leaves the other modules alone and is tried again after a wait.

mod listener;
mod outcome;
mod pulls;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_core::backoff::Backoff;
use edge_core::deploy::desired::{Desired, generation_of};
use edge_core::deploy::observed::Observed;
use edge_core::deploy::plan::{Action, Plan, Reason, plan};
use edge_core::deploy::restart::{Event, Restarts};
use edge_core::deploy::schedule::{self, Batch, BatchKind, Holds};
use edge_core::error_chain::chain;
use edge_hub::tasks;
use schemas::manifest::DesiredStatus;
use schemas::names::ModuleId;
use schemas::status::code;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::listener::{FIRST_WAIT, Followed, LONGEST_WAIT, Listener};
use self::outcome::outcome;
use self::pulls::{Fetch, Pulls};
use self::steps::{Busy, Ended, Failure, Steps};
use crate::access::module_keys::ModuleKeys;
use crate::clock::now_ms;
use crate::config::Config;
use crate::deployment::artifacts::Artifacts;
use crate::deployment::container_limits::ContainerLimits;
use crate::deployment::docker::executor::Executor;
use crate::deployment::docker::observe::observe;
use crate::deployment::docker::{DockerError, Engine, Finality, ModuleContext, answered_within};
use crate::deployment::restart_counts::RestartCounts;
use crate::deployment::restart_requests::{RestartError, RestartRequest};
use crate::deployment::status::{Deployment, Outcome, ReconcilerStatus};
use crate::deployment::workload::Workload;

/// A lost event costs this much delay at the most.
const PASS_EVERY: Duration = Duration::from_secs(60);
/// An engine that takes longer to tell what runs is stuck.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long somebody waits for a plan.
const PLAN_WITHIN: Duration = Duration::from_secs(10);

/// The task that does it.
#[derive(Clone)]
pub struct Reconciler {
    pub engine: Engine,
    pub workload: Arc<Workload>,
    /// What every container gets.
    pub context: ModuleContext,
    /// What is wanted; `None` before there is a deployment.
    pub deployments: watch::Receiver<Option<Arc<Deployment>>>,
    pub status: watch::Sender<ReconcilerStatus>,
    /// Where the images are noted that were pulled.
    pub artifacts: Artifacts,
    /// Restarts of modules that an earlier run of the daemon counted, and where they are kept.
    pub counts: RestartCounts,
    pub limits: ContainerLimits,
    /// Restarts that somebody asks for. Shared by the runs of this task, which is started again after a panic.
    pub requests: Arc<tokio::sync::Mutex<mpsc::Receiver<RestartRequest>>>,
}

/// What it remembers from one look to the next.
struct Memory {
    deployment: Arc<Deployment>,
    restarts: Restarts,
    /// The last failure of each module whose steps are tried again.
    problems: BTreeMap<ModuleId, String>,
    /// Those of them that another try does not end.
    refused: BTreeSet<ModuleId>,
    /// Those of them that are refused when the next try fails in this way too.
    doubted: BTreeSet<ModuleId>,
    pulls: Pulls,
    steps: Steps,
    /// What the last look found to be done and has not begun yet.
    due: Option<Due>,
    context: Arc<ModuleContext>,
    network: Arc<tokio::sync::Mutex<()>>,
    /// Restarts that were asked for and have not begun.
    requests: Vec<RestartRequest>,
    /// Who waits for the restart that is being done of a module.
    askers: BTreeMap<ModuleId, Vec<oneshot::Sender<Result<(), RestartError>>>>,
    followed: Arc<Mutex<Followed>>,
    observed_at_ms: u64,
}

/// What a look found to be done.
struct Due {
    planned: Plan,
    executor: Arc<Executor>,
    /// The modules whose image could not be fetched.
    failed: BTreeSet<ModuleId>,
    is_fetching: bool,
}

/// What to do after a look.
enum Next {
    /// Look again at once.
    Pass,
    /// Wait for something to happen, or for this time (milliseconds since the Unix epoch).
    Sleep(Option<u64>),
}

impl Reconciler {
    /// Runs until `stop`. Containers run on.
    pub async fn run(mut self, stop: CancellationToken) {
        let (happened, busy) = (Arc::new(Notify::new()), Busy::default());
        let followed = Arc::new(Mutex::new(Followed::default()));
        // Ends the listener also when this task panics.
        let events_stop = stop.child_token();
        let _end_events = events_stop.clone().drop_guard();
        let gateway = self.context.gateway.to_string();
        let events = tasks::spawn(
            "Docker events",
            Listener {
                engine: self.engine.clone(),
                gateway,
                happened: happened.clone(),
                busy: busy.clone(),
                followed: followed.clone(),
            }
            .run(events_stop),
        );
        tokio::select! {
            () = self.reconcile(&happened, busy, followed, &stop) => {}
            () = stop.cancelled() => {}
        }
        // A step is never cut in two by its own end: the engine finishes a request.
        let _ = events.await;
    }

    async fn reconcile(
        &mut self,
        happened: &Notify,
        busy: Busy,
        followed: Arc<Mutex<Followed>>,
        stop: &CancellationToken,
    ) {
        let Ok(first) = self.deployments.wait_for(Option::is_some).await.map(|d| d.clone()) else { return };
        let Some(deployment) = first else { return };
        let counts = self.counts.of(deployment.version);
        let mut memory = Memory {
            deployment,
            restarts: Restarts::since_boot(booted_at_ms()).with_counts(counts),
            problems: BTreeMap::new(),
            refused: BTreeSet::new(),
            doubted: BTreeSet::new(),
            pulls: Pulls::default(),
            steps: Steps::new(busy),
            due: None,
            context: Arc::new(self.context.clone()),
            network: Arc::default(),
            requests: Vec::new(),
            askers: BTreeMap::new(),
            followed,
            observed_at_ms: 0,
        };
        let requests = self.requests.clone();
        let mut requests = requests.lock().await;
        let mut away = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut pass_at = Instant::now();
        loop {
            if let Some(latest) = self.deployments.borrow_and_update().clone()
                && latest != memory.deployment
            {
                memory.restarts.handle(now_ms(), Event::Deployed);
                memory.problems.clear();
                memory.refused.clear();
                memory.doubted.clear();
                memory.pulls.deployed(&latest);
                memory.deployment = latest;
                pass_at = Instant::now();
            }
            if pass_at <= Instant::now() {
                pass_at = Instant::now() + self.run_pass(&mut memory, &mut away, stop).await;
            }
            let is_pass_due = tokio::select! {
                () = happened.notified() => true,
                changed = self.deployments.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                Some(pulled) = memory.pulls.ended() => {
                    if let Some(image_id) = memory.pulls.note(pulled) {
                        self.artifacts.pulled(image_id);
                    }
                    true
                }
                Some(ended) = memory.steps.ended() => memory.ended(ended, stop),
                Some(request) = requests.recv() => {
                    memory.requests.push(request);
                    true
                }
                () = tokio::time::sleep_until(pass_at) => true,
                () = stop.cancelled() => return,
            };
            if is_pass_due {
                pass_at = Instant::now();
            }
        }
    }

    /// Observes Docker, begins the steps that are due, and returns how long to wait if no event comes.
    async fn run_pass(&self, memory: &mut Memory, away: &mut Backoff, stop: &CancellationToken) -> Duration {
        match self.pass(memory, stop).await {
            Ok(next) => {
                away.succeeded();
                match next {
                    Next::Pass => Duration::ZERO,
                    Next::Sleep(None) => PASS_EVERY,
                    Next::Sleep(Some(at_ms)) => {
                        Duration::from_millis(at_ms.saturating_sub(now_ms())).min(PASS_EVERY)
                    }
                }
            }
            Err(error) => {
                let why = chain(&error).to_string();
                tracing::error!(error = why, "listing the containers failed");
                self.status.send_modify(|status| {
                    status.version = Some(memory.deployment.version);
                    status.is_settled = false;
                    status.outcome = Outcome { code: code::FAILED, description: why.clone() };
                    status.unseen = Some(why);
                });
                away.failed(rand::random())
            }
        }
    }

    /// One look, and the steps that follow from it.
    async fn pass(&self, memory: &mut Memory, stop: &CancellationToken) -> Result<Next, DockerError> {
        memory.due = None;
        // Before the request to the engine: its answer may be out of date by the time of the answer.
        memory.observed_at_ms = now_ms();
        let deployment = memory.deployment.clone();
        let desired = &deployment.desired;
        let (docker, mut observed) = answered_within(OBSERVE_TIMEOUT, async {
            let docker = self.engine.client().await?;
            let observed = observe(&docker, &self.context).await?;
            Ok((docker, observed))
        })
        .await?;
        self.limits.compare(&mut observed);
        // A module may run already: it must be served before anything else is done.
        let mut unserved = BTreeMap::new();
        for module in observed.modules.keys().chain(desired.modules.keys()) {
            if let Err(why) = self.workload.open(module) {
                let doing = format!("open the workload socket of module `{module}`");
                unserved.insert(module.clone(), Failure::from(&DockerError::Host { doing, why }));
            }
        }
        memory.restarts.handle(now_ms(), Event::Observed(desired, &observed));
        let planned = plan(desired, &observed, &memory.restarts, now_ms());
        memory.forget_solved(&planned);
        let fetch = memory.pulls.fetch(&docker, &planned, &deployment);
        let Fetch { is_fetching, mut failed } = answered_within(OBSERVE_TIMEOUT, fetch).await?;
        // One that is to be removed needs no socket.
        failed.extend(unserved.into_iter().filter(|(module, _)| desired.modules.contains_key(module)));
        for (module, problem) in &failed {
            memory.failed(module, problem.clone());
        }
        let requested = memory.requested_restarts(&observed);
        self.report(memory, observed, &planned, is_fetching);

        let has_failed = !failed.is_empty();
        let failed = failed.into_keys().collect();
        // Nothing else keeps a container running whose replacement waits.
        let interim_due_ms = planned.interim_due_ms.filter(|_| is_fetching || planned.holds_some());
        let due_ms = planned.earliest().into_iter().chain(interim_due_ms).min();
        let executor = Arc::new(Executor {
            docker,
            view: self.engine.shared_view().await,
            context: memory.context.clone(),
            workload: self.workload.clone(),
            deployment,
            network: memory.network.clone(),
        });
        for batch in requested {
            memory.steps.begin(executor.clone(), batch, stop.clone());
        }
        memory.due = Some(Due { planned, executor, failed, is_fetching });
        memory.begin(stop);
        Ok(if has_failed { Next::Pass } else { Next::Sleep(due_ms) })
    }

    fn report(&self, memory: &Memory, observed: Observed, planned: &Plan, is_fetching: bool) {
        let Followed { since_ms: engine_since_ms, problem: unfollowed } =
            memory.followed.lock().expect("nothing panics while it holds it").clone();
        let is_still = planned.is_empty() && memory.steps.running().is_empty();
        let (is_settled, outcome) = outcome(planned, &memory.problems, unfollowed, is_still, is_fetching);
        let version = memory.deployment.version;
        let was_settled = self.status.borrow().is_settled && self.status.borrow().version == Some(version);
        if is_settled && !was_settled {
            tracing::info!(
                version,
                modules = observed.modules.len(),
                "everything is as the deployment wants it"
            );
        }
        self.counts.keep(version, &memory.restarts);
        self.status.send_replace(ReconcilerStatus {
            version: Some(version),
            observed,
            restarts: memory.restarts.clone(),
            outcome,
            is_settled,
            plan: planned.to_string(),
            problems: memory.problems.clone(),
            refused: memory.refused.clone(),
            is_busy: is_fetching || !memory.steps.running().is_empty() || schedule::goes_on(planned),
            engine_since_ms,
            observed_at_ms: memory.observed_at_ms,
            pulling: memory.pulls.in_progress(),
            unseen: None,
        });
    }
}

impl Memory {
    /// The restarts that were asked for and can begin; those of modules whose steps are being done wait for their end.
    fn requested_restarts(&mut self, observed: &Observed) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            let module = &request.module;
            let target = self.deployment.desired.modules.get(module).map(|target| target.spec.status);
            let refusal = match (target, observed.modules.get(module)) {
                (None, _) => RestartError::NotInManifest { module: module.clone() },
                (Some(DesiredStatus::Running), Some(_)) if self.steps.running().contains_key(module) => {
                    self.requests.push(request);
                    continue;
                }
                (Some(DesiredStatus::Running), Some(seen)) => {
                    let (module, container_id) = (module.clone(), seen.container_id.clone());
                    self.askers.entry(module.clone()).or_default().push(request.answer);
                    if batches.iter().any(|batch| batch.module == module) {
                        continue;
                    }
                    tracing::info!(%module, "module is restarted because somebody asked for it");
                    self.restarts.forget(&module);
                    self.problems.remove(&module);
                    self.refused.remove(&module);
                    let stop = Action::Stop { module: module.clone(), container_id: container_id.clone() };
                    let start = Action::Start { module: module.clone(), container_id: Some(container_id) };
                    batches.push(Batch { module, kind: BatchKind::Restart, actions: vec![stop, start] });
                    continue;
                }
                (Some(DesiredStatus::Running), None) if observed.unreadable.contains_key(module) => {
                    let why = observed.unreadable[module].why.clone();
                    RestartError::Failed { why }
                }
                (Some(DesiredStatus::Running), None) => RestartError::NoContainer { module: module.clone() },
                (Some(_), _) => RestartError::NotToRun { module: module.clone() },
            };
            // Nobody may wait for it any more.
            let _ = request.answer.send(Err(refusal));
        }
        batches
    }

    /// Whether a module may turn out to be refused: the engine has failed it once, or does not say how its container is.
    fn is_undecided(&self, planned: &Plan) -> bool {
        planned.waiting.iter().any(|waiting| {
            matches!(waiting.reason, Reason::Unreadable { .. }) || self.doubted.contains(&waiting.module)
        })
    }

    /// Begins the steps that are due and wait for no other. Whether there were any.
    fn begin(&mut self, stop: &CancellationToken) -> bool {
        let Some(due) = &self.due else { return false };
        let desired = &self.deployment.desired;
        let holds = Holds {
            failed: due.failed.clone(),
            is_fetching: due.is_fetching,
            is_refused: self.deployment.is_atomic && !self.refused.is_empty(),
            is_undecided: self.deployment.is_atomic && self.is_undecided(&due.planned),
        };
        let batches = schedule::due(&due.planned, desired, self.steps.running(), &holds);
        let has_begun = !batches.is_empty();
        for batch in batches {
            self.steps.begin(due.executor.clone(), batch, stop.clone());
        }
        has_begun
    }

    /// Notes how the steps of a module ended and begins those that waited for it. Whether the containers must be looked at: after
    /// a failure, when nothing waited for it, and when another module waits for what the module is like now.
    fn ended(&mut self, ended: Ended, stop: &CancellationToken) -> bool {
        for action in &ended.done {
            self.done(action);
        }
        for asker in self.askers.remove(&ended.module).unwrap_or_default() {
            let failure = ended.failure.clone();
            let _ =
                asker.send(failure.map_or(Ok(()), |failure| Err(RestartError::Failed { why: failure.why })));
        }
        // One that was asked for while the steps were being done can begin.
        let is_requested = self.requests.iter().any(|request| request.module == ended.module);
        let mut is_awaited = false;
        if let Some(due) = &mut self.due {
            is_awaited = due.planned.is_awaited(&ended.module);
            // A look in the middle of what stops or replaces a container has planned for what is not there any more.
            if ended.failure.is_none() && ended.kind == BatchKind::Prepare {
                due.planned.done(&ended.done);
            } else {
                due.planned.without(&ended.module);
            }
        }
        match ended.failure {
            Some(problem) => {
                self.failed(&ended.module, problem);
                true
            }
            None => !self.begin(stop) || is_requested || is_awaited,
        }
    }

    fn done(&mut self, action: &Action) {
        let event = match action {
            Action::Start { module, .. } | Action::Replace { module, .. } => Event::Started(module),
            Action::Restart { module, .. } => Event::Restarted(module),
            _ => return,
        };
        self.restarts.handle(now_ms(), event);
    }

    fn failed(&mut self, module: &ModuleId, failure: Failure) {
        let problem = failure.why;
        tracing::error!(%module, problem, "step failed; it is tried again after a wait");
        self.restarts.handle(now_ms(), Event::Failed(module));
        self.problems.insert(module.clone(), problem);
        let was_doubted = self.doubted.remove(module);
        let is_refused = match failure.finality {
            Finality::Final => true,
            Finality::FinalIfRepeated => was_doubted,
            Finality::Passing => false,
        };
        if is_refused {
            self.refused.insert(module.clone());
        } else {
            self.refused.remove(module);
        }
        if failure.finality == Finality::FinalIfRepeated {
            self.doubted.insert(module.clone());
        }
    }

    /// A problem is over when its module neither waits nor has anything to be done.
    fn forget_solved(&mut self, planned: &Plan) {
        self.problems.retain(|module, _| {
            planned.waiting.iter().any(|waiting| waiting.module == *module)
                || planned.actions.iter().any(|action| action.module() == module)
        });
        let problems = &self.problems;
        self.refused.retain(|module| problems.contains_key(module));
        self.doubted.retain(|module| problems.contains_key(module));
    }
}

/// When this host booted, in milliseconds since the Unix epoch; 0 when that is unknown.
fn booted_at_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let secs =
        stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|s| s.trim().parse::<u64>().ok());
    secs.unwrap_or(0) * 1000
}

/// What applying `desired` would do now. Changes nothing.
///
/// # Errors
/// [`DockerError`] when the engine does not answer.
pub async fn plan_once(config: &Config, keys: &ModuleKeys, desired: &Desired) -> Result<Plan, DockerError> {
    let observed = answered_within(PLAN_WITHIN, async {
        let docker = Engine::new(config.docker.socket.clone()).client().await?;
        observe(&docker, &ModuleContext::new(config, keys)).await
    });
    let observed = observed.await?;
    // A daemon that runs replaces containers of earlier modules of a name at once; what is there is of the present ones.
    let number = |module: &ModuleId| {
        observed.modules.get(module).map_or(0, |observed| generation_of(&observed.fingerprint))
    };
    let desired = &desired.clone().of_generations(number);
    Ok(plan(desired, &observed, &Restarts::since_boot(booted_at_ms()), now_ms()))
}
