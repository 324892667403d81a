//! Who may stay at the listeners, on real processes: what is taken back takes effect on the live connection.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::proof::Fingerprint;
use edge_core::access::thumbprint::Thumbprint;
use edge_tls::pem::certificates;
use reqwest::Method;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::{Leaf, LeafOptions, trust};
use site_tests::patient;
use site_tests::process::run;
use site_tests::rest::Rest;
use site_tests::site::Site;

/// The promise: block, unblock and changed keys take effect within a second. The best of a test's changes must keep it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How often central may write to its disk while a change takes effect, on a machine where that alone takes a second: both programs write
/// the change to disk first.
const WRITES: u32 = 10;

async fn site(dir: &Path, name: &str) -> Site {
    let mut site = Site::new(dir, name, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site
}

/// A client that is connected and says nothing.
struct Held {
    _client: AsyncClient,
    events: EventLoop,
}

impl Held {
    async fn new(options: &LeafOptions) -> Self {
        let (client, mut events) = options.client(10);
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::ConnAck(_)) => Self { _client: client, events },
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Waits until its connection ends; gives when.
    async fn ended(mut self) -> Instant {
        let ended = async {
            while self.events.poll().await.is_ok() {}
            Instant::now()
        };
        tokio::time::timeout(STEP, ended).await.expect("the connection did not end")
    }
}

/// Does `change` and makes sure that it ends the client's connection soon after its beginning; gives how soon, for
/// [`at_once`].
async fn ends_soon(client: Held, change: impl Future<Output = ()>) -> Duration {
    let ended = tokio::spawn(client.ended());
    let since = Instant::now();
    change.await;
    let took = ended.await.unwrap().duration_since(since);
    println!("the live connection ended {took:?} after the change was requested");
    took
}

/// One of these changes at least took effect within a second, or on a slow machine as soon as one can there: it is held against what a
/// change takes that concerns nobody. A change that waits for the next connection or the next token does not come into this.
async fn at_once(rest: &Rest, times: &[Duration]) {
    let mut slowest = Duration::ZERO;
    for number in 0..5 {
        let since = Instant::now();
        rest.put("/api/devices/concerns-nobody", &json!({"displayName": format!("{number}")})).await.unwrap();
        slowest = slowest.max(since.elapsed());
    }
    let limit = AT_ONCE.max(slowest * WRITES);
    println!("a change that concerns nobody took {slowest:?} at most");
    assert!(times.iter().any(|took| *took < limit), "none within {limit:?}: {times:?}");
}

async fn refused(options: &LeafOptions) -> ConnectReturnCode {
    let (_client, mut events) = options.client(10);
    match events.poll().await {
        Err(ConnectionError::ConnectionRefused(code)) => code,
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// Waits until the gateway knows a leaf that central attached, by the leaf's first acknowledged message.
async fn known(options: &LeafOptions) {
    let mut leaf = Leaf::start(options.clone());
    leaf.acknowledged_more(1, STEP).await.unwrap();
    leaf.stop().await.unwrap();
}

async fn agent(site: &Site, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let (code, out, error) = run(&mut site.agent_command(&arguments).unwrap()).await.unwrap();
    assert_eq!(code, 0, "{arguments:?}: {error}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn block_unblock_and_new_keys_take_effect_on_the_live_connection_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "block-gateway").await;
    let leaf = site.add_leaf("leaf-one", Duration::from_millis(20)).await.unwrap();
    let neighbour = site.add_leaf("leaf-two", Duration::from_millis(20)).await.unwrap();
    known(&leaf).await;
    known(&neighbour).await;
    let stays = Held::new(&neighbour).await;
    let rest = site.rest().unwrap().clone();
    let enable = async |device: &str, is_enabled: bool| {
        rest.patch(&format!("/api/devices/{device}"), &json!({"enabled": is_enabled})).await.unwrap();
    };

    // From central, of a leaf behind the gateway.
    let blocked = ends_soon(Held::new(&leaf).await, enable("leaf-one", false)).await;
    assert_eq!(refused(&leaf).await, ConnectReturnCode::NotAuthorized);
    let since = Instant::now();
    enable("leaf-one", true).await;
    known(&leaf).await;
    println!("connected again {:?} after it was unblocked", since.elapsed());

    // On the gateway; central's word does not lift it.
    let blocked_here = ends_soon(Held::new(&leaf).await, async {
        let shown = agent(&site, &["device", "block", "leaf-one"]).await;
        assert_eq!((&shown["enabled"], &shown["blockedHere"]), (&json!(false), &json!(true)));
    })
    .await;
    assert_eq!(agent(&site, &["device", "show", "leaf-two"]).await["connected"], json!(true));
    enable("leaf-one", false).await;
    enable("leaf-one", true).await;
    assert_eq!(refused(&leaf).await, ConnectReturnCode::NotAuthorized);
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    stays.ended().await;
    assert_eq!(refused(&leaf).await, ConnectReturnCode::NotAuthorized, "it holds over a restart");
    agent(&site, &["device", "unblock", "leaf-one"]).await;
    known(&leaf).await;
    assert_eq!(agent(&site, &["device", "show", "leaf-one"]).await["enabled"], json!(true));

    // A key that was changed ends what it had proven; the other key goes on.
    let attestation = "/api/devices/leaf-one/attestation";
    let keys = rest.get(attestation).await.unwrap();
    let secondary = LeafOptions {
        key: STANDARD.decode(keys["symmetricKey"]["secondaryKey"].as_str().unwrap()).unwrap(),
        ..leaf.clone()
    };
    let new_key = STANDARD.encode([9; 32]);
    let new_key = ends_soon(Held::new(&leaf).await, async {
        let request = json!({"symmetricKey": {"primaryKey": new_key}});
        rest.patch(attestation, &request).await.unwrap();
    })
    .await;
    at_once(&rest, &[blocked, blocked_here, new_key]).await;
    assert_eq!(refused(&leaf).await, ConnectReturnCode::NotAuthorized);
    known(&secondary).await;
    known(&LeafOptions { key: vec![9; 32], ..leaf.clone() }).await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn centrals_mqtt_server_lets_go_of_a_blocked_device_and_of_a_changed_key_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "unused", false).unwrap();
    site.start_central().await.unwrap();
    let rest = site.rest().unwrap().clone();
    rest.put("/api/devices/direct", &json!({})).await.unwrap();
    let direct = LeafOptions {
        identity: "direct".parse().unwrap(),
        key: STANDARD.decode(site.key("direct").await.unwrap()).unwrap(),
        hub_name: "localhost".into(),
        port: site.central_mqtts,
        ca: Some(trust(&std::fs::read(dir.path().join("central/ca.pem")).unwrap()).unwrap()),
        interval: Duration::from_millis(20),
        padding: 0,
    };
    let blocked = ends_soon(Held::new(&direct).await, async {
        rest.patch("/api/devices/direct", &json!({"enabled": false})).await.unwrap();
    })
    .await;
    assert_eq!(refused(&direct).await, ConnectReturnCode::NotAuthorized);
    rest.patch("/api/devices/direct", &json!({"enabled": true})).await.unwrap();
    let no_key = ends_soon(Held::new(&direct).await, async {
        let (status, _) = rest.send(Method::DELETE, "/api/devices/direct/attestation", None).await.unwrap();
        assert_eq!(status, 204);
    })
    .await;
    at_once(&rest, &[blocked, no_key]).await;
    // Free topics are nobody's at central.
    let key = STANDARD.decode(site.key("direct").await.unwrap()).unwrap();
    let (client, mut events) = LeafOptions { key, ..direct }.client(10);
    client.subscribe("#", QoS::AtMostOnce).await.unwrap();
    let codes = loop {
        if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.unwrap() {
            break ack.return_codes;
        }
    };
    assert_eq!(codes, [SubscribeReasonCode::Failure]);
    site.end(false).await.unwrap();
}

/// A plain client with a user name and a password.
fn user(site: &Site, client_id: &str, name: &str, password: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(client_id, "localhost", site.gateway_mqtts);
    options.set_credentials(name, password);
    let ca = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca)));
    patient::client(options, 10)
}

