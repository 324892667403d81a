//! Devices that enrol themselves at central's own listener, and those that may not.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Central, Mqtt, start};
use edge_core::access::{enrolment, sas};
use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

/// A client as the Azure SDKs make it, with any key.
fn enrolling(central: &Central, scope: &str, id: &str, key: &[u8]) -> Mqtt {
    let resource = format!("{scope}%2Fregistrations%2F{id}");
    let expires_at = central::clock::now_ms() / 1000 + 3600;
    let signature = STANDARD.encode(sas::sign(key, format!("{resource}\n{expires_at}").as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires_at}");
    let mut options = MqttOptions::new(id, "127.0.0.1", central.started.mqtt.unwrap().port());
    let user = format!("{scope}/registrations/{id}/api-version=2019-03-31&ClientVersion=a%20test");
    options.set_credentials(user, token).set_clean_session(false);
    Mqtt::new(options)
}

async fn refused(mut client: Mqtt) {
    let refused = client.events.poll().await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized))),
        "{refused:?}"
    );
}

async fn group(central: &Central, id: &str, request: Value) -> (Vec<u8>, Vec<u8>) {
    let group = central.put(&format!("/api/enrollmentGroups/{id}"), request).await;
    let key =
        |name: &str| STANDARD.decode(group["attestation"]["symmetricKey"][name].as_str().unwrap()).unwrap();
    (key("primaryKey"), key("secondaryKey"))
}

