//! HTTPS of both programs, real ones: the gateway's listener as modules use it (methods of leaf devices and of other modules), and
//! central's API as a script with curl uses it. No containers needed: what a module sends is sent from here.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::sas;
use edge_tls::pem::certificates;
use rumqttc::{Event, Packet, QoS};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::{Leaf, LeafOptions, trust};
use site_tests::patient;
use site_tests::port::free_port;
use site_tests::process::{Process, binary, run};
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

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

/// Listens for methods as this client, and answers each with what it was given; one called `silent` never.
fn answer_methods(options: &LeafOptions, status: u16) {
    let (client, mut events) = options.client(10);
    tokio::spawn(async move {
        client.subscribe("$iothub/methods/POST/#", QoS::AtLeastOnce).await.unwrap();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::Publish(call))) if !call.topic.contains("/silent/") => {
                    let request_id = call.topic.split("$rid=").nth(1).unwrap();
                    let answer = format!("$iothub/methods/res/{status}/?$rid={request_id}");
                    client.publish(answer, QoS::AtLeastOnce, false, call.payload).await.unwrap();
                }
                Ok(_) => {}
                // Not attached yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
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
    site.put_in_force(&file).await.unwrap();

    let leaf = site.add_leaf("leaf", Duration::from_secs(1)).await.unwrap();
    answer_methods(&leaf, 404);
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
        ("/twins/leaf/methods", who, &expired, &echo, 503, "clock"),
        ("/twins/leaf/methods", who, &own, &json!({"methodName": ""}), 400, "methodName"),
        ("/twins/leaf/methods", who, &own, &json!(7), 400, "the body"),
        ("/twins/leaf", who, &own, &echo, 404, "/mqtt"),
    ] {
        let (found, answer) = caller.post(path, who, token, body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(part), "{path} of {who}: {found} {answer}");
    }
    // New certificate files are served without a restart, by the change and by SIGHUP.
    let signalled =
        std::process::Command::new("kill").arg("-HUP").arg(site.agent_id().unwrap().to_string()).status();
    assert!(signalled.unwrap().success());
    eventually("SIGHUP is logged", STEP, || async { Ok(site.agent_log().contains("SIGHUP").then_some(())) })
        .await
        .unwrap();
    assert_eq!(caller.post("/twins/leaf/methods", who, &own, &body).await.0, 200);
    site.end(true).await.unwrap();
}

/// A caller over HTTPS: what it says of itself, and its token.
struct Who<'a> {
    what: &'a str,
    id: &'a str,
    token: String,
}

