//! Every way in which a deployment ends, as a table, and what holds for all of them.

use schemas::manifest::Manifest;
use serde_json::{Value, json};

use super::*;
use crate::deploy::restart::Event;

const NOW: u64 = 1_795_450_312_000;
const SINCE: u64 = NOW - 20_000;
const WINDOW: u64 = 30_000;

fn id(name: &str) -> ModuleId {
    name.parse().unwrap()
}

fn desired(modules: Value) -> Desired {
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "modules": modules
    }}}});
    Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
}

/// A gateway with the changed module `new` and the unchanged module `old`, both well.
struct Gateway {
    desired: Desired,
    observed: Observed,
    restarts: Restarts,
    problems: BTreeMap<ModuleId, String>,
    refused: BTreeSet<ModuleId>,
    connected: BTreeSet<ModuleId>,
    is_upstream_connected: bool,
    seen_since_ms: u64,
    busy_at_ms: u64,
    phase: Phase,
    touches_containers: bool,
    baseline: Baseline,
}

impl Gateway {
    fn new(phase: Phase) -> Self {
        let desired = desired(json!({
            "new": {"restartPolicy": "always", "settings": {"image": "acme/new:2"}},
            "old": {"restartPolicy": "always", "settings": {"image": "acme/old:1"}}
        }));
        let seen = |(module, target): (&ModuleId, &DesiredModule)| {
            let seen = ObservedModule {
                container_id: module.to_string(),
                fingerprint: target.fingerprint.clone(),
                state: ContainerState::Running,
                started_at_ms: Some(SINCE),
                ..ObservedModule::default()
            };
            (module.clone(), seen)
        };
        let modules = desired.modules.iter().map(seen).collect();
        Self {
            observed: Observed { modules, ..Observed::default() },
            desired,
            restarts: Restarts::default(),
            problems: BTreeMap::new(),
            refused: BTreeSet::new(),
            connected: [id("old"), id("new")].into(),
            is_upstream_connected: true,
            seen_since_ms: 0,
            busy_at_ms: 0,
            phase,
            touches_containers: true,
            baseline: Baseline {
                connected: [id("old")].into(),
                is_upstream_connected: true,
                well: [id("old")].into(),
            },
        }
    }

    fn seen(&mut self, name: &str) -> &mut ObservedModule {
        self.observed.modules.get_mut(&id(name)).unwrap()
    }

    fn evaluate_at(&self, now_ms: u64) -> RolloutVerdict {
        let trial = Trial {
            phase: &self.phase,
            changed: &[id("new")].into(),
            touches_containers: self.touches_containers,
            baseline: &self.baseline,
            window_ms: WINDOW,
        };
        let facts = RolloutFacts {
            desired: &self.desired,
            observed: &self.observed,
            restarts: &self.restarts,
            problems: &self.problems,
            refused: &self.refused,
            connected: &self.connected,
            is_upstream_connected: self.is_upstream_connected,
            seen_since_ms: self.seen_since_ms,
            busy_at_ms: self.busy_at_ms,
        };
        evaluate(&trial, &facts, now_ms)
    }
}

fn applying() -> Phase {
    Phase::Applying { since_ms: SINCE }
}

fn probation() -> Phase {
    Phase::Probation { since_ms: SINCE, until_ms: SINCE + WINDOW }
}

fn exited(seen: &mut ObservedModule, code: i64, at_ms: u64) {
    (seen.state, seen.finished_at_ms) = (ContainerState::Exited { code }, Some(at_ms));
}

type Spoil = fn(&mut Gateway);

#[test]
fn what_goes_wrong_with_watched_modules_fails_a_deployment_at_once_while_it_is_applied_and_watched() {
    let spoils: [(&str, Spoil); 8] = [
        ("module `new`: it ended with code 3", |g| exited(g.seen("new"), 3, NOW - 1)),
        ("module `new`: it ended with code 0", |g| exited(g.seen("new"), 0, NOW - 1)),
        ("module `old`: it ended with code 1", |g| exited(g.seen("old"), 1, NOW - 1)),
        ("module `new`: its health check fails", |g| g.seen("new").is_unhealthy = true),
        ("module `new`: it ended with code 137, because memory ran out", |g| {
            exited(g.seen("new"), 137, NOW - 1);
            g.seen("new").is_out_of_memory = true;
        }),
        ("module `new`: it ended and was restarted", |g| {
            g.seen("new").finished_at_ms = Some(NOW - 1000);
            g.restarts = Restarts::default().with_counts([(id("new"), (1, Some(NOW)))].into());
        }),
        ("module `new`: it ended, and Docker's own restart policy restarts it", |g| {
            g.seen("new").state = ContainerState::Restarting;
        }),
        ("module `new`: no such image", |g| {
            g.refused.insert(id("new"));
            g.problems.insert(id("new"), "no such image".into());
        }),
    ];
    for (expected, spoil) in spoils {
        for phase in [applying(), probation()] {
            let mut gateway = Gateway::new(phase.clone());
            spoil(&mut gateway);
            assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Failed(expected.into()), "{phase:?}");
            gateway.phase = Phase::Held { reason: String::new(), since_ms: SINCE };
            assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Wait(None), "held: {expected}");
        }
    }
}

