//! Modules of Azure's Python and Node SDKs in containers, configured by nothing but the edge environment: outputs and
//! inputs over routes, methods, twins, and an agent that restarts under them.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind, scripts};
use site_tests::docker::docker;
use site_tests::process::run;
use site_tests::rest::{Rest, eventually};
use site_tests::site::Site;
use site_tests::{docker, job};
use tokio::process::Command;

/// A device behind the same gateway, of which modules call a method.
const LEAF: &str = "modules-leaf";

fn image(kind: &str) -> String {
    format!("lineside-test/{kind}-module:1")
}

/// Two modules, each of which hears on input `in1` what the other sends to output `next`; everything also goes up.
fn manifest() -> Value {
    let module = |kind: &str| {
        json!({
            "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
            "imagePullPolicy": "never", "settings": {"image": image(kind), "createOptions": "{}"},
        })
    };
    let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|key, _| key.starts_with('$'));
    content["$edgeAgent"]["properties.desired"]["modules"] =
        json!({"python": module("python"), "node": module("node")});
    content["$edgeHub"]["properties.desired"]["routes"] = json!({
        "pythonToNode": "FROM /messages/modules/python/outputs/next INTO BrokeredEndpoint(\"/modules/node/inputs/in1\")",
        "nodeToPython": "FROM /messages/modules/node/outputs/next INTO BrokeredEndpoint(\"/modules/python/inputs/in1\")",
        "upstream": "FROM /messages/* INTO $upstream",
    });
    content.insert("python".into(), json!({"properties.desired": {"round": 0}}));
    content.insert("node".into(), json!({"properties.desired": {"round": 0}}));
    manifest
}

/// Calls a module's direct method through central.
async fn call(rest: &Rest, gateway: &str, module: &str, method: &str, request: &Value) -> Value {
    let path = format!("/api/devices/{gateway}/modules/{module}/commands/{method}");
    // After a restart of the agent an SDK comes back in its own time: the call waits for it.
    let body = json!({"request": request, "responseTimeout": 60, "connectionTimeout": 60});
    let answer = rest.post(&path, &body).await.unwrap();
    assert_eq!(answer["responseCode"], 200, "{answer}");
    answer["response"].clone()
}

/// Waits until both modules and the leaf device answer a method again: each SDK comes back in its own time after a restart of the agent,
/// and a module's own call of another's method does not wait.
async fn all_are_back(site: &Site) {
    let rest = site.rest().unwrap();
    let gateway = format!("/api/devices/{}/modules", site.gateway);
    for path in [format!("{gateway}/python"), format!("{gateway}/node"), format!("/api/devices/{LEAF}")] {
        let path = format!("{path}/commands/echo");
        let body = json!({"request": {"is": "back"}, "responseTimeout": 60, "connectionTimeout": 60});
        eventually(&format!("an answer of {path}"), STEP, || async {
            let answer = rest.post(&path, &body).await?;
            Ok((answer["responseCode"] == 200).then_some(()))
        })
        .await
        .unwrap();
    }
}

