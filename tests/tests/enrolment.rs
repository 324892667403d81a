//! Devices that enrol themselves with the unmodified Azure SDKs for Python and Node, by key and by certificate, through a
//! gateway and at central's own listener, and then work: telemetry up, a cloud-to-device message down.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::rest::eventually;
use site_tests::site::{Site, hostname};

/// Makes an enrolment group and says how a device enrols by it.
async fn how(site: &Site, id: &str) -> Value {
    let rest = site.rest().unwrap();
    let request = json!({"attestation": {"type": "symmetricKey"}});
    let group = rest.put("/api/enrollmentGroups/line", &request).await.unwrap();
    json!({
        "host": "localhost",
        "scope": group["idScope"],
        "id": id,
        "group_key": group["attestation"]["symmetricKey"]["primaryKey"],
    })
}

/// Makes an enrolment group whose devices show certificates, at central or through these gateways; proves to central that the authority is ours.
async fn x509_group(site: &Site, gateways: &[&str]) -> Ca {
    let rest = site.rest().unwrap();
    let ca = Ca::new("devices of line 2", None);
    let request = json!({"gateways": gateways, "attestation": {"type": "x509", "x509": {"signingCertificates": {
        "primary": {"verified": false, "certificate": STANDARD.encode(&ca.pem)}}}}});
    rest.put("/api/enrollmentGroups/line-2", &request).await.unwrap();
    let primary = "/api/enrollmentGroups/line-2/certificates/primary";
    let code = rest.post(&format!("{primary}/generateVerificationCode"), &json!({})).await.unwrap();
    let (proof, _) = ca.leaf(code["verificationCode"].as_str().unwrap());
    rest.post(&format!("{primary}/verify"), &json!({"certificate": STANDARD.encode(proof)})).await.unwrap();
    assert_eq!(rest.get(primary).await.unwrap()["verified"], true);
    ca
}

/// An authority of devices.
struct Ca {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
    pem: String,
}

