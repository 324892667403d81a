//! Enrolment groups with X.509 certificates: made, verified by proof of possession, and enrolled by at central's own listener.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::token::Role;
use common::{Central, Mqtt, start};
use edge_core::access::thumbprint::Thumbprint;
use edge_tls::pem::certificates;
use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, QoS, TlsConfiguration, Transport};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

/// An authority, and what it signs.
struct Ca {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
    pem: String,
    /// Those between it and the one that was uploaded.
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
}

/// A certificate with its key.
type Leaf = (rcgen::Certificate, rcgen::KeyPair);

fn params(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

impl Ca {
    fn new(name: &str, parent: Option<&Ca>) -> Self {
        let mut params = params(name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let (certificate, chain) = match parent {
            None => (params.self_signed(&key).unwrap(), Vec::new()),
            Some(parent) => {
                let issuer = rcgen::Issuer::from_params(&parent.params, &parent.key);
                let certificate = params.signed_by(&key, &issuer).unwrap();
                let chain = vec![certificate.der().clone()];
                (certificate, chain)
            }
        };
        Self { pem: certificate.pem(), params, key, chain }
    }

    fn leaf(&self, name: &str) -> Leaf {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        (params(name).signed_by(&key, &issuer).unwrap(), key)
    }
}

/// A client that shows a certificate, and those that came with it, and has no password.
fn client(central: &Central, dir: &Path, user: String, id: &str, ca: &Ca, leaf: &Leaf) -> Mqtt {
    let mut roots = rustls::RootCertStore::empty();
    for der in certificates(&std::fs::read(dir.join("ca.pem")).unwrap()).unwrap() {
        roots.add(der).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = std::iter::once(leaf.0.der().clone()).chain(ca.chain.iter().cloned()).collect();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(leaf.1.serialize_der().into()))
        .unwrap();
    let mut options = MqttOptions::new(id, "localhost", central.started.mqtts.port());
    options.set_credentials(user, "");
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))));
    Mqtt::new(options)
}

struct Enrolling<'a> {
    central: &'a Central,
    dir: &'a Path,
    scope: String,
}

impl Enrolling<'_> {
    fn client(&self, id: &str, ca: &Ca, leaf: &Leaf) -> Mqtt {
        let user = format!("{}/registrations/{id}/api-version=2019-03-31&ClientVersion=x", self.scope);
        client(self.central, self.dir, user, id, ca, leaf)
    }

    async fn is_refused(&self, id: &str, ca: &Ca, leaf: &Leaf) {
        let answer = self.client(id, ca, leaf).events.poll().await;
        let refused =
            matches!(answer, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)));
        assert!(refused, "{id}: {answer:?}");
    }

    /// Registers; gives the topic and the body of the answer.
    async fn registers(&self, id: &str, ca: &Ca, leaf: &Leaf) -> (String, Value) {
        let mut client = self.client(id, ca, leaf);
        client.subscribe("$dps/registrations/res/#").await;
        let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
        client.client.publish(topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
        client.message("$dps/registrations/res/").await
    }
}

const GROUP: &str = "/api/enrollmentGroups/line";

