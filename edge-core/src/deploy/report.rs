//! What the gateway tells upstream of its deployment, in the words of IoT Edge's reported properties.
//!
//! Environment values, create options and registry logins are left out on purpose, though IoT Edge reports them: the
//! manifest may hold secrets, and a report has more readers than a manifest.

use schemas::manifest::DesiredStatus;
use schemas::names::ModuleId;
use schemas::status::{
    AgentVersion, DeploymentStatus, EdgeAgentReport, EdgeHubReport, ModuleReport, ModuleSettingsReport,
    NEVER, Platform, RuntimeReport, RuntimeStatus, SystemModuleReport,
};
use schemas::timestamp::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::restart::{Next, RESTARTS_MAX, Restarts};

/// How a desired section fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its `$version`.
    pub desired_version: u64,
    /// One of [`schemas::status::code`].
    pub code: u16,
    /// For the operator; empty on success.
    pub description: String,
}

/// What the daemon knows of itself and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The daemon's version.
    pub agent_version: String,
    /// What it runs on.
    pub platform: Platform,
}

/// The reported section of `$edgeAgent`: every module of the manifest in force.
pub fn edge_agent(
    host: &Host,
    desired: &Desired,
    observed: &Observed,
    restarts: &Restarts,
    outcome: &Outcome,
    now_ms: u64,
) -> Map<String, Value> {
    let this_daemon =
        || SystemModuleReport { r#type: "docker".into(), runtime_status: RuntimeStatus::Running };
    let modules = desired
        .modules
        .iter()
        .map(|(id, wanted)| (id.clone(), module(id, wanted, observed.modules.get(id), restarts, now_ms)))
        .collect();
    object(&EdgeAgentReport {
        schema_version: "1.0".into(),
        version: AgentVersion { version: host.agent_version.clone() },
        last_desired_version: outcome.desired_version,
        last_desired_status: status(outcome),
        runtime: RuntimeReport { r#type: "docker".into(), platform: host.platform.clone() },
        system_modules: [("edgeAgent".into(), this_daemon()), ("edgeHub".into(), this_daemon())].into(),
        modules,
    })
}

/// The reported section of `$edgeHub`: whether the routes are in force.
pub fn edge_hub(outcome: &Outcome) -> Map<String, Value> {
    object(&EdgeHubReport {
        schema_version: "1.0".into(),
        last_desired_version: outcome.desired_version,
        last_desired_status: status(outcome),
    })
}

fn object(report: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(section)) => section,
        other => unreachable!("a report is an object with text keys, found {other:?}"),
    }
}

fn status(outcome: &Outcome) -> DeploymentStatus {
    DeploymentStatus { code: outcome.code, description: outcome.description.clone() }
}

fn module(
    id: &ModuleId,
    wanted: &DesiredModule,
    seen: Option<&ObservedModule>,
    restarts: &Restarts,
    now_ms: u64,
) -> ModuleReport {
    let time = |at_ms: Option<u64>| at_ms.map_or_else(|| NEVER.to_owned(), rfc3339);
    let (runtime_status, status_description) = match seen {
        None => (RuntimeStatus::Unknown, "no container yet".to_owned()),
        Some(seen) => how(id, wanted, seen, restarts, now_ms),
    };
    let exit_code = match seen.map(|seen| seen.state) {
        Some(ContainerState::Exited { code }) => code,
        _ => 0,
    };
    ModuleReport {
        r#type: "docker".into(),
        version: wanted.spec.version.clone(),
        status: wanted.spec.status,
        restart_policy: wanted.spec.restart_policy,
        image_pull_policy: wanted.spec.image_pull_policy,
        startup_order: wanted.spec.startup_order,
        settings: ModuleSettingsReport { image: wanted.spec.image.clone() },
        runtime_status,
        status_description,
        exit_code,
        last_start_time_utc: time(seen.and_then(|seen| seen.started_at_ms)),
        last_exit_time_utc: time(seen.and_then(|seen| seen.finished_at_ms)),
        restart_count: restarts.count(id),
        last_restart_time_utc: time(restarts.restarted_at_ms(id)),
    }
}

