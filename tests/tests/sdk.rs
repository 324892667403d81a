//! The unmodified Azure device SDKs for Python and Node as leaf devices of a gateway: send, receive, methods, twins, and
//! a gateway that restarts.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::device_certificate::DeviceCertificate;
use site_tests::rest::{Rest, eventually};
use site_tests::site::Site;

/// A site whose gateway listens where the SDKs connect: they know no other port than 8883 and 443.
async fn site(dir: &std::path::Path) -> Site {
    let mut site = Site::new(dir, "sdk-gateway", true).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site
}

fn script(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "azure_client.js",
        _ => "azure_client.py",
    }
}

/// Starts a device on what `how` says about its connection.
async fn device(site: &Site, kind: Kind, id: &str, how: Value) -> Client {
    let mut command = kind.command(script(kind)).unwrap();
    command.arg("device");
    let mut client = Client::start(id, command, &site.dir.join(format!("{id}.log"))).unwrap();
    client.command(&how).await.unwrap();
    client.event("ready", STEP).await.unwrap();
    client
}

/// How a device with a symmetric key connects.
async fn by_key(site: &Site, id: &str) -> Value {
    site.add_leaf(id, Duration::ZERO).await.unwrap();
    let key = site.key(id).await.unwrap();
    json!({
        "connection_string":
            format!("HostName=localhost;DeviceId={id};SharedAccessKey={key};GatewayHostName=localhost"),
        "ca": site.gateway_ca(),
    })
}

/// What a device can do at any time; `round` makes what it does different each time.
async fn everything_works(rest: &Rest, client: &mut Client, id: &str, round: u64) {
    // A message with properties that need escaping.
    let properties = json!({"line": "A&B", "plus+space": "1 + 1 = 2/1", "round": round.to_string()});
    client
        .command(
            &json!({"do": "send", "body": json!({"round": round}).to_string(), "properties": properties}),
        )
        .await
        .unwrap();
    client.event("sent", STEP).await.unwrap();
    let message = eventually("the message in central", STEP, || async {
        let messages = rest.messages(id).await?;
        Ok(messages.into_iter().find(|message| message["body"]["round"] == round))
    })
    .await
    .unwrap();
    for (key, value) in properties.as_object().unwrap() {
        assert_eq!(&message["properties"][key], value, "{message}");
    }

    // A cloud-to-device message.
    let body = format!("to the device {round}");
    send_to_device(rest, id, &body).await;
    receives(client, &body).await;

    // A direct method.
    let request = json!({"round": round, "text": "grüß dich", "list": [1, null, 2.5]});
    let path = format!("/api/devices/{id}/commands/echo");
    let answer = rest.post(&path, &json!({"request": request, "responseTimeout": 60})).await.unwrap();
    assert_eq!((&answer["responseCode"], &answer["response"]), (&json!(200), &request), "{answer}");
    let call = client.event("method", STEP).await.unwrap();
    assert_eq!((&call["name"], &call["payload"]), (&json!("echo"), &request));

    // The desired section, as a patch and as a whole.
    let desired = json!({"interval": round, "nested": {"limit": 20.5 + round as f64}});
    rest.patch(&format!("/api/devices/{id}/properties"), &desired).await.unwrap();
    let patch =
        client.event_where("desired", STEP, |event| event["patch"]["interval"] == round).await.unwrap();
    assert_eq!(patch["patch"]["nested"], desired["nested"], "{patch}");
    client.command(&json!({"do": "twin"})).await.unwrap();
    let twin = client.event("twin", STEP).await.unwrap();
    assert_eq!(twin["twin"]["desired"]["interval"], round, "{twin}");
    assert!(twin["twin"]["desired"]["$version"].as_u64() > Some(0), "{twin}");

    // The reported section; a null takes a key out.
    client.command(&json!({"do": "report", "patch": {"interval": round, "gone": round}})).await.unwrap();
    client.event("reported", STEP).await.unwrap();
    client.command(&json!({"do": "report", "patch": {"gone": null}})).await.unwrap();
    client.event("reported", STEP).await.unwrap();
    eventually("the reported section in central", STEP, || async {
        let twin = rest.get(&format!("/api/ext/devices/{id}/twin")).await?;
        let reported = &twin["reported"];
        Ok((reported["interval"] == round && reported.get("gone").is_none()).then_some(()))
    })
    .await
    .unwrap();
}