async fn until_acknowledged(events: &mut EventLoop) {
    loop {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            return;
        }
    }
}

#[tokio::test]
async fn a_user_with_a_password_publishes_what_the_manifest_allows_and_its_devices_telemetry() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path(), "user-gateway").await;
    let manifest = dir.path().join("rules.json");
    let rules = |resources: &[&str]| {
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}},
            "$edgeHub": {"properties.desired": {
                "schemaVersion": "1.2",
                "routes": {"up": "FROM /messages/* INTO $upstream"},
                "mqttBroker": {"authorizations": [{"identities": ["$user:press-9"], "allow": [
                    {"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": resources}]}]}
            }}
        }})
    };
    std::fs::write(&manifest, rules(&["line1/#"]).to_string()).unwrap();
    agent(&site, &["apply", manifest.to_str().unwrap()]).await;
    let added = agent(&site, &["device", "add", "press-9", "--password"]).await;
    let password = added["user"]["password"].as_str().unwrap().to_owned();

    let (client, mut events) = user(&site, "esp32 no 7", "press-9", &password);
    client.subscribe("line1/#", QoS::AtMostOnce).await.unwrap();
    client.publish("line1/press", QoS::AtLeastOnce, false, "free").await.unwrap();
    until_acknowledged(&mut events).await;
    client.publish("devices/press-9/messages/events/", QoS::AtLeastOnce, false, "{\"t\":1}").await.unwrap();
    until_acknowledged(&mut events).await;
    let rest = site.rest().unwrap().clone();
    site_tests::rest::eventually("the telemetry at central", STEP, || async {
        Ok((!rest.messages("press-9").await?.is_empty()).then_some(()))
    })
    .await
    .unwrap();
    let listed = agent(&site, &["user", "list"]).await;
    assert_eq!(listed["users"][0]["connections"], json!(1));

    // Another rule: the live subscription is not allowed any more.
    std::fs::write(&manifest, rules(&["line2/#"]).to_string()).unwrap();
    let new_rule = ends_soon(Held { _client: client, events }, async {
        agent(&site, &["apply", manifest.to_str().unwrap()]).await;
    })
    .await;
    let (client, mut events) = user(&site, "esp32 no 7", "press-9", &password);
    client.publish("line1/press", QoS::AtLeastOnce, false, "not allowed").await.unwrap();
    while events.poll().await.is_ok() {}

    // A wrong password, a removed user.
    let wrong = user(&site, "x", "press-9", "wrong").1.poll().await;
    assert!(matches!(wrong, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))));
    let (client, mut events) = user(&site, "y", "press-9", &password);
    assert!(matches!(events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))));
    let removed = ends_soon(Held { _client: client, events }, async {
        agent(&site, &["user", "remove", "press-9"]).await;
    })
    .await;
    at_once(&rest, &[new_rule, removed]).await;
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn nothing_secret_is_in_the_logs_even_at_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "trace-gateway", false).unwrap();
    site.log_level = "trace";
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let leaf = site.add_leaf("leaf-one", Duration::from_millis(20)).await.unwrap();
    known(&leaf).await;
    let keys = site.rest().unwrap().get("/api/devices/leaf-one/attestation").await.unwrap();
    let gateway_key = site.key("trace-gateway").await.unwrap();
    let added = agent(&site, &["device", "add", "local-leaf"]).await;
    let local_key = added["connectionString"].as_str().unwrap().split("SharedAccessKey=").nth(1).unwrap();
    let local_key = local_key.split(';').next().unwrap().to_owned();
    let local = LeafOptions {
        identity: "local-leaf".parse().unwrap(),
        key: STANDARD.decode(&local_key).unwrap(),
        ..leaf.clone()
    };
    known(&local).await;
    let token = agent(&site, &["device", "token", "local-leaf"]).await;
    let user_added = agent(&site, &["user", "add", "plc1"]).await;
    let password = user_added["password"].as_str().unwrap().to_owned();
    let (_client, mut events) = user(&site, "plc", "plc1", &password);
    assert!(matches!(events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))));
    let wrong = "a-wrong-password-that-somebody-typed";
    assert!(user(&site, "plc", "plc1", wrong).1.poll().await.is_err());
    let thief = LeafOptions { key: vec![1; 32], ..leaf.clone() };
    refused(&thief).await;
    site.end(false).await.unwrap();

    let secrets = [
        keys["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned(),
        keys["symmetricKey"]["secondaryKey"].as_str().unwrap().to_owned(),
        gateway_key,
        local_key,
        token["password"].as_str().unwrap().to_owned(),
        password,
        wrong.to_owned(),
        site.token().to_owned(),
        "$argon2id$".to_owned(),
        // Whatever signature a token had.
        "&sig=".to_owned(),
    ];
    for log in ["edge-agent.log", "central.log"] {
        let text = std::fs::read_to_string(dir.path().join(log)).unwrap();
        assert!(text.contains("TRACE") && text.contains("leaf-one"), "{log} is not what was wanted");
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{log} holds {secret}: {line:?}");
        }
    }
}

