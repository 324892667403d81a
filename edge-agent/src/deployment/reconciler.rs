//! Makes what runs what the deployment in force wants, again and again.
//!
//! ```text
//!   woken by: another deployment · an event of the engine · a pull that ended · a wait that is over · once a minute
//!      │
//!      ▼
//!   look (observe) ──► plan ──► nothing to do: tell, and sleep
//!                        │
//!                        └──► do the steps, then look again
//! ```
//!
//! Nothing is touched before there is a deployment. While images are pulled, the modules that run are looked after and
//! nothing is stopped. A step that fails leaves the other modules alone and is tried again after a wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::EventsOptions;
use edge_core::backoff::Backoff;
use edge_core::deploy::desired::{Desired, generation_of};
use edge_core::deploy::observed::Observed;
use edge_core::deploy::plan::{Action, Plan, Reason, plan};
use edge_core::deploy::restart::{Event, Restarts};
use edge_core::error_chain::chain;
use edge_hub::tasks;
use futures_util::StreamExt as _;
use schemas::names::ModuleId;
use schemas::status::code;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access::module_keys::ModuleKeys;
use crate::clock::now_ms;
use crate::config::Config;
use crate::deployment::docker::executor::{Executor, is_present, pull};
use crate::deployment::docker::observe::observe;
use crate::deployment::docker::{DockerError, Engine, LABEL_GATEWAY, ModuleContext};
use crate::deployment::status::{Deployment, Outcome, ReconcilerStatus};
use crate::deployment::workload::Workload;

/// A lost event costs this much delay at the most.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// An engine that takes longer to tell what runs is stuck.
const LOOK_WITHIN: Duration = Duration::from_secs(30);
/// Images that are fetched at one time.
const PULLS_MAX: usize = 3;
/// The engine is away: how long until it is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The task that does it.
#[derive(Clone)]
pub struct Reconciler {
    pub engine: Engine,
    pub workload: Arc<Workload>,
    /// What containers are told.
    pub context: ModuleContext,
    /// What is wanted; `None` before there is a deployment.
    pub deployments: watch::Receiver<Option<Arc<Deployment>>>,
    pub status: watch::Sender<ReconcilerStatus>,
}

/// What it remembers from one look to the next.
struct Memory {
    deployment: Arc<Deployment>,
    restarts: Restarts,
    /// The last failure of each module whose steps are tried again.
    problems: BTreeMap<ModuleId, String>,
    pulls: JoinSet<(String, Result<(), DockerError>)>,
    /// The images that are being pulled.
    pulling: BTreeMap<String, AbortHandle>,
    /// Pulls that failed since the last look.
    failed_pulls: BTreeMap<String, String>,
}

/// What to do after a look.
enum Next {
    /// Look again at once.
    Look,
    /// Wait for something to happen, or for this time (milliseconds since the Unix epoch).
    Sleep(Option<u64>),
}

impl Reconciler {
    /// Runs until `stop`. Containers run on.
    pub async fn run(mut self, stop: CancellationToken) {
        let happened = Arc::new(Notify::new());
        // Ends the listener also when this task panics.
        let events_stop = stop.child_token();
        let _end_events = events_stop.clone().drop_guard();
        let events = tasks::spawn(
            "Docker events",
            listen(self.engine.clone(), self.context.gateway.to_string(), happened.clone(), events_stop),
        );
        tokio::select! {
            () = self.reconcile(&happened, &stop) => {}
            () = stop.cancelled() => {}
        }
        // A step is never cut in two by its own end: the engine finishes what it was asked.
        let _ = events.await;
    }

