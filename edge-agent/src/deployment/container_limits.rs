//! The limits that containers had when they were first seen, over restarts of the daemon: whether somebody has changed them is seen by that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use edge_core::deploy::limits::{ContainerResources, Edit};
use edge_core::deploy::observed::Observed;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{Namespace, State, shaped};

const KEY: &str = "limits";

/// Cheap to clone. Without a state nothing is kept.
#[derive(Clone, Default)]
pub struct ContainerLimits {
    state: Option<State>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    kept: Kept,
    /// What was found changed at the last look, and logged.
    edits: BTreeMap<String, Edit>,
}

/// By the container's id, of those that exist.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Kept(BTreeMap<String, ContainerResources>);

impl ContainerLimits {
    /// What was kept.
    pub fn load(state: State) -> Self {
        let found = state.load::<Value>(Namespace::Rollouts).into_iter().find(|(key, _)| key == KEY);
        let kept = found.and_then(|(key, value)| shaped(Namespace::Rollouts, &key, value));
        let known = Known { kept: kept.unwrap_or_default(), ..Known::default() };
        Self { state: Some(state), known: Arc::new(Mutex::new(known)) }
    }

    /// Notes in each container what somebody has changed of it, and keeps the limits of those that are new. Those that a kill loses
    /// count from the next look.
    pub fn compare(&self, observed: &mut Observed) {
        let mut known = self.known.lock().expect("nothing panics while it holds it");
        let (mut now, mut edits) = (Kept::default(), BTreeMap::new());
        let containers = observed.modules.iter_mut().chain(&mut observed.replacements);
        for (module, seen) in containers {
            let id = &seen.container_id;
            let limits = known.kept.0.get(id).unwrap_or(&seen.limits).clone();
            seen.edit = limits.edit(&seen.limits);
            if let Some(edit) = &seen.edit {
                if known.edits.get(id) != Some(edit) {
                    tracing::warn!(%module, container = id, "{}", edit.describe());
                }
                edits.insert(id.clone(), edit.clone());
            }
            now.0.insert(id.clone(), limits);
        }
        for unreadable in observed.unreadable.values() {
            let kept = known.kept.0.get_key_value(&unreadable.container_id);
            now.0.extend(kept.map(|(id, limits)| (id.clone(), limits.clone())));
        }
        known.edits = edits;
        if known.kept == now {
            return;
        }
        if let Some(state) = &self.state {
            state.put(Namespace::Rollouts, KEY, &now).later();
        }
        known.kept = now;
    }
}
