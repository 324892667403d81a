//! An engine that fails or hangs at one kind of call, once or for a while, in the middle of a rollout: the rollout ends whole, and an
//! operator reads why it does not go on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::assert_answers_in_time;
use super::faults::{ANSWER, CALLS, Call, Fault, FaultyEngine};
use super::gateway::{Gateway, IDLE, docker, idle, side_by_side, until};
use super::kills::{manifests, settled};
use super::{IMAGE, NEEDS};

/// How long a fault lasts that is not over at once.
const FOR: Duration = Duration::from_secs(10);
/// Gateways at one time.
const AT_ONE_TIME: usize = 6;
/// A machine that is never out of such calls.
const ALL: u32 = u32::MAX;

/// A gateway with a container of somebody else beside it, behind an engine that can fail.
struct Scene {
    gateway: Gateway,
    engine: FaultyEngine,
    untouched: [String; 2],
}

impl Scene {
    fn new(id: &str) -> Self {
        let mut gateway = Gateway::new(id, 1);
        let engine = FaultyEngine::start(&gateway.data());
        gateway.start(&engine.socket());
        gateway.apply(&manifests()[0]).expect("it is verified");
        // Removed with the others: its name begins as theirs do.
        docker(&["run", "-d", "--name", &gateway.name("foreign"), IMAGE, IDLE]).expect("it runs");
        let untouched = Self::found(&gateway);
        Self { gateway, engine, untouched }
    }

    fn found(gateway: &Gateway) -> [String; 2] {
        ["same", "foreign"].map(|name| gateway.container(name).expect("it is there"))
    }

    /// Begins the rollout of the second manifest; `pull` asks for its images in a registry.
    fn begin(&self, has_pull: bool) {
        let mut modules = manifests()[1].clone();
        if has_pull {
            for (_, module) in &mut modules {
                module["imagePullPolicy"] = json!("on-create");
            }
        }
        let file = self.gateway.manifest(json!({}), &modules);
        self.gateway.agent(&["apply", &file]).expect("it is accepted");
    }

    /// The deployment in its end; what did not change, and what is somebody else's, is as it was.
    fn end(&self, at: &str) -> Value {
        let now = settled(&self.gateway, at);
        assert_eq!(Self::found(&self.gateway), self.untouched, "{at}: it was touched");
        let latest = self.gateway.json(&["history"])[0].clone();
        let expected = if now == 1 { "verified" } else { "rolledBack" };
        assert_eq!(latest["state"], expected, "{at}: {latest}");
        latest
    }
}

#[test]
fn a_rollout_survives_one_failure_of_the_engine_at_any_call() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    side_by_side(&CALLS, AT_ONE_TIME, |&call| {
        let scene = Scene::new(&format!("lineside-test-once-{}", call.name));
        // A pull is not let through: the registry of the world has nothing to say here.
        let is_read =
            matches!(call.name, "list" | "inspect" | "image" | "network" | "version" | "events" | "pull");
        let fault = if is_read { Fault::Fails } else { Fault::FailsAfterwards };
        scene.engine.arm(call, fault, 1);
        scene.begin(call.name == "pull");
        // The events are followed already, and begin anew only with the next fault of the engine.
        if call.name != "events" {
            until(&format!("{}: the call", call.name), || (scene.engine.met() == 1).then_some(()));
        }
        let latest = scene.end(call.name);
        assert_eq!(latest["state"], "verified", "{}: {latest}", call.name);
    });
}

#[test]
fn a_rollout_ends_whole_after_an_engine_that_failed_for_a_while_at_any_call_and_status_says_why() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let calls: Vec<Call> =
        CALLS.into_iter().filter(|call| !["pull", "events"].contains(&call.name)).collect();
    side_by_side(&calls, AT_ONE_TIME, |&call| {
        let scene = Scene::new(&format!("lineside-test-while-{}", call.name));
        scene.engine.arm(call, Fault::Fails, ALL);
        scene.begin(false);
        is_survived(&scene, call.name, ANSWER);
    });
}

#[test]
fn a_rollout_ends_whole_after_an_engine_that_hung_for_a_while_and_status_says_why() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let calls = ["version", "list", "inspect", "image"].map(Call::named);
    side_by_side(&calls, AT_ONE_TIME, |&call| {
        let scene = Scene::new(&format!("lineside-test-hung-{}", call.name));
        scene.engine.arm(call, Fault::Hangs, ALL);
        scene.begin(call.name == "image");
        is_survived(&scene, call.name, "has not answered for 30 s");
    });
}

/// While the fault lasts, operators are answered in time and read the reason; afterwards the rollout comes to its end.
fn is_survived(scene: &Scene, at: &str, reason: &str) {
    let begun = Instant::now();
    until(&format!("{at}: the reason in the status"), || {
        let status = scene.gateway.json(&["status"])["deployment"].clone();
        let said = ["description", "problem", "reason"].map(|key| status[key].to_string());
        said.iter().any(|text| text.contains(reason)).then_some(())
    });
    assert_answers_in_time(&scene.gateway, at);
    until(&format!("{at}: a while"), || (begun.elapsed() >= FOR).then_some(()));
    scene.engine.lift();
    scene.end(at);
}

#[test]
fn an_engine_that_gives_no_events_is_reported_and_modules_are_supervised_all_the_same() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-no-events", 1);
    let engine = FaultyEngine::start(&gateway.data());
    engine.arm(Call::named("events"), Fault::Fails, ALL);
    gateway.start(&engine.socket());
    let file = gateway.manifest(json!({}), &[("a", idle(1))]);
    gateway.agent(&["apply", &file]).unwrap();
    let line = || gateway.agent(&["status"]).unwrap();
    until("the status says so", || line().contains("gives no events").then_some(()));
    assert!(line().contains(ANSWER), "{}", line());
    until("the module runs", || gateway.is_running("a").then_some(()));
    docker(&["kill", &gateway.name("a")]).unwrap();
    until("the module runs again", || gateway.is_running("a").then_some(()));
    engine.lift();
    until("the status says that nothing is wrong", || line().contains("everything as wanted").then_some(()));
    until("the deployment is verified", || {
        (gateway.json(&["history"])[0]["state"] == "verified").then_some(())
    });
}

#[test]
fn what_ends_before_the_engine_has_the_request_for_its_events_is_in_them() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-late-events", 0);
    let engine = FaultyEngine::start(&gateway.data());
    gateway.start(&engine.socket());
    gateway.apply(&[("a", idle(1))]).unwrap();
    gateway.stop();
    engine.arm(Call::named("events"), Fault::Late, ALL);
    gateway.start(&engine.socket());
    let module = || gateway.json(&["list"])[gateway.name("a")].clone();
    until("a is seen, and events are requested", || {
        (engine.met() == 1 && module()["status"] == "running").then_some(())
    });
    docker(&["kill", &gateway.name("a")]).unwrap();
    engine.lift();
    until("the end is noticed", || (module()["restarts"] == 1).then_some(()));
    // By its event, and not a minute after the last look.
    assert!(engine.line().contains("since="), "{}", engine.line());
}