    async fn reconcile(&mut self, happened: &Notify, stop: &CancellationToken) {
        let Ok(first) = self.deployments.wait_for(Option::is_some).await.map(|d| d.clone()) else { return };
        let Some(deployment) = first else { return };
        let mut memory = Memory {
            deployment,
            restarts: Restarts::since_boot(booted_at_ms()),
            problems: BTreeMap::new(),
            pulls: JoinSet::new(),
            pulling: BTreeMap::new(),
            failed_pulls: BTreeMap::new(),
        };
        let mut away = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            if let Some(latest) = self.deployments.borrow_and_update().clone()
                && latest != memory.deployment
            {
                memory.restarts.handle(now_ms(), Event::Deployed);
                memory.problems.clear();
                memory.failed_pulls.clear();
                memory.deployment = latest;
                memory.forget_unwanted_pulls();
            }
            let wait = match self.pass(&mut memory, stop).await {
                Ok(Next::Look) => {
                    away.succeeded();
                    continue;
                }
                Ok(Next::Sleep(until)) => {
                    away.succeeded();
                    let left = until.map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
                    left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
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
            };
            tokio::select! {
                () = happened.notified() => {}
                changed = self.deployments.changed() => if changed.is_err() { return },
                Some(pulled) = memory.pulls.join_next() => memory.pulled(pulled),
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look, and the steps that follow from it.
    async fn pass(&self, memory: &mut Memory, stop: &CancellationToken) -> Result<Next, DockerError> {
        let deployment = memory.deployment.clone();
        let desired = &deployment.desired;
        let looked = tokio::time::timeout(LOOK_WITHIN, async {
            let docker = self.engine.client().await?;
            let observed = observe(&docker, &self.context).await?;
            Ok::<_, DockerError>((docker, observed))
        });
        let looked = looked.await.map_err(|_| DockerError::Silent { seconds: LOOK_WITHIN.as_secs() });
        let (docker, observed) = looked??;
        // A module may run already: it must be served before anything else is done.
        for module in observed.modules.keys().chain(desired.modules.keys()) {
            self.workload.open(module).map_err(|why| DockerError::Host {
                doing: format!("open the workload socket of module `{module}`"),
                why,
            })?;
        }
        memory.restarts.handle(now_ms(), Event::Looked(desired, &observed));
        let planned = plan(desired, &observed, &memory.restarts, now_ms());
        memory.forget_solved(&planned);
        let mut failed = BTreeSet::new();
        let is_pulling = memory.fetch(&docker, &planned, &mut failed).await?;
        self.tell(memory, observed, &planned, is_pulling);

        let hands = Executor { docker: &docker, context: &self.context, workload: &self.workload, desired };
        let mut has_acted = !failed.is_empty();
        // While an image is pulled nothing is stopped, and what runs is looked after, whether it is to be replaced or not.
        let is_due = |action: &&Action| match action {
            Action::Pull { .. } => false,
            Action::Restart { .. } | Action::Start { container_id: Some(_), .. } => true,
            _ => !is_pulling,
        };
        let interim = planned.interim.iter().filter(|_| is_pulling);
        for action in planned.actions.iter().filter(is_due).chain(interim) {
            if stop.is_cancelled() {
                return Ok(Next::Sleep(None));
            }
            if failed.contains(action.module()) {
                continue;
            }
            has_acted = true;
            match hands.apply(action).await {
                Ok(()) => memory.done(action),
                Err(error) => {
                    failed.insert(action.module().clone());
                    memory.failed(action.module(), chain(&error).to_string());
                }
            }
        }
        let due = planned.earliest().into_iter().chain(planned.interim_due_ms.filter(|_| is_pulling)).min();
        Ok(if has_acted { Next::Look } else { Next::Sleep(due) })
    }

    fn tell(&self, memory: &Memory, observed: Observed, planned: &Plan, is_pulling: bool) {
        let is_well = |reason: &Reason| matches!(reason, Reason::Ended { code: 0 });
        let is_settled = planned.is_empty() && planned.waiting.iter().all(|waiting| is_well(&waiting.reason));
        let troubles: Vec<String> = planned
            .waiting
            .iter()
            .filter(|waiting| !is_well(&waiting.reason))
            .map(|waiting| match memory.problems.get(&waiting.module) {
                Some(problem) => format!("module `{}`: {problem}; waits {}", waiting.module, waiting.reason),
                None => format!("module `{}`: {}", waiting.module, waiting.reason),
            })
            .collect();
        let outcome = match (is_settled, troubles.is_empty(), is_pulling) {
            (true, _, _) => Outcome { code: code::SUCCESS, description: String::new() },
            (false, false, _) => Outcome { code: code::FAILED, description: troubles.join("\n") },
            (false, true, true) => {
                Outcome { code: code::UNKNOWN, description: "images are being pulled".into() }
            }
            (false, true, false) => Outcome { code: code::UNKNOWN, description: "under way".into() },
        };
        let version = memory.deployment.version;
        let was_settled = self.status.borrow().is_settled && self.status.borrow().version == Some(version);
        if is_settled && !was_settled {
            tracing::info!(
                version,
                modules = observed.modules.len(),
                "everything is as the deployment wants it"
            );
        }
        self.status.send_replace(ReconcilerStatus {
            version: Some(version),
            observed,
            restarts: memory.restarts.clone(),
            outcome,
            is_settled,
            plan: planned.to_string(),
            problems: memory.problems.clone(),
            pulling: memory.pulling.keys().cloned().collect(),
            unseen: None,
        });
    }
}

impl Memory {
    /// Starts the pulls that the plan needs. Gives whether one is under way; adds the modules whose pull has failed.
    async fn fetch(
        &mut self,
        docker: &Docker,
        planned: &Plan,
        failed: &mut BTreeSet<ModuleId>,
    ) -> Result<bool, DockerError> {
        let failures = std::mem::take(&mut self.failed_pulls);
        for action in &planned.actions {
            let Action::Pull { module, image } = action else { continue };
            if let Some(problem) = failures.get(image) {
                failed.insert(module.clone());
                self.failed(module, problem.clone());
            } else if !self.pulling.contains_key(image)
                && self.pulling.len() < PULLS_MAX
                && !is_present(docker, image).await?
            {
                tracing::info!(%module, image, "image is being pulled");
                let (docker, deployment, name) = (docker.clone(), self.deployment.clone(), image.clone());
                let task = tasks::spawn_in(&mut self.pulls, "image pull", async move {
                    let pulled = pull(&docker, &deployment.desired, &name).await;
                    (name, pulled)
                });
                self.pulling.insert(image.clone(), task);
            }
        }
        Ok(!self.pulling.is_empty())
    }

    /// Ends the pulls of images that no module needs any more: a slow one must not hold up the deployment that mends it.
    fn forget_unwanted_pulls(&mut self) {
        let modules = &self.deployment.desired.modules;
        self.pulling.retain(|image, task| {
            let is_wanted = modules.values().any(|module| module.spec.image == *image);
            if !is_wanted {
                tracing::info!(image, "pull ended: no module needs the image any more");
                task.abort();
            }
            is_wanted
        });
    }

    fn pulled(&mut self, ended: Result<(String, Result<(), DockerError>), tokio::task::JoinError>) {
        match ended {
            Ok((image, Ok(()))) => {
                tracing::info!(image, "image pulled");
                self.pulling.remove(&image);
            }
            Ok((image, Err(error))) => {
                self.pulling.remove(&image);
                self.failed_pulls.insert(image, chain(&error).to_string());
            }
            Err(error) if error.is_cancelled() => {}
            // Which one it was is not known: those that are still needed are asked for again.
            Err(error) => {
                tracing::error!(error = %chain(&error), "a pull ended by a fault of this program");
                self.pulling.clear();
            }
        }
    }

    fn done(&mut self, action: &Action) {
        tracing::info!(step = %action, "step done");
        let event = match action {
            Action::Start { module, .. } | Action::Replace { module, .. } => Event::Started(module),
            Action::Restart { module, .. } => Event::Restarted(module),
            _ => return,
        };
        self.restarts.handle(now_ms(), event);
    }

    fn failed(&mut self, module: &ModuleId, problem: String) {
        tracing::error!(%module, problem, "step failed; it is tried again after a wait");
        self.restarts.handle(now_ms(), Event::Failed(module));
        self.problems.insert(module.clone(), problem);
    }

    /// A problem is over when its module neither waits nor has anything to be done.
    fn forget_solved(&mut self, planned: &Plan) {
        self.problems.retain(|module, _| {
            planned.waiting.iter().any(|waiting| waiting.module == *module)
                || planned.actions.iter().any(|action| action.module() == module)
        });
    }
}

/// Says "look again" at every event of the gateway's containers, and whenever events may have been missed.
async fn listen(engine: Engine, gateway: String, happened: Arc<Notify>, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("{LABEL_GATEWAY}={gateway}")]),
        ("type".to_owned(), vec!["container".to_owned()]),
    ]);
    loop {
        if let Ok(docker) = engine.client().await {
            let options = EventsOptions { filters: Some(filters.clone()), ..EventsOptions::default() };
            let mut events = std::pin::pin!(docker.events(Some(options)));
            happened.notify_one();
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(_)) => {
                            backoff.succeeded();
                            happened.notify_one();
                        }
                        Some(Err(_)) | None => break,
                    },
                    () = stop.cancelled() => return,
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.failed(rand::random())) => {}
            () = stop.cancelled() => return,
        }
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
/// [`DockerError`] when the engine cannot be asked.
pub async fn plan_once(config: &Config, keys: &ModuleKeys, desired: &Desired) -> Result<Plan, DockerError> {
    let docker = Engine::new(config.docker.socket.clone()).client().await?;
    let observed = observe(&docker, &ModuleContext::new(config, keys)).await?;
    // A daemon that runs replaces containers of earlier modules of a name at once; what is there is of the present ones.
    let number = |module: &ModuleId| {
        observed.modules.get(module).map_or(0, |observed| generation_of(&observed.fingerprint))
    };
    let desired = &desired.clone().of_generations(number);
    Ok(plan(desired, &observed, &Restarts::since_boot(booted_at_ms()), now_ms()))
}
