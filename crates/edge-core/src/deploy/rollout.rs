//! How a deployment that was put in force ends: verified, rolled back or held. Pure.
//!
//! ```text
//!   applying ──everything runs──> probation ──window over, all well──> verified
//!      │ ^                            │
//!      │ └── (policy hold) ── held <──┤ something failed
//!      └──────── something failed ────┴──> rolled back: the last verified deployment is in force again
//!
//!   any of them but the ends ──another deployment──> superseded
//! ```
//!
//! Only the modules that the deployment changes, and those that ran well before it, are watched.
//! What ended while the engine did not answer, or before the host booted, does not count: the window begins anew then.

use std::collections::{BTreeMap, BTreeSet};

use schemas::manifest::{DesiredStatus, RestartPolicy};
use schemas::names::ModuleId;
use serde::{Deserialize, Serialize};

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::restart::Restarts;
use super::start_condition::Held;

/// How long after the window something may still be missing: a health check that has not said how it is, a client that has not
/// connected, the link.
pub const GRACE_MS: u64 = 60 * 1000;
/// A deployment that gets nowhere for so long has failed. IoT Edge's limit for one pass of its agent.
pub const STUCK_MS: u64 = 10 * 60 * 1000;

/// The state of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum Phase {
    /// Its modules do not run yet as it wants them.
    Applying {
        /// Milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// Its modules run, and are watched.
    Probation {
        /// Milliseconds since the Unix epoch.
        since_ms: u64,
        until_ms: u64,
    },
    Verified,
    RolledBack {
        reason: String,
        /// The number of the deployment that is in force again.
        to: u64,
    },
    /// It failed and stays in force: its policy says so, or there is no other.
    Held {
        reason: String,
        /// Milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// Another one came before it was verified.
    Superseded {
        by: u64,
    },
}

impl Phase {
    /// Its name in reports and in `edge-agent history`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Applying { .. } => "applying",
            Self::Probation { .. } => "probation",
            Self::Verified => "verified",
            Self::RolledBack { .. } => "rolledBack",
            Self::Held { .. } => "held",
            Self::Superseded { .. } => "superseded",
        }
    }

    /// Whether nothing but another deployment changes it any more.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Verified | Self::RolledBack { .. } | Self::Superseded { .. })
    }

    /// Why it failed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::RolledBack { reason, .. } | Self::Held { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// How the gateway was just before a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Baseline {
    /// The modules that were connected to the gateway's MQTT server.
    pub connected: BTreeSet<ModuleId>,
    pub is_upstream_connected: bool,
    /// The modules that the deployment does not change and that ran well.
    pub well: BTreeSet<ModuleId>,
}

/// A deployment that has not ended.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    pub phase: &'a Phase,
    /// The modules that it adds or changes, see [`changed`].
    pub changed: &'a BTreeSet<ModuleId>,
    /// Whether it removes modules or changes some.
    pub touches_containers: bool,
    pub baseline: &'a Baseline,
    /// How long its modules are watched.
    pub window_ms: u64,
}

/// How the gateway is.
#[derive(Debug, Clone, Copy)]
pub struct RolloutFacts<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub restarts: &'a Restarts,
    /// The last failure of each module whose steps are tried again.
    pub problems: &'a BTreeMap<ModuleId, String>,
    /// Those of them that another try does not end.
    pub refused: &'a BTreeSet<ModuleId>,
    pub connected: &'a BTreeSet<ModuleId>,
    pub is_upstream_connected: bool,
    /// Since when the engine has answered without a break, in milliseconds since the Unix epoch.
    pub seen_since_ms: u64,
    /// When an image was being fetched, or a step was done or due, last.
    pub busy_at_ms: u64,
}

/// What becomes of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutVerdict {
    /// Nothing yet; until a time (milliseconds since the Unix epoch) when time alone changes that.
    Wait(Option<u64>),
    /// Everything runs: it is to be watched from now on.
    Watch,
    Verified,
    /// Why it is to be rolled back or held.
    Failed(String),
}

/// The modules that a deployment adds, and those whose container or desired status it changes.
pub fn changed(before: &Desired, after: &Desired) -> BTreeSet<ModuleId> {
    let is_same = |module: &ModuleId, target: &DesiredModule| {
        before.modules.get(module).is_some_and(|former| {
            former.fingerprint == target.fingerprint && former.spec.status == target.spec.status
        })
    };
    let changed = after.modules.iter().filter(|(module, target)| !is_same(module, target));
    changed.map(|(module, _)| module.clone()).collect()
}

