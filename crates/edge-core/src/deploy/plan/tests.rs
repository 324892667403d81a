//! A model of Docker carries plans out; what is true of every plan is checked on arbitrary manifests and containers.

use proptest::prelude::*;
use schemas::manifest::{Manifest, RestartPolicy};
use serde_json::{Value, json};

use super::*;
use crate::deploy::limits::Edit;
use crate::deploy::observed::Unreadable;
use crate::deploy::restart::{Event, WAIT_MAX_MS};

mod start_order;

const NOW: u64 = 1_795_450_312_000;

fn id(name: &str) -> ModuleId {
    name.parse().unwrap()
}

fn desired(modules: Value) -> Desired {
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "modules": modules
    }}}});
    Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
}

/// A container that runs as it is wanted.
fn running(desired: &Desired, name: &str) -> ObservedModule {
    let target = &desired.modules[&id(name)];
    ObservedModule {
        container_id: format!("{name}-container"),
        image: target.spec.image.clone(),
        fingerprint: target.fingerprint.clone(),
        state: ContainerState::Running,
        started_at_ms: Some(NOW - 1000),
        ..ObservedModule::default()
    }
}

fn exited(seen: ObservedModule, code: i64) -> ObservedModule {
    ObservedModule { state: ContainerState::Exited { code }, finished_at_ms: Some(NOW - 500), ..seen }
}

/// Docker, as far as plans know it. Panics when a step does not fit what is there.
struct Docker {
    observed: Observed,
    created: u32,
}

impl Docker {
    fn apply(&mut self, plan: &Plan, desired: &Desired, restarts: &mut Restarts, now_ms: u64) {
        for action in &plan.actions {
            let slot = self.observed.modules.get_mut(action.module());
            let replacement = self.observed.replacements.get_mut(action.module());
            match action {
                Action::Pull { module, image } => assert_eq!(*image, desired.modules[module].spec.image),
                Action::Create { module, image } => {
                    assert!(slot.is_none(), "{module} exists already");
                    self.created += 1;
                    let container = ObservedModule {
                        container_id: format!("created-{}", self.created),
                        image: image.clone(),
                        fingerprint: desired.modules[module].fingerprint.clone(),
                        state: ContainerState::Created,
                        ..ObservedModule::default()
                    };
                    self.observed.modules.insert(module.clone(), container);
                }
                Action::Prepare { module, image } => {
                    assert!(replacement.is_none(), "{module} is being replaced already");
                    assert!(slot.is_some(), "{module} has nothing to replace");
                    self.created += 1;
                    let container = ObservedModule {
                        container_id: format!("created-{}", self.created),
                        image: image.clone(),
                        fingerprint: desired.modules[module].fingerprint.clone(),
                        state: ContainerState::Created,
                        ..ObservedModule::default()
                    };
                    self.observed.replacements.insert(module.clone(), container);
                }
                Action::Start { module, container_id } => {
                    let seen = slot.expect("started what is there");
                    assert!(!seen.is_live(), "{module} was started while it ran");
                    assert!(container_id.as_ref().is_none_or(|id| *id == seen.container_id));
                    (seen.state, seen.started_at_ms) = (ContainerState::Running, Some(now_ms));
                    restarts.handle(now_ms, Event::Started(module));
                }
                Action::Restart { module, container_id, attempt } => {
                    let seen = slot.expect("restarted what is there");
                    assert_eq!(*container_id, seen.container_id);
                    assert_eq!(attempt.number, restarts.count(module) + 1);
                    (seen.state, seen.is_unhealthy) = (ContainerState::Running, false);
                    seen.started_at_ms = Some(now_ms);
                    restarts.handle(now_ms, Event::Restarted(module));
                }
                Action::Replace { module, container_id, image } => {
                    let seen = slot.expect("replaced what is there");
                    assert_eq!(*container_id, seen.container_id);
                    *seen = self.observed.replacements.remove(module).expect("it was prepared");
                    assert_eq!(*image, seen.image);
                    if desired.modules[module].spec.status == DesiredStatus::Running {
                        (seen.state, seen.started_at_ms) = (ContainerState::Running, Some(now_ms));
                    }
                    restarts.handle(now_ms, Event::Started(module));
                }
                Action::Rename { module, container_id } if slot.is_some() => {
                    let seen = slot.expect("it is some");
                    assert!(seen.is_renamed, "{module} has a container of its name");
                    assert_eq!(*container_id, seen.container_id);
                    seen.is_renamed = false;
                }
                Action::Rename { module, container_id } => {
                    let seen = self.observed.replacements.remove(module).expect("renamed what is there");
                    assert_eq!(*container_id, seen.container_id);
                    self.observed.modules.insert(module.clone(), seen);
                }
                Action::Update { container_id, restored, .. } => {
                    let seen = slot.expect("changed what is there");
                    assert_eq!(*container_id, seen.container_id);
                    assert_eq!(seen.edit.take().expect("somebody changed it").restored, *restored);
                }
                Action::Stop { container_id, .. } => {
                    let seen = [slot, replacement].into_iter().flatten();
                    let seen = seen.into_iter().find(|seen| seen.container_id == *container_id);
                    let seen = seen.expect("stopped what is there");
                    assert!(seen.is_live());
                    (seen.state, seen.finished_at_ms) = (ContainerState::Exited { code: 143 }, Some(now_ms));
                }
                Action::Remove { module, container_id } => {
                    let seen = [&mut self.observed.modules, &mut self.observed.replacements];
                    let mut seen = seen.into_iter().filter(|containers| {
                        containers.get(module).is_some_and(|seen| seen.container_id == *container_id)
                    });
                    let gone = seen.next().and_then(|containers| containers.remove(module));
                    assert!(!gone.expect("removed what is there").is_live(), "{module} was cut off");
                }
            }
        }
    }
}