impl Ca {
    fn params(name: &str) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    }

    fn new(name: &str, parent: Option<&Ca>) -> Self {
        let mut params = Self::params(name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = match parent {
            None => params.self_signed(&key).unwrap().pem(),
            Some(parent) => {
                let issuer = rcgen::Issuer::from_params(&parent.params, &parent.key);
                params.signed_by(&key, &issuer).unwrap().pem()
            }
        };
        Self { params, key, pem }
    }

    /// A certificate and its key, PEM.
    fn leaf(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        (Self::params(name).signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A device of an authority below this one: its certificate with that authority's, and its key, in files.
    fn device(&self, site: &Site, id: &str, how: &mut Value) {
        let line = Self::new("line 2, hall 7", Some(self));
        let (certificate, key) = line.leaf(id);
        let (certificate_file, key_file) =
            (site.dir.join(format!("{id}.pem")), site.dir.join(format!("{id}-key.pem")));
        std::fs::write(&certificate_file, format!("{certificate}{}", line.pem)).unwrap();
        std::fs::write(&key_file, key).unwrap();
        (how["certificate"], how["key"]) = (json!(certificate_file), json!(key_file));
    }
}

async fn enrol(site: &Site, how: &Value) -> Client {
    enrol_with(site, Kind::AzurePython, how).await
}

async fn enrol_with(site: &Site, kind: Kind, how: &Value) -> Client {
    let script = if kind == Kind::Node { "azure_enrol.js" } else { "azure_enrol.py" };
    let mut command = kind.command(script).unwrap();
    command.env("NODE_EXTRA_CA_CERTS", how["ca"].as_str().unwrap());
    let mut client = Client::start("the enrolling device", command, &site.dir.join("enrol.log")).unwrap();
    client.command(how).await.unwrap();
    client.event("enrolling", STEP).await.unwrap();
    client
}

/// What an enrolled device does.
async fn works(site: &Site, client: &mut Client, id: &str) {
    let rest = site.rest().unwrap().clone();
    client.event("sent", STEP).await.unwrap();
    eventually("the device's message in central", STEP, || async {
        Ok(rest.messages(id).await?.into_iter().find(|message| message["body"]["enrolled"] == true))
    })
    .await
    .unwrap();
    let sent =
        json!({"messageId": "m-1", "ack": "full", "properties": {"line": "A&B 1/2"}, "body": {"go": 1}});
    let path = format!("/api/ext/devices/{id}/messages/devicebound");
    let sent = rest.post(&path, &sent).await.unwrap();
    let message = client.event("message", STEP).await.unwrap();
    for (name, value) in [
        ("body", json!(r#"{"go":1}"#)),
        ("message_id", json!("m-1")),
        ("content_type", json!("application/json")),
        ("ack", json!("full")),
        ("expiry", sent["expiryTime"].clone()),
        ("properties", json!({"line": "A&B 1/2"})),
    ] {
        // Node's SDK does not read when a message expires.
        if name == "expiry" && message[name].is_null() {
            continue;
        }
        assert_eq!(message[name], value, "{name}: {message}");
    }
    eventually("the device's acknowledgement", STEP, || async {
        Ok((rest.get(&path).await?["value"][0]["state"] == "delivered").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_device_enrols_through_its_gateway_and_waits_while_central_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "enrol-gateway", true).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut how = how(&site, "enrolled-1").await;
    how["ca"] = json!(site.gateway_ca());
    how["gateway"] = json!("localhost");

    site.stop_central().await.unwrap();
    let mut client = enrol(&site, &how).await;
    eventually("the gateway's word that the device is connected", STEP, || async {
        Ok(site.agent_log().contains("$dps:enrolled-1").then_some(()))
    })
    .await
    .unwrap();
    site.start_central().await.unwrap();
    let enrolled = client.event("enrolled", STEP).await.unwrap();
    assert_eq!((&enrolled["status"], &enrolled["device"]), (&json!("assigned"), &json!("enrolled-1")));
    assert_eq!((&enrolled["hub"], &enrolled["substatus"]), (&json!(hostname()), &json!("initialAssignment")));
    works(&site, &mut client, "enrolled-1").await;
    let rest = site.rest().unwrap();
    let status = rest.get("/api/ext/devices/enrolled-1/status").await.unwrap();
    assert_eq!((&status["gateway"], &status["connected"]), (&json!("enrol-gateway"), &json!(true)));
    client.end(STEP).await.unwrap();

    // Another key is refused at the gateway by central's word.
    how["id"] = json!("enrolled-2");
    how["group_key"] = json!("YW5vdGhlciBrZXkgb2YgMTYgYnl0ZXM=");
    let refused = enrol(&site, &how).await;
    let ended = refused.end(STEP).await.unwrap_err().to_string();
    assert!(ended.contains("CredentialError"), "{ended}");
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_device_waits_behind_its_gateway_until_it_is_approved_and_another_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "enrol-gateway", true).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut how = how(&site, "waits-1").await;
    how["ca"] = json!(site.gateway_ca());
    how["gateway"] = json!("localhost");
    let rest = site.rest().unwrap().clone();
    rest.put("/api/ext/enrollmentGroups/line/approval", &json!({"autoApprove": false})).await.unwrap();
    let mut client = enrol(&site, &how).await;
    how["id"] = json!("waits-2");
    let rejected = enrol_with(&site, Kind::Node, &how).await;
    for id in ["waits-1", "waits-2"] {
        let waiting = eventually("the device waits", STEP, || async {
            let page = rest.get(&format!("/api/ext/grid?verdict=waiting&search={id}")).await?;
            Ok(page["value"].get(0).cloned())
        });
        assert_eq!(waiting.await.unwrap()["gateway"], "enrol-gateway");
    }
    rest.post("/api/ext/devices/waits-2/reject", &json!({})).await.unwrap();
    rejected.end(STEP).await.unwrap_err();
    assert!(client.unasked("enrolled").is_empty(), "it was let in before it was approved");
    rest.post("/api/ext/devices/waits-1/approve", &json!({})).await.unwrap();
    let enrolled = client.event("enrolled", STEP).await.unwrap();
    assert_eq!((&enrolled["status"], &enrolled["hub"]), (&json!("assigned"), &json!(hostname())));
    works(&site, &mut client, "waits-1").await;
    client.end(STEP).await.unwrap();
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn a_device_enrols_at_centrals_mqtt_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "no-gateway", false).unwrap();
    // The SDK knows no other port.
    site.central_mqtts = 8883;
    site.start_central().await.unwrap();
    let mut how = how(&site, "enrolled-3").await;
    how["ca"] = json!(site.dir.join("central/ca.pem"));
    let mut client = enrol(&site, &how).await;
    let enrolled = client.event("enrolled", STEP).await.unwrap();
    assert_eq!((&enrolled["status"], &enrolled["hub"]), (&json!("assigned"), &json!("localhost")));
    works(&site, &mut client, "enrolled-3").await;
    client.end(STEP).await.unwrap();
    site.end(false).await.unwrap();
}

/// Devices of both SDKs by certificate, and one of Node by key, all at once: they wait for most of their time. `how` is what
/// they have in common.
async fn the_others_enrol(site: &Site, how: &Value, hub: &str, gateways: &[&str]) {
    let ca = x509_group(site, gateways).await;
    let mut all = Vec::new();
    for (kind, id, has_certificate) in [
        (Kind::AzurePython, "python-x509", true),
        (Kind::Node, "node-x509", true),
        (Kind::Node, "node-key", false),
    ] {
        let mut how = how.clone();
        how["id"] = json!(id);
        if has_certificate {
            how.as_object_mut().unwrap().remove("group_key");
            ca.device(site, id, &mut how);
        }
        all.push((id, enrol_with(site, kind, &how).await));
    }
    for (id, client) in &mut all {
        let enrolled = client.event("enrolled", STEP).await.unwrap();
        assert_eq!(
            (&enrolled["status"], &enrolled["device"]),
            (&json!("assigned"), &json!(id)),
            "{enrolled}"
        );
        assert_eq!(enrolled["hub"], hub, "{enrolled}");
        works(site, client, id).await;
    }
    for (id, client) in all {
        client.end(STEP).await.unwrap();
        println!("{id} enrolled and worked");
    }

    // A certificate of somebody else's authority, and one that names another device.
    let stranger = Ca::new("devices of line 2", None);
    for (kind, ca, name) in [
        (Kind::AzurePython, &stranger, "thief"),
        (Kind::Node, &stranger, "thief"),
        (Kind::Node, &ca, "other"),
    ] {
        let mut how = how.clone();
        how.as_object_mut().unwrap().remove("group_key");
        ca.device(site, name, &mut how);
        how["id"] = json!("thief");
        let ended = enrol_with(site, kind, &how).await.end(STEP).await.unwrap_err().to_string();
        assert!(ended.contains("CredentialError") || ended.contains("Not authorized"), "{ended}");
    }
}

#[tokio::test]
async fn devices_of_both_sdks_enrol_by_certificate_or_key_through_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "enrol-gateway", true).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut how = how(&site, "").await;
    how["ca"] = json!(site.gateway_ca());
    how["gateway"] = json!("localhost");
    the_others_enrol(&site, &how, &hostname(), &["enrol-gateway"]).await;
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn devices_of_both_sdks_enrol_by_certificate_or_key_at_centrals_mqtt_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "no-gateway", false).unwrap();
    site.central_mqtts = 8883;
    site.start_central().await.unwrap();
    let mut how = how(&site, "").await;
    how["ca"] = json!(site.dir.join("central/ca.pem"));
    the_others_enrol(&site, &how, "localhost", &[]).await;
    site.end(false).await.unwrap();
}