/// The modules that a deployment leaves as they are and that run well.
pub fn well(desired: &Desired, changed: &BTreeSet<ModuleId>, observed: &Observed) -> BTreeSet<ModuleId> {
    let unchanged = desired.modules.iter().filter(|(module, _)| !changed.contains(*module));
    let well = unchanged.filter(|(module, target)| {
        observed.modules.get(*module).is_some_and(|seen| is_as_desired(target, seen))
    });
    well.map(|(module, _)| module.clone()).collect()
}

/// Evaluates a deployment that has not ended.
pub fn evaluate(trial: &Trial<'_>, facts: &RolloutFacts<'_>, now_ms: u64) -> RolloutVerdict {
    let watched = || trial.changed.iter().chain(&trial.baseline.well);
    match trial.phase {
        Phase::Applying { since_ms } => {
            let since_ms = (*since_ms).max(facts.seen_since_ms);
            if let Some(reason) = failure(watched(), facts, since_ms) {
                return RolloutVerdict::Failed(reason);
            }
            if is_done(watched(), facts) {
                return begun(trial);
            }
            let is_held = watched().any(|module| held(module, facts, now_ms).is_some());
            // A health check that another module waits for gets as long as one that nobody waits for.
            let limit_ms = if is_held { trial.window_ms.saturating_add(GRACE_MS) } else { STUCK_MS };
            let stuck_at_ms = since_ms.max(facts.busy_at_ms).saturating_add(limit_ms);
            if now_ms >= stuck_at_ms {
                return RolloutVerdict::Failed(format!(
                    "nothing went on for {} s: {}",
                    limit_ms / 1000,
                    missing(watched(), facts, now_ms)
                ));
            }
            RolloutVerdict::Wait(Some(stuck_at_ms))
        }
        Phase::Held { since_ms, .. } => {
            let since_ms = (*since_ms).max(facts.seen_since_ms);
            if failure(watched(), facts, since_ms).is_none() && is_done(watched(), facts) {
                return begun(trial);
            }
            RolloutVerdict::Wait(None)
        }
        Phase::Probation { since_ms, until_ms } => {
            let since_ms = (*since_ms).max(facts.seen_since_ms);
            if let Some(reason) = failure(watched(), facts, since_ms) {
                return RolloutVerdict::Failed(reason);
            }
            // What could not be seen was not watched, and a module that was started since has not run through the window.
            let since_ms = since_ms.max(last_start_ms(watched(), facts).unwrap_or(0).min(now_ms));
            let until_ms = (*until_ms).max(since_ms.saturating_add(trial.window_ms));
            if now_ms < until_ms {
                return RolloutVerdict::Wait(Some(until_ms));
            }
            match not_well_yet(watched(), trial.baseline, facts, now_ms) {
                None => RolloutVerdict::Verified,
                Some(reason) if now_ms >= until_ms.saturating_add(GRACE_MS) => RolloutVerdict::Failed(reason),
                Some(_) => RolloutVerdict::Wait(Some(until_ms.saturating_add(GRACE_MS))),
            }
        }
        Phase::Verified | Phase::RolledBack { .. } | Phase::Superseded { .. } => RolloutVerdict::Wait(None),
    }
}

fn begun(trial: &Trial<'_>) -> RolloutVerdict {
    // Routes and twins change nothing that could end.
    if trial.touches_containers { RolloutVerdict::Watch } else { RolloutVerdict::Verified }
}

/// When the last of the watched modules was started.
fn last_start_ms<'a>(watched: impl Iterator<Item = &'a ModuleId>, facts: &RolloutFacts<'_>) -> Option<u64> {
    let running = watched.filter_map(|module| facts.observed.modules.get(module));
    let running = running.filter(|seen| seen.state == ContainerState::Running);
    running.filter_map(|seen| seen.started_at_ms).max()
}

/// Whether a module is as it shall stay. One with the policy `never` may end with code 0.
fn is_as_desired(target: &DesiredModule, seen: &ObservedModule) -> bool {
    let is_running = seen.state == ContainerState::Running && !seen.is_unhealthy;
    let has_ended = seen.state == ContainerState::Exited { code: 0 }
        && target.spec.restart_policy == RestartPolicy::Never;
    seen.fingerprint == target.fingerprint
        && match target.spec.status {
            DesiredStatus::Running => is_running || has_ended,
            DesiredStatus::Stopped => !seen.is_live(),
            DesiredStatus::Unknown => true,
        }
}