#[test]
fn a_plan_prints_as_one_line_for_each_step() {
    let desired = desired(json!({
        "sensor": {"startupOrder": 2, "settings": {"image": "lineside/simulated-sensor:2"}},
        "filter": {"startupOrder": 1, "imagePullPolicy": "never", "settings": {"image": "lineside/threshold-filter:1"}},
        "cold": {"status": "stopped", "settings": {"image": "acme/cold:1"}},
        "crash": {"restartPolicy": "always", "settings": {"image": "acme/crash:1"}},
        "lost": {"settings": {"image": "acme/lost:1"}},
        "job": {"restartPolicy": "never", "settings": {"image": "acme/job:1"}},
        "batch": {"restartPolicy": "on-failure", "settings": {"image": "acme/batch:1"}},
        "back": {"restartPolicy": "always", "settings": {"image": "acme/back:1"}},
        "fresh": {"settings": {"image": "acme/fresh:1"}},
        "fine": {"settings": {"image": "acme/fine:1"}}
    }));
    let mut observed = Observed::default();
    let mut put = |name: &str, seen| observed.modules.insert(id(name), seen);
    put("sensor", ObservedModule { fingerprint: "old".into(), ..running(&desired, "sensor") });
    put("cold", running(&desired, "cold"));
    put("crash", exited(running(&desired, "crash"), 1));
    put("job", exited(running(&desired, "job"), 0));
    put("batch", exited(running(&desired, "batch"), 0));
    put("fine", running(&desired, "fine"));
    put("fresh", ObservedModule { state: ContainerState::Created, ..running(&desired, "fresh") });
    put(
        "back",
        ObservedModule { finished_at_ms: Some(NOW - 10_000), ..exited(running(&desired, "back"), 1) },
    );
    put("gone", ObservedModule { container_id: "0123456789abcdef".into(), ..running(&desired, "fine") });
    let mut restarts = Restarts::default();
    restarts.handle(NOW - 1000, Event::Failed(&id("lost")));
    let plan = plan(&desired, &observed, &restarts, NOW);
    assert_eq!(
        plan.to_string(),
        "\
pull     sensor  image lineside/simulated-sensor:2
create   filter  image lineside/threshold-filter:1
prepare  sensor  image lineside/simulated-sensor:2
stop     gone    container 0123456789ab
remove   gone    container 0123456789ab
start    filter
replace  sensor  container sensor-conta, image lineside/simulated-sensor:2
restart  back    container back-contain, restart 1
stop     cold    container cold-contain
start    fresh   container fresh-contai
wait     batch   until 2026-11-23T16:12:01.500Z: restart 1
wait     crash   until 2026-11-23T16:12:01.500Z: restart 1
wait     job     ended with code 0; its restart policy leaves it so
wait     lost    until 2026-11-23T16:12:01.000Z: the last try failed
"
    );
    assert_eq!(plan.earliest(), Some(NOW + 9_000));
}

#[test]
fn a_plan_with_nothing_in_it_says_so() {
    let desired = desired(json!({"m": {"settings": {"image": "a"}}}));
    let observed = Observed { modules: [(id("m"), running(&desired, "m"))].into(), ..Observed::default() };
    let plan = plan(&desired, &observed, &Restarts::default(), NOW);
    assert_eq!((plan.to_string().as_str(), plan.earliest()), ("nothing to do\n", None));
}