/// What a module's SDK can do, once: `from` sends, `to` hears it. Their events are read from the containers' logs.
async fn everything_works(
    site: &Site,
    from: &str,
    to: &str,
    heard: &mut Client,
    receiver: &mut Client,
    round: u64,
) {
    let rest = site.rest().unwrap().clone();
    let gateway = site.gateway.as_str();

    let echoed = json!({"round": round, "text": "grüß dich"});
    assert_eq!(call(&rest, gateway, from, "echo", &echoed).await, echoed);

    // Output to input over a route, with properties, and the same message up to central.
    let body = json!({"from": from, "round": round}).to_string();
    let send = json!({"do": "send", "output": "next", "body": body, "properties": {"a&b": "c = d/e"}});
    call(&rest, gateway, from, "do", &send).await;
    let message = heard.event_where("message", STEP, |event| event["body"] == body.as_str()).await.unwrap();
    assert_eq!(message["input"], "in1", "{message}");
    assert_eq!(message["properties"]["a&b"], "c = d/e", "{message} at {to}");
    assert_eq!(message["content_type"], "application/json", "{message}");
    eventually("the output in central", STEP, || async {
        let mut messages = rest.messages(gateway).await?.into_iter();
        let is_it = |m: &Value| m["module"] == from && m["body"]["round"] == round;
        Ok(messages.any(|message| is_it(&message)).then_some(()))
    })
    .await
    .unwrap();

    // A method of the other module, and of a leaf device, through the gateway's HTTPS endpoint.
    for target in [json!({"device": gateway, "module": to}), json!({"device": LEAF})] {
        let mut invoke =
            json!({"do": "invoke", "method": "echo", "payload": {"asked by": from, "round": round}});
        invoke.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        let answer = call(&rest, gateway, from, "do", &invoke).await;
        assert_eq!(
            (&answer["status"], &answer["payload"]),
            (&json!(200), &invoke["payload"]),
            "{target}: {answer}"
        );
    }

    // A wish of central's arrives as a patch, and what the module reports arrives in central.
    let path = format!("/api/devices/{gateway}/modules/{from}/properties");
    rest.patch(&path, &json!({"round": round})).await.unwrap();
    receiver.event_where("desired", STEP, |event| event["patch"]["round"] == round).await.unwrap();
    call(&rest, gateway, from, "do", &json!({"do": "report", "patch": {"round": round}})).await;
    eventually("the reported section in central", STEP, || async {
        let twin = rest.get(&format!("/api/ext/devices/{gateway}/twin?module={from}")).await?;
        Ok((twin["reported"]["round"] == round).then_some(()))
    })
    .await
    .unwrap();
    let twin = call(&rest, gateway, from, "do", &json!({"do": "twin"})).await;
    assert_eq!(twin["desired"]["round"], round, "{twin}");
}

async fn in_both_directions(site: &Site, python: &mut Client, node: &mut Client, round: u64) {
    all_are_back(site).await;
    everything_works(site, "python", "node", node, python, round).await;
    // The same functions with the parts exchanged: Node's output, Python's input.
    everything_works(site, "node", "python", python, node, round + 100).await;
}

async fn leaf(site: &Site) -> Client {
    site.add_leaf(LEAF, Duration::ZERO).await.unwrap();
    let key = site.key(LEAF).await.unwrap();
    let mut command = Kind::AzurePython.command("azure_client.py").unwrap();
    command.arg("device");
    let mut client = Client::start(LEAF, command, &site.dir.join("leaf.log")).unwrap();
    let how = json!({
        "connection_string":
            format!("HostName=localhost;DeviceId={LEAF};SharedAccessKey={key};GatewayHostName=localhost"),
        "ca": site.gateway_ca(),
    });
    client.command(&how).await.unwrap();
    client
}

/// What a module's container prints, from its start on.
fn follow(site: &Site, module: &str) -> Client {
    let mut command = Command::new("docker");
    command.args(["logs", "--follow", module]);
    Client::start(module, command, &site.dir.join(format!("{module}.log"))).unwrap()
}

#[tokio::test]
async fn python_and_node_modules_in_containers_do_everything_and_go_on_after_restarts_of_the_agent() {
    for kind in ["python", "node"] {
        let mut build = Command::new(scripts().join("build-module-image.sh"));
        let (code, out, error) = run(build.arg(kind).arg(image(kind))).await.unwrap();
        assert_eq!(code, 0, "{error}");
        print!("{out}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.json");
    std::fs::write(&file, manifest().to_string()).unwrap();
    let mut site = Site::new(dir.path(), "modules-gateway", true).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    job::assign(site.rest().unwrap(), &site.gateway, "modules", &file).await.unwrap();
    let running = job::containers_are(&site.network, &["node", "python"]).await.unwrap();

    let mut leaf = leaf(&site).await;
    leaf.event("ready", STEP).await.unwrap();
    let (mut python, mut node) = (follow(&site, "python"), follow(&site, "node"));
    python.event("ready", STEP).await.unwrap();
    node.event("ready", STEP).await.unwrap();
    in_both_directions(&site, &mut python, &mut node, 1).await;

    site.stop_agent().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    in_both_directions(&site, &mut python, &mut node, 2).await;

    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    in_both_directions(&site, &mut python, &mut node, 3).await;
    assert_eq!(docker::running(&site.network).await.unwrap(), running, "a container was restarted");

    leaf.end(STEP).await.unwrap();
    site.end(true).await.unwrap();
    for kind in ["python", "node"] {
        docker(&["rmi", &image(kind)]).await.unwrap();
    }
}