/// Asks and gives the status, the topic and the body of the answer.
async fn ask(client: &mut Mqtt, topic: &str) -> (String, Value) {
    client.client.publish(topic, QoS::AtLeastOnce, false, r#"{"registrationId":"x"}"#).await.unwrap();
    client.message("$dps/registrations/res/").await
}

#[tokio::test]
async fn a_device_enrols_by_a_groups_key_and_connects_with_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let site = central.get("/api/ext/provisioning").await;
    let scope = site["idScope"].as_str().unwrap().to_owned();
    assert!(scope.starts_with("0ne") && scope.len() == 11, "{scope}");
    let (primary, secondary) =
        group(&central, "line-4", json!({"attestation": {"type": "symmetricKey"}})).await;
    let key = enrolment::derive_key(&primary, &"press-1".parse().unwrap());

    let mut device = enrolling(&central, &scope, "press-1", &key);
    device.subscribe("$dps/registrations/res/#").await;
    let (topic, assigning) = ask(&mut device, "$dps/registrations/PUT/iotdps-register/?$rid=r1").await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=r1&retry-after=3");
    assert_eq!(assigning["status"], "assigning");
    let operation = assigning["operationId"].as_str().unwrap();
    let poll = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={operation}");
    let (topic, assigned) = ask(&mut device, &poll).await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=r2");
    let state = &assigned["registrationState"];
    assert_eq!((&assigned["status"], &assigned["operationId"]), (&json!("assigned"), &json!(operation)));
    for (name, value) in [
        ("registrationId", "press-1"),
        ("deviceId", "press-1"),
        ("assignedHub", "central.test"),
        ("status", "assigned"),
        ("substatus", "initialAssignment"),
    ] {
        assert_eq!(state[name], value, "{name}");
    }
    let wrong = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r3&operationId=nothing";
    let (topic, unknown) = ask(&mut device, wrong).await;
    assert_eq!(topic, "$dps/registrations/res/404/?$rid=r3");
    assert_eq!(unknown["errorCode"], 404_000);

    // It is no device yet: nothing else is open to it.
    device.client.subscribe("devices/press-1/messages/devicebound/#", QoS::AtLeastOnce).await.unwrap();
    let codes = device.next(|packet| match packet {
        Packet::SubAck(ack) => Some(ack.return_codes),
        _ => None,
    });
    assert_eq!(codes.await, [rumqttc::SubscribeReasonCode::Failure]);
    device.client.publish("devices/press-1/messages/events/", QoS::AtLeastOnce, false, "{}").await.unwrap();
    let is_acknowledged = async {
        loop {
            match device.events.poll().await {
                Ok(rumqttc::Event::Incoming(Packet::PubAck(_))) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        }
    };
    assert!(!tokio::time::timeout(common::STEP, is_acknowledged).await.unwrap());

    // The device, with the key that central keeps for it now; its session is not the one of the enrolment.
    let credentials = central.get("/api/devices/press-1/credentials").await;
    assert_eq!(credentials["symmetricKey"]["primaryKey"], STANDARD.encode(&key));
    assert_eq!(credentials["idScope"], scope.as_str());
    let mut device = central.lasting_client("press-1").await;
    let ack = device.next(|packet| match packet {
        Packet::ConnAck(ack) => Some(ack),
        _ => None,
    });
    assert!(!ack.await.session_present);
    device.publish("devices/press-1/messages/events/", "{}").await;

    // Once more, by the group's other key: the same device.
    let key = enrolment::derive_key(&secondary, &"press-1".parse().unwrap());
    let mut again = enrolling(&central, &scope, "press-1", &key);
    again.subscribe("$dps/registrations/res/#").await;
    let (topic, _) = ask(&mut again, "$dps/registrations/PUT/iotdps-register/?$rid=r4").await;
    assert!(topic.starts_with("$dps/registrations/res/202/"), "{topic}");
    assert_eq!(central.get("/api/devices?$top=10").await["value"].as_array().unwrap().len(), 1);

    // The provisioning topics are not for devices.
    device
        .client
        .publish("$dps/registrations/PUT/iotdps-register/?$rid=r5", QoS::AtMostOnce, false, "{}")
        .await
        .unwrap();
    let ended = async { while device.events.poll().await.is_ok() {} };
    tokio::time::timeout(common::STEP, ended).await.unwrap();
    central.end().await;
}

#[tokio::test]
async fn nobody_enrols_by_a_wrong_key_scope_or_group_or_as_somebody_elses_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let scope = central.get("/api/ext/provisioning").await["idScope"].as_str().unwrap().to_owned();
    let key_of = |group: &[u8], id: &str| enrolment::derive_key(group, &id.parse().unwrap());
    refused(enrolling(&central, &scope, "d", b"no group yet")).await;
    let (primary, _) = group(&central, "g", json!({"attestation": {"type": "symmetricKey"}})).await;
    refused(enrolling(&central, &scope, "d", b"another key")).await;
    refused(enrolling(&central, &scope, "d", &primary)).await;
    refused(enrolling(&central, "0neFFFFFFFF", "d", &key_of(&primary, "d"))).await;
    refused(enrolling(&central, &scope, "d", &key_of(&primary, "e"))).await;

    // One that an operator registered has its own keys.
    central.put("/api/devices/own", json!({})).await;
    refused(enrolling(&central, &scope, "own", &key_of(&primary, "own"))).await;
    let own = central.get("/api/devices/own/credentials").await["symmetricKey"]["primaryKey"].clone();
    let mut by_own_key = enrolling(&central, &scope, "own", &STANDARD.decode(own.as_str().unwrap()).unwrap());
    by_own_key.subscribe("$dps/registrations/res/#").await;
    let (topic, _) = ask(&mut by_own_key, "$dps/registrations/PUT/iotdps-register/?$rid=1").await;
    assert!(topic.starts_with("$dps/registrations/res/202/"), "{topic}");
    refused(enrolling(&central, &scope, "own", &key_of(&primary, "own"))).await;
    assert_eq!(central.get("/api/devices/own/credentials").await["symmetricKey"]["primaryKey"], own);

    // A blocked device, and a group that is switched off while a device enrols.
    let mut device = enrolling(&central, &scope, "d", &key_of(&primary, "d"));
    device.subscribe("$dps/registrations/res/#").await;
    central.patch("/api/enrollmentGroups/g", json!({"enabled": false})).await;
    let (topic, body) = ask(&mut device, "$dps/registrations/PUT/iotdps-register/?$rid=1").await;
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/401/?$rid=1", &json!(401_000)));
    assert_eq!(central.send(Method::GET, "/api/devices/d", None).await.0, 404);
    central.patch("/api/enrollmentGroups/g", json!({"enabled": true})).await;
    central.patch("/api/devices/own", json!({"enabled": false})).await;
    refused(enrolling(&central, &scope, "own", &STANDARD.decode(own.as_str().unwrap()).unwrap())).await;
    central.end().await;
}