#[test]
fn a_change_that_needs_no_new_container_touches_none() {
    let spec = |extra: Value| {
        let mut module = json!({"settings": {"image": "a"}});
        module.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        desired(json!({ "m": module }))
    };
    let observed =
        Observed { modules: [(id("m"), running(&spec(json!({})), "m"))].into(), ..Observed::default() };
    for extra in [
        json!({"restartPolicy": "always"}),
        json!({"startupOrder": 7}),
        json!({"version": "2"}),
        json!({"imagePullPolicy": "never"}),
    ] {
        assert!(plan(&spec(extra.clone()), &observed, &Restarts::default(), NOW).is_empty(), "{extra}");
    }
}

#[test]
fn a_container_whose_replacement_failed_is_restarted_by_its_policy_while_the_next_try_waits() {
    let desired = desired(json!({"m": {"restartPolicy": "always", "settings": {"image": "acme/m:2"}}}));
    let mut restarts = Restarts::default();
    restarts.handle(NOW - 1000, Event::Failed(&id("m")));
    let of = |finished_at_ms| {
        let seen = ObservedModule { fingerprint: "old".into(), ..exited(running(&desired, "m"), 1) };
        let seen = ObservedModule { finished_at_ms: Some(finished_at_ms), ..seen };
        Observed { modules: [(id("m"), seen)].into(), ..Observed::default() }
    };
    let due = plan(&desired, &of(NOW - 10_000), &restarts, NOW);
    assert!(matches!(due.actions[..], [Action::Restart { .. }]), "{due}");
    let waiting = plan(&desired, &of(NOW - 4_000), &restarts, NOW);
    assert!(waiting.is_empty() && waiting.earliest() == Some(NOW + 6_000), "{waiting}");
}

#[test]
fn a_container_that_was_stopped_for_a_replacement_that_failed_is_restarted_while_the_next_try_waits() {
    let desired = desired(json!({"m": {"restartPolicy": "always", "settings": {"image": "acme/m:2"}}}));
    let mut restarts = Restarts::default();
    restarts.handle(NOW - 1000, Event::Failed(&id("m")));
    let former = ObservedModule {
        fingerprint: "old".into(),
        finished_at_ms: Some(NOW - 10_000),
        ..exited(running(&desired, "m"), 1)
    };
    let of = |state, fingerprint: &str| {
        let next = ObservedModule { state, fingerprint: fingerprint.into(), ..running(&desired, "m") };
        let [modules, replacements] = [&former, &next].map(|seen| [(id("m"), seen.clone())].into());
        Observed { modules, replacements, ..Observed::default() }
    };
    let fingerprint = desired.modules[&id("m")].fingerprint.as_str();
    for (state, of_what, is_restarted) in [
        (ContainerState::Created, fingerprint, true),
        (ContainerState::Created, "another", true),
        (ContainerState::Exited { code: 1 }, fingerprint, true),
        // It has taken the module's place, and only its name is to come.
        (ContainerState::Running, fingerprint, false),
    ] {
        let plan = plan(&desired, &of(state, of_what), &restarts, NOW);
        assert_eq!(matches!(plan.actions[..], [Action::Restart { .. }]), is_restarted, "{state:?}: {plan}");
        assert!(plan.earliest().is_some(), "{plan}");
    }
}

#[test]
fn a_container_that_the_engine_does_not_describe_is_left_alone_and_holds_up_no_other() {
    let desired =
        desired(json!({"a": {"settings": {"image": "acme/a"}}, "b": {"settings": {"image": "acme/b"}}}));
    let unreadable = |module: &str| {
        let why = "RWLayer is unexpectedly nil".to_owned();
        (id(module), Unreadable { container_id: module.into(), why })
    };
    let observed = Observed {
        modules: [(id("b"), exited(running(&desired, "b"), 1))].into(),
        unreadable: [unreadable("a"), unreadable("old")].into(),
        ..Observed::default()
    };
    let plan = plan(&desired, &observed, &Restarts::default(), NOW + 60_000);
    assert!(matches!(&plan.actions[..], [Action::Restart { module, .. }] if *module == id("b")), "{plan}");
    assert_eq!(plan.waiting.len(), 2, "{plan}");
    assert!(plan.to_string().contains("RWLayer is unexpectedly nil; if it stays so, remove it"), "{plan}");
}

