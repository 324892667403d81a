//! Deployments through the desired twins that make them, with restarts in between.

use schemas::redaction::REDACTED;
use schemas::twin::Section;

use super::*;
use crate::access::generations::Generations;
use crate::access::module_keys::ModuleKeys;
use crate::messages::queues::limits::Limits;
use edge_core::route::{QueueClass, Sink};
use edge_hub::clients::Clients;
use serde_json::json;

struct Gateway {
    dir: tempfile::TempDir,
}

struct Running {
    state: State,
    queues: Arc<Queues>,
    twins: Twins,
    removals: Removals,
    deployments: Arc<Deployments>,
    outputs: Outputs,
}

impl Gateway {
    async fn start(&self) -> Running {
        self.start_with(HostPolicy::default()).await
    }

    async fn start_with(&self, policy: HostPolicy) -> Running {
        let state = State::open(&self.dir.path().join("state")).unwrap();
        let id: DeviceId = "gw".parse().unwrap();
        let buffer = self.dir.path().join("buffer");
        let queues = Queues::open(&buffer, Limits::default(), id.clone(), Clients::new()).unwrap();
        let queues = Arc::new(queues);
        let twins = Twins::load(state.clone()).unwrap();
        let users = crate::access::users::Users::load(state.clone(), None).unwrap();
        let removals = Removals::load(
            state.clone(),
            users,
            vec![Box::new(twins.clone()), Box::new(queues.clone())],
            Generations::load(state.clone(), None),
        );
        let removal = removals.begin().await;
        let (deployments, outputs) = Deployments::load(
            id,
            twins.clone(),
            state.clone(),
            queues.clone(),
            removals.clone(),
            &removal,
            policy,
        )
        .unwrap();
        drop(removal);
        Running { state, queues, twins, removals, deployments: Arc::new(deployments), outputs }
    }
}

impl Running {
    async fn central_wants(&self, version: u64, routes: Value) {
        for (module, properties) in [
            (ModuleId::edge_agent(), json!({"schemaVersion": "1.1"})),
            (ModuleId::edge_hub(), json!({"schemaVersion": "1.1", "routes": routes})),
        ] {
            let section = Section { version, properties: properties.as_object().unwrap().clone() };
            let _ = self.twins.desired_from_central(
                &Identity::module("gw".parse().unwrap(), module),
                section,
                || true,
            );
        }
        self.deployments.take_up().await.unwrap();
    }

    fn acceptance(&self) -> Acceptance {
        self.outputs.acceptance.borrow().clone()
    }

    /// Whether a module's message goes upstream, by its output.
    fn goes_upstream(&self, output: &str) -> bool {
        use edge_core::route::{Kind, Message};
        let routing = self.outputs.routing.borrow().clone();
        let mut bag = schemas::bag::PropertyBag::new();
        bag.set(schemas::bag::system::OUTPUT_NAME, output);
        let (from, gateway) = ("gw/m".parse().unwrap(), "gw".parse().unwrap());
        let twin_of = |_: &Identity| schemas::twin::Twin::default();
        let message = Message::new(Kind::Telemetry, &from, &gateway, &bag, b"", &twin_of);
        let table = routing.table.as_ref().unwrap();
        table.targets(&message).iter().any(|target| *target.sink == Sink::Upstream)
    }

    async fn stop(self) {
        let Self { state, queues, twins, removals, deployments, outputs } = self;
        drop((twins, removals, deployments, outputs));
        queues.close().await;
        state.close().await;
    }
}

/// A route leads to the module all the time.
async fn assign(running: &Running, version: u64, has_module: bool) {
    let mut agent = json!({"schemaVersion": "1.1", "modules": {}});
    if has_module {
        agent["modules"]["m"] = json!({"settings": {"image": "a:1"}});
    }
    let routes = json!({"in": "FROM /messages/* INTO BrokeredEndpoint('/modules/m/inputs/i')"});
    let hub = json!({"schemaVersion": "1.1", "routes": routes});
    for (module, properties) in [(ModuleId::edge_agent(), agent), (ModuleId::edge_hub(), hub)] {
        let section = Section { version, properties: properties.as_object().unwrap().clone() };
        let identity = Identity::module("gw".parse().unwrap(), module);
        let (_, saved) = running.twins.desired_from_central(&identity, section, || true);
        saved.expect("another section").durable().await.unwrap();
    }
}

