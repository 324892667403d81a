//! Brings each deployment to its end: watches its modules, verifies it, or puts the last verified one in force again.
//!
//! Decisions are made in [`edge_core::deploy::rollout`] and carried out here. Everything that it goes on with is in
//! the journal ([`super::history`]), so that a daemon that is killed goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edge_core::deploy::rollout::{self, Baseline, Phase, RolloutFacts, RolloutVerdict, Trial};
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use schemas::manifest::FailurePolicy;
use schemas::names::{DeviceId, ModuleId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::artifacts::Artifacts;
use super::deployments::Deployments;
use super::docker::Engine;
use super::history::Record;
use super::status::{Deployment, ReconcilerStatus};
use crate::clock::now_ms;
use crate::upstream::status::LinkStatus;

/// How often clients and the link are looked at while they decide: their changes are not waited for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait when nothing but an event goes on.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The task that does it.
#[derive(Clone)]
pub struct Rollout {
    pub gateway: DeviceId,
    pub deployments: Arc<Deployments>,
    /// What is in force.
    pub deployment: watch::Receiver<Option<Arc<Deployment>>>,
    /// What the containers do.
    pub reconciler: watch::Receiver<ReconcilerStatus>,
    pub clients: Clients,
    /// `None` without an upstream.
    pub link: Option<watch::Receiver<LinkStatus>>,
    pub engine: Engine,
    /// Images and volumes that are removed when no deployment needs them.
    pub artifacts: Artifacts,
    /// How long the modules of a deployment are watched before it is verified.
    pub window: Duration,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// Since when the engine has answered without a break; 0 while it does not.
    seen_since_ms: u64,
    /// When something was being done last.
    busy_at_ms: u64,
    /// The last ended deployment after which images and volumes were removed.
    collected: Option<(u64, &'static str)>,
}

impl Rollout {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut history = self.deployments.history().watch();
        let mut memory = Memory::default();
        loop {
            let wait = self.step(&mut memory).await;
            let changed = tokio::select! {
                changed = self.reconciler.changed() => changed,
                changed = history.changed() => changed,
                () = tokio::time::sleep(wait) => Ok(()),
                () = stop.cancelled() => return,
            };
            if changed.is_err() {
                // The senders live until the daemon stops.
                return stop.cancelled().await;
            }
        }
    }

    /// Evaluates the latest deployment if it has not ended; gives how long nothing follows if nothing happens.
    async fn step(&mut self, memory: &mut Memory) -> Duration {
        let status = self.reconciler.borrow_and_update().clone();
        // What ends while the engine is away ends with it.
        let is_unseen = status.unseen.is_some() || !status.observed.unreadable.is_empty();
        if is_unseen || status.engine_since_ms == 0 {
            memory.seen_since_ms = 0;
            return LONGEST_WAIT;
        }
        if memory.seen_since_ms == 0 {
            memory.seen_since_ms = now_ms();
        }
        memory.seen_since_ms = memory.seen_since_ms.max(status.engine_since_ms);
        if status.is_busy {
            memory.busy_at_ms = now_ms();
        }
        self.collect_garbage(&status, memory).await;
        let latest = self.deployments.history().current().filter(|latest| !latest.phase.is_end());
        let (Some(record), Some(deployment)) = (latest, self.deployment.borrow().clone()) else {
            return LONGEST_WAIT;
        };
        let version = record.sections.edge_agent.version;
        let is_observed = status.version == Some(version) && status.observed_at_ms >= record.at_ms;
        if deployment.version != version || !is_observed {
            return ASK_EVERY;
        }
        let verdict = self.evaluate(&record, &deployment, &status, memory);
        match verdict {
            RolloutVerdict::Wait(None) => LONGEST_WAIT,
            RolloutVerdict::Wait(Some(until_ms)) => {
                let wait = Duration::from_millis(until_ms.saturating_sub(now_ms()));
                if matches!(record.phase, Phase::Probation { .. }) { wait.min(ASK_EVERY) } else { wait }
            }
            verdict => {
                self.carry_out(&record, verdict).await;
                Duration::ZERO
            }
        }
    }

    /// Notes what the containers have, and removes what is not needed any more once after each deployment that has ended.
    async fn collect_garbage(&self, status: &ReconcilerStatus, memory: &mut Memory) {
        let history = self.deployments.history();
        let (Some(latest), Some(in_force)) = (history.current(), history.in_force()) else { return };
        let Some(deployment) = self.deployment.borrow().clone() else { return };
        let version = in_force.sections.edge_agent.version;
        if deployment.version != version || status.version != Some(version) {
            return;
        }
        self.artifacts.seen(in_force.number, &deployment.desired, &status.observed);
        let end = (latest.number, latest.phase.name());
        if !latest.phase.is_end() || status.is_busy || !status.is_settled || memory.collected == Some(end) {
            return;
        }
        memory.collected = Some(end);
        let is_verified = latest.phase == Phase::Verified;
        self.artifacts.collect(&self.engine, history, &status.observed, is_verified).await;
    }

    fn evaluate(
        &self,
        record: &Record,
        deployment: &Deployment,
        status: &ReconcilerStatus,
        memory: &Memory,
    ) -> RolloutVerdict {
        let connected = self.connected();
        let is_upstream_connected = self.link.as_ref().is_some_and(|link| link.borrow().is_connected);
        let desired = &deployment.desired;
        let baseline = record.baseline.clone().unwrap_or_else(|| {
            let baseline = Baseline {
                connected: connected.iter().filter(|id| desired.modules.contains_key(*id)).cloned().collect(),
                is_upstream_connected,
                well: rollout::well(desired, &record.changed, &status.observed),
            };
            self.deployments
                .history()
                .change(record.number, |record| record.baseline = Some(baseline.clone()));
            baseline
        });
        let trial = Trial {
            phase: &record.phase,
            changed: &record.changed,
            touches_containers: record.touches_containers && !self.window.is_zero(),
            baseline: &baseline,
            window_ms: self.window.as_millis().try_into().unwrap_or(u64::MAX),
        };
        let facts = RolloutFacts {
            desired,
            observed: &status.observed,
            restarts: &status.restarts,
            problems: &status.problems,
            refused: &status.refused,
            connected: &connected,
            is_upstream_connected,
            seen_since_ms: memory.seen_since_ms,
            busy_at_ms: memory.busy_at_ms,
        };
        rollout::evaluate(&trial, &facts, now_ms())
    }

    async fn carry_out(&self, record: &Record, verdict: RolloutVerdict) {
        let (number, history) = (record.number, self.deployments.history());
        match verdict {
            RolloutVerdict::Wait(_) => {}
            RolloutVerdict::Watch => {
                let since_ms = now_ms();
                let until_ms = since_ms + u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX / 2);
                tracing::info!(deployment = number, window = ?self.window, "the modules of the deployment run and are watched");
                history.change(number, |record| record.phase = Phase::Probation { since_ms, until_ms });
            }
            RolloutVerdict::Verified => {
                tracing::info!(deployment = number, "deployment verified");
                history.change(number, |record| record.phase = Phase::Verified);
            }
            RolloutVerdict::Failed(reason) => {
                if record.policy == FailurePolicy::Rollback {
                    match self.deployments.roll_back(number, reason.clone()).await {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(error) => {
                            tracing::error!(error = %chain(&error), "what removed modules left was not removed");
                            return;
                        }
                    }
                }
                tracing::error!(deployment = number, reason, "the deployment failed and stays in force");
                let since_ms = now_ms();
                history.change(number, |record| record.phase = Phase::Held { reason, since_ms });
            }
        }
    }

    /// The modules of this gateway that are connected to it.
    fn connected(&self) -> BTreeSet<ModuleId> {
        let connected = self.clients.connected().into_iter();
        let of_gateway = connected.filter(|(identity, _)| identity.device == self.gateway);
        of_gateway.filter_map(|(identity, _)| identity.module).collect()
    }
}