/// The name is the last step, and one that cannot be had keeps no module from being started again.
#[test]
fn a_container_that_somebody_renamed_gets_its_name_back() {
    let desired = desired(json!({"a": {"settings": {"image": "acme/a"}, "restartPolicy": "always"}}));
    let renamed = |seen: ObservedModule| {
        let modules = BTreeMap::from([(id("a"), ObservedModule { is_renamed: true, ..seen })]);
        Observed { modules, ..Observed::default() }
    };
    let rename = Action::Rename { module: id("a"), container_id: "a-container".into() };
    let runs = renamed(running(&desired, "a"));
    let ended = renamed(exited(running(&desired, "a"), 1));
    let mut restarts = Restarts::default();
    assert_eq!(plan(&desired, &runs, &restarts, NOW).actions, [rename]);
    restarts.handle(NOW, Event::Failed(&id("a")));
    let waiting = plan(&desired, &runs, &restarts, NOW);
    assert!(waiting.actions.is_empty() && waiting.earliest().is_some(), "{waiting}");
    // The wait after the end is over, that after the failed step is not.
    let later = plan(&desired, &ended, &restarts, NOW + 9_700);
    assert!(matches!(later.actions[..], [Action::Restart { .. }]), "{later}");
}

#[test]
fn limits_that_somebody_changed_are_set_back_and_a_try_that_fails_waits() {
    let desired = desired(json!({"a": {"settings": {"image": "acme/a"}, "restartPolicy": "always"}}));
    let of = |edit: Edit, is_renamed| {
        let seen = ObservedModule { edit: Some(edit), is_renamed, ..running(&desired, "a") };
        Observed { modules: [(id("a"), seen)].into(), ..Observed::default() }
    };
    let restored = BTreeMap::from([("Memory".to_owned(), json!(1))]);
    let changed = of(Edit { restored, lasting: vec![] }, false);
    let mut restarts = Restarts::default();
    let printed = plan(&desired, &changed, &restarts, NOW).to_string();
    assert_eq!(printed, "update   a  container a-container, HostConfig.Memory\n");
    let lasting = of(Edit { lasting: vec!["Memory".into()], ..Edit::default() }, false);
    assert!(plan(&desired, &lasting, &restarts, NOW).is_empty());
    for observed in [changed, of(Edit::default(), true)] {
        restarts.handle(NOW, Event::Failed(&id("a")));
        restarts.handle(NOW, Event::Observed(&desired, &observed));
        let waiting = plan(&desired, &observed, &restarts, NOW);
        assert!(waiting.is_empty() && waiting.earliest().is_some(), "{waiting}");
        restarts.forget(&id("a"));
    }
}

fn module() -> impl Strategy<Value = Value> {
    let policy = proptest::sample::select(RestartPolicy::ALL);
    (0..3u8, 0..2u8, any::<bool>(), any::<bool>(), policy, 0..3u32).prop_map(
        |(image, env, is_stopped, is_local, policy, order)| {
            json!({
                "settings": {"image": format!("acme/m:{image}")},
                "env": {"E": {"value": env}},
                "status": if is_stopped { "stopped" } else { "running" },
                "imagePullPolicy": if is_local { "never" } else { "on-create" },
                "restartPolicy": policy.as_str(),
                "startupOrder": order,
            })
        },
    )
}

fn manifest() -> impl Strategy<Value = Desired> {
    proptest::collection::btree_map("[a-f]", module(), 0..6)
        .prop_map(|modules| desired(Value::Object(modules.into_iter().collect())))
}

fn state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(ContainerState::Running),
        Just(ContainerState::Restarting),
        Just(ContainerState::Paused),
        (0..3i64).prop_map(|code| ContainerState::Exited { code }),
        Just(ContainerState::Dead),
    ]
}

/// Containers of an earlier manifest in any state, ended or started up to ten minutes ago.
fn containers() -> impl Strategy<Value = Observed> {
    let container = || {
        let one = (state(), any::<bool>(), any::<bool>(), 0..600_000u64, 0..600_000u64);
        proptest::collection::vec(one, 6)
    };
    let of = |old: &Desired, containers: Vec<(ContainerState, bool, bool, u64, u64)>, suffix: &str| {
        let modules = old.modules.keys().zip(containers);
        let modules = modules.map(|(module, (state, is_unhealthy, is_renamed, started, finished))| {
            let seen = ObservedModule {
                container_id: format!("{module}-container{suffix}"),
                is_renamed: is_renamed && suffix.is_empty(),
                state,
                is_unhealthy: is_unhealthy && state == ContainerState::Running,
                is_out_of_memory: false,
                edit: (started % 3 == 0 && suffix.is_empty())
                    .then(|| Edit { restored: [("Memory".to_owned(), json!(1))].into(), lasting: vec![] }),
                started_at_ms: Some(NOW - started),
                finished_at_ms: Some(NOW - finished),
                ..running(old, module.as_str())
            };
            (module.clone(), seen)
        });
        modules.collect()
    };
    (manifest(), container(), manifest(), container()).prop_map(move |(old, containers, newer, begun)| {
        Observed {
            modules: of(&old, containers, ""),
            replacements: of(&newer, begun, "-next"),
            ..Observed::default()
        }
    })
}

