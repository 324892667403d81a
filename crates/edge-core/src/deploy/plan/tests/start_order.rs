//! Modules that start after others: planned, scheduled and carried out by the model of Docker until nothing is left to be done, at a
//! rollout and at boot, and removed again.

use schemas::manifest::StartCondition;

use super::*;
use crate::deploy::schedule::{Batch, BatchKind, Holds, Running, due, goes_on};

/// A host that booted a second ago.
const BOOT: u64 = NOW - 1000;
/// Far more passes than any of these gateways needs.
const PASSES_MAX: u64 = 100;

/// A gateway that a test drives: each pass plans, does what is due, and lets some time go by.
struct Gateway {
    docker: Docker,
    restarts: Restarts,
    now_ms: u64,
    /// Modules in the order in which their containers were started.
    started: Vec<ModuleId>,
    /// How many times the engine still fails to create a module's container beside another one.
    failures: BTreeMap<ModuleId, u32>,
}

impl Gateway {
    fn new(observed: Observed) -> Self {
        let docker = Docker { observed, created: 0 };
        let restarts = Restarts::since_boot(BOOT);
        Self { docker, restarts, now_ms: NOW, started: Vec::new(), failures: BTreeMap::new() }
    }

    fn fails(&mut self, batch: &Batch) -> bool {
        let prepares = batch.actions.iter().any(|action| matches!(action, Action::Prepare { .. }));
        match self.failures.get_mut(&batch.module) {
            Some(left) if prepares && *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Plans, and does what may begin now. Panics when a container is started that must wait.
    fn pass(&mut self, desired: &Desired) -> Plan {
        self.restarts.handle(self.now_ms, Event::Observed(desired, &self.docker.observed));
        let planned = plan(desired, &self.docker.observed, &self.restarts, self.now_ms);
        let before = self.docker.observed.clone();
        let begun = due(&planned, desired, &Running::new(), &Holds::default());
        assert_formers_start(&planned, &begun, desired, &before);
        for batch in begun {
            if self.fails(&batch) {
                self.restarts.handle(self.now_ms, Event::Failed(&batch.module));
                continue;
            }
            // A former container that its replacement waits for runs on by its policy, from before a boot too.
            let is_kept = |action: &Action| starts_former(action, desired, &before);
            if batch.actions.iter().any(|action| action.starts() && !is_kept(action)) {
                assert_may_start(&batch.module, desired, &before);
                self.started.push(batch.module.clone());
            }
            if batch.actions.iter().any(|action| matches!(action, Action::Stop { .. })) {
                assert_may_leave(&batch.module, desired, &before);
            }
            let actions = Plan { actions: batch.actions, ..Plan::default() };
            self.docker.apply(&actions, desired, &mut self.restarts, self.now_ms);
        }
        self.now_ms += 1000;
        planned
    }

    /// Health checks say that all is well, and jobs that were seen running end.
    fn let_time_go_by(&mut self, desired: &Desired) {
        for (module, seen) in &mut self.docker.observed.modules {
            let is_job = |target: &DesiredModule| target.spec.restart_policy == RestartPolicy::Never;
            if seen.state != ContainerState::Running {
                continue;
            }
            if seen.is_healthy && desired.modules.get(module).is_some_and(is_job) {
                (seen.state, seen.finished_at_ms) = (ContainerState::Exited { code: 0 }, Some(self.now_ms));
            }
            seen.is_healthy = true;
        }
    }

    fn settle(&mut self, desired: &Desired) {
        for _ in 0..PASSES_MAX {
            let planned = self.pass(desired);
            let is_well = |waiting: &Waiting| waiting.reason == Reason::Ended { code: 0 };
            if planned.is_empty() && planned.earliest().is_none() {
                assert!(planned.waiting.iter().all(is_well), "{planned}");
                return;
            }
            self.let_time_go_by(desired);
        }
        panic!("nothing goes on: {}", self.pass(desired));
    }
}

fn starts_former(action: &Action, desired: &Desired, observed: &Observed) -> bool {
    let (target, seen) = (desired.modules.get(action.module()), observed.modules.get(action.module()));
    matches!(action, Action::Start { container_id: Some(_), .. })
        && target.zip(seen).is_some_and(|(target, seen)| seen.fingerprint != target.fingerprint)
}

/// What runs from a former manifest is started while others are neither created nor started, whatever `startAfter` says.
fn assert_formers_start(planned: &Plan, begun: &[Batch], desired: &Desired, observed: &Observed) {
    let is_before = |batch: &Batch| matches!(batch.kind, BatchKind::Prepare | BatchKind::Start);
    for action in planned.actions.iter().filter(|action| starts_former(action, desired, observed)) {
        let is_begun = begun.iter().any(|batch| batch.module == *action.module());
        assert!(is_begun || begun.iter().any(is_before), "{action} waits:\n{planned}");
    }
}

/// By the definition, not by the code under test.
fn assert_may_start(module: &ModuleId, desired: &Desired, observed: &Observed) {
    for (other, condition) in &desired.modules[module].spec.start_after {
        let seen = observed.modules.get(other).unwrap_or_else(|| panic!("{module} before {other} is there"));
        assert_eq!(seen.fingerprint, desired.modules[other].fingerprint, "{module}: {other} is a former one");
        let is_met = match (condition, seen.state) {
            (StartCondition::Started, state) => state != ContainerState::Created,
            (StartCondition::Healthy, state) => state == ContainerState::Running && seen.is_healthy,
            (StartCondition::Exited, state) => state == ContainerState::Exited { code: 0 },
        };
        assert!(is_met, "{module} was started before {other} was {condition}: {seen:?}");
    }
}

fn assert_may_leave(module: &ModuleId, desired: &Desired, observed: &Observed) {
    for (other, place) in &desired.leaving {
        let is_there = observed.modules.contains_key(other);
        assert!(!(is_there && place.after.contains(module)), "{module} was stopped before {other} was gone");
    }
}

/// Modules that start after some with a smaller number; `jobs` end by themselves.
fn graph() -> impl Strategy<Value = Value> {
    let module = (any::<bool>(), 0..4_u32, prop::collection::vec(prop::option::of(any::<bool>()), 6));
    prop::collection::vec(module, 1..7).prop_map(|modules| {
        let jobs: Vec<bool> = modules.iter().map(|(is_job, ..)| *is_job).collect();
        let json_of = |(number, (is_job, order, others)): (usize, (bool, u32, Vec<Option<bool>>))| {
            let condition = |(other, is_started): (usize, Option<bool>)| {
                let condition = if is_started? {
                    "started"
                } else if jobs[other] {
                    "exited"
                } else {
                    "healthy"
                };
                Some((format!("m{other}"), Value::from(condition)))
            };
            let after: serde_json::Map<_, _> =
                others.into_iter().take(number).enumerate().filter_map(condition).collect();
            let policy = if is_job { "never" } else { "always" };
            let module = json!({"settings": {"image": "acme/m:1"}, "startupOrder": order, "startAfter": after,
                "restartPolicy": policy});
            (format!("m{number}"), module)
        };
        Value::Object(modules.into_iter().enumerate().map(json_of).collect())
    })
}

/// What there is of each module before: nothing, a former container that runs, or one from before the host booted.
fn found(desired: &Desired, kinds: &[u8]) -> Observed {
    let mut observed = Observed::default();
    for (module, kind) in desired.modules.keys().zip(kinds) {
        let seen = running(desired, module.as_str());
        let ended = ObservedModule {
            state: ContainerState::Exited { code: 0 },
            started_at_ms: Some(BOOT - 9000),
            finished_at_ms: Some(BOOT - 1),
            ..seen.clone()
        };
        let seen = match kind {
            0 => continue,
            1 => ObservedModule { fingerprint: "former".into(), ..seen },
            2 => ObservedModule { fingerprint: "former".into(), ..ended },
            _ => ended,
        };
        observed.modules.insert(module.clone(), seen);
    }
    observed
}

proptest! {
    /// Whatever is there before and however often the engine fails to create what replaces it, everything is started in the end,
    /// nothing before what it starts after, whatever `startupOrder` says; and everything is removed in the reverse order.
    #[test]
    fn modules_start_after_those_that_they_name_and_leave_before_them(
        graph in graph(),
        kinds in prop::collection::vec(0..4_u8, 6),
        failures in prop::collection::vec(0..3_u32, 6),
    ) {
        let desired = desired(graph);
        let mut gateway = Gateway::new(found(&desired, &kinds));
        gateway.failures = desired.modules.keys().cloned().zip(failures).collect();
        gateway.settle(&desired);
        let observed = &gateway.docker.observed;
        for (module, target) in &desired.modules {
            let state = observed.modules[module].state;
            let has_ended = target.spec.restart_policy == RestartPolicy::Never
                && state == ContainerState::Exited { code: 0 };
            prop_assert!(state == ContainerState::Running || has_ended, "{} is {:?}", module, state);
        }
        let places = desired.start_places().into_iter().map(|(module, place)| (module.clone(), place));
        let nothing = Desired::default().after(places.collect());
        gateway.settle(&nothing);
        prop_assert!(gateway.docker.observed.modules.is_empty());
    }
}

fn chain() -> Desired {
    let module = |policy: &str, after: Value| json!({"settings": {"image": "acme/m:1"}, "restartPolicy": policy, "startAfter": after});
    desired(json!({
        "app": module("always", json!({"store": "healthy", "migrate": "exited"})),
        "migrate": module("never", json!({"store": "started"})),
        "store": module("always", json!({})),
    }))
}

fn names(modules: &[ModuleId]) -> Vec<&str> {
    modules.iter().map(ModuleId::as_str).collect()
}

#[test]
fn at_boot_a_module_waits_for_those_that_it_names_and_a_job_that_ended_well_counts() {
    let desired = chain();
    let mut gateway = Gateway::new(found(&desired, &[3, 3, 3]));
    let first = gateway.pass(&desired);
    let held = first.held(&id("app")).unwrap();
    assert_eq!((&held.unmet.other, held.since_ms), (&id("store"), NOW));
    assert!(first.held(&id("migrate")).is_none() && first.held(&id("store")).is_none());
    assert_eq!(names(&gateway.started), ["store"], "migrate ended with code 0 before the boot");
    // The store runs and its health check has not said anything yet.
    gateway.docker.observed.modules.get_mut(&id("store")).unwrap().is_starting = true;
    let waiting = gateway.pass(&desired);
    assert!(!goes_on(&waiting) && !waiting.is_empty());
    let line = "starts when module `store` is healthy; waits since 2026-11-23T16:11:52.000Z";
    assert!(waiting.to_string().contains(line), "{waiting}");
    gateway.settle(&desired);
    assert_eq!(names(&gateway.started), ["store", "app"]);
}

#[test]
fn a_job_that_fails_keeps_what_starts_after_it_from_starting() {
    let desired = chain();
    let mut gateway = Gateway::new(found(&desired, &[0, 3, 3]));
    gateway.docker.observed.modules.get_mut(&id("migrate")).unwrap().state =
        ContainerState::Exited { code: 3 };
    for _ in 0..5 {
        gateway.pass(&desired);
        gateway.let_time_go_by(&desired);
    }
    assert_eq!(names(&gateway.started), ["store"]);
    let app = &gateway.docker.observed.modules[&id("app")];
    assert_eq!(app.state, ContainerState::Created, "it was created, so that the engine has checked it");
}

#[test]
fn a_module_runs_on_while_its_replacement_waits_and_is_restarted_when_it_ends() {
    let desired = chain();
    let mut observed = found(&desired, &[1, 3, 3]);
    let store = observed.modules.get_mut(&id("store")).unwrap();
    (store.state, store.is_starting) = (ContainerState::Running, true);
    let mut gateway = Gateway::new(observed);
    gateway.pass(&desired);
    let prepared = &gateway.docker.observed.replacements[&id("app")];
    assert_eq!(prepared.state, ContainerState::Created, "nothing is stopped before it can be replaced");
    let former = gateway.docker.observed.modules.get_mut(&id("app")).unwrap();
    former.state = ContainerState::Exited { code: 1 };
    former.finished_at_ms = Some(NOW - 20_000);
    let before = former.container_id.clone();
    gateway.docker.observed.modules.get_mut(&id("app")).unwrap().finished_at_ms = Some(BOOT);
    gateway.now_ms = BOOT + 20_000;
    gateway.pass(&desired);
    let former = &gateway.docker.observed.modules[&id("app")];
    assert_eq!((&former.container_id, former.state), (&before, ContainerState::Running));
    assert_eq!(gateway.restarts.count(&id("app")), 1);
    gateway.settle(&desired);
    let now = &gateway.docker.observed.modules[&id("app")];
    assert_eq!(now.fingerprint, desired.modules[&id("app")].fingerprint);
}

#[test]
fn a_former_container_is_started_after_a_boot_though_its_replacement_failed_and_would_wait() {
    let desired = chain();
    let mut observed = found(&desired, &[2, 3, 3]);
    let store = observed.modules.get_mut(&id("store")).unwrap();
    (store.state, store.is_starting) = (ContainerState::Running, true);
    let mut gateway = Gateway::new(observed);
    gateway.failures.insert(id("app"), 1);
    gateway.pass(&desired);
    assert!(gateway.docker.observed.replacements.is_empty(), "the engine did not create it");
    gateway.pass(&desired);
    let former = &gateway.docker.observed.modules[&id("app")];
    assert_eq!((former.fingerprint.as_str(), former.state), ("former", ContainerState::Running));
    gateway.settle(&desired);
    let now = &gateway.docker.observed.modules[&id("app")];
    assert_eq!(now.fingerprint, desired.modules[&id("app")].fingerprint);
}

#[test]
fn a_module_that_is_restarted_waits_for_no_other() {
    let desired = chain();
    let mut observed = found(&desired, &[3, 3, 3]);
    let store = observed.modules.get_mut(&id("store")).unwrap();
    (store.state, store.is_unhealthy) = (ContainerState::Running, true);
    let app = observed.modules.get_mut(&id("app")).unwrap();
    (app.state, app.finished_at_ms) = (ContainerState::Exited { code: 1 }, Some(BOOT));
    let planned = plan(&desired, &observed, &Restarts::since_boot(BOOT), NOW + WAIT_MAX_MS);
    let restarted = planned.actions.iter().filter(|action| matches!(action, Action::Restart { .. }));
    assert_eq!(restarted.map(Action::module).collect::<Vec<_>>(), [&id("store"), &id("app")]);
    assert!(planned.held(&id("app")).is_none(), "{planned}");
}