/// What tells one module of a name from another: its key, its generation id, and the fingerprint of its container.
fn fingerprints(running: &Running, dir: &std::path::Path) -> [String; 3] {
    let module: ModuleId = "m".parse().unwrap();
    let keys = ModuleKeys::load(dir).unwrap();
    let keys = keys.with_numbers("gw".parse().unwrap(), running.removals.modules().numbers().clone());
    let in_force = running.outputs.reconciler.borrow().clone().unwrap();
    let fingerprint = in_force.desired.modules[&module].fingerprint.clone();
    [format!("{:?}", keys.key(&module)), keys.generation_id(&module), fingerprint]
}

#[tokio::test]
async fn nothing_of_a_module_that_left_the_manifest_is_the_next_ones_wherever_the_daemon_was_killed() {
    for steps in 0..4 {
        let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
        let dir = gateway.dir.path();
        std::fs::write(
            dir.join(crate::access::module_keys::FILE),
            [7; crate::access::module_keys::SECRET_BYTES],
        )
        .unwrap();
        let module: Identity = "gw/m".parse().unwrap();
        let mut running = gateway.start().await;
        let mut earlier: Vec<[String; 3]> = Vec::new();
        for round in 0..3 {
            assign(&running, 2 * round + 1, true).await;
            running.deployments.take_up().await.unwrap();
            let here = fingerprints(&running, dir);
            for earlier in &earlier {
                let is_same = here.iter().zip(earlier).any(|(here, earlier)| here == earlier);
                assert!(!is_same, "round {round}, {steps} steps: {here:?}, {earlier:?}");
            }
            let waiting = |running: &Running| {
                let stats = running.queues.stats().into_iter().find(|queue| queue.name == "inputs/m");
                stats.map_or(0, |queue| queue.stats.records)
            };
            assert_eq!(waiting(&running), 0, "round {round}, {steps} steps");
            let twin = running.twins.get(&module).reported.properties;
            assert!(twin.is_empty(), "round {round}, {steps} steps: {twin:?}");
            // A restart makes it no other one.
            running.stop().await;
            running = gateway.start().await;
            assert_eq!(fingerprints(&running, dir), here);
            earlier.push(here);

            let patch = json!({"serial": "old"});
            running.twins.report(&module, patch.as_object().unwrap(), || true).await.unwrap();
            let sink = Sink::Input { module: "m".parse().unwrap(), input: "i".into() };
            let record = crate::messages::record::encode("devices/gw/modules/m/inputs/i/", b"old").unwrap();
            let append = running.queues.append(&sink, QueueClass::DEFAULT, record, None, None).unwrap();
            append.await.unwrap();
            assert_eq!(waiting(&running), 1);

            assign(&running, 2 * round + 2, false).await;
            if steps > 0 {
                let removal = running.removals.begin().await;
                running.deployments.consider(&removal, None);
                if steps > 1 {
                    removal.finish().await.unwrap();
                }
            }
            if steps < 3 {
                running.stop().await;
                running = gateway.start().await;
                running.removals.finish().await.unwrap();
            }
        }
        let first = ModuleKeys::load(dir).unwrap();
        let module: ModuleId = "m".parse().unwrap();
        assert_eq!(
            earlier[0][0],
            format!("{:?}", first.key(&module)),
            "the key of a first one is what it was"
        );
        assert_eq!(earlier[0][1], first.generation_id(&module));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_route_is_reported_by_name_and_stays_as_it_was_while_the_others_change() {
    let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
    let running = gateway.start().await;
    running.central_wants(1, json!({"a": "FROM /messages/modules/m/outputs/a INTO $upstream"})).await;
    assert!(running.acceptance().routes_refused.is_empty());
    running
        .central_wants(
            2,
            json!({
                "a": "FROM /messages/* WHERE x == 1 INTO $upstream",
                "b": "FROM /messages/modules/m/outputs/b INTO $upstream",
                "c": {"route": "FROM /* INTO $upstream", "priority": 10},
            }),
        )
        .await;
    let acceptance = running.acceptance();
    assert_eq!(acceptance.problem, None);
    let path = "modulesContent.$edgeHub.properties.desired.routes";
    let refusals = [
        format!(
            "{path}.a: found \"=\" at line 1, column 27; write one = for equality; the route stays as it was before"
        ),
        format!("{path}.c.priority: found 10; write an integer from 0 to 9; the route is left out"),
    ];
    assert_eq!(acceptance.routes_refused, refusals);
    let goes = |running: &Running| ["a", "b", "c"].map(|output| running.goes_upstream(output));
    assert_eq!(goes(&running), [true, true, false]);
    running.stop().await;

    let running = gateway.start().await;
    assert_eq!(running.acceptance().routes_refused, refusals, "a restart changes nothing");
    assert_eq!(goes(&running), [true, true, false]);
    running.central_wants(3, json!({"b": "FROM /messages/modules/m/outputs/b INTO $upstream"})).await;
    assert!(running.acceptance().routes_refused.is_empty());
    assert_eq!(goes(&running), [false, true, false], "a route that nobody wants any more is gone");
    running.stop().await;
}

#[tokio::test]
async fn a_manifest_given_on_the_gateway_with_a_wrong_route_changes_nothing() {
    let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
    let running = gateway.start().await;
    running.central_wants(1, json!({"a": "FROM /messages/modules/m/outputs/a INTO $upstream"})).await;
    let document = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1"}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {
            "b": "FROM /messages/modules/m/outputs/b INTO $upstream", "z": "FROM /* INTO nowhere"
        }}}
    }});
    let refused = running.deployments.apply(&document, "command line").await.unwrap_err();
    assert!(
        refused.to_string().contains("routes.z: found sink \"nowhere\" at line 1, column 14"),
        "{refused}"
    );
    assert!(running.goes_upstream("a") && !running.goes_upstream("b"));
    assert_eq!(running.acceptance().versions.unwrap().edge_hub, 1);
    running.stop().await;
}

