//! Which steps of a plan may begin now, while steps of other modules are still being done.
//!
//! Modules are independent of each other: one whose container takes a minute to stop, or whose image takes an hour to come, holds
//! up nothing but itself and what must come after it. What must come after what:
//! - A restart of a module that ended or is not healthy waits for nothing.
//! - New containers are created when no image is being fetched any more, in any order.
//! - Everything else waits until they are all created: what the engine or this machine refuses is known before anything is stopped.
//! - A container that exists and has not run since it was created, or since the host booted, starts after those of modules with a
//!   smaller `startupOrder`.
//! - What stops, replaces or removes a container, and the start of a new one, begins when modules that are no longer wanted are gone,
//!   and when modules with a smaller `startupOrder` are done. Modules that are no longer wanted are stopped and removed after those
//!   that started after them.
//! - What starts a container for the first time since it was created or the host booted, or puts a new one in its place, waits until
//!   the modules of `startAfter` are as it says, and holds up no other module meanwhile, whatever its `startupOrder` is.
//! - When a deployment is to be carried out whole or not at all and one of its modules was refused, only restarts begin. As long as
//!   it is not known whether one is refused, nothing is stopped, replaced or removed.
//! - The steps of one module follow each other.

use std::collections::{BTreeMap, BTreeSet};

use schemas::names::ModuleId;

use super::desired::Desired;
use super::plan::{Action, Plan};

/// Modules whose containers are changed at one time: the engine serves more no faster.
pub const CHANGES_MAX: usize = 4;

/// Steps of one module, to be done one after the other. When one fails, the remaining ones are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub module: ModuleId,
    pub kind: BatchKind,
    /// At least one.
    pub actions: Vec<Action>,
}

/// What the steps of a [`Batch`] do, which decides what they wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// Start a container again that ended, or is not healthy.
    Restart,
    /// Create a container and check what it needs.
    Prepare,
    /// Start a container that exists.
    Start,
    /// Replace, stop or remove a container, or start a new one.
    Change,
}

/// The steps that are being done, by module.
pub type Running = BTreeMap<ModuleId, BatchKind>;

/// What keeps batches from beginning, beside those that are being done.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// The modules of which nothing may begin because their image could not be fetched.
    pub failed: BTreeSet<ModuleId>,
    /// Whether an image is being fetched for this plan.
    pub is_fetching: bool,
    /// Whether a module was refused of a deployment that is to be carried out whole or not at all.
    pub is_refused: bool,
    /// Whether it is not known yet if a module of such a deployment is refused.
    pub is_undecided: bool,
}

/// The batches that may begin now.
pub fn due(plan: &Plan, desired: &Desired, running: &Running, holds: &Holds) -> Vec<Batch> {
    let is_fetching = holds.is_fetching;
    let is_free = |module: &ModuleId| !running.contains_key(module) && !holds.failed.contains(module);
    let is_held = |batch: &Batch| match batch.kind {
        _ if waits_for_others(plan, batch) => true,
        BatchKind::Restart => false,
        BatchKind::Start => holds.is_refused,
        BatchKind::Prepare => holds.is_refused || is_fetching,
        BatchKind::Change => {
            holds.is_refused
                || is_fetching
                || (holds.is_undecided && batch.actions.iter().any(ends_container))
        }
    };
    let mut batches: Vec<Batch> = batches(&plan.actions)
        .into_iter()
        .filter(|batch| is_free(&batch.module) && !is_held(batch))
        .collect();
    let has_none = |module: &ModuleId| batches.iter().all(|batch| batch.module != *module);
    let is_kept = |module: &ModuleId| is_fetching || (plan.held(module).is_some() && has_none(module));
    let mut kept = self::batches(&plan.interim);
    kept.retain(|batch| is_free(&batch.module) && is_kept(&batch.module));
    batches.extend(kept);
    // Modules that are no longer wanted have no rank. `None` sorts before every order, so they go first.
    let rank = |module: &ModuleId| desired.modules.get(module).map(|target| target.spec.startup_order);
    let leaving: Vec<ModuleId> = running
        .keys()
        .chain(batches.iter().map(|batch| &batch.module))
        .filter(|module| rank(module).is_none())
        .cloned()
        .collect();
    let in_progress = running.iter().map(|(module, kind)| (rank(module), *kind));
    // Steps that are only due count like those that run: later ones must not overtake them.
    let target = batches.iter().map(|batch| (rank(&batch.module), batch.kind));
    let all: Vec<(Option<u32>, BatchKind)> = in_progress.chain(target).collect();
    let is_preparing = all.iter().any(|(_, kind)| *kind == BatchKind::Prepare);
    let is_change = |kind: BatchKind| matches!(kind, BatchKind::Prepare | BatchKind::Change);
    let mut changes_left =
        CHANGES_MAX.saturating_sub(running.values().filter(|kind| is_change(**kind)).count());
    batches.retain(|batch| {
        let own = rank(&batch.module);
        let waits_for =
            |kinds: &[BatchKind]| all.iter().any(|(rank, kind)| *rank < own && kinds.contains(kind));
        let is_due = match batch.kind {
            BatchKind::Restart => true,
            BatchKind::Start => !is_preparing && !waits_for(&[BatchKind::Start]),
            BatchKind::Prepare => changes_left > 0,
            BatchKind::Change => {
                changes_left > 0
                    && !is_preparing
                    && !waits_for(&[BatchKind::Start, BatchKind::Change])
                    && !leaving.iter().any(|other| desired.leaves_before(other, &batch.module))
            }
        };
        if is_due && is_change(batch.kind) {
            changes_left -= 1;
        }
        is_due
    });
    batches
}

