//! What must be done so that what runs is what the manifest wants.
//!
//! Guarantees:
//! - A module whose container is as wanted is not in the plan.
//! - Every image is fetched, and every new container is created and checked, before anything is stopped.
//! - A container that is to be replaced comes back when the new one does not start.
//! - A replacement that was cut off is finished or undone before anything else is done with its module.
//! - Modules that are no longer wanted go first, in the reverse of the order in which they started. The others follow after those that
//!   they name in `startAfter`, then by `startupOrder`, then by name.
//! - What would start a module before those are as it says is in the plan, and waits; see [`Reason::Condition`]. A container of a former
//!   manifest waits for none of them.
//! - What could be done but is not yet, or not any more, is in the plan with its reason.
//!
//! A plan is data: it changes nothing, and printed it is what `edge-agent plan` shows. [`plan`] asks neither engine, disk nor clock:
//! whoever has a manifest ([`Desired::of`]) and the reported state of a gateway can make the same plan elsewhere, for a preview.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemas::manifest::{DesiredStatus, ImagePullPolicy};
use schemas::names::ModuleId;
use serde_json::Value;

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::restart::{Attempt, RestartStep, Restarts};
use super::start_condition::Held;

/// What to do, in order, and what waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done one after the other, or as [`super::schedule`] allows. When one fails, the remaining ones of that module are left out; when a
    /// [`Action::Pull`] fails, so are all actions of that module. The others go on.
    pub actions: Vec<Action>,
    /// What keeps containers running that `actions` replace: to be done in place of their module's actions while its image is
    /// being fetched.
    pub interim: Vec<Action>,
    /// When the next such step is due, in milliseconds since the Unix epoch.
    pub interim_due_ms: Option<u64>,
    /// What is left as it is for now, and why.
    pub waiting: Vec<Waiting>,
}

/// One step. Create and start read the module's spec from [`Desired`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make sure that the image is there: fetch it if it is not.
    Pull { module: ModuleId, image: String },
    /// Create the module's container, and check what it needs of this machine.
    Create { module: ModuleId, image: String },
    /// Create the container that shall replace the module's, beside it, and check what it needs of this machine. What runs is not
    /// touched.
    Prepare { module: ModuleId, image: String },
    Start {
        module: ModuleId,
        /// `None` when this plan creates it.
        container_id: Option<String>,
    },
    /// Start a container that ended, or stop and start one that is not healthy. Tell [`Restarts`] when it was done.
    Restart { module: ModuleId, container_id: String, attempt: Attempt },
    /// Stop the module's container, start the one that was prepared if it shall run, remove the old one and give its name to the new
    /// one. When the new one does not start, the old one runs again.
    Replace {
        module: ModuleId,
        /// The one that is there.
        container_id: String,
        image: String,
    },
    /// Give the container of a module its name: a replacement whose former container is gone, or one that somebody renamed.
    Rename { module: ModuleId, container_id: String },
    /// Set limits back that somebody changed, without a restart.
    Update { module: ModuleId, container_id: String, restored: BTreeMap<String, Value> },
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
    /// A module that it starts after is not as its manifest says. Its actions that start a container are in the plan and wait; a
    /// container that they replace is kept running.
    Condition(Held),
    /// Somebody paused its container.
    Paused,
    /// Docker's own restart policy is at work.
    Restarting,
    /// The engine does not say how its container is.
    Unreadable {
        /// The engine's error text.
        why: String,
    },
}