async fn x509_group(central: &Central) -> String {
    let request = json!({"displayName": "Line", "type": "iot", "attestation": {"type": "x509"}});
    let group = central.put(GROUP, request).await;
    assert_eq!(group["attestation"], json!({"type": "x509", "x509": {"signingCertificates": {}}}));
    group["idScope"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_enrols_by_a_verified_authority_and_connects_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let scope = x509_group(&central).await;
    let enrolling = Enrolling { central: &central, dir: dir.path(), scope };
    let (root, stranger) = (Ca::new("root", None), Ca::new("root", None));
    let line = Ca::new("line 1", Some(&root));
    let leaf = line.leaf("press-1");
    enrolling.is_refused("press-1", &line, &leaf).await;

    // Uploaded as IoT Central's guide has it, base64 of DER; nobody enrols by it until it is verified.
    let der = certificates(root.pem.as_bytes()).unwrap()[0].to_vec();
    let primary = format!("{GROUP}/certificates/primary");
    let put = central.put(&primary, json!({"verified": false, "certificate": STANDARD.encode(&der)})).await;
    assert_eq!(put["verified"], false);
    assert_eq!(central.get(&primary).await, put);
    enrolling.is_refused("press-1", &line, &leaf).await;
    let (status, refused) = central
        .send(Method::POST, &format!("{primary}/verify"), Some(json!({"certificate": leaf.0.pem()})))
        .await;
    assert!(
        status == 422 && refused["error"]["message"].as_str().unwrap().contains("generateVerificationCode")
    );
    let code = central.ok(Method::POST, &format!("{primary}/generateVerificationCode"), None).await;
    let code = code["verificationCode"].as_str().unwrap().to_owned();
    for (proof, part) in [
        (root.leaf("another").0.pem(), "common name"),
        (stranger.leaf(&code).0.pem(), "key"),
        (root.leaf(&code).0.pem().replace("CERT", "PERT"), "certificate"),
    ] {
        let verify = format!("{primary}/verify");
        let (status, refused) =
            central.send(Method::POST, &verify, Some(json!({"certificate": proof}))).await;
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(status == 422 && message.contains(part), "{refused}");
    }
    let proof = STANDARD.encode(root.leaf(&code).0.pem());
    central.ok(Method::POST, &format!("{primary}/verify"), Some(json!({"certificate": proof}))).await;
    assert_eq!(central.get(&primary).await["verified"], true);

    // Through an intermediate that the device shows; its certificate is what proves it from now on.
    enrolling.is_refused("press-2", &line, &leaf).await;
    enrolling.is_refused("press-1", &stranger, &stranger.leaf("press-1")).await;
    let (topic, _) = enrolling.registers("press-1", &line, &leaf).await;
    assert!(topic.starts_with("$dps/registrations/res/202/"), "{topic}");
    let shown = central.get("/api/devices/press-1/attestation").await;
    assert_eq!(
        shown["x509"]["clientCertificates"]["primary"]["info"]["sha256Thumbprint"],
        Thumbprint::sha256(leaf.0.der()).to_string(),
        "{shown}"
    );
    let user = || "central.test/press-1/?api-version=2021-04-12".to_owned();
    let mut device = client(&central, dir.path(), user(), "press-1", &line, &leaf);
    device.publish("devices/press-1/messages/events/", "{}").await;

    // It enrols anew with a new certificate: the old one's connection ends, and proves nothing any more.
    let renewed = root.leaf("press-1");
    assert!(
        enrolling.registers("press-1", &root, &renewed).await.0.starts_with("$dps/registrations/res/202/")
    );
    let ended = async { while device.events.poll().await.is_ok() {} };
    tokio::time::timeout(common::STEP, ended).await.expect("the old connection stayed");
    let refused = client(&central, dir.path(), user(), "press-1", &line, &leaf).events.poll().await;
    assert!(matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))));
    let mut device = client(&central, dir.path(), user(), "press-1", &root, &renewed);
    device.publish("devices/press-1/messages/events/", "{}").await;

    // Another authority to change over to, which its uploader vouches for; and the first one taken away.
    let secondary = format!("{GROUP}/certificates/secondary");
    central.put(&secondary, json!({"verified": true, "certificate": stranger.pem})).await;
    central.ok(Method::DELETE, &primary, None).await;
    assert_eq!(central.send(Method::GET, &primary, None).await.0, 404);
    enrolling.is_refused("press-1", &root, &renewed).await;
    let other = stranger.leaf("press-3");
    assert!(
        enrolling.registers("press-3", &stranger, &other).await.0.starts_with("$dps/registrations/res/202/")
    );
    device.publish("devices/press-1/messages/events/", "still here").await;

    // Switched off; and one that an operator registered is nobody's to enrol.
    central.patch(GROUP, json!({"enabled": false})).await;
    enrolling.is_refused("press-3", &stranger, &other).await;
    central.patch(GROUP, json!({"enabled": true})).await;
    central.put("/api/devices/own", json!({})).await;
    enrolling.is_refused("own", &stranger, &stranger.leaf("own")).await;
    let own = stranger.leaf("any name");
    let attestation =
        json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": own.0.pem()}}}});
    central.put("/api/devices/own/attestation", attestation).await;
    assert!(enrolling.registers("own", &stranger, &own).await.0.starts_with("$dps/registrations/res/202/"));
    central.end().await;
}

