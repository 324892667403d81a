//! `startAfter`: the order that it makes, on arbitrary graphs of modules, and what is refused of it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::manifest::start_order::{StartPlace, cycle, places};
use schemas::manifest::{Manifest, ManifestError};
use schemas::names::ModuleId;
use serde_json::{Map, Value, json};

const CONDITIONS: [&str; 3] = ["started", "healthy", "exited"];

/// Modules by number: the `startupOrder` of each, and those that it starts after with the number of the condition.
type Graph = BTreeMap<usize, (u32, BTreeMap<usize, usize>)>;

fn name(number: usize) -> String {
    format!("m{number}")
}

fn read(graph: &Graph) -> Result<Manifest, ManifestError> {
    let module = |(number, (order, after)): (&usize, &(u32, BTreeMap<usize, usize>))| {
        let after: Map<String, Value> =
            after.iter().map(|(other, kind)| (name(*other), CONDITIONS[*kind].into())).collect();
        let module = json!({"restartPolicy": "never", "startupOrder": order, "startAfter": after,
            "settings": {"image": "acme/m:1"}});
        (name(*number), module)
    };
    let modules: Map<String, Value> = graph.iter().map(module).collect();
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "modules": modules
    }}}});
    Manifest::parse(document.to_string().as_bytes())
}

/// The graph that a manifest has, as the reader took it.
fn edges(manifest: &Manifest) -> Vec<(&ModuleId, &ModuleId)> {
    let modules = manifest.edge_agent.modules.iter();
    modules.flat_map(|(id, module)| module.start_after.keys().map(move |other| (id, other))).collect()
}

fn places_of(manifest: &Manifest) -> BTreeMap<&ModuleId, StartPlace> {
    places(manifest.edge_agent.modules.iter())
}

/// Up to ten modules with arbitrary edges between them, itself included.
fn graphs() -> impl Strategy<Value = Graph> {
    (1..10_usize).prop_flat_map(|size| {
        let after = prop::collection::btree_map(0..size, 0..CONDITIONS.len(), 0..3);
        prop::collection::vec((0..4_u32, after), size)
            .prop_map(|modules| modules.into_iter().enumerate().collect())
    })
}

/// The same without a cycle: each starts after modules of a smaller rank, and names say nothing of the rank.
fn acyclic_graphs() -> impl Strategy<Value = Graph> {
    (graphs(), any::<u64>()).prop_map(|(graph, seed)| {
        let rank = |number: usize| (seed.rotate_left(u32::try_from(number).unwrap() * 7) % 1000, number);
        let of_smaller = |(number, (order, after)): (usize, (u32, BTreeMap<usize, usize>))| {
            let after = after.into_iter().filter(|(other, _)| rank(*other) < rank(number)).collect();
            (number, (order, after))
        };
        graph.into_iter().map(of_smaller).collect()
    })
}

/// Whether a module can be reached from itself, by the definition.
fn has_cycle(graph: &Graph) -> bool {
    let reached = |from: usize| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(number) = open.pop() {
            open.extend(graph[&number].1.keys().filter(|other| reached.insert(**other)));
        }
        reached
    };
    graph.keys().any(|number| reached(*number).contains(number))
}

fn named_cycle(error: &ManifestError) -> Vec<usize> {
    let names = error.found.strip_prefix("the cycle ").unwrap_or_else(|| panic!("{error}"));
    names.split(" → ").map(|name| name[1..].parse().unwrap()).collect()
}

proptest! {
    #[test]
    fn every_order_satisfies_every_edge(graph in acyclic_graphs()) {
        let manifest = read(&graph).unwrap();
        let places = places_of(&manifest);
        let positions: BTreeSet<usize> = places.values().map(|place| place.position).collect();
        prop_assert_eq!(positions, (0..graph.len()).collect::<BTreeSet<_>>());
        for (id, other) in edges(&manifest) {
            prop_assert!(places[other].position < places[id].position, "{} before {}", other, id);
            prop_assert!(places[other].startup_order <= places[id].startup_order);
            prop_assert!(places[id].after.contains(other));
        }
        let mut in_order: Vec<&StartPlace> = places.values().collect();
        in_order.sort_by_key(|place| place.position);
        prop_assert!(in_order.is_sorted_by_key(|place| place.startup_order), "{:?}", in_order);
        // Without `startAfter` it is IoT Edge's order.
        let free = manifest.edge_agent.modules.values().all(|module| module.start_after.is_empty());
        if free {
            let mut expected: Vec<_> = manifest.edge_agent.modules.iter().collect();
            expected.sort_by_key(|(id, module)| (module.startup_order, *id));
            let expected: Vec<usize> = expected.into_iter().map(|(id, _)| places[id].position).collect();
            prop_assert!(expected.is_sorted());
        }
    }

    #[test]
    fn each_cycle_is_found_and_named_by_a_path_that_is_there(graph in graphs()) {
        match read(&graph) {
            Ok(manifest) => {
                prop_assert!(!has_cycle(&graph));
                prop_assert_eq!(places_of(&manifest).len(), graph.len());
                prop_assert!(cycle(&manifest.edge_agent.modules).is_none());
            }
            Err(error) => {
                prop_assert!(has_cycle(&graph), "{}", error);
                let path = named_cycle(&error);
                prop_assert!(path.len() >= 2 && path.first() == path.last(), "{}", error);
                for step in path.windows(2) {
                    prop_assert!(graph[&step[0]].1.contains_key(&step[1]), "{}", error);
                }
                let inner: BTreeSet<_> = path[1..].iter().collect();
                prop_assert_eq!(inner.len(), path.len() - 1, "a module is there twice: {}", error);
                let field = format!("modules.{}.startAfter.{}", name(path[0]), name(path[1]));
                prop_assert!(error.path.ends_with(&field), "{}", error);
            }
        }
    }
}