/// Who may call whom, over HTTPS and MQTT, at a gateway. (central's own listener: central/tests/methods.rs.)
#[tokio::test]
async fn only_modules_of_the_gateway_call_and_only_what_listens_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "rules-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let file = dir.path().join("manifest.json");
    std::fs::write(&file, manifest().to_string()).unwrap();
    site.put_in_force(&file).await.unwrap();
    let rest = site.rest().unwrap().clone();
    rest.put("/api/devices/elsewhere", &json!({})).await.unwrap();
    let gateway_key = STANDARD.decode(site.key("rules-gateway").await.unwrap()).unwrap();
    let secret = std::fs::read(dir.path().join("gateway/module-key")).unwrap();
    let module_key = sas::sign(&secret, b"key caller");
    let user = site.agent_json(&["user", "add", "plc"]).await.unwrap();
    let password = user["password"].as_str().unwrap().to_owned();

    // A leaf and the module itself listen and echo.
    let leaf = site.add_leaf("leaf", Duration::from_secs(1)).await.unwrap();
    let module = LeafOptions {
        identity: "rules-gateway/caller".parse().unwrap(),
        key: module_key.clone(),
        ..leaf.clone()
    };
    for options in [&leaf, &module] {
        answer_methods(options, 200);
    }
    site.leaf_connected("leaf", STEP).await.unwrap();

    let trusted = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
    let https = Caller { tls: TlsConnector::from(trusted), port: site.gateway_https };
    let who = |what, id, token| Who { what, id, token };
    let own = "rules-gateway/caller";
    let callers = [
        (who("a module", own, token(own, &module_key, 600)), true),
        (who("a module with its device's audience", own, token("rules-gateway", &module_key, 600)), true),
        (who("a module with the gateway's key", own, token(own, &gateway_key, 600)), false),
        (
            who(
                "a module that is not deployed",
                "rules-gateway/gone",
                token("rules-gateway/gone", &sas::sign(&secret, b"key gone"), 600),
            ),
            false,
        ),
        (who("a module of another gateway", "other/caller", token("other/caller", &module_key, 600)), false),
        (who("the gateway itself", "rules-gateway", token("rules-gateway", &gateway_key, 600)), false),
        (who("a leaf", "leaf", token("leaf", &leaf.key, 600)), false),
        (who("a leaf as the module", own, token("leaf", &leaf.key, 600)), false),
        (who("a leaf as a module of its own", "leaf/caller", token("leaf", &leaf.key, 600)), false),
        (who("a local user", own, password.clone()), false),
        (who("nobody", own, String::new()), false),
    ];
    let targets = [
        ("a leaf", "/twins/leaf/methods", 200),
        ("a module", "/twins/rules-gateway/modules/caller/methods", 200),
        ("a module that is not there", "/twins/rules-gateway/modules/gone/methods", 404),
        ("the daemon", "/twins/rules-gateway/modules/%24edgeAgent/methods", 404),
        ("the hub", "/twins/rules-gateway/modules/%24edgeHub/methods", 404),
        ("the gateway as a device", "/twins/rules-gateway/methods", 404),
        ("a device of central's own listener", "/twins/elsewhere/methods", 404),
        ("a module of another gateway", "/twins/other/modules/caller/methods", 404),
        ("a local user", "/twins/%24user:plc/methods", 400),
    ];
    let echo = json!({"methodName": "echo", "payload": 1, "connectTimeoutInSeconds": 0, "responseTimeoutInSeconds": 60});
    eventually("both listen", STEP, || async {
        for path in [targets[0].1, targets[1].1] {
            if https.post(path, own, &callers[0].0.token, &echo).await.0 != 200 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
    .unwrap();
    for (caller, may_call) in &callers {
        for (target, path, expected) in &targets {
            let expected = match (may_call, *expected) {
                // A target's name is read before anybody is proven.
                (false, 400) | (true, _) => *expected,
                (false, _) => 401,
            };
            let (status, answer) = https.post(path, caller.id, &caller.token, &echo).await;
            assert_eq!(status, expected, "{} calls {target}: {answer}", caller.what);
            // Guesses slow down the next one: whoever may call is not slowed by them (it has proven itself from here).
            if !may_call {
                break;
            }
        }
    }

    // A module that shows its identity certificate and no token.
    let socket = dir.path().join("gateway/workload/caller/workload.sock");
    eventually("the module's workload socket", STEP, || async { Ok(socket.exists().then_some(())) })
        .await
        .unwrap();
    let http = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let url = "http://workload.sock/modules/caller/certificate/identity";
    let made: Value = http.post(url).send().await.unwrap().json().await.unwrap();
    let pem = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    let chain = certificates(&pem(&made["certificate"])).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(&made["privateKey"]["bytes"])).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for der in certificates(&std::fs::read(site.gateway_ca()).unwrap()).unwrap() {
        roots.add(der).unwrap();
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let shows = Caller { tls: TlsConnector::from(std::sync::Arc::new(config)), port: site.gateway_https };
    for (id, status) in [(own, 200), ("rules-gateway/gone", 401), ("leaf", 401)] {
        let (found, answer) = shows.post(targets[0].1, id, "", &echo).await;
        assert_eq!(found, status, "the module's certificate as {id}: {answer}");
    }

    // Over MQTT nobody calls at all; only the hub says `methods/POST`, and only its own target hears it.
    let plain = |client_id: &str, name: &str, password: &str| {
        let mut options = rumqttc::MqttOptions::new(client_id, "127.0.0.1", site.gateway_mqtt);
        options.set_credentials(name, password);
        patient::client(options, 10)
    };
    let second = site.add_here(&["second".to_owned()]).await.unwrap();
    let (name, sas_token) = second[0].account.clone().unwrap();
    for (what, client_id, name, password, may_listen) in [
        ("a leaf", "second", name.as_str(), sas_token.as_str(), true),
        ("a local user", "any", "plc", password.as_str(), false),
    ] {
        let (client, mut events) = plain(client_id, name, password);
        client.subscribe("$iothub/methods/POST/#", QoS::AtLeastOnce).await.unwrap();
        let granted = loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.unwrap() {
                break ack.return_codes[0] != rumqttc::SubscribeReasonCode::Failure;
            }
        };
        assert_eq!(granted, may_listen, "{what} listens to its own calls");
        client.publish("$iothub/methods/POST/echo/?$rid=1", QoS::AtLeastOnce, false, "1").await.unwrap();
        let closed = async { while events.poll().await.is_ok() {} };
        tokio::time::timeout(STEP, closed).await.unwrap_or_else(|_| panic!("{what} could publish a call"));
    }

    // Operators, by their role; and the module no more once it is not deployed.
    let echo = json!({"request": 1, "responseTimeout": 60});
    let answered = rest.post("/api/devices/leaf/commands/echo", &echo).await.unwrap();
    assert_eq!(answered["responseCode"], 200);
    let mut none = manifest();
    none["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"] = json!({});
    std::fs::write(&file, none.to_string()).unwrap();
    site.put_in_force(&file).await.unwrap();
    let echo = json!({"methodName": "echo"});
    let (status, answer) = https.post("/twins/leaf/methods", own, &callers[0].0.token, &echo).await;
    assert_eq!(status, 401, "{answer}");
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn an_operator_on_another_machine_reads_a_devices_value_with_curl_and_centrals_authority() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("central");
    let (http, mqtts) = (free_port().unwrap(), free_port().unwrap());
    let central = |arguments: &[&str]| {
        let mut command = Command::new(binary("central").unwrap());
        command.args(arguments).arg("--data-dir").arg(&data);
        command.env("CENTRAL__HOSTNAME", "localhost").env("CENTRAL__HTTP__LISTEN", format!("0.0.0.0:{http}"));
        command.env("CENTRAL__MQTT__MQTTS", format!("127.0.0.1:{mqtts}"));
        command.env("CENTRAL__HTTP__PUBLIC_URL", format!("https://central.test:{http}"));
        command
    };
    let (code, _, refused) = run(&mut central(&["serve"])).await.unwrap();
    assert!(code == 1 && refused.contains("http.tls"), "served on every address without TLS: {refused}");
    let mut serve = central(&["serve"]);
    serve.env("CENTRAL__HTTP__TLS", "true");
    let serving = Process::start("central", serve, &dir.path().join("central.log")).unwrap();
    let ready = serving.line("central ready", STEP).await.unwrap();
    assert!(ready.contains(&format!("https://0.0.0.0:{http}")), "{ready}");
    let mut create = central(&["token", "create", "--role", "administrator"]);
    // A command that does not serve reads the same configuration.
    let (code, token, error) = run(create.env("CENTRAL__HTTP__TLS", "true")).await.unwrap();
    assert_eq!(code, 0, "{error}");

    let ca = data.join("ca.pem");
    let curl = async |name: &str, arguments: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "--noproxy", "*", "--cacert"]).arg(&ca).args(arguments);
        command.args(["--resolve", &format!("{name}:{http}:127.0.0.1"), "-H"]);
        command.arg(format!("Authorization: {}", token.trim()));
        command.arg(format!("https://{name}:{http}/api/devices/press-1{path}?api-version=2022-07-31"));
        let (code, body, error) = run(&mut command).await.unwrap();
        (code, serde_json::from_str(&body).unwrap_or(Value::Null), error)
    };
    let put = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", "{}"];
    let (code, device, error) = curl("central.test", &put, "").await;
    assert_eq!((code, &device["id"]), (0, &json!("press-1")), "{device} {error}");
    let (_, credentials, _) = curl("central.test", &[], "/credentials").await;
    let key = credentials["symmetricKey"]["primaryKey"].as_str().unwrap();
    let mut leaf = Leaf::start(LeafOptions {
        identity: "press-1".parse().unwrap(),
        key: STANDARD.decode(key).unwrap(),
        hub_name: "localhost".to_owned(),
        port: mqtts,
        ca: Some(trust(&std::fs::read(&ca).unwrap()).unwrap()),
        interval: Duration::from_millis(100),
        padding: 0,
    });
    leaf.acknowledged_more(1, STEP).await.unwrap();
    let (code, value, error) = curl("central.test", &[], "/telemetry/temperature").await;
    assert!(code == 0 && value["value"].is_number(), "{value} {error}");
    // 60: the peer's certificate is not for this name (curl's manual, "Exit codes").
    let (code, _, error) = curl("other.test", &[], "/telemetry/temperature").await;
    assert_eq!(code, 60, "{error}");
    leaf.stop().await.unwrap();
    serving.stop(STEP).await.unwrap();
}
