//! How a device proves itself, through the REST API and at the MQTT server.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::token::Role;
use common::{STEP, start};
use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, Packet};
use serde_json::{Value, json};

const PATH: &str = "/api/devices/d/attestation";

#[tokio::test]
async fn keys_and_certificates_are_set_shown_merged_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let made = central.get(PATH).await;
    assert_eq!(made["type"], "symmetricKey");
    let key = |byte: u8| STANDARD.encode([byte; 32]);
    let patched = central.patch(PATH, json!({"symmetricKey": {"secondaryKey": key(2)}})).await;
    assert_eq!(patched["symmetricKey"]["primaryKey"], made["symmetricKey"]["primaryKey"]);
    assert_eq!(patched["symmetricKey"]["secondaryKey"], json!(key(2)));

    let sha1 = |digit: &str| json!({"info": {"sha1Thumbprint": digit.repeat(40)}});
    let certificates = |primary: Value| json!({"type": "x509", "x509": {"clientCertificates": primary}});
    central.put(PATH, certificates(json!({"primary": sha1("a")}))).await;
    let merged = central.patch(PATH, certificates(json!({"secondary": sha1("b")}))).await;
    let shown = &merged["x509"]["clientCertificates"];
    assert_eq!(shown["primary"]["info"]["sha1Thumbprint"], json!("A".repeat(40)));
    assert_eq!(shown["secondary"]["info"]["sha1Thumbprint"], json!("B".repeat(40)));
    let replaced = central.put(PATH, certificates(json!({"primary": sha1("c")}))).await;
    assert!(replaced["x509"]["clientCertificates"].get("secondary").is_none());
    let pem = rcgen::generate_simple_self_signed(["d".to_owned()]).unwrap().cert.pem();
    let by_pem = central.put(PATH, certificates(json!({"primary": {"certificate": pem}}))).await;
    let info = &by_pem["x509"]["clientCertificates"]["primary"]["info"];
    assert_eq!(info["sha256Thumbprint"].as_str().unwrap().len(), 64);
    let by_ca = central.put(PATH, json!({"type": "x509", "x509": {"isCaSigned": true}})).await;
    assert_eq!(by_ca, json!({"type": "x509", "x509": {"isCaSigned": true}}));
    assert_eq!(central.get(PATH).await, by_ca);

    central.ok(Method::DELETE, PATH, None).await;
    let anew = central.get(PATH).await;
    assert_eq!(anew["type"], "symmetricKey");
    assert_ne!(anew["symmetricKey"]["primaryKey"], made["symmetricKey"]["primaryKey"]);

    for (body, phrase) in [
        (json!({}), "neither"),
        (json!({"type": "tpm"}), "tpm"),
        (json!({"type": "x509"}), "x509"),
        (json!({"type": "x509", "x509": {"clientCertificates": {"secondary": sha1("a")}}}), "primary"),
        (certificates(json!({"primary": {"info": {"sha1Thumbprint": "12"}}})), "primary"),
        (certificates(json!({"primary": {"certificate": "nonsense"}})), "primary"),
        (json!({"symmetricKey": {"primaryKey": "c2hvcnQ="}}), "primaryKey"),
        (json!({"symmetricKey": {}, "x509": {}}), "one way"),
    ] {
        let (status, answer) = central.send(Method::PUT, PATH, Some(body.clone())).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 422 && message.contains(phrase), "{body}: {status} {answer}");
    }
    assert_eq!(central.send(Method::GET, "/api/devices/e/attestation", None).await.0, 404);
    let viewer = central.new_token(Role::Viewer).await;
    assert_eq!(central.send_as(&viewer, Method::GET, PATH, None).await.0, 403, "it shows keys");
    central.end().await;
}

#[tokio::test]
async fn a_changed_key_ends_the_connection_that_it_had_proven_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let keys = central.get(PATH).await;
    let decode = |name: &str| STANDARD.decode(keys["symmetricKey"][name].as_str().unwrap()).unwrap();
    let mut by_primary = central.client_with_key("d", &decode("primaryKey"));
    by_primary.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    let new = json!({"symmetricKey": {"primaryKey": STANDARD.encode([7; 32])}});
    central.patch(PATH, new.clone()).await;
    let ended = tokio::time::timeout(STEP, async { while by_primary.events.poll().await.is_ok() {} });
    ended.await.unwrap();
    let refused = by_primary.events.poll().await;
    assert!(matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))));
    let mut by_secondary = central.client_with_key("d", &decode("secondaryKey"));
    by_secondary.publish("devices/d/messages/events/", "1").await;
    central.patch(PATH, new).await;
    // The same key again ends nothing.
    by_secondary.publish("devices/d/messages/events/", "2").await;
    central.end().await;
}
