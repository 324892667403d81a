//! Modules under a daemon that is started again, containers that somebody removes, an engine that hangs, and what is left behind.

use std::os::unix::net::UnixListener;

use edge_agent::deployment::artifacts::Artifacts;
use edge_agent::deployment::docker::Engine;
use edge_agent::deployment::history::History;
use edge_agent::state::State;
use edge_core::deploy::observed::Observed;
use serde_json::{Value, json};

use super::gateway::{Gateway, SOCKET, docker, idle, module, until};
use super::{IMAGE, NEEDS};

#[test]
fn a_module_whose_container_somebody_removes_runs_again_and_nobody_is_accused() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-removed", 1);
    gateway.start(SOCKET);
    gateway.apply(&[("a", idle(1)), ("b", idle(1))]).unwrap();
    let unchanged = gateway.container("b").unwrap();
    for _ in 0..3 {
        let before = gateway.container("a").unwrap();
        docker(&["rm", "-f", &gateway.name("a")]).unwrap();
        until("a runs again", || {
            (gateway.is_running("a") && gateway.container("a").as_ref() != Ok(&before)).then_some(())
        });
    }
    assert_eq!(gateway.container("b").unwrap(), unchanged);
    assert!(!gateway.log().contains("is not this gateway's"), "{}", gateway.log());
    assert!(!gateway.log().contains("step failed"), "{}", gateway.log());
}

#[test]
fn the_restarts_of_a_module_are_counted_on_when_the_daemon_is_started_again() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-counted", 0);
    gateway.start(SOCKET);
    gateway.apply(&[("a", idle(1))]).unwrap();
    let restarts = |gateway: &Gateway| gateway.json(&["list"])[gateway.name("a")]["restarts"].clone();
    docker(&["kill", &gateway.name("a")]).unwrap();
    until("a restart", || (restarts(&gateway) == 1 && gateway.is_running("a")).then_some(()));
    gateway.stop();
    gateway.start(SOCKET);
    until("a is looked at", || {
        (gateway.json(&["list"])[gateway.name("a")]["status"] == "running").then_some(())
    });
    assert_eq!(restarts(&gateway), 1);
    gateway.agent(&["restart", &gateway.name("a")]).unwrap();
    until("a restart by hand counts anew", || (restarts(&gateway) == 0).then_some(()));
}

#[test]
fn a_plan_ends_with_a_message_when_the_engine_hangs() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let gateway = Gateway::new("lineside-test-hangs", 0);
    let socket = gateway.data().with_file_name("hangs.sock");
    let _nobody_answers = UnixListener::bind(&socket).unwrap();
    let file = gateway.manifest(json!({}), &[("a", idle(1))]);
    let socket = socket.display().to_string();
    let (code, message) =
        gateway.agent_with(&["plan", &file], &[("EDGE_AGENT__DOCKER__SOCKET", &socket)]).unwrap_err();
    assert!(code == 1 && message.contains("has not answered for 10 s"), "{code} {message}");
}

#[test]
fn volumes_of_containers_are_removed_when_no_deployment_to_go_back_to_had_them() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-volumes", 0);
    gateway.start(SOCKET);
    let with_volume =
        |level: u32| module(json!({"Volumes": {"/data": {}}}), json!({"env": {"LEVEL": {"value": level}}}));
    let mut volumes = Vec::new();
    for level in 1..=5 {
        gateway.apply(&[("a", with_volume(level))]).unwrap();
        let mounts = docker(&["inspect", "-f", "{{json .Mounts}}", &gateway.name("a")]).unwrap();
        let mounts: Value = serde_json::from_str(&mounts).unwrap();
        let mut of_kind = mounts.as_array().unwrap().iter().filter(|mount| mount["Type"] == "volume");
        volumes.push(of_kind.next().unwrap()["Name"].as_str().unwrap().to_owned());
        // Seen before it is replaced.
        until("the deployment is in force", || {
            (gateway.json(&["history"])[0]["state"] == "verified").then_some(())
        });
    }
    let is_there = |volume: &String| docker(&["volume", "inspect", volume]).is_ok();
    until("the old ones are gone", || (!volumes[..3].iter().any(is_there)).then_some(()));
    assert!(volumes[3..].iter().all(is_there), "the last two deployments can be gone back to");
    let _removed_with_the_container = docker(&["volume", "rm", &volumes[3]]);
}

#[tokio::test]
async fn an_image_that_was_pulled_is_removed_when_nothing_needs_it_and_stays_while_somebody_does() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let gateway = Gateway::new("lineside-test-images", 0);
    let make = |level: u32| {
        let (container, tag) = (gateway.name("made"), format!("lineside/test-garbage:{level}"));
        docker(&["create", "--name", &container, IMAGE, "true"]).unwrap();
        docker(&["commit", "--change", &format!("ENV LEVEL={level}"), &container, &tag]).unwrap();
        docker(&["rm", &container]).unwrap();
        docker(&["image", "inspect", "-f", "{{.Id}}", &tag]).unwrap()
    };
    let images: Vec<String> = (1..=4).map(make).collect();
    docker(&["tag", &images[1], "lineside/test-garbage:of-somebody"]).unwrap();
    docker(&["create", "--name", &gateway.name("of-somebody"), &images[2], "true"]).unwrap();
    let state = State::open(&gateway.data().join("state")).unwrap();
    let artifacts = Artifacts::load(state.clone());
    // The last one was on the machine before.
    for image in &images[..3] {
        artifacts.pulled(image.clone());
    }
    let history = History::load(state);
    let is_there = |image: &String| docker(&["image", "inspect", image]).is_ok();
    let collect = async |is_verified| {
        artifacts.collect(&Engine::new(SOCKET.into()), &history, &Observed::default(), is_verified).await;
        images.iter().map(is_there).collect::<Vec<bool>>()
    };
    assert_eq!(collect(false).await, [true; 4], "another try may need them");
    assert_eq!(collect(true).await, [false, true, true, true]);
    docker(&["rmi", "lineside/test-garbage:of-somebody"]).unwrap();
    docker(&["rm", &gateway.name("of-somebody")]).unwrap();
    assert_eq!(collect(true).await, [false, false, false, true], "they are tried again");
    docker(&["rmi", "lineside/test-garbage:4"]).unwrap();
}
