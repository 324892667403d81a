//! Whether the modules that a module starts after (`startAfter`) are as it says.
//!
//! Only the container that the manifest in force wants counts: while one of a former manifest is still to be replaced, no condition on
//! its module is met. An end with code 0 counts until the container is replaced, over restarts of the host too.

use std::fmt;

use schemas::manifest::{DesiredStatus, RestartPolicy, StartCondition};
use schemas::names::ModuleId;
use schemas::timestamp::rfc3339;

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};

/// A module that is not as another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    pub other: ModuleId,
    pub condition: StartCondition,
    /// Whether `other` runs and has no health check, which no time changes.
    pub is_unchecked: bool,
}

/// What a module waits for before it is started; as text
/// `starts when module `store` is healthy; waits since 2026-11-23T04:51:52.000Z`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub unmet: Unmet,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// The first of a module's conditions, by name, that is not met.
pub fn first_unmet(target: &DesiredModule, desired: &Desired, observed: &Observed) -> Option<Unmet> {
    target.spec.start_after.iter().find_map(|(other, condition)| {
        let found = desired.modules.get(other).zip(observed.modules.get(other));
        let current = found.filter(|(named, seen)| named.fingerprint == seen.fingerprint);
        if current.is_some_and(|(named, seen)| is_met(*condition, named, seen)) {
            return None;
        }
        let is_unchecked =
            *condition == StartCondition::Healthy && current.is_some_and(|(_, seen)| is_unchecked(seen));
        Some(Unmet { other: other.clone(), condition: *condition, is_unchecked })
    })
}

fn is_met(condition: StartCondition, named: &DesiredModule, seen: &ObservedModule) -> bool {
    let is_running = seen.state == ContainerState::Running;
    match condition {
        StartCondition::Started => {
            // One that is never restarted may have ended before anybody saw it run.
            let has_run = matches!(seen.state, ContainerState::Exited { .. })
                && named.spec.restart_policy == RestartPolicy::Never
                && named.spec.status == DesiredStatus::Running;
            is_running || has_run
        }
        StartCondition::Healthy => is_running && seen.is_healthy,
        StartCondition::Exited => seen.state == ContainerState::Exited { code: 0 },
    }
}

fn is_unchecked(seen: &ObservedModule) -> bool {
    seen.state == ContainerState::Running && !seen.is_healthy && !seen.is_unhealthy && !seen.is_starting
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmet { other, condition, is_unchecked } = &self.unmet;
        match condition {
            StartCondition::Started => write!(f, "starts when module `{other}` has started")?,
            StartCondition::Healthy => write!(f, "starts when module `{other}` is healthy")?,
            StartCondition::Exited => write!(f, "starts when module `{other}` has ended with code 0")?,
        }
        if *is_unchecked {
            f.write_str(", which has no health check")?;
        }
        write!(f, "; waits since {}", rfc3339(self.since_ms))
    }
}

#[cfg(test)]
mod tests {
    use schemas::manifest::Manifest;
    use serde_json::json;

    use super::*;

    fn desired(policy: &str, condition: &str) -> Desired {
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "modules": {
                "app": {"startAfter": {"store": condition}, "settings": {"image": "acme/app:1"}},
                "store": {"restartPolicy": policy, "settings": {"image": "acme/store:1"}}
            }
        }}}});
        Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_condition_is_met_by_the_container_of_the_manifest_in_force_and_by_no_other() {
        const RUNNING: ContainerState = ContainerState::Running;
        let exited = |code| ContainerState::Exited { code };
        for (policy, condition, state, is_healthy, expected) in [
            ("always", "started", ContainerState::Created, false, false),
            ("always", "started", RUNNING, false, true),
            ("always", "started", ContainerState::Paused, false, false),
            ("always", "started", exited(0), false, false),
            ("never", "started", exited(3), false, true),
            ("always", "healthy", RUNNING, false, false),
            ("always", "healthy", RUNNING, true, true),
            ("always", "healthy", exited(0), true, false),
            ("never", "exited", RUNNING, true, false),
            ("never", "exited", exited(0), false, true),
            ("never", "exited", exited(1), false, false),
            ("never", "exited", ContainerState::Dead, false, false),
        ] {
            let desired = desired(policy, condition);
            let (app, store): (ModuleId, ModuleId) = ("app".parse().unwrap(), "store".parse().unwrap());
            let fingerprint = desired.modules[&store].fingerprint.clone();
            let mut seen = ObservedModule { fingerprint, state, is_healthy, ..ObservedModule::default() };
            let is_met = |seen: &ObservedModule| {
                let modules = [(store.clone(), seen.clone())].into();
                let observed = Observed { modules, ..Observed::default() };
                first_unmet(&desired.modules[&app], &desired, &observed).is_none()
            };
            assert_eq!(is_met(&seen), expected, "{policy} {condition} {state:?}");
            seen.fingerprint = "former".into();
            assert!(!is_met(&seen), "{policy} {condition} {state:?}: a container of a former manifest");
            let nothing = Observed::default();
            assert!(first_unmet(&desired.modules[&app], &desired, &nothing).is_some());
        }
    }

    #[test]
    fn a_module_without_a_health_check_is_named_as_such() {
        let desired = desired("always", "healthy");
        let store: ModuleId = "store".parse().unwrap();
        let app = &desired.modules[&"app".parse::<ModuleId>().unwrap()];
        let fingerprint = desired.modules[&store].fingerprint.clone();
        let state = ContainerState::Running;
        for (is_starting, expected) in [
            (true, "starts when module `store` is healthy; waits since 1970-01-01T00:00:01.000Z"),
            (
                false,
                "starts when module `store` is healthy, which has no health check; waits since 1970-01-01T00:00:01.000Z",
            ),
        ] {
            let seen = ObservedModule {
                fingerprint: fingerprint.clone(),
                state,
                is_starting,
                ..ObservedModule::default()
            };
            let observed = Observed { modules: [(store.clone(), seen)].into(), ..Observed::default() };
            let unmet = first_unmet(app, &desired, &observed).unwrap();
            assert_eq!(Held { unmet, since_ms: 1000 }.to_string(), expected);
        }
    }
}