/// A cloud-to-device message arrives with its properties; `body` names it. The answer of the device is `positive` feedback.
async fn send_to_device(rest: &Rest, id: &str, body: &str) {
    let path = format!("/api/ext/devices/{id}/messages/devicebound");
    let message = json!({
        "bodyText": body, "messageId": format!("id of {body}"), "correlationId": "order 7", "ack": "full",
        "properties": {"a&b": "c = d/e", "empty": ""},
    });
    rest.post(&path, &message).await.unwrap();
}

async fn receives(client: &mut Client, body: &str) {
    let message = client.event_where("message", STEP, |event| event["body"] == body).await.unwrap();
    assert_eq!(message["message_id"], format!("id of {body}"), "{message}");
    assert_eq!(message["correlation_id"], "order 7", "{message}");
    // `iothub-ack` travels among them, as IoT Hub sends it; the Python SDK takes it out, the Node SDK does not.
    let properties = &message["properties"];
    assert_eq!((&properties["a&b"], &properties["empty"]), (&json!("c = d/e"), &json!("")), "{message}");
}

/// Everything, before and after the gateway is restarted in order and killed. The Python SDK never subscribes anew, so
/// that what works afterwards works by what the gateway kept.
async fn holds_over_restarts(site: &mut Site, kind: Kind, id: &str, how: Value) {
    let rest = site.rest().unwrap().clone();
    let mut client = device(site, kind, id, how).await;
    everything_works(&rest, &mut client, id, 1).await;

    site.stop_agent().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site.leaf_connected(id, STEP).await.unwrap();
    everything_works(&rest, &mut client, id, 2).await;

    site.kill_agent().await.unwrap();
    // While the gateway is away the wish changes, and a message comes: the device must learn of both.
    send_to_device(&rest, id, "meanwhile").await;
    rest.patch(&format!("/api/devices/{id}/properties"), &json!({"meanwhile": "changed"})).await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site.leaf_connected(id, STEP).await.unwrap();
    // Patches do not wait for who is away. The Python SDK reads the twin anew by itself and tells what has changed; the Node
    // SDK leaves that to the program.
    if kind == Kind::AzurePython {
        client.event_where("desired", STEP, |event| event["patch"]["meanwhile"] == "changed").await.unwrap();
    }
    let deadline = Instant::now() + STEP;
    loop {
        client.command(&json!({"do": "twin"})).await.unwrap();
        let twin = client.event("twin", STEP).await.unwrap();
        if twin["twin"]["desired"]["meanwhile"] == "changed" {
            break;
        }
        assert!(Instant::now() < deadline, "the device does not learn of the change: {twin}");
    }
    receives(&mut client, "meanwhile").await;
    everything_works(&rest, &mut client, id, 3).await;
    let repeated = client.unasked("message").len();
    assert_eq!(repeated, 0, "{repeated} messages came twice");
    client.end(STEP).await.unwrap();
}

/// How a device with a self-signed certificate connects; central knows the certificate.
async fn by_certificate(site: &Site, id: &str) -> Value {
    site.add_leaf(id, Duration::ZERO).await.unwrap();
    let files = DeviceCertificate::of(site, id).await.unwrap();
    json!({
        "certificate": files.certificate, "key": files.key, "hub": "localhost", "gateway": "localhost", "device": id,
        "ca": site.gateway_ca(),
    })
}

