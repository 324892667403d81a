//! What must be done so that what runs is what the manifest wants.
//!
//! Guarantees:
//! - A module whose container is as wanted is not in the plan.
//! - Every image is fetched before anything is stopped.
//! - Modules that are no longer wanted go first; the others follow by `startupOrder`, then by name.
//! - What could be done but is not yet, or not any more, is in the plan with its reason.
//!
//! A plan is data: it changes nothing, and printed it is what `edge-agent plan` shows.

use std::collections::BTreeMap;
use std::fmt;

use schemas::manifest::{DesiredStatus, ImagePullPolicy};
use schemas::names::ModuleId;
use schemas::timestamp::rfc3339;

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::restart::{Attempt, Next, RESTARTS_MAX, Restarts};

/// What to do, in order, and what waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done one after the other. When one fails, the remaining ones of that module are left out; when a
    /// [`Action::Pull`] fails, so are all actions of that module. The others go on.
    pub actions: Vec<Action>,
    /// What is left as it is for now, and why.
    pub waiting: Vec<Waiting>,
}

/// One step. Create and start read the module's spec from [`Desired`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make sure that the image is there: fetch it if it is not.
    Pull { module: ModuleId, image: String },
    /// Create the module's container.
    Create { module: ModuleId, image: String },
    Start {
        module: ModuleId,
        /// `None` when this plan creates it.
        container_id: Option<String>,
    },
    /// Start a container that ended, or stop and start one that is not healthy. Tell [`Restarts`] when it was done.
    Restart {
        module: ModuleId,
        container_id: String,
        attempt: Attempt,
    },
    /// Stop the container, giving it its time to end.
    Stop { module: ModuleId, container_id: String },
    /// Remove the container; its named volumes stay.
    Remove { module: ModuleId, container_id: String },
}

/// Something that is not done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub module: ModuleId,
    pub reason: Reason,
}

/// Why something is not done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It ended or is not healthy, and the wait before its next restart is not over.
    Backoff {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
        attempt: Attempt,
    },
    /// Its last steps failed, and the wait before the next try is not over.
    Failed {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
        /// How many tries failed.
        failures: u32,
    },
    /// It was started again too often.
    GivenUp,
    /// Its restart policy leaves it as it ended.
    Ended {
        /// The code it ended with.
        code: i64,
    },
    /// Somebody paused its container.
    Paused,
    /// Docker's own restart policy is at work.
    Restarting,
}

/// What must be done now. Tell `restarts` first what was observed ([`super::restart::Event::Looked`]).
pub fn plan(desired: &Desired, observed: &Observed, restarts: &Restarts, now_ms: u64) -> Plan {
    let mut planner =
        Planner { restarts, now_ms, pulls: Vec::new(), changes: Vec::new(), waiting: Vec::new() };
    for (module, seen) in &observed.modules {
        if !desired.modules.contains_key(module) && !planner.waits(module) {
            planner.remove(module, seen);
        }
    }
    let mut by_order: BTreeMap<(u32, &ModuleId), &DesiredModule> = BTreeMap::new();
    for (module, wanted) in &desired.modules {
        by_order.insert((wanted.spec.startup_order, module), wanted);
    }
    for ((_, module), wanted) in by_order {
        planner.module(module, wanted, observed.modules.get(module));
    }
    let Planner { mut pulls, changes, waiting, .. } = planner;
    pulls.extend(changes);
    Plan { actions: pulls, waiting }
}

struct Planner<'a> {
    restarts: &'a Restarts,
    now_ms: u64,
    pulls: Vec<Action>,
    changes: Vec<Action>,
    waiting: Vec<Waiting>,
}

