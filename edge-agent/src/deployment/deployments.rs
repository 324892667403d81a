//! From the desired twins of `$edgeAgent` and `$edgeHub` to the deployment in force.
//!
//! A manifest that is wrong changes nothing: the last good one stays in force, here and over a restart, and the error
//! is reported with the path of the field. A route that is wrong leaves the rest in force: it stays as it was in force
//! last, if ever, and is reported by name. One that is right and fails is rolled back, see [`rollouts`].

use edge_core::error_chain::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use edge_buffer::OpenError;
use edge_core::deploy;
use edge_core::deploy::desired::Desired;
use edge_core::deploy::rollout::Phase;
use schemas::manifest::{FailurePolicy, Manifest, ManifestError, Route};
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::access::authorizer::Rules;
use crate::access::identity_state::RemovalError;
use crate::access::removals::{Removal, Removals};
use crate::clock::now_ms;
use crate::deployment::docker::host_policy::HostPolicy;
use crate::deployment::history::History;
use crate::deployment::sections::Sections;
use crate::deployment::status::Deployment;
use crate::messages::queues::Queues;
use crate::messages::routing::Routing;
use crate::messages::twins::{DesiredChange, Twins};
use crate::state::{Namespace, State, StateError};

const IN_FORCE: &str = "in-force";

/// Who gave a deployment that came over the link.
const CENTRAL: &str = "upstream";
/// Who gave what an older version of the daemon had in force.
const EARLIER: &str = "in force before there was a history";

/// Whether a deployment is new, or was in force before this start of the daemon.
///
/// A new one that the policy does not permit is refused whole. One that was in force keeps its routes and authorizations, so
/// that telemetry flows on; its containers are left as they are.
#[derive(Clone, Copy)]
enum Start {
    New,
    Again,
}

/// What is in force.
struct InForce {
    sections: Sections,
    desired: Desired,
    routes: BTreeMap<String, Route>,
    routes_refused: Vec<String>,
    warnings: Vec<String>,
    /// Why its modules are not looked after: the policy was made stricter since.
    withheld: Option<String>,
}

/// The desired versions of which a deployment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of `$edgeAgent`.
    pub edge_agent: u64,
    /// Of `$edgeHub`.
    pub edge_hub: u64,
}

/// Whether the wanted deployment could be taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Acceptance {
    /// The desired versions that were checked; `None` before there were any.
    pub versions: Option<Versions>,
    /// Why it is not in force.
    pub problem: Option<String>,
    /// Whether it was in force and failed.
    pub is_rolled_back: bool,
    /// The routes in it that are wrong, and what became of them; the rest is in force.
    pub routes_refused: Vec<String>,
    /// What in it has no effect, or another one than its author may think.
    pub warnings: Vec<String>,
}

/// The deployment in force, for those who act on it.
pub struct Deployments {
    gateway: DeviceId,
    twins: Twins,
    state: State,
    history: History,
    queues: Arc<Queues>,
    removals: Removals,
    in_force: std::sync::Mutex<Option<InForce>>,
    reconciler: watch::Sender<Option<Arc<Deployment>>>,
    routing: watch::Sender<Arc<Routing>>,
    rules: watch::Sender<Arc<Rules>>,
    takes_free: Arc<AtomicBool>,
    acceptance: watch::Sender<Acceptance>,
    policy: HostPolicy,
    /// For manifests that say nothing.
    on_failure: FailurePolicy,
    /// Modules were replaced: what is in force is taken up again, though it wants the same.
    must_renew: AtomicBool,
}

/// What this gateway permits, and does with what fails.
#[derive(Debug, Clone, Default)]
pub struct DeployPolicy {
    pub host: HostPolicy,
    /// For manifests that say nothing.
    pub on_failure: FailurePolicy,
}

impl From<HostPolicy> for DeployPolicy {
    fn from(host: HostPolicy) -> Self {
        Self { host, ..Self::default() }
    }
}

pub struct Outputs {
    pub reconciler: watch::Receiver<Option<Arc<Deployment>>>,
    /// For the MQTT server.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// For the authorizer of clients.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// For the MQTT server: whether a route takes messages on free topics.
    pub takes_free: Arc<AtomicBool>,
    pub acceptance: watch::Receiver<Acceptance>,
}