#[tokio::test]
async fn a_python_device_with_a_symmetric_key_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let how = by_key(&site, "python-sas").await;
    holds_over_restarts(&mut site, Kind::AzurePython, "python-sas", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_node_device_with_a_symmetric_key_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let how = by_key(&site, "node-sas").await;
    holds_over_restarts(&mut site, Kind::Node, "node-sas", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_python_device_over_websocket_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let mut how = by_key(&site, "python-ws").await;
    how["websockets"] = json!(true);
    holds_over_restarts(&mut site, Kind::AzurePython, "python-ws", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_python_device_with_a_certificate_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let how = by_certificate(&site, "python-x509").await;
    holds_over_restarts(&mut site, Kind::AzurePython, "python-x509", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_python_device_with_a_certificate_over_websocket_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let mut how = by_certificate(&site, "python-x509-ws").await;
    how["websockets"] = json!(true);
    holds_over_restarts(&mut site, Kind::AzurePython, "python-x509-ws", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_node_device_over_websocket_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let mut how = by_key(&site, "node-ws").await;
    how["websockets"] = json!(true);
    holds_over_restarts(&mut site, Kind::Node, "node-ws", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_node_device_with_a_certificate_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let how = by_certificate(&site, "node-x509").await;
    holds_over_restarts(&mut site, Kind::Node, "node-x509", how).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_node_device_with_a_certificate_over_websocket_does_everything_and_goes_on_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let mut how = by_certificate(&site, "node-x509-ws").await;
    how["websockets"] = json!(true);
    holds_over_restarts(&mut site, Kind::Node, "node-x509-ws", how).await;
    site.end(true).await.unwrap();
}

/// The identity certificate that the gateway's workload API gives to a module, in files; how the module connects with it.
async fn by_identity_certificate(site: &Site, module: &str) -> Value {
    let socket = site.dir.join(format!("gateway/workload/{module}/workload.sock"));
    eventually("the module's workload socket", STEP, || async { Ok(socket.exists().then_some(())) })
        .await
        .unwrap();
    let http = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let url = format!("http://workload.sock/modules/{module}/certificate/identity?api-version=2018-06-28");
    let answer: Value = http.post(url).send().await.unwrap().json().await.unwrap();
    let (certificate, key) = (site.dir.join("module.pem"), site.dir.join("module-key.pem"));
    std::fs::write(&certificate, answer["certificate"].as_str().unwrap()).unwrap();
    std::fs::write(&key, answer["privateKey"]["bytes"].as_str().unwrap()).unwrap();
    json!({
        "certificate": certificate, "key": key, "hub": "localhost", "gateway": "localhost",
        "device": site.gateway, "module": module, "ca": site.gateway_ca(),
    })
}

#[tokio::test]
async fn a_python_module_with_its_identity_certificate_sends_and_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    let rest = site.rest().unwrap().clone();
    let gateway = site.gateway.clone();
    // Known to the gateway is enough: this module runs here, not in a container.
    let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|key, _| key.starts_with('$'));
    content["$edgeAgent"]["properties.desired"]["modules"] = json!({"shown": {
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "never",
        "imagePullPolicy": "never", "settings": {"image": "lineside-test/none:1", "createOptions": "{}"}}});
    content["$edgeHub"]["properties.desired"]["routes"] = json!({"up": "FROM /messages/* INTO $upstream"});
    let file = dir.path().join("manifest.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    site_tests::job::assign(&rest, &gateway, "shown", &file).await.unwrap();

    let how = by_identity_certificate(&site, "shown").await;
    let mut module = device(&site, Kind::AzurePython, "shown", how).await;
    module.command(&json!({"do": "send", "body": "{\"n\": 1}", "output": "out1"})).await.unwrap();
    module.event("sent", STEP).await.unwrap();
    eventually("the module's message in central", STEP, || async {
        let mut messages = rest.messages(&gateway).await?.into_iter();
        Ok(messages.any(|m| m["module"] == "shown" && m["properties"]["$.on"] == "out1").then_some(()))
    })
    .await
    .unwrap();
    let answer = rest
        .post(&format!("/api/devices/{gateway}/modules/shown/commands/echo"), &json!({"request": {"a": 1}}))
        .await
        .unwrap();
    assert_eq!(answer["response"], json!({"a": 1}), "{answer}");
    module.end(STEP).await.unwrap();
    site.end(true).await.unwrap();
}