#[test]
fn a_chain_of_thousands_is_ordered_and_a_long_cycle_is_named_in_short() {
    const LENGTH: usize = 5000;
    let after = |other: Option<usize>| other.map(|other| (other, 0)).into_iter().collect();
    let mut graph: Graph =
        (0..LENGTH).map(|number| (number, (0, after((number + 1 < LENGTH).then_some(number + 1))))).collect();
    let manifest = read(&graph).unwrap();
    let places = places_of(&manifest);
    let (first, last): (ModuleId, ModuleId) = (name(LENGTH - 1).parse().unwrap(), "m0".parse().unwrap());
    assert_eq!((places[&first].position, places[&last].position), (0, LENGTH - 1));
    graph.insert(LENGTH - 1, (0, after(Some(0))));
    let error = read(&graph).unwrap_err();
    assert!(error.found.starts_with("the cycle m0 → m1 → ") && error.found.ends_with(" → m0"), "{error}");
    assert!(
        error.found.contains(&format!("… {} more …", LENGTH + 1 - 20)) && error.found.len() < 400,
        "{error}"
    );
}

/// What waits for a module that is kept stopped waits for ever; a module that is not started itself does not wait.
#[test]
fn a_module_that_is_kept_stopped_is_not_waited_for() {
    let read = |own: &str, condition: &str, named: &str| {
        let module = |status: &str, after: Value| {
            json!({"status": status, "restartPolicy": "never", "startAfter": after,
                "settings": {"image": "acme/m:1"}})
        };
        let (app, store) = (module(own, json!({"store": condition})), module(named, json!({})));
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"app": app, "store": store}
        }}}});
        Manifest::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())
    };
    const STATUSES: [&str; 3] = ["running", "stopped", "unknown"];
    for condition in CONDITIONS {
        for (own, named) in STATUSES.iter().flat_map(|own| STATUSES.map(|named| (*own, named))) {
            let found = read(own, condition, named);
            if (own, named) == ("running", "stopped") {
                let field = "modulesContent.$edgeAgent.properties.desired.modules.app.startAfter.store";
                let error = format!(
                    "{field}: found \"{condition}\", and store has the status stopped; give it the status running, or remove it from \
                     `startAfter`"
                );
                assert_eq!(found.unwrap_err(), error);
            } else {
                assert!(found.is_ok(), "{own} {condition} {named}: {found:?}");
            }
        }
    }
}

#[test]
fn a_wrong_start_condition_is_refused_with_its_field() {
    let modules = |policy: &str, after: Value| {
        json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "a": {"startAfter": after, "settings": {"image": "acme/a:1"}},
            "b": {"restartPolicy": policy, "settings": {"image": "acme/b:1"}}
        }}}}})
    };
    const A: &str = "modulesContent.$edgeAgent.properties.desired.modules.a.startAfter";
    for (policy, after, expected) in [
        ("always", json!({"c": "started"}), ".c: found the module name \"c\""),
        ("always", json!({"b": "ready"}), ".b: found \"ready\"; allowed are started, healthy, exited"),
        ("always", json!({"b": ["started"]}), ".b: found an array"),
        ("always", json!({"b c": "started"}), ".b c: found the module name \"b c\""),
        ("always", json!({"a": "started"}), ".a: found the cycle a → a"),
        ("always", json!(["b"]), ": found an array; write an object"),
        ("always", json!({"b": "exited"}), ".b: found \"exited\", and b has the restartPolicy always"),
        (
            "on-failure",
            json!({"b": "exited"}),
            ".b: found \"exited\", and b has the restartPolicy on-failure",
        ),
        (
            "on-unhealthy",
            json!({"b": "Exited"}),
            ".b: found \"exited\", and b has the restartPolicy on-unhealthy",
        ),
    ] {
        let error = Manifest::parse(modules(policy, after).to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{A}{expected}")), "{error}");
    }
    for (policy, after) in [
        ("never", json!({"b": "exited"})),
        ("always", json!({"b": "Healthy"})),
        ("always", json!({"b": null})),
        ("always", json!(null)),
    ] {
        Manifest::parse(modules(policy, after).to_string().as_bytes()).unwrap();
    }
}