impl Deployments {
    /// Puts the deployment in force that was in force last. Blocking: opens queues.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be read.
    pub fn load(
        gateway: DeviceId,
        twins: Twins,
        state: State,
        queues: Arc<Queues>,
        removals: Removals,
        removal: &Removal,
        policy: impl Into<DeployPolicy>,
    ) -> Result<(Self, Outputs), StateError> {
        let (reconciler, reconciler_out) = watch::channel(None);
        let (routing, routing_out) = watch::channel(Arc::default());
        let (rules, rules_out) = watch::channel(Arc::default());
        let (acceptance, acceptance_out) = watch::channel(Acceptance::default());
        let policy: DeployPolicy = policy.into();
        let history = History::load(state.clone());
        let of_earlier: Option<Sections> =
            state.load(Namespace::Deployment).into_iter().find(|(key, _)| key == IN_FORCE).map(|(_, s)| s);
        let recorded = history.in_force().map(|record| record.sections);
        let is_recorded = recorded.is_some();
        let last = recorded.or(of_earlier);
        let deployments = Self {
            gateway,
            twins,
            state,
            history,
            queues,
            removals,
            in_force: std::sync::Mutex::new(None),
            reconciler,
            routing,
            rules,
            takes_free: Arc::default(),
            acceptance,
            policy: policy.host,
            on_failure: policy.on_failure,
            must_renew: AtomicBool::new(false),
        };
        if let Some(sections) = last
            && let Err(error) = deployments.put_in_force(sections, removal, Start::Again)
        {
            tracing::error!(error = %chain(&error), "the deployment that was in force cannot be taken up again");
        }
        if !is_recorded {
            deployments.record(EARLIER, &Desired::default(), &Manifest::empty(), Phase::Verified);
        }
        deployments.consider(removal, None);
        let outputs = Outputs {
            reconciler: reconciler_out,
            routing: routing_out,
            rules: rules_out,
            takes_free: deployments.takes_free.clone(),
            acceptance: acceptance_out,
        };
        Ok((deployments, outputs))
    }

    fn identity(&self, module: ModuleId) -> Identity {
        Identity::module(self.gateway.clone(), module)
    }

    /// As [`Deployments::consider`] for what came over the link, and removes what modules that left it were kept of.
    ///
    /// # Errors
    /// [`RemovalError`] when that was not saved.
    pub async fn take_up(self: &Arc<Self>) -> Result<(), RemovalError> {
        self.with_removal(|this, removal| this.consider(removal, None)).await
    }

    /// Runs what may open queues and remove modules, beside the threads that must not block.
    async fn with_removal(
        self: &Arc<Self>,
        run: impl FnOnce(&Self, &Removal) + Send + 'static,
    ) -> Result<(), RemovalError> {
        let removal = self.removals.begin().await;
        let this = self.clone();
        let ran = tokio::task::spawn_blocking(move || {
            run(&this, &removal);
            removal
        });
        let removal = ran.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        removal.finish().await
    }

    /// Inspects the desired twins and puts them in force if they are good; notes the modules that leave. `source` is who gives
    /// them on this gateway; such a one tries a deployment again that failed. Blocking: opens queues.
    fn consider(&self, removal: &Removal, source: Option<&str>) {
        let sections = Sections {
            edge_agent: self.twins.get(&self.identity(ModuleId::edge_agent())).desired,
            edge_hub: self.twins.get(&self.identity(ModuleId::edge_hub())).desired,
            kept_routes: BTreeMap::new(),
        };
        if sections.edge_agent.properties.is_empty() {
            return;
        }
        let version = sections.edge_agent.version;
        let versions = Versions { edge_agent: version, edge_hub: sections.edge_hub.version };
        let wants_the_same =
            self.in_force().as_ref().is_some_and(|in_force| in_force.sections.wants_the_same(&sections));
        let warned = self.in_force().as_ref().map(|in_force| in_force.warnings.clone()).unwrap_or_default();
        let is_renewed = self.must_renew.swap(false, Ordering::Relaxed);
        let rolled_back = if source.is_some() { None } else { self.rolled_back(&sections) };
        let (was_desired, was_manifest) = self.compared();
        let is_in_force = (wants_the_same && !is_renewed) || rolled_back.is_some();
        let problem = match rolled_back.clone() {
            Some(reason) => {
                let sections = self.in_force().as_ref().map(|in_force| in_force.sections.clone());
                if let (true, Some(sections)) = (is_renewed, sections)
                    && let Err(error) = self.put_in_force(sections, removal, Start::Again)
                {
                    tracing::error!(error = %chain(&error), "the verified deployment cannot be taken up again");
                }
                Some(reason)
            }
            None if is_in_force => self.in_force().as_ref().and_then(|in_force| in_force.withheld.clone()),
            None => {
                self.put_in_force(sections, removal, Start::New).err().map(|error| chain(&error).to_string())
            }
        };
        let (routes_refused, warnings) = match self.in_force().as_ref() {
            Some(in_force) => (in_force.routes_refused.clone(), in_force.warnings.clone()),
            None => Default::default(),
        };
        if rolled_back.is_some() {
            tracing::warn!(version, problem, "the wanted deployment failed before and is not put in force");
        } else if let Some(problem) = &problem {
            tracing::error!(version, problem, "the deployment was refused; the one before it stays in force");
        } else if !is_in_force {
            tracing::info!(version, "deployment in force");
            for refused in &routes_refused {
                tracing::error!(version, refused, "a route was refused; the others are in force");
            }
            // The two sections of a deployment come one after the other.
            for warning in warnings.iter().filter(|warning| !warned.contains(warning)) {
                tracing::warn!(version, warning, "manifest has a part that needs attention");
            }
            if let Some(in_force) = self.in_force().as_ref() {
                self.state.put(Namespace::Deployment, IN_FORCE, &in_force.sections).later();
            }
            let applying = Phase::Applying { since_ms: now_ms() };
            self.record(source.unwrap_or(CENTRAL), &was_desired, &was_manifest, applying);
        }
        self.acceptance.send_replace(Acceptance {
            versions: Some(versions),
            problem,
            is_rolled_back: rolled_back.is_some(),
            routes_refused,
            warnings,
        });
    }

