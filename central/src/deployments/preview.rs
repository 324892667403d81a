//! What assigning a manifest to a gateway would do, by the planner that the gateway uses, and what central does not know of it.
//!
//! Pure: facts in, preview out. The gateway does not report what its containers were created from, because that may hold secrets; central
//! knows it as far as the gateway says that it runs the manifest that it was given last.

use std::collections::BTreeSet;

use edge_core::deploy::desired::{Desired, DesiredModule, fingerprint};
use edge_core::deploy::observed::{ContainerState, Observed, ObservedModule};
use edge_core::deploy::preview::{ModulePreview, preview};
use schemas::manifest::Manifest;
use schemas::names::ModuleId;
use schemas::received_report::{ReceivedModule, ReceivedReport};
use schemas::status::code;
use serde_json::{Map, Value};

/// What central knows of a gateway's deployment.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFacts {
    /// `$version` of the desired section of `$edgeAgent`; 0 before a manifest was assigned.
    pub desired_version: u64,
    /// Desired section of `$edgeAgent`.
    pub agent: Map<String, Value>,
    /// Desired section of `$edgeHub`.
    pub hub: Map<String, Value>,
    /// Reported section of `$edgeAgent`; `None` when it was never reported.
    pub reported: Option<ReceivedReport>,
    pub is_connected: bool,
}

/// What a manifest would do to a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentPreview {
    pub modules: Vec<ModulePreview>,
    /// Routes that change, by name.
    pub routes: Vec<RouteChange>,
    /// What the preview assumes or cannot know, a sentence each.
    pub unknown: Vec<String>,
}

/// A route that is added, removed or changed. Routes change without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    pub name: String,
    /// Its text now; `None` for a new one.
    pub from: Option<String>,
    /// Its text then; `None` for one that is removed.
    pub to: Option<String>,
}

impl DeploymentFacts {
    /// What assigning `next` would do.
    pub fn preview(&self, next: &Manifest, now_ms: u64) -> DeploymentPreview {
        let assigned = Manifest::from_twins(&self.agent, &self.hub).ok();
        let known = self.known_modules();
        let mut former = Desired::default();
        if let Some(assigned) = &assigned {
            let modules =
                assigned.edge_agent.modules.iter().filter(|(name, _)| known.contains(name.as_str()));
            let define = |(name, spec): (&ModuleId, &schemas::manifest::Module)| {
                (name.clone(), DesiredModule { fingerprint: fingerprint(spec), spec: spec.clone() })
            };
            former.modules = modules.map(define).collect();
        }
        let observed = self.observed(&former);
        let next_modules = Desired::of(next);
        DeploymentPreview {
            modules: preview(&former, &observed, &next_modules, now_ms),
            routes: route_changes(assigned.as_ref(), next),
            unknown: self.unknown(),
        }
    }