/// An authority of devices, and what it gives to them.
struct DeviceCa {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
    pem: String,
}

fn certificate(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

impl DeviceCa {
    fn new() -> Self {
        let mut params = certificate("devices of line 1");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn device(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        (certificate(name).signed_by(&key, &issuer).unwrap(), key)
    }
}

/// A device that shows a certificate and has no password.
fn by_certificate(
    site: &Site,
    id: &str,
    shown: &(rcgen::Certificate, rcgen::KeyPair),
) -> (AsyncClient, EventLoop) {
    let trusted = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for der in certificates(&std::fs::read(site.gateway_ca()).unwrap()).unwrap() {
        roots.add(der).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(trusted.crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![shown.0.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(shown.1.serialize_der().into()),
        )
        .unwrap();
    let mut options = MqttOptions::new(id, "localhost", site.gateway_mqtts);
    options.set_credentials(format!("localhost/{id}/?api-version=2021-04-12"), "");
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(std::sync::Arc::new(config))));
    patient::client(options, 10)
}

/// The connection of a device or module that shows this certificate; `None` when it is not authorised.
async fn comes_in(site: &Site, id: &str, shown: &(rcgen::Certificate, rcgen::KeyPair)) -> Option<Held> {
    let (client, mut events) = by_certificate(site, id, shown);
    match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => Some(Held { _client: client, events }),
        Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)) => None,
        other => panic!("{other:?} instead of CONNACK"),
    }
}