    /// Ends the modules of this gateway in whose place central means others of the same names. True when there are some: then
    /// [`Deployments::take_up`] must follow.
    ///
    /// # Errors
    /// [`RemovalError`] when that was not saved.
    pub async fn replace_modules(&self, generations: &BTreeMap<ModuleId, u64>) -> Result<bool, RemovalError> {
        // An older central tells none.
        if generations.is_empty() {
            return Ok(false);
        }
        let removal = self.removals.begin().await;
        let mut replaced = self.removals.modules().replaced(generations);
        replaced.retain(|module| self.rules.borrow().modules.contains(module));
        for module in &replaced {
            tracing::warn!(%module, "module was removed from the manifest and added again while central was away; it is another one now");
        }
        removal.note(replaced.iter().map(|module| self.identity(module.clone())));
        self.removals.modules().take(generations);
        removal.finish().await?;
        if !replaced.is_empty() {
            self.must_renew.store(true, Ordering::Relaxed);
            // central sends everything again: what it sent before for a module of the name was for this one.
            self.removals.removed_here();
        }
        Ok(!replaced.is_empty())
    }

    /// The modules that are in force, or wanted: what is kept of any other was left behind.
    pub fn modules(&self) -> BTreeSet<ModuleId> {
        let sections = self.twins.get(&self.identity(ModuleId::edge_agent())).desired.properties;
        let sections = sections.get("modules").and_then(Value::as_object);
        let sections =
            sections.into_iter().flat_map(|modules| modules.keys()).filter_map(|name| name.parse().ok());
        self.rules.borrow().modules.iter().cloned().chain(sections).collect()
    }