#[tokio::test]
async fn a_group_that_was_made_again_does_not_take_over_the_devices_of_the_deleted_one() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let scope = central.get("/api/ext/provisioning").await["idScope"].as_str().unwrap().to_owned();
    let key_of = |group: &[u8]| enrolment::derive_key(group, &"press-1".parse().unwrap());
    let request = json!({"attestation": {"type": "symmetricKey"}});
    let register = "$dps/registrations/PUT/iotdps-register/?$rid=1";
    let (first, _) = group(&central, "line-4", request.clone()).await;
    let mut device = enrolling(&central, &scope, "press-1", &key_of(&first));
    device.subscribe("$dps/registrations/res/#").await;
    let (topic, _) = ask(&mut device, register).await;
    assert!(topic.starts_with("$dps/registrations/res/202/"), "{topic}");

    // A second enrolment is under way while its group is deleted and made again.
    let mut late = enrolling(&central, &scope, "press-1", &key_of(&first));
    late.subscribe("$dps/registrations/res/#").await;
    central.ok(Method::DELETE, "/api/enrollmentGroups/line-4", None).await;
    let (second, _) = group(&central, "line-4", request).await;
    assert_ne!(first, second);
    let (topic, body) = ask(&mut late, register).await;
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/401/?$rid=1", &json!(401_000)));
    let text = body["message"].as_str().unwrap();
    assert!(text.contains("`line-4`") && text.contains("delete the device"), "{text}");
    for group in [&first, &second] {
        refused(enrolling(&central, &scope, "press-1", &key_of(group))).await;
    }
    // Its own key is the one that it had, and it connects by it.
    let credentials = central.get("/api/devices/press-1/credentials").await;
    assert_eq!(credentials["symmetricKey"]["primaryKey"], STANDARD.encode(key_of(&first)));
    let mut mqtt = central.client("press-1").await;
    mqtt.publish("devices/press-1/messages/events/", "{}").await;
    let devices = || async { central.get("/api/ext/enrollmentGroups").await["value"][0]["devices"].clone() };
    assert_eq!(devices().await, 0);

    // What the answer says that an operator may do.
    central.ok(Method::DELETE, "/api/devices/press-1", None).await;
    let mut anew = enrolling(&central, &scope, "press-1", &key_of(&second));
    anew.subscribe("$dps/registrations/res/#").await;
    let (topic, _) = ask(&mut anew, register).await;
    assert!(topic.starts_with("$dps/registrations/res/202/"), "{topic}");
    assert_eq!(devices().await, 1);
    central.end().await;
}

#[tokio::test]
async fn groups_are_made_read_changed_listed_and_deleted_and_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let path = "/api/enrollmentGroups/line-4";
    let key = STANDARD.encode([7; 32]);
    let made = central
        .put(
            path,
            json!({"displayName": "Line 4", "type": "iotEdge", "attestation": {"type": "symmetricKey",
            "symmetricKey": {"primaryKey": key}}}),
        )
        .await;
    assert_eq!(made["attestation"]["symmetricKey"]["primaryKey"], key.as_str());
    assert_eq!((&made["enabled"], &made["type"]), (&json!(true), &json!("iotEdge")));
    central.end().await;

    let central = start(dir.path()).await;
    let read = central.get(path).await;
    assert_eq!(read, made);
    let changed = central.patch(path, json!({"enabled": false})).await;
    assert_eq!((&changed["enabled"], &changed["displayName"]), (&json!(false), &json!("Line 4")));
    let list = central.get("/api/enrollmentGroups").await;
    assert_eq!(list["value"][0]["attestation"], json!({"type": "symmetricKey"}), "a list shows no keys");
    for (request, field) in [
        (json!({}), "attestation"),
        (json!({"attestation": {"type": "tpm"}}), "attestation.type"),
        (json!({"type": "other", "attestation": {"type": "symmetricKey"}}), "type"),
        (
            json!({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "YQ=="}}}),
            "attestation.symmetricKey.primaryKey",
        ),
    ] {
        let (status, refused) = central.send(Method::PUT, "/api/enrollmentGroups/new", Some(request)).await;
        assert_eq!(status, 422, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().starts_with(field), "{refused}");
    }
    assert_eq!(central.send(Method::PATCH, path, Some(json!({"type": "iot"}))).await.0, 422);
    let viewer = central.new_token(central::token::Role::Viewer).await;
    assert_eq!(central.send_as(&viewer, Method::GET, path, None).await.0, 403);
    central.ok(Method::DELETE, path, None).await;
    assert_eq!(central.send(Method::GET, path, None).await.0, 404);
    central.end().await;
}