/// What must be done now. Tell `restarts` first what was observed ([`super::restart::Event::Observed`]).
pub fn plan(desired: &Desired, observed: &Observed, restarts: &Restarts, now_ms: u64) -> Plan {
    let mut planner = Planner {
        restarts,
        now_ms,
        pulls: Vec::new(),
        preparations: Vec::new(),
        changes: Vec::new(),
        plan: Plan::default(),
    };
    for (module, unreadable) in &observed.unreadable {
        planner.wait(module, Reason::Unreadable { why: unreadable.why.clone() });
    }
    let is_readable = |module: &ModuleId| !observed.unreadable.contains_key(module);
    for (module, seen) in leaving(desired, observed) {
        if is_readable(module) && !planner.waits(module) {
            if let Some(replacement) = observed.replacements.get(module) {
                planner.remove(module, replacement);
            }
            planner.remove(module, seen);
        }
    }
    for (module, replacement) in observed.replacements.iter().filter(|(module, _)| is_readable(module)) {
        let is_left = !observed.modules.contains_key(module) && !desired.modules.contains_key(module);
        if is_left && !planner.waits(module) {
            planner.remove(module, replacement);
        }
    }
    let places = desired.start_places();
    let mut in_order: Vec<_> = desired.modules.iter().filter(|(module, _)| is_readable(module)).collect();
    in_order.sort_by_key(|(module, _)| places.get(*module).map(|place| place.position));
    for (module, target) in in_order {
        let seen = observed.modules.get(module);
        match observed.replacements.get(module) {
            Some(replacement) => planner.settle_replacement(module, target, seen, replacement),
            None => planner.module(module, target, seen),
        }
        let former = seen.filter(|seen| seen.fingerprint != target.fingerprint);
        if planner.starts(module, former)
            && let Some(held) = restarts.held(module, desired, observed, now_ms)
        {
            planner.wait(module, Reason::Condition(held));
        }
    }
    let Planner { mut pulls, preparations, changes, plan, .. } = planner;
    // All images before the first change: nothing is stopped for an image that cannot be fetched.
    pulls.extend(preparations);
    pulls.extend(changes);
    Plan { actions: pulls, ..plan }
}

/// The containers of modules that are not desired, the one that started last first.
fn leaving<'a>(desired: &Desired, observed: &'a Observed) -> Vec<(&'a ModuleId, &'a ObservedModule)> {
    let is_leaving = |(module, _): &(&ModuleId, _)| !desired.modules.contains_key(*module);
    let mut leaving: Vec<_> = observed.modules.iter().filter(is_leaving).collect();
    leaving.sort_by_key(|(module, _)| {
        Reverse(desired.leaving.get(*module).map(|place| (place.startup_order, place.position)))
    });
    leaving
}

struct Planner<'a> {
    restarts: &'a Restarts,
    now_ms: u64,
    pulls: Vec<Action>,
    /// What creates containers and touches none.
    preparations: Vec<Action>,
    changes: Vec<Action>,
    /// Everything but the actions.
    plan: Plan,
}