    fn in_force(&self) -> MutexGuard<'_, Option<InForce>> {
        self.in_force.lock().expect("nothing panics while it holds it")
    }

    fn put_in_force(
        &self,
        mut sections: Sections,
        removal: &Removal,
        start: Start,
    ) -> Result<(), PutInForceError> {
        let mut manifest =
            Manifest::from_twins(&sections.edge_agent.properties, &sections.edge_hub.properties)?;
        // What was in force before this version knew the mark, or compared names of modules, keeps its routes.
        if matches!(start, Start::New) {
            manifest.check_names()?;
            Manifest::check_redaction(&sections.edge_agent.properties, &sections.edge_hub.properties)?;
        }
        let (desired, _, refused) = deploy::take(&manifest);
        let number =
            |module: &ModuleId| self.removals.modules().numbers().number(&self.identity(module.clone()));
        let desired = desired.of_generations(number).after(self.history.start_places());
        let withheld = match (start, self.policy.check(&desired)) {
            (Start::New, Err(refused)) => return Err(refused.into()),
            (Start::Again, Err(refused)) => Some(chain(&refused).to_string()),
            (_, Ok(())) => None,
        };
        // What flowed flows on: a route that is wrong now stays as it was in force last.
        let mut last_good = std::mem::take(&mut sections.kept_routes);
        if let Some(in_force) = self.in_force().as_ref() {
            last_good.extend(in_force.routes.clone());
        }
        let mut routes_refused = Vec::new();
        for (name, error) in refused {
            manifest.edge_hub.routes.remove(&name);
            let became = match last_good.remove(&name) {
                None => "the route is left out",
                Some(route) => {
                    manifest.edge_hub.routes.insert(name.clone(), route.clone());
                    sections.kept_routes.insert(name, route);
                    "the route stays as it was before"
                }
            };
            routes_refused.push(format!("{error}; {became}"));
        }
        let (_, table, _) = deploy::take(&manifest);
        self.queues.route_to(&table.queues())?;
        self.takes_free.store(table.takes_free(), Ordering::Relaxed);
        let received = self.routing.borrow().received.with_modules(desired.modules.keys());
        self.routing.send_replace(Arc::new(Routing {
            table: Some(table),
            received,
            time_to_live_ms: manifest.edge_hub.time_to_live_secs.map(|secs| secs.saturating_mul(1000)),
        }));
        // Noted before they are refused: nothing that they leave is the next module's of their name.
        let before = self.rules.borrow().modules.clone();
        let gone = before.into_iter().filter(|module| !desired.modules.contains_key(module));
        removal.note(gone.map(|module| self.identity(module)));
        self.rules.send_replace(Arc::new(Rules {
            modules: desired.modules.keys().cloned().collect(),
            authorizations: manifest.edge_hub.authorizations.clone(),
        }));
        let warnings = warnings(&sections, &desired);
        let is_atomic = self.is_atomic(&manifest, start);
        let version = sections.edge_agent.version;
        let deployment = Deployment { desired: desired.clone(), version, is_atomic };
        if withheld.is_none() {
            self.reconciler.send_replace(Some(Arc::new(deployment)));
        }
        *self.in_force() = Some(InForce {
            sections,
            desired,
            routes: manifest.edge_hub.routes,
            routes_refused,
            warnings,
            withheld,
        });
        Ok(())
    }

    /// The manifest in force, when the policy of this gateway lets its modules run.
    #[cfg(test)]
    pub fn desired_in_force(&self) -> Option<Arc<Deployment>> {
        self.reconciler.borrow().clone()
    }

    /// The desired section of a module of this gateway, as it is wanted now.
    pub fn desired(&self, module: &ModuleId) -> Map<String, Value> {
        self.twins.get(&self.identity(module.clone())).desired.properties
    }

    /// Takes a manifest given on the gateway itself. It holds until central's changes. Gives `$edgeAgent`'s new desired
    /// version, and the changes of other modules' desired sections.
    ///
    /// # Errors
    /// [`ApplyError`] when the manifest is wrong or was not saved; nothing is in force then that was not before.
    pub async fn apply(
        self: &Arc<Self>,
        document: &Value,
        source: &'static str,
    ) -> Result<(u64, Vec<(Identity, DesiredChange)>), ApplyError> {
        let current = |module: &ModuleId| self.desired(module);
        let document = &Manifest::document(document.to_string().as_bytes())?;
        let manifest = Manifest::parse_over(document, &current)?;
        let (desired, _) = deploy::check(&manifest)?;
        self.policy.check(&desired)?;
        let sections = Manifest::sections_over(document, &current)?;
        self.apply_sections(sections, source.to_owned()).await
    }

    async fn apply_sections(
        self: &Arc<Self>,
        sections: BTreeMap<ModuleId, Map<String, Value>>,
        source: String,
    ) -> Result<(u64, Vec<(Identity, DesiredChange)>), ApplyError> {
        let mut changes = Vec::new();
        let before = self.rules.borrow().modules.clone();
        for (module, properties) in sections {
            let is_system = module.is_system();
            let identity = self.identity(module);
            let (change, saved) = self.twins.desired_from_here(&identity, properties);
            saved.durable().await?;
            if let (Some(change), false) = (change, is_system) {
                changes.push((identity, change));
            }
        }
        let taken_up = self.with_removal(move |this, removal| this.consider(removal, Some(&source))).await;
        taken_up.map_err(|error| ApplyError::Failed(chain(&error).to_string()))?;
        if let Some(problem) = self.acceptance.borrow().problem.clone() {
            return Err(ApplyError::Failed(problem));
        }
        let modules = self.rules.borrow().modules.clone();
        if !before.is_subset(&modules) {
            self.removals.removed_here();
        }
        let version = self.twins.get(&self.identity(ModuleId::edge_agent())).desired.version;
        Ok((version, changes))
    }
}

/// What `edge-agent plan` would warn of in a deployment. Warnings name fields and keys, never values.
fn warnings(sections: &Sections, desired: &deploy::desired::Desired) -> Vec<String> {
    let document = serde_json::json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": sections.edge_agent.properties},
        "$edgeHub": {"properties.desired": sections.edge_hub.properties},
    }});
    let of_document = Manifest::warnings(&document).into_iter().map(|warning| warning.to_string());
    of_document.chain(deploy::transport::amqp_advices(desired)).collect()
}

/// Why a deployment was not put in force.
#[derive(Debug, thiserror::Error)]
enum PutInForceError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Queues(#[from] OpenError),
}

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is wrong; the message names the field.
    #[error(transparent)]
    Refused(#[from] ManifestError),
    /// It was not saved.
    #[error(transparent)]
    State(#[from] StateError),
    #[error("there is no deployment {number}; `edge-agent history` lists those that there are")]
    NoSuchDeployment { number: u64 },
    /// It could not be put in force.
    #[error("{0}")]
    Failed(String),
}

mod rollouts;
#[cfg(test)]
mod tests;