impl Planner<'_> {
    fn module(&mut self, module: &ModuleId, wanted: &DesiredModule, seen: Option<&ObservedModule>) {
        let is_as_created = |seen: &ObservedModule| {
            seen.fingerprint == wanted.fingerprint && seen.state != ContainerState::Dead
        };
        match seen {
            Some(seen) if is_as_created(seen) => match wanted.spec.status {
                DesiredStatus::Running => self.keep_running(module, wanted, seen),
                DesiredStatus::Stopped if seen.is_live() && !self.waits(module) => self.stop(module, seen),
                DesiredStatus::Stopped | DesiredStatus::Unknown => {}
            },
            _ if self.waits(module) => {}
            seen => self.create(module, wanted, seen),
        }
    }

    /// Whether the module's last steps failed so lately that nothing is tried yet; notes it if so.
    fn waits(&mut self, module: &ModuleId) -> bool {
        let failed = self.restarts.failed(module, self.now_ms);
        if let Some((failures, until_ms)) = failed {
            self.wait(module, Reason::Failed { until_ms, failures });
        }
        failed.is_some()
    }

    fn wait(&mut self, module: &ModuleId, reason: Reason) {
        self.waiting.push(Waiting { module: module.clone(), reason });
    }

    fn stop(&mut self, module: &ModuleId, seen: &ObservedModule) {
        let (module, container_id) = (module.clone(), seen.container_id.clone());
        self.changes.push(Action::Stop { module, container_id });
    }

    fn remove(&mut self, module: &ModuleId, seen: &ObservedModule) {
        if seen.is_live() {
            self.stop(module, seen);
        }
        let (module, container_id) = (module.clone(), seen.container_id.clone());
        self.changes.push(Action::Remove { module, container_id });
    }

    /// Creates the container, in place of another one if there is one.
    fn create(&mut self, module: &ModuleId, wanted: &DesiredModule, seen: Option<&ObservedModule>) {
        let image = wanted.spec.image.clone();
        if wanted.spec.image_pull_policy == ImagePullPolicy::OnCreate {
            self.pulls.push(Action::Pull { module: module.clone(), image: image.clone() });
        }
        if let Some(seen) = seen {
            self.remove(module, seen);
        }
        self.changes.push(Action::Create { module: module.clone(), image });
        if wanted.spec.status == DesiredStatus::Running {
            self.changes.push(Action::Start { module: module.clone(), container_id: None });
        }
    }

    fn keep_running(&mut self, module: &ModuleId, wanted: &DesiredModule, seen: &ObservedModule) {
        match self.restarts.next(module, wanted.spec.restart_policy, seen, self.now_ms) {
            Next::Leave => match seen.state {
                ContainerState::Paused => self.wait(module, Reason::Paused),
                ContainerState::Restarting => self.wait(module, Reason::Restarting),
                _ => {}
            },
            Next::Start if !self.waits(module) => {
                let (module, container_id) = (module.clone(), Some(seen.container_id.clone()));
                self.changes.push(Action::Start { module, container_id });
            }
            Next::Restart { attempt } if !self.waits(module) => {
                let (module, container_id) = (module.clone(), seen.container_id.clone());
                self.changes.push(Action::Restart { module, container_id, attempt });
            }
            Next::Start | Next::Restart { .. } => {}
            Next::WaitUntil { at_ms, attempt } => {
                self.wait(module, Reason::Backoff { until_ms: at_ms, attempt })
            }
            Next::GivenUp => self.wait(module, Reason::GivenUp),
            Next::Ended => {
                let code = match seen.state {
                    ContainerState::Exited { code } => code,
                    _ => 0,
                };
                self.wait(module, Reason::Ended { code });
            }
        }
    }
}

impl Plan {
    /// Whether everything is as wanted, or waits.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// When it is worth looking again though Docker says nothing, in milliseconds since the Unix epoch.
    pub fn earliest(&self) -> Option<u64> {
        self.waiting.iter().filter_map(|waiting| waiting.reason.until_ms()).min()
    }
}

impl Reason {
    /// When it is over, if time alone ends it.
    pub fn until_ms(&self) -> Option<u64> {
        match self {
            Self::Backoff { until_ms, .. } | Self::Failed { until_ms, .. } => Some(*until_ms),
            Self::GivenUp | Self::Ended { .. } | Self::Paused | Self::Restarting => None,
        }
    }
}

impl Action {
    /// The module it is about.
    pub fn module(&self) -> &ModuleId {
        match self {
            Self::Pull { module, .. }
            | Self::Create { module, .. }
            | Self::Start { module, .. }
            | Self::Restart { module, .. }
            | Self::Stop { module, .. }
            | Self::Remove { module, .. } => module,
        }
    }
}

/// One line for each action, then one for each thing that waits.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        let modules = self.actions.iter().map(Action::module).chain(self.waiting.iter().map(|w| &w.module));
        let width = modules.map(|module| module.as_str().len()).max().unwrap_or(0);
        for action in &self.actions {
            let (verb, what) = action.words();
            let line = format!("{verb:<7}  {:<width$}  {what}", action.module().as_str());
            writeln!(f, "{}", line.trim_end())?;
        }
        for Waiting { module, reason } in &self.waiting {
            writeln!(f, "{:<7}  {:<width$}  {reason}", "wait", module.as_str())?;
        }
        Ok(())
    }
}

impl Action {
    fn words(&self) -> (&'static str, String) {
        let container = |id: &str| format!("container {}", id.get(..12).unwrap_or(id));
        match self {
            Self::Pull { image, .. } => ("pull", format!("image {image}")),
            Self::Create { image, .. } => ("create", format!("image {image}")),
            Self::Start { container_id: None, .. } => ("start", String::new()),
            Self::Start { container_id: Some(id), .. } => ("start", container(id)),
            Self::Restart { container_id, attempt, .. } => {
                ("restart", format!("{}, {attempt}", container(container_id)))
            }
            Self::Stop { container_id, .. } => ("stop", container(container_id)),
            Self::Remove { container_id, .. } => ("remove", container(container_id)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, what) = self.words();
        write!(f, "{}", format!("{verb} {} {what}", self.module()).trim_end())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backoff { until_ms, attempt } => {
                write!(f, "until {}: {attempt}", rfc3339(*until_ms))
            }
            Self::Failed { until_ms, failures: 1 } => {
                write!(f, "until {}: the last try failed", rfc3339(*until_ms))
            }
            Self::Failed { until_ms, failures } => {
                write!(f, "until {}: the last {failures} tries failed", rfc3339(*until_ms))
            }
            Self::GivenUp => {
                write!(f, "restarted {RESTARTS_MAX} times; restart it by hand or apply another manifest")
            }
            Self::Ended { code } => write!(f, "ended with code {code}; its restart policy leaves it so"),
            Self::Paused => f.write_str("its container is paused; unpause it"),
            Self::Restarting => f.write_str("Docker's own restart policy is at work"),
        }
    }
}

#[cfg(test)]
mod tests;