impl Planner<'_> {
    fn module(&mut self, module: &ModuleId, target: &DesiredModule, seen: Option<&ObservedModule>) {
        let is_as_created = |seen: &ObservedModule| {
            seen.fingerprint == target.fingerprint && seen.state != ContainerState::Dead
        };
        match seen {
            Some(seen) if is_as_created(seen) => {
                match target.spec.status {
                    DesiredStatus::Running => self.keep_running(module, target, seen),
                    DesiredStatus::Stopped if seen.is_live() && self.may_act(module, seen) => {
                        self.stop(module, seen)
                    }
                    DesiredStatus::Stopped | DesiredStatus::Unknown => {}
                }
                self.restore(module, seen);
                // Last, because a name that somebody else's container has keeps no module from running.
                if seen.is_renamed && !self.waits(module) {
                    let (module, container_id) = (module.clone(), seen.container_id.clone());
                    self.changes.push(Action::Rename { module, container_id });
                }
            }
            // The step that failed replaces this container, which goes on by its policy until it can be replaced.
            Some(seen) if self.waits(module) => self.supervise_former(module, target, seen),
            None if self.waits(module) => {}
            seen => self.create(module, target, seen),
        }
    }

    /// Whether the steps of the module that was planned last start a container, other than by a restart. One of a former manifest does
    /// not count: it is started by its policy, whatever the one that replaces it waits for.
    fn starts(&self, module: &ModuleId, former: Option<&ObservedModule>) -> bool {
        let is_of_former = |action: &Action| match action {
            Action::Start { container_id: Some(id), .. } => {
                former.is_some_and(|former| former.container_id == *id)
            }
            _ => false,
        };
        let mut own = self.changes.iter().rev().take_while(|action| action.module() == module);
        own.any(|action| action.starts() && !is_of_former(action))
    }

    /// Whether it is noted already that the module's last steps failed.
    fn has_failed(&self, module: &ModuleId) -> bool {
        let mut waiting = self.plan.waiting.iter().filter(|waiting| waiting.module == *module);
        waiting.any(|waiting| matches!(waiting.reason, Reason::Failed { .. }))
    }

    /// Sets back what somebody changed of a container, unless something else is to be done with it first: a restart waits for less.
    fn restore(&mut self, module: &ModuleId, seen: &ObservedModule) {
        let Some(edit) = seen.edit.as_ref().filter(|edit| !edit.restored.is_empty()) else { return };
        let is_acted_on = self.changes.last().is_some_and(|action| action.module() == module);
        if !is_acted_on && !self.has_failed(module) && !self.waits(module) {
            let (module, container_id) = (module.clone(), seen.container_id.clone());
            self.changes.push(Action::Update { module, container_id, restored: edit.restored.clone() });
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

    /// Whether a container that is kept may be started or stopped now. While it has another name the failed step may be the one that
    /// names it, which is no reason to leave the module as it is; whether it waits is then noted with that step.
    fn may_act(&mut self, module: &ModuleId, seen: &ObservedModule) -> bool {
        seen.is_renamed || !self.waits(module)
    }

    fn wait(&mut self, module: &ModuleId, reason: Reason) {
        self.plan.waiting.push(Waiting { module: module.clone(), reason });
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

    /// Goes on with a replacement: a container that was prepared from what is wanted replaces the old one. Of one that was cut off, the new
    /// container takes the module's place if it was started already or the old one is gone; otherwise it goes, and the replacement
    /// begins anew with the next plan.
    fn settle_replacement(
        &mut self,
        module: &ModuleId,
        target: &DesiredModule,
        seen: Option<&ObservedModule>,
        replacement: &ObservedModule,
    ) {
        let is_in_use =
            replacement.state == ContainerState::Running && replacement.fingerprint == target.fingerprint;
        if self.waits(module) {
            // Not beside one that has taken its place already.
            if let Some(seen) = seen.filter(|_| !is_in_use) {
                self.supervise_former(module, target, seen);
            }
            return;
        }
        let is_prepared =
            replacement.state == ContainerState::Created && replacement.fingerprint == target.fingerprint;
        match seen {
            Some(seen)
                if is_prepared
                    && seen.fingerprint != target.fingerprint
                    && seen.state != ContainerState::Dead =>
            {
                self.replace(module, target, seen);
            }
            Some(_) if !is_in_use => self.remove(module, replacement),
            seen => {
                if let Some(seen) = seen {
                    self.remove(module, seen);
                }
                let (module, container_id) = (module.clone(), replacement.container_id.clone());
                self.changes.push(Action::Rename { module, container_id });
            }
        }
    }

    /// Creates the container, in place of another one if there is one.
    fn create(&mut self, module: &ModuleId, target: &DesiredModule, seen: Option<&ObservedModule>) {
        let image = target.spec.image.clone();
        if target.spec.image_pull_policy == ImagePullPolicy::OnCreate {
            self.pulls.push(Action::Pull { module: module.clone(), image: image.clone() });
        }
        if let Some(seen) = seen.filter(|seen| seen.state != ContainerState::Dead) {
            self.preparations.push(Action::Prepare { module: module.clone(), image });
            self.replace(module, target, seen);
            return;
        }
        let create = Action::Create { module: module.clone(), image };
        match seen {
            // A dead container cannot run again if the new one fails, so it goes first and makes its name free.
            Some(dead) => {
                self.remove(module, dead);
                self.changes.push(create);
            }
            None => self.preparations.push(create),
        }
        if target.spec.status == DesiredStatus::Running {
            self.changes.push(Action::Start { module: module.clone(), container_id: None });
        }
    }

    fn replace(&mut self, module: &ModuleId, target: &DesiredModule, seen: &ObservedModule) {
        self.keep_meanwhile(module, target, seen);
        let (module, container_id) = (module.clone(), seen.container_id.clone());
        self.changes.push(Action::Replace { module, container_id, image: target.spec.image.clone() });
    }

    /// What to do with a container that is to be replaced: what its policy says while the module shall run. One that never ran is
    /// not started for that.
    fn next_of_former(
        &self,
        module: &ModuleId,
        target: &DesiredModule,
        seen: &ObservedModule,
    ) -> RestartStep {
        if target.spec.status == DesiredStatus::Running && seen.state != ContainerState::Created {
            self.restarts.next(module, target.spec.restart_policy, seen, self.now_ms)
        } else {
            RestartStep::Leave
        }
    }

    /// Keeps a container running while the next try to replace it waits.
    fn supervise_former(&mut self, module: &ModuleId, target: &DesiredModule, seen: &ObservedModule) {
        let next = self.next_of_former(module, target, seen);
        self.changes.extend(supervision(module, seen, next));
        if let RestartStep::WaitUntil { at_ms, attempt } = next {
            self.wait(module, Reason::Backoff { until_ms: at_ms, attempt });
        }
    }

    /// Notes what keeps the container of a module running while the image that replaces it is fetched.
    fn keep_meanwhile(&mut self, module: &ModuleId, target: &DesiredModule, seen: &ObservedModule) {
        let next = self.next_of_former(module, target, seen);
        self.plan.interim.extend(supervision(module, seen, next));
        if let RestartStep::WaitUntil { at_ms, .. } = next {
            let due = self.plan.interim_due_ms.get_or_insert(at_ms);
            *due = at_ms.min(*due);
        }
    }

    fn keep_running(&mut self, module: &ModuleId, target: &DesiredModule, seen: &ObservedModule) {
        let next = self.restarts.next(module, target.spec.restart_policy, seen, self.now_ms);
        match next {
            RestartStep::Leave => match seen.state {
                ContainerState::Paused => self.wait(module, Reason::Paused),
                ContainerState::Restarting => self.wait(module, Reason::Restarting),
                _ => {}
            },
            RestartStep::Start | RestartStep::Restart { .. } if self.may_act(module, seen) => {
                self.changes.extend(supervision(module, seen, next));
            }
            RestartStep::Start | RestartStep::Restart { .. } => {}
            RestartStep::WaitUntil { at_ms, attempt } => {
                self.wait(module, Reason::Backoff { until_ms: at_ms, attempt })
            }
            RestartStep::GivenUp => self.wait(module, Reason::GivenUp),
            RestartStep::Ended => {
                let code = match seen.state {
                    ContainerState::Exited { code } => code,
                    _ => 0,
                };
                self.wait(module, Reason::Ended { code });
            }
        }
    }
}

/// The step that keeps a container running, when one is due.
fn supervision(module: &ModuleId, seen: &ObservedModule, next: RestartStep) -> Option<Action> {
    let (module, container_id) = (module.clone(), seen.container_id.clone());
    match next {
        RestartStep::Start => Some(Action::Start { module, container_id: Some(container_id) }),
        RestartStep::Restart { attempt } => Some(Action::Restart { module, container_id, attempt }),
        _ => None,
    }
}

impl Plan {
    /// Whether everything is as wanted, or waits.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Takes all steps of a module out: they are not to be done.
    pub fn without(&mut self, module: &ModuleId) {
        self.actions.retain(|action| action.module() != module);
        self.interim.retain(|action| action.module() != module);
    }

    /// Takes steps out that have been done.
    pub fn done(&mut self, done: &[Action]) {
        self.actions.retain(|action| !done.contains(action));
        self.interim.retain(|action| !done.contains(action));
    }

    /// What a module waits for before its container is started.
    pub fn held(&self, module: &ModuleId) -> Option<&Held> {
        self.waiting.iter().find_map(|waiting| match &waiting.reason {
            Reason::Condition(held) if waiting.module == *module => Some(held),
            _ => None,
        })
    }

    /// Whether a module waits until another one is as its manifest says.
    pub fn holds_some(&self) -> bool {
        self.waiting.iter().any(|waiting| matches!(waiting.reason, Reason::Condition(_)))
    }

    /// Whether another module waits until this one is as its manifest says.
    pub fn is_awaited(&self, module: &ModuleId) -> bool {
        let mut reasons = self.waiting.iter().map(|waiting| &waiting.reason);
        reasons.any(|reason| matches!(reason, Reason::Condition(held) if held.unmet.other == *module))
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
            Self::GivenUp
            | Self::Ended { .. }
            | Self::Condition(_)
            | Self::Paused
            | Self::Restarting
            | Self::Unreadable { .. } => None,
        }
    }
}

impl Action {
    /// Whether it starts a container that is new, or has not run since the host booted.
    pub fn starts(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::Replace { .. })
    }

    /// The module it is about.
    pub fn module(&self) -> &ModuleId {
        match self {
            Self::Pull { module, .. }
            | Self::Create { module, .. }
            | Self::Prepare { module, .. }
            | Self::Start { module, .. }
            | Self::Restart { module, .. }
            | Self::Replace { module, .. }
            | Self::Rename { module, .. }
            | Self::Update { module, .. }
            | Self::Stop { module, .. }
            | Self::Remove { module, .. } => module,
        }
    }
}

#[cfg(test)]
mod tests;
