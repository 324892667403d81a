//! How often modules were started again, over restarts of the daemon: a module that was given up stays given up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use edge_core::deploy::restart::Restarts;
use schemas::names::ModuleId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{Namespace, State, shaped};

const KEY: &str = "restarts";

/// Cheap to clone. Without a state nothing is kept.
#[derive(Clone, Default)]
pub struct RestartCounts {
    state: Option<State>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kept {
    /// The desired version that they are counted for: another deployment counts anew.
    version: u64,
    /// How often, and when last in milliseconds since the Unix epoch.
    modules: BTreeMap<ModuleId, (u32, Option<u64>)>,
}

impl RestartCounts {
    /// What was kept.
    pub fn load(state: State) -> Self {
        let found = state.load::<Value>(Namespace::Rollouts).into_iter().find(|(key, _)| key == KEY);
        let kept = found.and_then(|(key, value)| shaped(Namespace::Rollouts, &key, value));
        Self { state: Some(state), kept: Arc::new(Mutex::new(kept.unwrap_or_default())) }
    }

    /// Those of a deployment.
    pub fn of(&self, version: u64) -> BTreeMap<ModuleId, (u32, Option<u64>)> {
        let kept = self.kept.lock().expect("nothing panics while it holds it");
        if kept.version == version { kept.modules.clone() } else { BTreeMap::new() }
    }

    /// Keeps them if they have changed. One that a kill loses is counted once less.
    pub fn keep(&self, version: u64, restarts: &Restarts) {
        let now = Kept { version, modules: restarts.counts() };
        let mut kept = self.kept.lock().expect("nothing panics while it holds it");
        if *kept == now {
            return;
        }
        if let Some(state) = &self.state {
            state.put(Namespace::Rollouts, KEY, &now).later();
        }
        *kept = now;
    }
}
