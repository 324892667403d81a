//! The deployment in force, and what the reconciler last saw and did for it.

use std::collections::{BTreeMap, BTreeSet};

use edge_core::deploy::desired::Desired;
use edge_core::deploy::observed::Observed;
use edge_core::deploy::report::DeploymentProgress;
use edge_core::deploy::restart::Restarts;
use schemas::names::ModuleId;
use schemas::status::code;

/// A deployment in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub desired: Desired,
    /// `$edgeAgent`'s desired version.
    pub version: u64,
    /// Whether nothing that runs is touched when one of its modules was refused: there is a deployment to go back to.
    pub is_atomic: bool,
}

/// How it went, in one of [`schemas::status::code`] and as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// 200 when everything is as wanted.
    pub code: u16,
    /// Empty then.
    pub description: String,
}

/// What the reconciler saw and did last.
#[derive(Debug, Clone)]
pub struct ReconcilerStatus {
    /// The version of the deployment that it works on.
    pub version: Option<u64>,
    pub observed: Observed,
    pub restarts: Restarts,
    pub outcome: Outcome,
    /// Whether everything is as that version wants it.
    pub is_settled: bool,
    /// What is still to be done and what waits, as text.
    pub plan: String,
    /// The last failure of each module whose steps are tried again.
    pub problems: BTreeMap<ModuleId, String>,
    /// Those of them that another try does not end.
    pub refused: BTreeSet<ModuleId>,
    /// Whether an image is being fetched, or a step is being done or due.
    pub is_busy: bool,
    /// Since when the engine's events have been followed without a break, in milliseconds since the Unix epoch; 0 while they are not.
    pub engine_since_ms: u64,
    /// When the containers were looked at, in milliseconds since the Unix epoch.
    pub observed_at_ms: u64,
    /// Images that are being pulled.
    pub pulling: BTreeSet<String>,
    /// Why the containers cannot be looked at now.
    pub unseen: Option<String>,
}

impl ReconcilerStatus {
    /// What modules are like by this, when `desired` is in force.
    pub fn progress<'a>(&'a self, desired: &'a Desired, now_ms: u64) -> DeploymentProgress<'a> {
        DeploymentProgress {
            desired,
            observed: &self.observed,
            restarts: &self.restarts,
            problems: &self.problems,
            pulling: &self.pulling,
            unseen: self.unseen.as_deref(),
            now_ms,
        }
    }
}

impl Default for ReconcilerStatus {
    fn default() -> Self {
        Self {
            version: None,
            observed: Observed::default(),
            restarts: Restarts::default(),
            outcome: Outcome { code: code::UNKNOWN, description: "not looked at yet".to_owned() },
            is_settled: false,
            plan: String::new(),
            problems: BTreeMap::new(),
            refused: BTreeSet::new(),
            is_busy: false,
            engine_since_ms: 0,
            observed_at_ms: 0,
            pulling: BTreeSet::new(),
            unseen: None,
        }
    }
}