/// Whether the containers are those that are wanted and the watched modules are as they shall stay.
fn is_done<'a>(watched: impl Iterator<Item = &'a ModuleId>, facts: &RolloutFacts<'_>) -> bool {
    let RolloutFacts { desired, observed, .. } = facts;
    let is_well = |module: &ModuleId| {
        let target = desired.modules.get(module);
        target
            .is_none_or(|target| observed.modules.get(module).is_some_and(|seen| is_as_desired(target, seen)))
    };
    observed.replacements.is_empty()
        && observed.modules.keys().all(|module| desired.modules.contains_key(module))
        && watched.into_iter().all(is_well)
}

fn held(module: &ModuleId, facts: &RolloutFacts<'_>, now_ms: u64) -> Option<Held> {
    facts.restarts.held(module, facts.desired, facts.observed, now_ms)
}

/// What keeps a deployment from being done, for its author.
fn missing<'a>(watched: impl Iterator<Item = &'a ModuleId>, facts: &RolloutFacts<'_>, now_ms: u64) -> String {
    let left = facts.observed.modules.keys().filter(|module| !facts.desired.modules.contains_key(*module));
    let left = left.map(|module| format!("module `{module}` was not removed"));
    let not_well = watched.filter_map(|module| {
        let target = facts.desired.modules.get(module)?;
        let how = match facts.observed.modules.get(module) {
            Some(seen) if is_as_desired(target, seen) => return None,
            _ => match (facts.problems.get(module), held(module, facts, now_ms)) {
                (Some(problem), _) => problem.clone(),
                (None, Some(held)) => held.to_string(),
                (None, None) => "is not as the manifest wants it".to_owned(),
            },
        };
        Some(format!("module `{module}`: {how}"))
    });
    left.chain(not_well).collect::<Vec<_>>().join("; ")
}

/// Why a deployment cannot become well any more.
fn failure<'a>(
    watched: impl Iterator<Item = &'a ModuleId>,
    facts: &RolloutFacts<'_>,
    since_ms: u64,
) -> Option<String> {
    let refused = facts.refused.iter().next().map(|module| {
        let why = facts.problems.get(module).map_or("it was refused", String::as_str);
        format!("module `{module}`: {why}")
    });
    let mut watched = watched;
    refused.or_else(|| watched.find_map(|module| module_failure(module, facts, since_ms)))
}

fn module_failure(module: &ModuleId, facts: &RolloutFacts<'_>, since_ms: u64) -> Option<String> {
    let (target, seen) = (facts.desired.modules.get(module)?, facts.observed.modules.get(module)?);
    if target.spec.status != DesiredStatus::Running || seen.fingerprint != target.fingerprint {
        return None;
    }
    let has_ended_since = seen.finished_at_ms.is_some_and(|at_ms| at_ms >= since_ms);
    let cause = if seen.is_out_of_memory { ", because memory ran out" } else { "" };
    let how = match seen.state {
        ContainerState::Running if seen.is_unhealthy => "its health check fails".to_owned(),
        // A restart by an operator is not counted, and is no failure of the deployment.
        ContainerState::Running if has_ended_since && facts.restarts.count(module) > 0 => {
            format!("it ended and was restarted{cause}")
        }
        ContainerState::Exited { code } if has_ended_since && !is_as_desired(target, seen) => {
            format!("it ended with code {code}{cause}")
        }
        ContainerState::Restarting => "it ended, and Docker's own restart policy restarts it".to_owned(),
        ContainerState::Dead => "its container is dead".to_owned(),
        _ => return None,
    };
    Some(format!("module `{module}`: {how}"))
}

/// What is not as it was before the deployment, or not known yet.
fn not_well_yet<'a>(
    watched: impl Iterator<Item = &'a ModuleId> + Clone,
    baseline: &Baseline,
    facts: &RolloutFacts<'_>,
    now_ms: u64,
) -> Option<String> {
    if !is_done(watched.clone(), facts) {
        return Some(missing(watched, facts, now_ms));
    }
    let shall_run = |module: &&ModuleId| {
        let target = facts.desired.modules.get(*module);
        target.is_some_and(|target| target.spec.status == DesiredStatus::Running)
    };
    let is_starting =
        |module: &&ModuleId| facts.observed.modules.get(*module).is_some_and(|seen| seen.is_starting);
    let mut watched = watched;
    if let Some(module) = watched.find(is_starting) {
        return Some(format!("module `{module}`: its health check does not say that it is well"));
    }
    let mut before = baseline.connected.iter().filter(shall_run);
    if let Some(module) = before.find(|module| !facts.connected.contains(*module)) {
        return Some(format!("module `{module}`: it was connected to this gateway before and is not now"));
    }
    (baseline.is_upstream_connected && !facts.is_upstream_connected)
        .then(|| "the connection upstream was there before and is not now".to_owned())
}

#[cfg(test)]
mod tests;