fn permits(policy: &str) -> HostPolicy {
    let text =
        format!("device_id = \"gw\"\nhostname = \"edge\"\ndata_dir = \"/d\"\n[deploy.policy]\n{policy}\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.toml");
    std::fs::write(&path, text).unwrap();
    HostPolicy::new(&crate::config::Config::load(&path).unwrap())
}

/// A module that asks for the host's processes, and a route.
fn privileged() -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"m": {
            "settings": {"image": "a:1", "createOptions": "{\"HostConfig\":{\"PidMode\":\"host\"}}"}
        }}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {
            "a": "FROM /messages/modules/m/outputs/a INTO $upstream"
        }}}
    }})
}

const REFUSED: &str = "modules.m.settings.createOptions.HostConfig.PidMode: found `host`";

#[tokio::test]
async fn a_manifest_that_the_policy_does_not_permit_changes_nothing_from_wherever_it_comes() {
    let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
    let running = gateway.start_with(permits("host_namespaces = \"none\"")).await;
    running.central_wants(1, json!({"a": "FROM /messages/modules/x/outputs/a INTO $upstream"})).await;
    let before = running.twins.get(&running.deployments.identity(ModuleId::edge_agent())).desired;
    let in_force = running.outputs.reconciler.borrow().clone();
    let error = running.deployments.apply(&privileged(), "command line").await.unwrap_err();
    assert!(matches!(error, ApplyError::Refused(_)) && error.to_string().contains(REFUSED), "{error}");
    let after = running.twins.get(&running.deployments.identity(ModuleId::edge_agent())).desired;
    assert_eq!(before, after);

    let sections = Manifest::sections(&privileged()).unwrap();
    for (module, properties) in sections {
        let section = Section { version: 2, properties };
        let identity = running.deployments.identity(module);
        let _ = running.twins.desired_from_central(&identity, section, || true);
    }
    running.deployments.take_up().await.unwrap();
    let problem = running.acceptance().problem.unwrap();
    assert!(problem.contains(REFUSED), "{problem}");
    assert_eq!(*running.outputs.reconciler.borrow(), in_force);
    assert!(running.outputs.rules.borrow().modules.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_policy_made_stricter_leaves_containers_alone_and_lets_telemetry_flow() {
    let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
    let running = gateway.start().await;
    running.deployments.apply(&privileged(), "command line").await.unwrap();
    running.stop().await;

    let running = gateway.start_with(permits("host_namespaces = [\"ipc\"]")).await;
    assert!(running.goes_upstream("a"));
    assert_eq!(*running.outputs.reconciler.borrow(), None);
    let problem = running.acceptance().problem.unwrap();
    assert!(problem.contains(REFUSED), "{problem}");
    running.stop().await;

    let running = gateway.start_with(permits("host_namespaces = [\"pid\"]")).await;
    assert_eq!(running.acceptance().problem, None);
    assert!(running.outputs.reconciler.borrow().is_some());
    running.stop().await;
}

/// Every field of a manifest that may hold a text, each with the mark in it.
#[tokio::test]
async fn a_manifest_with_a_redacted_secret_is_refused_by_field_at_every_api() {
    let document = |redacted: &str| {
        let at =
            |place: &str, text: &str| if place == redacted { REDACTED.to_owned() } else { text.to_owned() };
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {"settings": {"registryCredentials": {"r": {
                    "username": at("username", "u"), "password": at("password", "p"), "address": "registry.plant"
                }}}},
                "modules": {"m": {
                    "settings": {"image": "a:1", "createOptions": format!("{{\"Env\":[\"A={}\"]}}", at("createOptions", "x"))},
                    "env": {"B": {"value": at("value", "y")}}
                }}
            }},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {
                "a": format!("FROM /messages/* WHERE k = '{}' INTO $upstream", at("a", "z"))
            }}},
            "m": {"properties.desired": {"apiKey": at("apiKey", "k")}}
        }})
    };
    let gateway = Gateway { dir: tempfile::tempdir().unwrap() };
    let running = gateway.start().await;
    running.deployments.apply(&document(""), "command line").await.unwrap();
    let desired = |module| running.twins.get(&running.deployments.identity(module)).desired;
    let desired_now =
        || running.outputs.reconciler.borrow().clone().map(|deployment| deployment.desired.clone());
    let in_force = desired_now();
    for (number, place) in (2..).zip(["username", "password", "createOptions", "value", "a", "apiKey"]) {
        let before = [ModuleId::edge_agent(), ModuleId::edge_hub(), "m".parse().unwrap()].map(desired);
        let refused = running.deployments.apply(&document(place), "command line").await.unwrap_err();
        assert!(matches!(refused, ApplyError::Refused(_)), "{refused}");
        let named = refused.to_string();
        assert!(named.contains(&format!("{place}: found `{REDACTED}`")), "{place}: {named}");
        let after = [ModuleId::edge_agent(), ModuleId::edge_hub(), "m".parse().unwrap()].map(desired);
        assert_eq!(before, after, "{place}");
        if place == "apiKey" {
            continue;
        }
        // The same from central: told as the deployment's problem, and the one before stays.
        for (module, properties) in Manifest::sections(&document(place)).unwrap() {
            let identity = running.deployments.identity(module);
            let section = Section { version: number, properties };
            let _ = running.twins.desired_from_central(&identity, section, || true);
        }
        running.deployments.take_up().await.unwrap();
        let problem = running.acceptance().problem.unwrap_or_default();
        assert!(problem.contains(&format!("{place}: found `{REDACTED}`")), "{place}: {problem}");
        assert_eq!(desired_now(), in_force, "{place}");
        running.deployments.apply(&document(""), "command line").await.unwrap();
    }
    running.stop().await;
}