#[test]
fn what_is_not_the_fault_of_a_deployment_does_not_fail_it() {
    let spoils: [(&str, Spoil); 5] = [
        ("an unchanged module that was not well before", |g| {
            g.baseline.well.clear();
            exited(g.seen("old"), 1, NOW - 1);
        }),
        ("an end before the engine answered again", |g| {
            exited(g.seen("new"), 137, NOW - 10);
            g.seen_since_ms = NOW - 5;
        }),
        ("a restart after such an end", |g| {
            g.seen("new").finished_at_ms = Some(NOW - 10);
            g.seen_since_ms = NOW - 5;
            g.restarts = Restarts::default().with_counts([(id("new"), (1, Some(NOW)))].into());
        }),
        ("an end of the container that is being replaced", |g| {
            exited(g.seen("new"), 1, NOW - 1);
            g.seen("new").fingerprint = "former".into();
        }),
        ("a problem that another try may end", |g| {
            g.problems.insert(id("new"), "registry does not answer".into());
        }),
    ];
    for (what, spoil) in spoils {
        for phase in [applying(), probation()] {
            let mut gateway = Gateway::new(phase);
            spoil(&mut gateway);
            assert!(!matches!(gateway.evaluate_at(NOW), RolloutVerdict::Failed(_)), "{what}");
        }
    }
}

#[test]
fn a_deployment_is_watched_for_its_window_and_verified_then() {
    let mut gateway = Gateway::new(applying());
    assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Watch);
    gateway.phase = probation();
    assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Wait(Some(SINCE + WINDOW)));
    assert_eq!(gateway.evaluate_at(SINCE + WINDOW), RolloutVerdict::Verified);
    // The engine did not answer meanwhile: what was not seen was not watched.
    gateway.seen_since_ms = NOW;
    assert_eq!(gateway.evaluate_at(SINCE + WINDOW), RolloutVerdict::Wait(Some(NOW + WINDOW)));
    // A module that ended while the daemon did not run, and was started again, has not run through the window.
    gateway.seen_since_ms = 0;
    gateway.seen("new").started_at_ms = Some(NOW + 5_000);
    assert_eq!(gateway.evaluate_at(SINCE + WINDOW), RolloutVerdict::Wait(Some(NOW + 5_000 + WINDOW)));
    // Routes and twins alone.
    gateway.phase = applying();
    gateway.touches_containers = false;
    assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Verified);
}

#[test]
fn what_is_missing_after_the_window_has_some_time_more_and_fails_it_then() {
    let spoils: [(&str, Spoil); 4] = [
        ("module `new`: its health check does not say that it is well", |g| g.seen("new").is_starting = true),
        ("module `old`: it was connected to this gateway before and is not now", |g| g.connected.clear()),
        ("the connection upstream was there before and is not now", |g| g.is_upstream_connected = false),
        ("module `new`: is not as the manifest wants it", |g| g.seen("new").state = ContainerState::Paused),
    ];
    for (expected, spoil) in spoils {
        let mut gateway = Gateway::new(probation());
        spoil(&mut gateway);
        let end = SINCE + WINDOW;
        assert_eq!(gateway.evaluate_at(end - 1), RolloutVerdict::Wait(Some(end)), "{expected}");
        assert_eq!(gateway.evaluate_at(end), RolloutVerdict::Wait(Some(end + GRACE_MS)), "{expected}");
        assert_eq!(gateway.evaluate_at(end + GRACE_MS), RolloutVerdict::Failed(expected.into()));
    }
}

#[test]
fn what_was_not_there_before_need_not_be_there_now() {
    let mut gateway = Gateway::new(probation());
    gateway.baseline.connected.clear();
    gateway.connected.clear();
    gateway.baseline.is_upstream_connected = false;
    gateway.is_upstream_connected = false;
    assert_eq!(gateway.evaluate_at(SINCE + WINDOW), RolloutVerdict::Verified);
}

#[test]
fn a_deployment_that_gets_nowhere_fails_and_one_whose_images_are_fetched_does_not() {
    let mut gateway = Gateway::new(applying());
    gateway.observed.modules.remove(&id("new"));
    gateway.busy_at_ms = NOW;
    let stuck = NOW + STUCK_MS;
    assert_eq!(gateway.evaluate_at(stuck - 1), RolloutVerdict::Wait(Some(stuck)));
    let failed = "nothing went on for 600 s: module `new`: is not as the manifest wants it";
    assert_eq!(gateway.evaluate_at(stuck), RolloutVerdict::Failed(failed.into()));
    gateway.busy_at_ms = stuck;
    assert!(matches!(gateway.evaluate_at(stuck), RolloutVerdict::Wait(_)));
}