/// Restarts and failures of the past.
fn past() -> impl Strategy<Value = Restarts> {
    proptest::collection::vec(("[a-f]", any::<bool>(), 0..600_000u64), 0..30).prop_map(|events| {
        let mut restarts = Restarts::default();
        for (module, is_failure, ago) in events {
            let module = id(&module);
            let event = if is_failure { Event::Failed(&module) } else { Event::Restarted(&module) };
            restarts.handle(NOW - ago, event);
        }
        restarts
    })
}

proptest! {
    #[test]
    fn the_plan_of_a_reached_state_is_empty(target in manifest(), observed in containers(), mut restarts in past()) {
        let mut docker = Docker { observed, created: 0 };
        // Every wait that time ends is over after the longest one, so a pass does what the one before put off; the first may only
        // settle replacements that were cut off, and the second change what is then there.
        for pass in 0..4 {
            let now = NOW + pass * WAIT_MAX_MS;
            let is_edited = docker.observed.modules.values().any(|seen| seen.edit.is_some());
            let had_replacements = !docker.observed.replacements.is_empty();
            restarts.handle(now, Event::Observed(&target, &docker.observed));
            let plan = plan(&target, &docker.observed, &restarts, now);
            docker.apply(&plan, &target, &mut restarts, now);
            if plan.earliest().is_none() && !had_replacements && !is_edited {
                let again = super::plan(&target, &docker.observed, &restarts, now);
                prop_assert!(again.is_empty(), "{again}");
            }
        }
        let last = plan(&target, &docker.observed, &restarts, NOW + 3 * WAIT_MAX_MS);
        prop_assert!(last.is_empty() && last.earliest().is_none(), "{last}");
        prop_assert!(docker.observed.modules.keys().eq(target.modules.keys()));
        prop_assert!(docker.observed.replacements.is_empty());
        for (module, seen) in &docker.observed.modules {
            prop_assert_eq!(&seen.fingerprint, &target.modules[module].fingerprint);
            prop_assert!(!seen.is_renamed, "{} has another name", module);
            prop_assert!(seen.edit.is_none(), "{} has other limits", module);
        }
    }

    #[test]
    fn modules_that_are_as_desired_are_never_in_a_plan(
        target in manifest(),
        observed in containers(),
        restarts in past(),
    ) {
        let mut observed = observed;
        let same: Vec<ModuleId> = target.modules.keys().filter(|m| m.as_str() < "d").cloned().collect();
        for module in &same {
            let mut seen = running(&target, module.as_str());
            if target.modules[module].spec.status == DesiredStatus::Stopped {
                seen.state = ContainerState::Exited { code: 143 };
            }
            observed.modules.insert(module.clone(), seen);
            observed.replacements.remove(module);
        }
        let plan = plan(&target, &observed, &restarts, NOW);
        for module in same {
            prop_assert!(plan.actions.iter().all(|action| *action.module() != module), "{plan}");
        }
    }

    #[test]
    fn images_and_preparations_come_before_stops_removals_next_and_then_lower_orders_first(
        target in manifest(),
        observed in containers(),
    ) {
        let plan = plan(&target, &observed, &Restarts::default(), NOW);
        let ranks: Vec<(u8, u32)> = plan
            .actions
            .iter()
            .map(|action| match (action, target.modules.get(action.module())) {
                (Action::Pull { .. }, _) => (0, 0),
                (Action::Prepare { .. }, _) => (1, 0),
                (Action::Create { module, .. }, _) if !observed.modules.contains_key(module) => (1, 0),
                (_, None) => (2, 0),
                (_, Some(module)) => (3, module.spec.startup_order),
            })
            .collect();
        prop_assert!(ranks.is_sorted(), "{plan}");
        let pulled: Vec<_> = plan.actions.iter().filter(|a| matches!(a, Action::Pull { .. })).collect();
        for action in pulled {
            prop_assert_eq!(target.modules[action.module()].spec.image_pull_policy, ImagePullPolicy::OnCreate);
        }
    }
}