/// A client of the plain listener that gives no user name.
fn nobody(port: u16, client_id: &str) -> (AsyncClient, EventLoop) {
    patient::client(MqttOptions::new(client_id, "localhost", port), 10)
}

async fn connack(events: &mut EventLoop) -> Result<(), ConnectReturnCode> {
    match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(()),
        Err(ConnectionError::ConnectionRefused(code)) => Err(code),
        other => panic!("{other:?} instead of CONNACK"),
    }
}

#[tokio::test]
async fn a_client_without_a_name_is_the_anonymous_user_on_loopback_alone_and_where_a_setting_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "anonymous-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    let refused = Err(ConnectReturnCode::NotAuthorized);
    assert_eq!(connack(&mut nobody(site.gateway_mqtt, "panel").1).await, refused, "off by default");
    site.stop_agent().await.unwrap();
    site.agent_env = vec![("EDGE_AGENT__LISTEN__ANONYMOUS_USER", "floor".into())];
    site.start_agent().await.unwrap();
    let rule = |identity: &str, operation: &str, topic: &str| json!({"identities": [identity], "allow": [{"operations": [operation], "resources": [topic]}]});
    site.apply_hub(json!({
        "schemaVersion": "1.2",
        "routes": {"upstream": "FROM /messages/* INTO $upstream"},
        "mqttBroker": {"authorizations": [
            rule("$user:floor", "mqtt:publish", "floor/#"),
            rule("$user:floor", "mqtt:subscribe", "floor/#"),
            rule("$user:other", "mqtt:publish", "other/#"),
        ]},
    }))
    .await
    .unwrap();
    let (client, mut events) = nobody(site.gateway_mqtt, "panel 1");
    assert_eq!(connack(&mut events).await, Ok(()));
    client.subscribe("floor/#", QoS::AtMostOnce).await.unwrap();
    client.publish("floor/x", QoS::AtLeastOnce, false, "hello").await.unwrap();
    until_acknowledged(&mut events).await;
    let listed = agent(&site, &["user", "list"]).await;
    assert_eq!(
        listed["users"][0],
        json!({"name": "floor", "device": null, "anonymous": true, "connections": 1})
    );
    // What its rules do not allow, and what is a device's.
    for topic in ["other/x", "devices/floor/messages/events/", "$iothub/twin/GET/?$rid=1"] {
        let (client, mut events) = nobody(site.gateway_mqtt, "panel 2");
        assert_eq!(connack(&mut events).await, Ok(()), "{topic}");
        client.publish(topic, QoS::AtLeastOnce, false, "x").await.unwrap();
        let ended = loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::PubAck(_))) => break false,
                Ok(_) => {}
                Err(_) => break true,
            }
        };
        assert!(ended, "{topic}");
    }
    // Nobody is it with a password, by its name, or over TLS.
    for (name, password) in [("floor", ""), ("floor", "guessed")] {
        let mut options = MqttOptions::new("panel 3", "localhost", site.gateway_mqtt);
        options.set_credentials(name, password);
        assert_eq!(connack(&mut patient::client(options, 10).1).await, refused, "{name} {password}");
    }
    // MQTT 3.1.1 has no password without a user name.
    let mut options = MqttOptions::new("panel 3", "localhost", site.gateway_mqtt);
    options.set_credentials("", "guessed");
    assert!(patient::client(options, 10).1.poll().await.is_err());
    let mut options = MqttOptions::new("panel 4", "localhost", site.gateway_mqtts);
    let ca = trust(&std::fs::read(site.gateway_ca()).unwrap()).unwrap();
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca)));
    assert_eq!(connack(&mut patient::client(options, 10).1).await, refused, "over TLS");
    let added = run(&mut site.agent_command(&["user", "add", "floor"]).unwrap()).await.unwrap();
    assert!(added.0 != 0 && added.2.contains("anonymous_user"), "{added:?}");
    let removed = run(&mut site.agent_command(&["user", "remove", "floor"]).unwrap()).await.unwrap();
    assert!(removed.0 != 0 && removed.2.contains("anonymous_user"), "{removed:?}");
    // A client id may be left out as by a named user.
    let (code, out, error) = run(tokio::process::Command::new("mosquitto_pub").args([
        "-h",
        "127.0.0.1",
        "-p",
        &site.gateway_mqtt.to_string(),
        "-q",
        "1",
        "-t",
        "floor/y",
        "-m",
        "x",
    ]))
    .await
    .unwrap();
    assert_eq!(code, 0, "{out} {error}");
    site.stop_agent().await.unwrap();
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_device_proves_itself_by_certificate_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DeviceCa::new();
    let file = dir.path().join("devices.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let mut site = Site::new(dir.path(), "x509-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let toml = std::fs::read_to_string(site.edge_toml()).unwrap();
    std::fs::write(site.edge_toml(), format!("{toml}\n[tls]\ndevice_ca = {file:?}\n")).unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let comes_in =
        async |id: &str, shown: &(rcgen::Certificate, rcgen::KeyPair)| comes_in(&site, id, shown).await;

    // By thumbprint and by authority, added on the gateway.
    let own = ca.device("any name");
    let thumbprint = Thumbprint::sha256(own.0.der()).to_string();
    let added = agent(&site, &["device", "add", "by-mark", "--x509-thumbprint", &thumbprint]).await;
    assert!(added["connectionString"].as_str().unwrap().contains("x509=true"));
    agent(&site, &["device", "add", "by-ca", "--x509-ca"]).await;
    assert!(comes_in("by-mark", &own).await.is_some());
    assert!(comes_in("by-ca", &ca.device("by-ca")).await.is_some());
    assert!(comes_in("by-mark", &ca.device("by-mark")).await.is_none(), "another certificate");
    assert!(comes_in("by-ca", &own).await.is_none(), "another name");
    assert!(comes_in("by-ca", &DeviceCa::new().device("by-ca")).await.is_none(), "another authority");

    // By thumbprint, told by central; another certificate takes its place.
    let leaf = site.add_leaf("leaf-one", Duration::from_millis(20)).await.unwrap();
    known(&leaf).await;
    let rest = site.rest().unwrap().clone();
    let attest = async |pem: String| {
        let primary = json!({"primary": {"certificate": pem}});
        let request = json!({"type": "x509", "x509": {"clientCertificates": primary}});
        rest.put("/api/devices/leaf-one/attestation", &request).await.unwrap();
    };
    let (first, second) = (ca.device("leaf-one"), ca.device("leaf-one"));
    let to_first = ends_soon(Held::new(&leaf).await, attest(first.0.pem())).await;
    let held = comes_in("leaf-one", &first).await.unwrap();
    let to_second = ends_soon(held, attest(second.0.pem())).await;
    assert!(comes_in("leaf-one", &first).await.is_none());
    assert!(comes_in("leaf-one", &second).await.is_some());
    assert_eq!(refused(&leaf).await, ConnectReturnCode::NotAuthorized, "its key proves nothing any more");

    // The same by SHA-1, as IoT Central's scripts name certificates.
    let by_sha1 = async |der: &[u8]| {
        let sha1 = Thumbprint::Sha1(Fingerprint::of(der).sha1).to_string();
        let info = json!({"primary": {"info": {"sha1Thumbprint": sha1}}});
        let request = json!({"type": "x509", "x509": {"clientCertificates": info}});
        rest.put("/api/devices/leaf-one/attestation", &request).await.unwrap();
    };
    let held = comes_in("leaf-one", &second).await.unwrap();
    let to_first_sha1 = ends_soon(held, by_sha1(first.0.der())).await;
    let held = comes_in("leaf-one", &first).await.unwrap();
    let to_second_sha1 = ends_soon(held, by_sha1(second.0.der())).await;
    at_once(&rest, &[to_first, to_second, to_first_sha1, to_second_sha1]).await;
    assert!(comes_in("leaf-one", &first).await.is_none());
    let held = comes_in("leaf-one", &second).await.unwrap();
    // Another one of its two thumbprints changes nothing for it.
    let both = json!({"type": "x509", "x509": {"clientCertificates": {
        "primary": {"info": {"sha1Thumbprint": Thumbprint::Sha1(Fingerprint::of(second.0.der()).sha1).to_string()}},
        "secondary": {"certificate": first.0.pem()}}}});
    rest.put("/api/devices/leaf-one/attestation", &both).await.unwrap();
    // The gateway hears of it a moment later, and no connection that ends says so.
    let added = site_tests::rest::eventually("the added certificate is taken", STEP, async || {
        Ok(comes_in("leaf-one", &first).await)
    });
    drop(added.await.unwrap());
    drop(held);
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn authorities_of_devices_are_read_anew_and_what_one_proved_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (DeviceCa::new(), DeviceCa::new());
    let file = dir.path().join("devices.pem");
    std::fs::write(&file, &old.pem).unwrap();
    let mut site = Site::new(dir.path(), "reload-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    let toml = std::fs::read_to_string(site.edge_toml()).unwrap();
    std::fs::write(site.edge_toml(), format!("{toml}\n[tls]\ndevice_ca = {file:?}\n")).unwrap();
    site.start_agent().await.unwrap();
    agent(&site, &["device", "add", "press-1", "--x509-ca"]).await;
    let (by_old, by_new) = (old.device("press-1"), new.device("press-1"));
    let held = comes_in(&site, "press-1", &by_old).await.unwrap();
    assert!(comes_in(&site, "press-1", &by_new).await.is_none());
    // Both for the time of the change; whoever is there stays.
    std::fs::write(&file, format!("{}{}", old.pem, new.pem)).unwrap();
    let comes = async || Ok(comes_in(&site, "press-1", &by_new).await);
    drop(held);
    let held = site_tests::rest::eventually("the new authority is taken", STEP, comes).await.unwrap();
    drop(held);
    let held = comes_in(&site, "press-1", &by_old).await.unwrap();
    // What cannot be read changes nothing; then the old one is gone, and what it proved.
    std::fs::write(&file, "no certificate").unwrap();
    site_tests::rest::eventually("the file is named in the log", STEP, || async {
        Ok(site.agent_log().contains("devices.pem").then_some(()))
    })
    .await
    .unwrap();
    let ended = tokio::spawn(held.ended());
    std::fs::write(&file, &new.pem).unwrap();
    tokio::time::timeout(STEP, ended).await.expect("the connection stayed").unwrap();
    assert!(comes_in(&site, "press-1", &by_old).await.is_none());
    assert!(comes_in(&site, "press-1", &by_new).await.is_some());

    // What an operator is told of it all.
    let (code, out, _) = run(&mut site.agent_command(&["check"]).unwrap()).await.unwrap();
    let is_ok =
        |id: &str| out.lines().any(|line| line.starts_with("ok") && line.contains(&format!(" {id} ")));
    assert!(is_ok("device-ca") && is_ok("ca"), "{out}");
    let is_wrong = out.lines().any(|line| line.starts_with("ERROR"));
    assert_eq!(code != 0, is_wrong, "{out}");
    site.end(false).await.unwrap();
}

/// A certificate of the gateway's own authority, as whoever has its key could make it.
fn of_gateway(
    site: &Site,
    name: &str,
    uri: Option<&str>,
    purpose: rcgen::ExtendedKeyUsagePurpose,
) -> (rcgen::Certificate, rcgen::KeyPair) {
    let read = |file: &str| std::fs::read_to_string(site.dir.join("gateway").join(file)).unwrap();
    let key = rcgen::KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let mut parameters = certificate(name);
    parameters.subject_alt_names =
        uri.map(|uri| rcgen::SanType::URI(uri.try_into().unwrap())).into_iter().collect();
    parameters.extended_key_usages = vec![purpose];
    let own = rcgen::KeyPair::generate().unwrap();
    (parameters.signed_by(&own, &issuer).unwrap(), own)
}

#[tokio::test]
async fn a_module_comes_in_by_its_identity_certificate_and_by_no_forged_one_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "module-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    let manifest = |modules: Value| {
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}}})
    };
    let module = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "never",
        "imagePullPolicy": "never", "settings": {"image": "lineside-test/none:1", "createOptions": "{}"}});
    let file = dir.path().join("manifest.json");
    let apply = async |modules: Value| {
        std::fs::write(&file, manifest(modules).to_string()).unwrap();
        site.put_in_force(&file).await.unwrap();
    };
    apply(json!({"filter": module, "other": module})).await;
    agent(&site, &["device", "add", "filter"]).await;

    let client = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    let server = rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    // The hub's name of a gateway that stands alone is its own.
    let hub = site_tests::site::hostname();
    let uri = |module: &str| format!("azureiot://{hub}/devices/module-gateway/modules/{module}");
    let stranger = DeviceCa::new();
    let forged = {
        let mut parameters = certificate("module-gateway/filter");
        parameters.extended_key_usages = vec![client.clone()];
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&stranger.params, &stranger.key);
        (parameters.signed_by(&key, &issuer).unwrap(), key)
    };
    for (what, id, shown, is_let_in) in [
        (
            "its own",
            "module-gateway/filter",
            of_gateway(&site, "filter", Some(&uri("filter")), client.clone()),
            true,
        ),
        (
            "named by its client id",
            "module-gateway/filter",
            of_gateway(&site, "module-gateway/filter", None, client.clone()),
            true,
        ),
        (
            "named by its name alone",
            "module-gateway/filter",
            of_gateway(&site, "filter", None, client.clone()),
            false,
        ),
        (
            "another module's",
            "module-gateway/filter",
            of_gateway(&site, "filter", Some(&uri("other")), client.clone()),
            false,
        ),
        (
            "its own for servers",
            "module-gateway/filter",
            of_gateway(&site, "filter", Some(&uri("filter")), server),
            false,
        ),
        ("of another authority", "module-gateway/filter", forged, false),
        (
            "of a module that is not deployed",
            "module-gateway/gone",
            of_gateway(&site, "gone", Some(&uri("gone")), client.clone()),
            false,
        ),
        (
            "a module's for the device of its name",
            "filter",
            of_gateway(&site, "filter", Some(&uri("filter")), client.clone()),
            false,
        ),
        (
            "a module's for the gateway",
            "module-gateway",
            of_gateway(&site, "module-gateway", Some(&uri("filter")), client.clone()),
            false,
        ),
    ] {
        assert_eq!(comes_in(&site, id, &shown).await.is_some(), is_let_in, "{what}");
    }
    let shown = of_gateway(&site, "filter", Some(&uri("filter")), client);
    let held = comes_in(&site, "module-gateway/filter", &shown).await.unwrap();
    ends_soon(held, apply(json!({"other": module}))).await;
    assert!(comes_in(&site, "module-gateway/filter", &shown).await.is_none());
    site.end(true).await.unwrap();
}