#[test]
fn a_module_that_waits_for_another_one_has_the_window_and_some_time_more() {
    let mut gateway = Gateway::new(applying());
    gateway.desired = desired(json!({
        "new": {"restartPolicy": "always", "startAfter": {"old": "healthy"}, "settings": {"image": "acme/new:2"}},
        "old": {"restartPolicy": "always", "settings": {"image": "acme/old:1"}}
    }));
    gateway.seen("new").state = ContainerState::Created;
    gateway.seen("old").is_starting = true;
    gateway.restarts.handle(NOW, Event::Observed(&gateway.desired, &gateway.observed));
    gateway.busy_at_ms = NOW;
    let end = NOW + WINDOW + GRACE_MS;
    assert_eq!(gateway.evaluate_at(end - 1), RolloutVerdict::Wait(Some(end)));
    let failed = "nothing went on for 90 s: module `new`: starts when module `old` is healthy; \
        waits since 2026-11-23T16:11:52.000Z";
    assert_eq!(gateway.evaluate_at(end), RolloutVerdict::Failed(failed.into()));
    // While it is watched, it is not verified, for the same reason.
    gateway.phase = probation();
    let RolloutVerdict::Failed(reason) = gateway.evaluate_at(end) else { panic!("it was verified") };
    assert!(failed.ends_with(&reason), "{reason}");
    (gateway.seen("old").is_starting, gateway.seen("old").is_healthy) = (false, true);
    gateway.phase = applying();
    assert_eq!(gateway.evaluate_at(end), RolloutVerdict::Wait(Some(NOW + STUCK_MS)), "it can start now");
}

#[test]
fn a_deployment_that_is_held_is_watched_when_it_runs_after_all() {
    let gateway = Gateway::new(Phase::Held { reason: String::new(), since_ms: SINCE });
    assert_eq!(gateway.evaluate_at(NOW), RolloutVerdict::Watch);
}

#[test]
fn what_must_be_removed_and_a_replacement_that_is_left_keep_a_deployment_from_being_done() {
    let mut gateway = Gateway::new(applying());
    let seen = gateway.seen("old").clone();
    gateway.observed.modules.insert(id("gone"), seen.clone());
    assert!(matches!(gateway.evaluate_at(NOW), RolloutVerdict::Wait(_)));
    gateway.observed.modules.remove(&id("gone"));
    gateway.observed.replacements.insert(id("old"), seen);
    assert!(matches!(gateway.evaluate_at(NOW), RolloutVerdict::Wait(_)));
}

#[test]
fn a_job_that_ends_well_and_a_module_that_shall_not_run_are_well() {
    let mut gateway = Gateway::new(probation());
    for (module, stays) in [
        (json!({"restartPolicy": "never", "settings": {"image": "acme/new:2"}}), true),
        (json!({"status": "stopped", "settings": {"image": "acme/new:2"}}), true),
        (json!({"restartPolicy": "on-failure", "settings": {"image": "acme/new:2"}}), false),
    ] {
        let target = desired(json!({ "new": module })).modules.remove(&id("new")).unwrap();
        gateway.seen("new").fingerprint = target.fingerprint.clone();
        gateway.desired.modules.insert(id("new"), target);
        exited(gateway.seen("new"), 0, NOW - 1);
        let verdict = gateway.evaluate_at(SINCE + WINDOW);
        assert_eq!(verdict == RolloutVerdict::Verified, stays, "{module}: {verdict:?}");
    }
}

#[test]
fn only_modules_whose_container_or_status_differs_are_changed() {
    let before = desired(json!({
        "same": {"settings": {"image": "a:1"}}, "image": {"settings": {"image": "a:1"}},
        "status": {"settings": {"image": "a:1"}}, "gone": {"settings": {"image": "a:1"}}
    }));
    let after = desired(json!({
        "same": {"restartPolicy": "always", "settings": {"image": "a:1"}}, "image": {"settings": {"image": "a:2"}},
        "status": {"status": "stopped", "settings": {"image": "a:1"}}, "added": {"settings": {"image": "a:1"}}
    }));
    let expected: BTreeSet<ModuleId> = ["image", "status", "added"].map(id).into();
    assert_eq!(changed(&before, &after), expected);
}

#[test]
fn a_phase_is_kept_as_json_and_read_again() {
    for phase in [
        applying(),
        probation(),
        Phase::Verified,
        Phase::RolledBack { reason: "why".into(), to: 3 },
        Phase::Held { reason: "why".into(), since_ms: 1 },
        Phase::Superseded { by: 4 },
    ] {
        let kept = serde_json::to_value(&phase).unwrap();
        assert_eq!(kept["state"], phase.name());
        assert_eq!(serde_json::from_value::<Phase>(kept).unwrap(), phase);
    }
}