/// How a module is, and the same in words.
fn how(
    id: &ModuleId,
    wanted: &DesiredModule,
    seen: &ObservedModule,
    restarts: &Restarts,
    now_ms: u64,
) -> (RuntimeStatus, String) {
    let is_wanted = wanted.spec.status == DesiredStatus::Running;
    let next = restarts.next(id, wanted.spec.restart_policy, seen, now_ms);
    match (seen.state, next) {
        (ContainerState::Running, _) if seen.is_unhealthy => {
            (RuntimeStatus::Unhealthy, "its health check fails".into())
        }
        (ContainerState::Running, _) => (RuntimeStatus::Running, "running".into()),
        (ContainerState::Exited { code }, Next::WaitUntil { at_ms, attempt }) if is_wanted => (
            RuntimeStatus::Backoff,
            format!("ended with code {code}; restart {attempt} of {RESTARTS_MAX} at {}", rfc3339(at_ms)),
        ),
        (ContainerState::Exited { code }, Next::GivenUp) if is_wanted => {
            (RuntimeStatus::Failed, format!("ended with code {code} after {RESTARTS_MAX} restarts"))
        }
        (ContainerState::Exited { code: 0 }, _) => (RuntimeStatus::Stopped, "ended with code 0".into()),
        // A module that was stopped on purpose often ends with the code of the signal: that is no failure.
        (ContainerState::Exited { code }, _) if !is_wanted => {
            (RuntimeStatus::Stopped, format!("stopped, ended with code {code}"))
        }
        (ContainerState::Exited { code }, _) => (RuntimeStatus::Failed, format!("ended with code {code}")),
        (ContainerState::Created, _) => (RuntimeStatus::Stopped, "never started".into()),
        (ContainerState::Paused, _) => (RuntimeStatus::Stopped, "paused".into()),
        (ContainerState::Restarting, _) => {
            (RuntimeStatus::Stopped, "Docker's own restart policy is at work".into())
        }
        (ContainerState::Dead, _) => (RuntimeStatus::Dead, "dead; it will be created anew".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::restart::{Event, WAIT_FIRST_MS};
    use schemas::manifest::Manifest;
    use serde_json::json;

    const NOW: u64 = 1_795_450_312_000;

    fn outcome() -> Outcome {
        Outcome { desired_version: 7, code: 200, description: String::new() }
    }

    fn wanted(extra: Value) -> Desired {
        let mut module = json!({
            "env": {"TOKEN": {"value": "hunter2"}},
            "settings": {"image": "acme/m:1", "createOptions": "{\"Env\": [\"TOKEN=hunter2\"]}"},
            "restartPolicy": "always"
        });
        module.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let credential = json!({"username": "u", "password": "hunter2", "address": "ghcr.io"});
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"settings": {"registryCredentials": {"r": credential}}},
            "modules": {"m": module}
        }}}});
        Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
    }

    fn seen(state: ContainerState, is_unhealthy: bool) -> Observed {
        let module = ObservedModule {
            container_id: "c".into(),
            image: "acme/m:1".into(),
            fingerprint: "f".into(),
            state,
            is_unhealthy,
            started_at_ms: Some(NOW - 2000),
            finished_at_ms: matches!(state, ContainerState::Exited { .. }).then_some(NOW - 1000),
        };
        Observed { modules: [("m".parse().unwrap(), module)].into() }
    }

    fn report(desired: &Desired, observed: &Observed, restarts: &Restarts) -> Map<String, Value> {
        let platform = Platform { os: "linux".into(), architecture: "x86_64".into(), version: "27.0".into() };
        let host = Host { agent_version: "0.1.0".into(), platform };
        edge_agent(&host, desired, observed, restarts, &outcome(), NOW)
    }

    #[test]
    fn a_module_that_crashed_is_reported_in_iot_edges_words_without_secrets() {
        let mut restarts = Restarts::default();
        restarts.handle(NOW - 2000, Event::Restarted(&"m".parse().unwrap()));
        let report = report(&wanted(json!({})), &seen(ContainerState::Exited { code: 3 }, false), &restarts);
        assert_eq!(
            Value::Object(report),
            json!({
                "schemaVersion": "1.0",
                "version": {"version": "0.1.0"},
                "lastDesiredVersion": 7,
                "lastDesiredStatus": {"code": 200, "description": ""},
                "runtime": {
                    "type": "docker",
                    "platform": {"os": "linux", "architecture": "x86_64", "version": "27.0"}
                },
                "systemModules": {
                    "edgeAgent": {"type": "docker", "runtimeStatus": "running"},
                    "edgeHub": {"type": "docker", "runtimeStatus": "running"}
                },
                "modules": {"m": {
                    "type": "docker",
                    "version": "",
                    "status": "running",
                    "restartPolicy": "always",
                    "imagePullPolicy": "on-create",
                    "startupOrder": 4_294_967_295_u32,
                    "settings": {"image": "acme/m:1"},
                    "runtimeStatus": "backoff",
                    "statusDescription": "ended with code 3; restart 2 of 20 at 2026-11-23T16:12:11.000Z",
                    "exitCode": 3,
                    "lastStartTimeUtc": "2026-11-23T16:11:50.000Z",
                    "lastExitTimeUtc": "2026-11-23T16:11:51.000Z",
                    "restartCount": 1,
                    "lastRestartTimeUtc": "2026-11-23T16:11:50.000Z"
                }}
            })
        );
    }

    #[test]
    fn each_state_of_a_container_has_its_runtime_status() {
        use ContainerState::*;
        let long_ago = Restarts::since_boot(NOW - WAIT_FIRST_MS * 100);
        let status = |extra: Value, observed: &Observed| {
            let report = report(&wanted(extra), observed, &long_ago);
            report["modules"]["m"]["runtimeStatus"].as_str().unwrap().to_owned()
        };
        let failure = || json!({"restartPolicy": "on-failure"});
        for (extra, observed, expected) in [
            (json!({}), Observed::default(), "unknown"),
            (json!({}), seen(Running, false), "running"),
            (json!({}), seen(Running, true), "unhealthy"),
            (json!({}), seen(Created, false), "stopped"),
            (json!({}), seen(Paused, false), "stopped"),
            (json!({}), seen(Restarting, false), "stopped"),
            (json!({}), seen(Dead, false), "dead"),
            (json!({}), seen(Exited { code: 0 }, false), "backoff"),
            (failure(), seen(Exited { code: 0 }, false), "stopped"),
            (failure(), seen(Exited { code: 1 }, false), "backoff"),
            (json!({"restartPolicy": "never"}), seen(Exited { code: 1 }, false), "failed"),
            (json!({"status": "stopped"}), seen(Exited { code: 143 }, false), "stopped"),
        ] {
            assert_eq!(status(extra.clone(), &observed), expected, "{extra} {observed:?}");
        }
    }

    #[test]
    fn the_hub_reports_whether_its_routes_are_in_force() {
        assert_eq!(
            Value::Object(edge_hub(&outcome())),
            json!({
                "schemaVersion": "1.0",
                "lastDesiredVersion": 7,
                "lastDesiredStatus": {"code": 200, "description": ""}
            })
        );
    }
}
