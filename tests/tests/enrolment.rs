//! Devices that enrol themselves with the unmodified Azure SDK for Python, through a gateway and at central's own door, and
//! then work: telemetry up, a cloud-to-device message down.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::client::{Client, Kind};
use site_tests::rest::eventually;
use site_tests::site::{Site, hostname};

const STEP: Duration = Duration::from_secs(60);

/// Makes an enrolment group and says how a device enrols by it.
async fn how(site: &Site, id: &str) -> Value {
    let rest = site.rest().unwrap();
    let wish = json!({"attestation": {"type": "symmetricKey"}});
    let group = rest.put("/api/enrollmentGroups/line", &wish).await.unwrap();
    json!({
        "host": "localhost",
        "scope": group["idScope"],
        "id": id,
        "group_key": group["attestation"]["symmetricKey"]["primaryKey"],
    })
}

async fn enrol(site: &Site, how: &Value) -> Client {
    let command = Kind::AzurePython.command("azure_enrol.py").unwrap();
    let mut client = Client::start("the enrolling device", command, &site.dir.join("enrol.log")).unwrap();
    client.tell(how).await.unwrap();
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
async fn a_device_enrols_at_centrals_own_door() {
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