    /// The modules whose containers were created from the desired section.
    fn known_modules(&self) -> BTreeSet<&str> {
        let Some(reported) = self.reported.as_ref().filter(|_| self.is_taken_up()) else {
            return BTreeSet::new();
        };
        let is_complete = reported.last_desired_status.code == Some(code::SUCCESS.into());
        // Where a deployment is not complete, one that runs and waits for no next step is as the manifest has it.
        let is_known =
            |module: &ReceivedModule| is_complete || (module.is_running() && module.next_try_utc.is_none());
        let modules = reported.modules.iter().flatten().filter(|(_, module)| is_known(module));
        modules.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether the gateway runs, or tries to run, the manifest that it was given last.
    fn is_taken_up(&self) -> bool {
        let Some(reported) = &self.reported else { return false };
        let is_read = matches!(
            reported.last_desired_status.code.and_then(|code| u16::try_from(code).ok()),
            Some(code::SUCCESS | code::UNKNOWN | code::FAILED)
        );
        let is_in_force =
            reported.rollout.version_in_force.is_none_or(|version| version == self.desired_version);
        let is_observed = reported.last_desired_version == Some(self.desired_version);
        is_read && self.desired_version > 0 && is_observed && is_in_force
    }

    /// The containers that the gateway reports.
    fn observed(&self, former: &Desired) -> Observed {
        let reported = self.reported.iter().flat_map(|reported| reported.modules.iter().flatten());
        let modules = reported.filter_map(|(name, module)| {
            let name: ModuleId = name.parse().ok()?;
            let state = container_state(module.runtime_status.as_deref()?)?;
            let known = former.modules.get(&name);
            let container = ObservedModule {
                container_id: name.to_string(),
                image: module.settings.image.clone().unwrap_or_default(),
                // Without a fingerprint the planner takes it for another container, and the preview shows it as not known.
                fingerprint: known.map(|known| known.fingerprint.clone()).unwrap_or_default(),
                state,
                ..ObservedModule::default()
            };
            Some((name, container))
        });
        Observed { modules: modules.collect(), ..Observed::default() }
    }

    fn unknown(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut add = |text: String| unknown.push(text);
        match &self.reported {
            None => {
                add("The gateway has not reported what runs on it, so every module counts as new.".into())
            }
            Some(reported) => {
                let status = &reported.last_desired_status;
                let taken = reported.last_desired_version.unwrap_or(0);
                if self.desired_version == 0 {
                    add("central has not assigned a manifest to the gateway: what its containers were created from is not known.".into());
                } else if taken != self.desired_version {
                    add(format!(
                        "The gateway has not taken up the manifest that it was given last (version {}; it has {taken}): \
                         what its containers were created from is not known.",
                        self.desired_version
                    ));
                } else if !self.is_taken_up() {
                    let why = status.description.as_deref().filter(|why| !why.is_empty());
                    add(format!(
                        "The gateway does not run the manifest that it was given last{}, but an earlier one.",
                        why.map(|why| format!(" ({why})")).unwrap_or_default()
                    ));
                } else if status.code != Some(code::SUCCESS.into()) {
                    add("The gateway's deployment is not complete: modules that run are taken to be as the manifest has them.".into());
                }
            }
        }
        if !self.is_connected {
            add("The gateway is not connected: this is by its last report, and nothing happens until it is back.".into());
        }
        add("Whether images can be pulled, and whether the gateway's own limits allow each module, is decided on the gateway.".into());
        unknown
    }
}

/// `None`: there is no container.
fn container_state(runtime_status: &str) -> Option<ContainerState> {
    match runtime_status {
        "running" | "unhealthy" => Some(ContainerState::Running),
        // Which code it was does not matter, only that it is not 0.
        "backoff" | "failed" => Some(ContainerState::Exited { code: 1 }),
        "stopped" => Some(ContainerState::Exited { code: 0 }),
        "dead" => Some(ContainerState::Dead),
        _ => None,
    }
}

fn route_changes(assigned: Option<&Manifest>, next: &Manifest) -> Vec<RouteChange> {
    let none = std::collections::BTreeMap::new();
    let was = assigned.map_or(&none, |assigned| &assigned.edge_hub.routes);
    let names: BTreeSet<&String> = was.keys().chain(next.edge_hub.routes.keys()).collect();
    let change = |name: &String| {
        let (from, to) = (was.get(name), next.edge_hub.routes.get(name));
        let text = |route: Option<&schemas::manifest::Route>| route.map(|route| route.query.clone());
        (from != to).then(|| RouteChange { name: name.clone(), from: text(from), to: text(to) })
    };
    names.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use edge_core::deploy::preview::Effect;
    use serde_json::json;

    use super::*;

    fn manifest(modules: &Value, route: &str) -> Value {
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": modules}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {"r": route}}},
        }})
    }

    /// A gateway that was given a manifest with modules `a` and `b`, and reports of it.
    fn facts(reported: Option<Value>) -> DeploymentFacts {
        let modules = json!({"a": {"settings": {"image": "a:1"}, "env": {"K": {"value": "secret"}}}, "b": {"settings": {"image": "b:1"}}});
        let mut sections = Manifest::sections(&manifest(&modules, "FROM /* INTO $upstream")).unwrap();
        DeploymentFacts {
            desired_version: 3,
            agent: sections.remove(&ModuleId::edge_agent()).unwrap(),
            hub: sections.remove(&ModuleId::edge_hub()).unwrap(),
            reported: reported.map(|section| ReceivedReport::of(section.as_object().unwrap())),
            is_connected: true,
        }
    }

    fn reported(version: u64, code: u16, b: &Value) -> Value {
        let a = json!({"runtimeStatus": "running", "settings": {"image": "a:1"}});
        json!({"lastDesiredVersion": version, "lastDesiredStatus": {"code": code, "description": "because"}, "modules": {"a": a, "b": b}})
    }

    fn next() -> Manifest {
        let modules = json!({"a": {"settings": {"image": "a:1"}, "env": {"K": {"value": "other"}}}, "b": {"settings": {"image": "b:1"}}});
        Manifest::parse(manifest(&modules, "FROM /messages/* INTO $upstream").to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_known_follows_from_what_the_gateway_last_reported_by_the_table() {
        use Effect::{Create, Replace, Unchanged, Unknown};
        let running = json!({"runtimeStatus": "running", "settings": {"image": "b:1"}});
        let crashing = json!({"runtimeStatus": "backoff", "nextTryUtc": "2026-11-30T00:00:00Z", "settings": {"image": "b:1"}});
        let absent = json!({"runtimeStatus": "unknown", "settings": {"image": "b:1"}});
        let mut rolled_back = reported(3, 500, &running);
        rolled_back["rollout"] = json!({"state": "rolledBack", "versionInForce": 2});
        #[rustfmt::skip]
        let table = [
            ("never reported", None, [Create, Create], "has not reported"),
            ("in force", Some(reported(3, 200, &running)), [Replace, Unchanged], "decided on the gateway"),
            ("one crashes", Some(reported(3, 500, &crashing)), [Replace, Unknown], "not complete"),
            ("one has no container yet", Some(reported(3, 406, &absent)), [Replace, Create], "not complete"),
            ("an older one", Some(reported(2, 200, &running)), [Unknown, Unknown], "version 3; it has 2"),
            ("refused", Some(reported(3, 400, &running)), [Unknown, Unknown], "does not run the manifest that it was given last (because)"),
            ("rolled back", Some(rolled_back), [Unknown, Unknown], "does not run the manifest that it was given last (because)"),
        ];
        for (name, reported, effects, sentence) in table {
            let preview = facts(reported).preview(&next(), 0);
            assert_eq!(preview.modules.iter().map(|of| of.effect).collect::<Vec<_>>(), effects, "{name}");
            assert!(
                preview.unknown.iter().any(|text| text.contains(sentence)),
                "{name}: {:?}",
                preview.unknown
            );
            let change = RouteChange {
                name: "r".into(),
                from: Some("FROM /* INTO $upstream".into()),
                to: Some("FROM /messages/* INTO $upstream".into()),
            };
            assert_eq!(preview.routes, [change], "{name}");
            assert!(!format!("{preview:?}").contains("secret"), "{name}");
        }
    }

    #[test]
    fn a_gateway_that_is_away_or_was_given_nothing_learns_it() {
        let away = DeploymentFacts { is_connected: false, ..facts(Some(reported(3, 200, &json!({})))) };
        assert!(away.preview(&next(), 0).unknown.iter().any(|text| text.contains("not connected")));
        let nothing =
            DeploymentFacts { reported: Some(ReceivedReport::default()), ..DeploymentFacts::default() };
        let preview = nothing.preview(&next(), 0);
        assert!(preview.unknown[0].contains("has not assigned"), "{:?}", preview.unknown);
        assert_eq!(preview.routes[0].from, None);
    }
}