/// Whether steps start a container before the modules that it starts after are as its manifest says.
fn waits_for_others(plan: &Plan, batch: &Batch) -> bool {
    batch.actions.iter().any(Action::starts) && plan.held(&batch.module).is_some()
}

/// Whether there are steps that do not wait for another module.
pub fn goes_on(plan: &Plan) -> bool {
    batches(&plan.actions).iter().any(|batch| !waits_for_others(plan, batch))
}

/// Whether a step stops, replaces or removes a container.
fn ends_container(action: &Action) -> bool {
    matches!(action, Action::Replace { .. } | Action::Stop { .. } | Action::Remove { .. })
}

/// The steps by module, in the order in which the plan names the modules. What creates a module's container is a batch of its own,
/// unless another one must be removed first; the module's other steps follow when it was done.
fn batches(actions: &[Action]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for action in actions {
        let kind = match action {
            Action::Pull { .. } => continue,
            Action::Restart { .. } => BatchKind::Restart,
            Action::Start { container_id: Some(_), .. } => BatchKind::Start,
            Action::Create { .. } | Action::Prepare { .. } => BatchKind::Prepare,
            _ => BatchKind::Change,
        };
        match batches.iter_mut().find(|batch| batch.module == *action.module()) {
            Some(batch) if batch.kind == BatchKind::Prepare => {}
            Some(batch) => {
                batch.actions.push(action.clone());
                batch.kind = BatchKind::Change;
            }
            None => {
                batches.push(Batch { module: action.module().clone(), kind, actions: vec![action.clone()] })
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::manifest::Manifest;
    use serde_json::{Value, json};

    use super::*;
    use crate::deploy::restart::Attempt;

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn id(name: &str) -> ModuleId {
        name.parse().unwrap()
    }

    fn desired(orders: &[(&str, u32)]) -> Desired {
        let modules: serde_json::Map<String, Value> = orders
            .iter()
            .map(|(name, order)| {
                let module = json!({"type": "docker", "status": "running", "restartPolicy": "always",
                    "startupOrder": order, "settings": {"image": "i:1"}});
                ((*name).to_owned(), module)
            })
            .collect();
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": modules
        }}}});
        Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
    }

    fn restart(name: &str) -> Action {
        let attempt = Attempt { number: 1, limit: None };
        Action::Restart { module: id(name), container_id: name.into(), attempt }
    }

    fn start(name: &str) -> Action {
        Action::Start { module: id(name), container_id: Some(name.into()) }
    }

    fn replace(name: &str) -> Action {
        Action::Replace { module: id(name), container_id: name.into(), image: "i:1".into() }
    }

    fn prepare(name: &str) -> Action {
        Action::Prepare { module: id(name), image: "i:1".into() }
    }

    fn create(name: &str) -> Action {
        Action::Create { module: id(name), image: "i:1".into() }
    }

    fn first_start(name: &str) -> Action {
        Action::Start { module: id(name), container_id: None }
    }

    fn removal(name: &str) -> [Action; 2] {
        let (module, container_id) = (id(name), name.to_owned());
        [
            Action::Stop { module: module.clone(), container_id: container_id.clone() },
            Action::Remove { module, container_id },
        ]
    }

    fn plan(actions: Vec<Action>) -> Plan {
        Plan { actions, ..Plan::default() }
    }

    fn names(batches: &[Batch]) -> Vec<&str> {
        batches.iter().map(|batch| batch.module.as_str()).collect()
    }

    fn none() -> Holds {
        Holds::default()
    }

    fn fetching() -> Holds {
        Holds { is_fetching: true, ..Holds::default() }
    }

    #[test]
    fn a_module_is_restarted_while_another_one_is_being_stopped() {
        let desired = desired(&[("a", 0), ("b", 0), ("c", 9)]);
        let running = Running::from([(id("a"), BatchKind::Change)]);
        let plan = plan(vec![replace("a"), restart("b"), start("c")]);
        let due = due(&plan, &desired, &running, &none());
        assert_eq!(names(&due), ["b", "c"]);
    }

    #[test]
    fn while_an_image_is_fetched_what_runs_is_supervised_and_nothing_is_replaced() {
        let desired = desired(&[("a", 0), ("b", 0), ("c", 0)]);
        let plan =
            Plan { interim: vec![restart("a")], ..plan(vec![replace("a"), restart("b"), replace("c")]) };
        let begun = due(&plan, &desired, &Running::new(), &fetching());
        assert_eq!(names(&begun), ["b", "a"]);
        assert!(begun.iter().all(|batch| batch.kind == BatchKind::Restart));
        let fetched = due(&plan, &desired, &Running::new(), &none());
        assert_eq!(names(&fetched), ["a", "b", "c"]);
        assert_eq!(fetched[0].actions, [replace("a")]);
    }

    #[test]
    fn modules_that_are_not_desired_go_first_and_then_each_startup_order_after_the_one_before() {
        let desired = desired(&[("a", 2), ("b", 1), ("c", 1)]);
        let mut actions = removal("old").to_vec();
        actions.extend([replace("b"), replace("c"), replace("a")]);
        let plan = plan(actions);
        let mut running = Running::new();
        let mut left = plan.clone();
        for expected in [vec!["old"], vec!["b", "c"], vec!["a"]] {
            let begun = due(&left, &desired, &running, &none());
            assert_eq!(names(&begun), expected);
            running = begun.iter().map(|batch| (batch.module.clone(), batch.kind)).collect();
            assert!(due(&left, &desired, &running, &none()).is_empty(), "the next ones wait");
            left.actions.retain(|action| !running.contains_key(action.module()));
            running.clear();
        }
    }

    #[test]
    fn a_module_whose_image_could_not_be_fetched_holds_up_no_other() {
        let desired = desired(&[("a", 1), ("b", 2)]);
        let plan = plan(vec![replace("a"), replace("b")]);
        let holds = Holds { failed: BTreeSet::from([id("a")]), ..Holds::default() };
        assert_eq!(names(&due(&plan, &desired, &Running::new(), &holds)), ["b"]);
    }

    #[test]
    fn nothing_is_stopped_before_every_new_container_was_created() {
        let desired = desired(&[("a", 0), ("b", 1), ("c", 9)]);
        let mut actions = vec![prepare("b"), create("c")];
        actions.extend(removal("old"));
        actions.extend([replace("a"), replace("b"), first_start("c"), restart("d")]);
        let mut plan = plan(actions);
        let begun = due(&plan, &desired, &Running::new(), &none());
        assert_eq!(names(&begun), ["b", "c", "d"]);
        assert_eq!((&begun[0].actions, &begun[1].actions), (&vec![prepare("b")], &vec![create("c")]));
        plan.done(&[prepare("b"), restart("d")]);
        let running = Running::from([(id("c"), BatchKind::Prepare)]);
        assert!(due(&plan, &desired, &running, &none()).is_empty(), "c is being created");
        plan.done(&[create("c")]);
        for expected in ["old", "a", "b", "c"] {
            let begun = due(&plan, &desired, &Running::new(), &none());
            assert_eq!(names(&begun), [expected]);
            plan.without(&id(expected));
        }
    }

    #[test]
    fn a_refused_module_holds_up_a_deployment_that_is_carried_out_whole_and_no_restart() {
        let desired = desired(&[("a", 0), ("b", 1), ("c", 9)]);
        let plan = plan(vec![prepare("a"), replace("b"), start("c"), restart("d")]);
        let holds = Holds { is_refused: true, ..Holds::default() };
        assert_eq!(names(&due(&plan, &desired, &Running::new(), &holds)), ["d"]);
    }

    #[test]
    fn nothing_is_ended_while_it_is_not_known_whether_a_module_is_refused() {
        let desired = desired(&[("a", 0), ("b", 0), ("c", 0), ("e", 0)]);
        let mut actions = removal("old").to_vec();
        actions.extend([replace("a"), first_start("b"), start("c"), restart("d")]);
        let holds = Holds { is_undecided: true, ..Holds::default() };
        let begun = due(&plan(actions), &desired, &Running::new(), &holds);
        assert_eq!(names(&begun), ["b", "c", "d"]);
        let begun = due(&plan(vec![prepare("e"), replace("e")]), &desired, &Running::new(), &holds);
        assert_eq!(begun[0].actions, [prepare("e")]);
    }

    fn step() -> impl Strategy<Value = u8> {
        0..7_u8
    }

    proptest! {
        /// Steps end in any order, and some fail: every step that a plan has begins exactly once, no module has two batches at a
        /// time, and what has a smaller startup order is never overtaken by what must come after it.
        #[test]
        fn every_step_begins_once_and_in_order(
            steps in prop::collection::vec((step(), 0..3_u32), NAMES.len()),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 32),
        ) {
            let mut orders = Vec::new();
            let mut actions = Vec::new();
            for (name, (step, order)) in NAMES.iter().zip(&steps) {
                match step {
                    0 => actions.extend(removal(name)),
                    1 => actions.push(restart(name)),
                    2 => actions.push(start(name)),
                    3 => actions.push(replace(name)),
                    4 => actions.extend([prepare(name), replace(name)]),
                    5 => actions.extend([create(name), first_start(name)]),
                    _ => {}
                }
                if *step != 0 {
                    orders.push((*name, *order));
                }
            }
            let desired = desired(&orders);
            let rank = |module: &ModuleId| desired.modules.get(module).map(|target| target.spec.startup_order);
            let mut left = plan(actions.clone());
            let (mut running, mut begun, mut ends) = (Running::new(), Vec::new(), ends.iter());
            let mut doing: BTreeMap<ModuleId, Vec<Action>> = BTreeMap::new();
            while !left.actions.is_empty() {
                for batch in due(&left, &desired, &running, &none()) {
                    prop_assert!(!running.contains_key(&batch.module), "two batches of {}", batch.module);
                    if batch.kind == BatchKind::Change {
                        let earlier = left.actions.iter().filter(|action| rank(action.module()) < rank(&batch.module));
                        for action in earlier {
                            prop_assert!(matches!(action, Action::Restart { .. }), "{batch:?} before {action}");
                        }
                    }
                    let creates = |action: &Action| matches!(action, Action::Create { .. } | Action::Prepare { .. });
                    if matches!(batch.kind, BatchKind::Change | BatchKind::Start) {
                        prop_assert!(!left.actions.iter().any(creates), "{batch:?} before all were created");
                    }
                    running.insert(batch.module.clone(), batch.kind);
                    begun.extend(batch.actions.clone());
                    doing.insert(batch.module, batch.actions);
                }
                let changes = [BatchKind::Change, BatchKind::Prepare];
                let changes = running.values().filter(|kind| changes.contains(kind)).count();
                prop_assert!(changes <= CHANGES_MAX);
                prop_assert!(!running.is_empty(), "nothing goes on: {left}");
                let at = ends.next().map_or(0, |index| index.index(running.len()));
                let ended = running.keys().nth(at).unwrap().clone();
                running.remove(&ended);
                left.done(&doing.remove(&ended).unwrap_or_default());
            }
            let sorted = |mut actions: Vec<Action>| {
                actions.sort_by_key(ToString::to_string);
                actions
            };
            prop_assert_eq!(sorted(begun), sorted(actions));
        }
    }
}
