//! Deployments that are tried, and what becomes of those that fail: the journal of [`super::super::history`] written, the last verified one put
//! in force again, one of the past applied again.

use edge_core::deploy;
use edge_core::deploy::desired::Desired;
use edge_core::deploy::diff::diff;
use edge_core::deploy::rollout::{self, Phase};
use edge_core::error_chain::chain;
use schemas::manifest::{FailurePolicy, Manifest};
use schemas::names::{Identity, ModuleId};
use std::sync::Arc;

use super::{ApplyError, Deployments, IN_FORCE, InForce, Start};
use crate::access::identity_state::RemovalError;
use crate::access::removals::Removal;
use crate::deployment::history::{Begun, History};
use crate::deployment::sections::Sections;
use crate::messages::twins::DesiredChange;
use crate::state::Namespace;

impl Deployments {
    /// How deployments went.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Puts the last verified deployment in force again in place of one that has not ended. Whether there was one; otherwise, and when
    /// another deployment came meanwhile, nothing is changed.
    ///
    /// # Errors
    /// [`RemovalError`] when what modules that leave were kept of was not removed; it is in force nevertheless.
    pub async fn roll_back(self: &Arc<Self>, number: u64, reason: String) -> Result<bool, RemovalError> {
        let Some(verified) = self.history.verified_before(number) else { return Ok(false) };
        self.with_removal(move |this, removal| this.return_to(number, reason, verified.number, removal))
            .await?;
        Ok(true)
    }

    /// Blocking: opens queues.
    fn return_to(&self, number: u64, reason: String, to: u64, removal: &Removal) {
        let Some(verified) = self.history.get(to) else { return };
        let rolled_back = Phase::RolledBack { reason: reason.clone(), to };
        // First of all: from here on a start of the daemon takes up the verified one.
        if !self.history.change(number, |record| record.phase = rolled_back) {
            return;
        }
        let version = verified.sections.edge_agent.version;
        tracing::error!(
            deployment = number,
            reason,
            to,
            version,
            "the deployment failed and was rolled back"
        );
        if let Err(error) = self.put_in_force(verified.sections, removal, Start::Again) {
            tracing::error!(error = %chain(&error), "the verified deployment cannot be taken up again");
        }
        if let Some(in_force) = self.in_force().as_ref() {
            self.state.put(Namespace::Deployment, IN_FORCE, &in_force.sections).later();
        }
        self.consider(removal, None);
    }

    /// Records what is in force as a deployment; nothing is recorded before there is one.
    pub(super) fn record(&self, source: &str, before: &Desired, manifest_before: &Manifest, phase: Phase) {
        let in_force = self.in_force();
        let Some(InForce { sections, desired, .. }) = in_force.as_ref() else { return };
        let Ok(manifest) = sections.manifest() else { return };
        let changed = rollout::changed(before, desired);
        let is_removed = |module: &ModuleId| !desired.modules.contains_key(module);
        let touches_containers = !changed.is_empty() || before.modules.keys().any(is_removed);
        self.history.begin(Begun {
            source: source.to_owned(),
            sections: sections.clone(),
            policy: self.policy_of(&manifest),
            changes: diff(manifest_before, &manifest),
            changed,
            touches_containers,
            phase,
        });
    }

    /// Why the wanted deployment is not in force though it is right: it was, and failed.
    pub(super) fn rolled_back(&self, sections: &Sections) -> Option<String> {
        let latest = self.history.current()?;
        match &latest.phase {
            Phase::RolledBack { reason, to } if latest.sections.wants_the_same(sections) => {
                let version = self.history.get(*to).map_or(0, |record| record.sections.edge_agent.version);
                Some(format!("rolled back to version {version}: {reason}"))
            }
            _ => None,
        }
    }

    /// What is in force now, to compare with what follows.
    pub(super) fn compared(&self) -> (Desired, Manifest) {
        let in_force = self.in_force();
        let Some(in_force) = in_force.as_ref() else { return (Desired::default(), Manifest::empty()) };
        (in_force.desired.clone(), in_force.sections.manifest().unwrap_or_else(|_| Manifest::empty()))
    }

    fn policy_of(&self, manifest: &Manifest) -> FailurePolicy {
        manifest.edge_agent.failure_policy.unwrap_or(self.on_failure)
    }

    /// Whether a deployment is to be carried out whole or not at all: it is on trial, and there is one to go back to.
    pub(super) fn is_atomic(&self, manifest: &Manifest, start: Start) -> bool {
        let is_on_trial = match start {
            Start::New => true,
            Start::Again => self.history.current().is_some_and(|latest| !latest.phase.is_end()),
        };
        is_on_trial && self.policy_of(manifest) == FailurePolicy::Rollback && self.history.has_verified()
    }

    /// As [`Deployments::apply`], with the sections of a deployment that was in force before.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply_again(
        self: &Arc<Self>,
        number: u64,
    ) -> Result<(u64, Vec<(Identity, DesiredChange)>), ApplyError> {
        let record = self.history.get(number).ok_or(ApplyError::NoSuchDeployment { number })?;
        let (desired, _) = deploy::check(&record.sections.manifest()?)?;
        self.policy.check(&desired)?;
        let Sections { edge_agent, edge_hub, .. } = record.sections;
        let sections =
            [(ModuleId::edge_agent(), edge_agent.properties), (ModuleId::edge_hub(), edge_hub.properties)];
        self.apply_sections(sections.into(), format!("command line, back to deployment {number}")).await
    }
}