#[tokio::test]
async fn certificates_of_a_group_outlive_a_restart_and_what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let ca = Ca::new("root", None);
    let made = central
        .put(
            GROUP,
            json!({"attestation": {"type": "x509", "x509": {"signingCertificates": {
                "primary": {"verified": true, "certificate": ca.pem}}}}}),
        )
        .await;
    assert_eq!(made["attestation"]["x509"]["signingCertificates"]["primary"]["verified"], true);
    central.end().await;
    let central = start(dir.path()).await;
    assert_eq!(central.get(GROUP).await, made);
    assert_eq!(
        central.get("/api/enrollmentGroups").await["value"][0]["attestation"],
        json!({"type": "x509"})
    );
    let request = json!({"attestation": {"type": "symmetricKey"}});
    central.put("/api/enrollmentGroups/keys", request.clone()).await;
    let leaf = ca.leaf("press-1").0.pem();
    let expired = {
        let mut params = params("old");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    for (method, path, body, status, part) in [
        (Method::PATCH, GROUP.to_owned(), request, 422, "attestation.type"),
        (Method::PUT, format!("{GROUP}/certificates/third"), json!({"certificate": leaf}), 400, "third"),
        (Method::PUT, format!("{GROUP}/certificates/secondary"), json!({}), 422, "secondary.certificate"),
        (
            Method::PUT,
            format!("{GROUP}/certificates/primary"),
            json!({"certificate": "&"}),
            422,
            "primary.certificate",
        ),
        (
            Method::PUT,
            format!("{GROUP}/certificates/primary"),
            json!({"certificate": expired}),
            422,
            "expired",
        ),
        (
            Method::PUT,
            "/api/enrollmentGroups/keys/certificates/primary".to_owned(),
            json!({"certificate": ca.pem}),
            422,
            "keys",
        ),
        (
            Method::PUT,
            "/api/enrollmentGroups/none/certificates/primary".to_owned(),
            json!({"certificate": ca.pem}),
            404,
            "none",
        ),
        (
            Method::POST,
            format!("{GROUP}/certificates/secondary/generateVerificationCode"),
            json!({}),
            404,
            "secondary",
        ),
        (Method::DELETE, format!("{GROUP}/certificates/secondary"), json!({}), 404, "secondary"),
    ] {
        let (found, answer) = central.send(method.clone(), &path, Some(body)).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(part), "{method} {path}: {found} {answer}");
    }
    let viewer = central.new_token(Role::Viewer).await;
    let path = format!("{GROUP}/certificates/primary");
    assert_eq!(central.send_as(&viewer, Method::GET, &path, None).await.0, 403);
    // The same certificate again stays verified, another one does not.
    assert_eq!(central.put(&path, json!({"certificate": ca.pem})).await["verified"], true);
    assert_eq!(
        central.put(&path, json!({"certificate": Ca::new("other", None).pem})).await["verified"],
        false
    );
    central.end().await;
}

#[tokio::test]
async fn a_group_lists_the_registered_gateways_that_may_enrol_its_devices_and_none_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    x509_group(&central).await;
    assert_eq!(central.get(GROUP).await["gateways"], json!([]));
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/press", json!({})).await;
    for wrong in [json!(["nobody"]), json!(["press"]), json!("gw"), json!(["a b"])] {
        let (status, refused) = central.send(Method::PATCH, GROUP, Some(json!({"gateways": wrong}))).await;
        assert!((400..=422).contains(&status), "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("gateways"), "{refused}");
    }
    assert_eq!(central.patch(GROUP, json!({"gateways": ["gw"]})).await["gateways"], json!(["gw"]));
    assert_eq!(central.patch(GROUP, json!({"displayName": "Line 2"})).await["gateways"], json!(["gw"]));
    central.ok(Method::DELETE, "/api/devices/gw", None).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    assert_eq!(central.get(GROUP).await["gateways"], json!([]), "the next gateway of that name is listed");

    let keys = json!({"gateways": ["gw"], "attestation": {"type": "symmetricKey"}});
    assert_eq!(central.send(Method::PUT, "/api/enrollmentGroups/keys", Some(keys)).await.0, 422);
    central.end().await;
}
