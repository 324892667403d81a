//! The gateway's HTTPS listener as modules use it: methods of leaf devices and of other modules, over real programs. No
//! containers needed: what a module sends is sent from here.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_core::access::sas;
use rumqttc::{Event, Packet, QoS};
use serde_json::{Value, json};
use site_tests::leaf::trust;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const STEP: Duration = Duration::from_secs(60);

/// A manifest whose modules have no image here: they are known, and that is enough to call.
fn manifest() -> Value {
    let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|key, _| key.starts_with('$'));
    let module = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "never",
        "imagePullPolicy": "never", "settings": {"image": "lineside-test/none:1", "createOptions": "{}"},
    });
    content["$edgeAgent"]["properties.desired"]["modules"] = json!({"caller": module});
    manifest
}

/// A token of this gateway's hub.
fn token(identity: &str, key: &[u8], valid_secs: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    sas::token("localhost", &identity.parse().unwrap(), key, now + valid_secs)
}

struct Caller {
    tls: TlsConnector,
    port: u16,
}

impl Caller {
    async fn post(&self, path: &str, who: &str, token: &str, body: &Value) -> (u16, Value) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = self.tls.connect(name, stream).await.unwrap();
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nx-ms-edge-moduleId: {who}\r\nAuthorization: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}

#[tokio::test]
async fn a_module_calls_a_leaf_device_and_gets_the_answer_and_everybody_else_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "https-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let file = dir.path().join("manifest.json");
    std::fs::write(&file, manifest().to_string()).unwrap();
    let (code, _, error) =
        run(&mut site.agent_command(&["apply", file.to_str().unwrap()]).unwrap()).await.unwrap();
    assert_eq!(code, 0, "{error}");

    let leaf = site.add_leaf("leaf", Duration::from_secs(1)).await.unwrap();
    let (client, mut events) = leaf.client(10);
    tokio::spawn(async move {
        client.subscribe("$iothub/methods/POST/#", QoS::AtLeastOnce).await.unwrap();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::Publish(call))) if !call.topic.contains("/silent/") => {
                    let request_id = call.topic.split("$rid=").nth(1).unwrap();
                    let answer = format!("$iothub/methods/res/404/?$rid={request_id}");
                    client.publish(answer, QoS::AtLeastOnce, false, call.payload).await.unwrap();
                }
                Ok(_) => {}
                // Not attached yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    site.leaf_connected("leaf", STEP).await.unwrap();

    let key = std::fs::read(dir.path().join("gateway/module-key")).unwrap();
    let key = sas::sign(&key, b"key caller");
    let own = token("https-gateway/caller", &key, 600);
    let who = "https-gateway/caller";
    let trust = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
    let caller = Caller { tls: TlsConnector::from(trust), port: site.gateway_https };
    // The SDKs send a version, or none; the target's own status is its own.
    let body = json!({"methodName": "echo", "payload": {"a": [1]}, "connectTimeoutInSeconds": 30});
    for path in ["/twins/leaf/methods?api-version=2019-10-01", "/twins/leaf/methods"] {
        let answer = caller.post(path, who, &own, &body).await;
        assert_eq!(answer, (200, json!({"status": 404, "payload": {"a": [1]}})));
    }
    let silent = json!({"methodName": "silent", "responseTimeoutInSeconds": 5});
    let leafs_own = token("leaf", &leaf.key, 600);
    // Clocks may differ by five minutes.
    let expired = sas::token("localhost", &who.parse().unwrap(), &key, 1_000_000);
    let echo = json!({"methodName": "echo"});
    for (path, who, token, body, status, part) in [
        ("/twins/leaf/methods", who, own.as_str(), &silent, 504, "leaf"),
        ("/twins/away/methods", who, &own, &echo, 404, "not connected"),
        ("/twins/https-gateway/modules/caller/methods", who, &own, &echo, 404, "not connected"),
        (
            "/twins/https-gateway/modules/%24edgeAgent/methods",
            who,
            &own,
            &json!({"methodName": "ping"}),
            404,
            "not",
        ),
        ("/twins/leaf/methods", "caller", &own, &echo, 401, "caller"),
        ("/twins/leaf/methods", "leaf", &leafs_own, &echo, 401, "caller"),
        ("/twins/leaf/methods", "https-gateway/other", &own, &echo, 401, "caller"),
        ("/twins/leaf/methods", who, &leafs_own, &echo, 401, "caller"),
        ("/twins/leaf/methods", who, &expired, &echo, 401, "caller"),
        ("/twins/leaf/methods", who, &own, &json!({"methodName": ""}), 400, "methodName"),
        ("/twins/leaf/methods", who, &own, &json!(7), 400, "the body"),
        ("/twins/leaf", who, &own, &echo, 404, "/mqtt"),
    ] {
        let (found, answer) = caller.post(path, who, token, body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(part), "{path} of {who}: {found} {answer}");
    }
    // New certificate files are served without a restart, by the change and by SIGHUP.
    let told =
        std::process::Command::new("kill").arg("-HUP").arg(site.agent_id().unwrap().to_string()).status();
    assert!(told.unwrap().success());
    eventually("SIGHUP is logged", STEP, || async { Ok(site.agent_log().contains("SIGHUP").then_some(())) })
        .await
        .unwrap();
    assert_eq!(caller.post("/twins/leaf/methods", who, &own, &body).await.0, 200);
    site.end(true).await.unwrap();
}
