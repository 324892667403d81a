//! Reports as IoT Edge writes them, and as large as central takes.

use super::*;
use crate::deploy::restart::{Event, WAIT_FIRST_MS};
use schemas::manifest::Manifest;
use serde_json::json;

const NOW: u64 = 1_795_450_312_000;

fn outcome() -> Outcome {
    Outcome { desired_version: 7, code: 200, description: String::new() }
}

fn desired_with(extra: Value) -> Desired {
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
        ..ObservedModule::default()
    };
    Observed { modules: [("m".parse().unwrap(), module)].into(), ..Observed::default() }
}

fn report(desired: &Desired, observed: &Observed, restarts: &Restarts) -> Map<String, Value> {
    let platform = Platform { os: "linux".into(), architecture: "x86_64".into(), version: "27.0".into() };
    let host = Host { agent_version: "0.1.0".into(), platform };
    let (problems, pulling) = (BTreeMap::new(), BTreeSet::new());
    let progress = DeploymentProgress {
        desired,
        observed,
        restarts,
        problems: &problems,
        pulling: &pulling,
        unseen: None,
        now_ms: NOW,
    };
    edge_agent(&host, &progress, &outcome(), &[])
}

#[test]
fn a_module_that_is_not_there_is_shown_with_the_reason_and_the_next_try() {
    let (desired, nothing, m) =
        (desired_with(json!({})), Observed::default(), "m".parse::<ModuleId>().unwrap());
    let mut restarts = Restarts::default();
    restarts.handle(NOW, Event::Failed(&m));
    let problems = BTreeMap::from([(m.clone(), "could not pull image acme/m:1: not found".to_owned())]);
    let pulling = BTreeSet::from(["acme/m:1".to_owned()]);
    let none = (BTreeMap::new(), BTreeSet::new(), Restarts::default());
    let before = seen(ContainerState::Running, false);
    let state = |problems, pulling, restarts, observed, unseen| {
        let progress = DeploymentProgress {
            desired: &desired,
            observed,
            restarts,
            problems,
            pulling,
            unseen,
            now_ms: NOW,
        };
        progress.modules().remove(&m).unwrap()
    };
    let failing = state(&problems, &none.1, &restarts, &nothing, None);
    assert_eq!(failing.status, RuntimeStatus::Backoff);
    assert_eq!(failing.reason, "could not pull image acme/m:1: not found");
    assert_eq!((failing.next_try_ms, failing.has_failed), (Some(NOW + WAIT_FIRST_MS), true));
    let pulled = state(&none.0, &pulling, &none.2, &nothing, None);
    assert_eq!((pulled.status, &*pulled.reason), (RuntimeStatus::Unknown, "image acme/m:1 is being pulled"));
    let updated = state(&problems, &none.1, &restarts, &before, None);
    assert_eq!(updated.status, RuntimeStatus::Running);
    assert!(updated.has_failed && updated.reason.contains("as it was before: could not pull"), "{updated:?}");
    let unseen = state(&none.0, &none.1, &none.2, &before, Some("docker.sock: permission denied"));
    assert_eq!((unseen.status, &*unseen.reason), (RuntimeStatus::Unknown, "docker.sock: permission denied"));
}

#[test]
fn a_module_that_crashed_is_reported_in_iot_edges_words_without_secrets() {
    let mut restarts = Restarts::default();
    restarts.handle(NOW - 2000, Event::Restarted(&"m".parse().unwrap()));
    let report =
        report(&desired_with(json!({})), &seen(ContainerState::Exited { code: 3 }, false), &restarts);
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
                "statusDescription": "ended with code 3; restart 2",
                "nextTryUtc": "2026-11-23T16:12:11.000Z",
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
        let report = report(&desired_with(extra), observed, &long_ago);
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
        (failure(), seen(Exited { code: 0 }, false), "backoff"),
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

/// Modules of every number and with texts of every length, descriptions too.
#[test]
fn a_report_is_never_larger_than_central_takes_and_says_what_it_left_out() {
    for (count, text, is_cut) in
        [(3, 10, false), (3, 300_000, true), (500, 50, true), (500, 4_000, true), (5_000, 100, true)]
    {
        let modules: Map<String, Value> = (0..count)
            .map(|n| {
                let module = json!({
                    "settings": {"image": "registry.plant/acme/module:1"}, "version": "é\"\\\n".repeat(text / 4),
                });
                (format!("{n:0>60}"), module)
            })
            .collect();
        let desired = Desired::of(
            &Manifest::parse(
                json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}}}})
                    .to_string()
                    .as_bytes(),
            )
            .unwrap(),
        );
        for description in [0, 500_000] {
            let outcome = Outcome { desired_version: 7, code: 500, description: "d".repeat(description) };
            let (host, observed, restarts) = (Host::default(), Observed::default(), Restarts::default());
            let (problems, pulling) = (BTreeMap::new(), BTreeSet::new());
            let progress = DeploymentProgress {
                desired: &desired,
                observed: &observed,
                restarts: &restarts,
                problems: &problems,
                pulling: &pulling,
                unseen: None,
                now_ms: NOW,
            };
            let mut report = edge_agent(&host, &progress, &outcome, &[]);
            // What the daemon finds wrong is added by it.
            report.insert("health".into(), json!({"findings": vec!["é".repeat(300); 40]}));
            let report = bounded(report);
            let bytes = serde_json::to_vec(&report).unwrap().len();
            assert!(bytes <= REPORT_BYTES_MAX, "{count} {text} {description}: {bytes}");
            assert_eq!(
                report.contains_key(SHORTENED),
                is_cut || description > 0,
                "{count} {text} {description}"
            );
            assert_eq!(report["lastDesiredVersion"], 7);
            let reported = report["modules"].as_object().unwrap();
            assert!(reported.len() == count || count > 500, "{} of {count}", reported.len());
            assert!(reported.values().all(|module| module["runtimeStatus"] == "unknown"));
            let hub = edge_hub(&outcome);
            assert!(serde_json::to_vec(&hub).unwrap().len() <= REPORT_BYTES_MAX);
        }
    }
}

#[test]
fn a_module_that_waits_for_another_one_says_for_which_and_since_when() {
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
        "m": {"startAfter": {"store": "started"}, "settings": {"image": "acme/m:1"}},
        "store": {"settings": {"image": "acme/store:1"}}
    }}}}});
    let desired = Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap());
    let m: ModuleId = "m".parse().unwrap();
    let held = "starts when module `store` has started; waits since 2026-11-23T16:11:50.000Z";
    let created = |fingerprint: &str, state| {
        let mut observed = seen(state, false);
        observed.modules.get_mut(&m).unwrap().fingerprint = fingerprint.to_owned();
        observed
    };
    let own = desired.modules[&m].fingerprint.clone();
    for (observed, before) in [
        (Observed::default(), "no container yet"),
        (created(&own, ContainerState::Created), "never started"),
        (created("former", ContainerState::Running), "runs as it was before"),
    ] {
        let mut restarts = Restarts::default();
        // Since the first of the looks that found it so.
        restarts.handle(NOW - 2000, Event::Observed(&desired, &observed));
        restarts.handle(NOW - 1000, Event::Observed(&desired, &observed));
        let report = report(&desired, &observed, &restarts);
        assert_eq!(report["modules"]["m"]["statusDescription"], format!("{before}; {held}"));
    }
}
