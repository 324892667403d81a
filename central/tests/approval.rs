//! Devices that enrol by a group without automatic approval: they wait, are approved or rejected, and go on.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::token::Role;
use common::starting::starting;
use common::{Central, Mqtt, start};
use edge_core::access::{enrolment, sas};
use reqwest::Method;
use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

const GROUP: &str = "/api/enrollmentGroups/line-4";
const APPROVAL: &str = "/api/ext/enrollmentGroups/line-4/approval";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=1";

/// A group without automatic approval, and what its devices need.
struct Group {
    scope: String,
    key: Vec<u8>,
}

impl Group {
    async fn new(central: &Central) -> Self {
        Self::of_kind(central, "iot").await
    }

    async fn of_kind(central: &Central, kind: &str) -> Self {
        let request = json!({"type": kind, "attestation": {"type": "symmetricKey"}});
        let made = central.put(GROUP, request).await;
        assert_eq!(central.get(APPROVAL).await, json!({"autoApprove": true}), "as IoT Central's own groups");
        central.put(APPROVAL, json!({"autoApprove": false})).await;
        let key = made["attestation"]["symmetricKey"]["primaryKey"].as_str().unwrap();
        Self { scope: made["idScope"].as_str().unwrap().to_owned(), key: STANDARD.decode(key).unwrap() }
    }

    fn key_of(&self, id: &str) -> Vec<u8> {
        enrolment::derive_key(&self.key, &id.parse().unwrap())
    }

    /// A client as the Azure SDKs make it to enrol.
    async fn enrolling(&self, central: &Central, id: &str) -> Mqtt {
        let resource = format!("{}%2Fregistrations%2F{id}", self.scope);
        let expires_at = central::clock::now_ms() / 1000 + 3600;
        let signature =
            STANDARD.encode(sas::sign(&self.key_of(id), format!("{resource}\n{expires_at}").as_bytes()));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires_at}");
        let mut options = MqttOptions::new(id, "127.0.0.1", central.started.mqtt.unwrap().port());
        let user = format!("{}/registrations/{id}/api-version=2019-03-31&ClientVersion=a%20test", self.scope);
        options.set_credentials(user, token).set_clean_session(false);
        let mut client = Mqtt::new(options);
        client.subscribe("$dps/registrations/res/#").await;
        client
    }

    /// Enrols a device; gives its connection and the topic that asks how the registration is.
    async fn enrol(&self, central: &Central, id: &str) -> (Mqtt, String) {
        let mut client = self.enrolling(central, id).await;
        let (topic, answer) = ask(&mut client, REGISTER).await;
        assert_eq!((topic.as_str(), &answer["status"]), (ASSIGNING, &json!("assigning")));
        let operation = answer["operationId"].as_str().unwrap();
        (client, format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId={operation}"))
    }
}

const ASSIGNING: &str = "$dps/registrations/res/202/?$rid=1&retry-after=3";

/// Asks and gives the topic and the body of the answer.
async fn ask(client: &mut Mqtt, topic: &str) -> (String, Value) {
    client.client.publish(topic, QoS::AtLeastOnce, false, r#"{"registrationId":"x"}"#).await.unwrap();
    client.message("$dps/registrations/res/").await
}

async fn is_refused(mut client: Mqtt) {
    let refused = client.events.poll().await;
    let is_it = matches!(refused, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)));
    assert!(is_it, "{refused:?}");
}

/// The state of a device in the list.
async fn state(central: &Central, id: &str) -> Value {
    let grid = central.get(&format!("/api/ext/grid?search={id}")).await;
    grid["value"][0]["state"].clone()
}

async fn cause(central: &Central, id: &str) -> Value {
    central.get(&format!("/api/ext/devices/{id}/why")).await["causes"][0].clone()
}

#[tokio::test]
async fn a_device_waits_over_a_restart_of_central_and_goes_on_once_it_is_approved() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::new(&central).await;
    let (mut client, poll) = group.enrol(&central, "press-1").await;
    let (topic, answer) = ask(&mut client, &poll).await;
    assert_eq!((topic.as_str(), &answer["status"]), (ASSIGNING, &json!("assigning")));

    // IoT Central's word for it, in the list, the API and the diagnosis.
    let waiting = state(&central, "press-1").await;
    assert_eq!(
        (&waiting["lifecycle"], &waiting["verdict"]),
        (&json!("WaitingForApproval"), &json!("waiting"))
    );
    let device = central.get("/api/devices/press-1").await;
    assert_eq!((&device["enabled"], &device["provisioned"]), (&json!(false), &json!(false)));
    let enabled = central.get("/api/devices?$filter=enabled%20eq%20true").await;
    assert_eq!(enabled["value"], json!([]));
    let why = cause(&central, "press-1").await;
    assert_eq!((&why["id"], &why["mend"]["action"]), (&json!("waiting-for-approval"), &json!("approve")));
    let needs = central.get("/api/ext/overview").await["needsYou"].clone();
    assert_eq!(
        (&needs[0]["device"], &needs[0]["causeId"]),
        (&json!("press-1"), &json!("waiting-for-approval"))
    );
    let row = central.get("/api/ext/enrollmentGroups").await["value"][0].clone();
    assert_eq!(
        (&row["autoApprove"], &row["devices"], &row["waiting"]),
        (&json!(false), &json!(1), &json!(1))
    );

    // It has a right key, and is let in only once it is approved.
    is_refused(central.client_with_key("press-1", &group.key_of("press-1"))).await;
    assert_eq!(cause(&central, "press-1").await["id"], "waiting-for-approval");
    let (topic, _) = ask(&mut client, &poll).await;
    assert_eq!(topic, ASSIGNING, "the refused connection took nothing from the registration");
    central.end().await;

    let central = start(dir.path()).await;
    assert_eq!(state(&central, "press-1").await["lifecycle"], "WaitingForApproval");
    is_refused(central.client_with_key("press-1", &group.key_of("press-1"))).await;
    let (mut client, poll) = group.enrol(&central, "press-1").await;
    assert_eq!(ask(&mut client, &poll).await.1["status"], "assigning");
    let decided = central.ok(Method::POST, "/api/ext/devices/press-1/approve", None).await;
    assert_eq!(decided, json!({"device": "press-1", "outcome": "approved"}));
    let (topic, answer) = ask(&mut client, &poll).await;
    assert_eq!(
        (topic.as_str(), &answer["status"]),
        ("$dps/registrations/res/200/?$rid=1", &json!("assigned"))
    );
    let registered = state(&central, "press-1").await;
    assert_eq!((&registered["lifecycle"], &registered["verdict"]), (&json!("Registered"), &json!("unknown")));
    let mut device = central.client_with_key("press-1", &group.key_of("press-1"));
    device.publish("devices/press-1/messages/events/", "{}").await;
    assert_eq!(state(&central, "press-1").await["lifecycle"], "Provisioned");
    assert_eq!(central.get("/api/devices/press-1").await["enabled"], true);

    // Once more, by the group that does not approve: it is known.
    let (mut client, poll) = group.enrol(&central, "press-1").await;
    assert_eq!(ask(&mut client, &poll).await.1["status"], "assigned");
    central.end().await;
}

#[tokio::test]
async fn a_rejected_device_learns_it_and_waits_again_once_it_is_unblocked() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::new(&central).await;
    let (mut client, poll) = group.enrol(&central, "press-1").await;
    central.ok(Method::POST, "/api/ext/devices/press-1/reject", None).await;
    let (topic, answer) = ask(&mut client, &poll).await;
    assert_eq!(
        (topic.as_str(), &answer["errorCode"]),
        ("$dps/registrations/res/401/?$rid=1", &json!(400_209))
    );
    assert_eq!(state(&central, "press-1").await["lifecycle"], "Blocked");
    assert_eq!(cause(&central, "press-1").await["mend"]["action"], "unblock");
    for act in ["approve", "reject"] {
        let path = format!("/api/ext/devices/press-1/{act}");
        let (status, answer) = central.send(Method::POST, &path, None).await;
        assert!(status == 409 && answer.to_string().contains("unblock it first"), "{answer}");
    }
    assert!(central.patch("/api/devices/press-1", json!({"enabled": true})).await["enabled"] == false);
    assert_eq!(state(&central, "press-1").await["lifecycle"], "WaitingForApproval");
    // A script that writes back what it read, and one that approves as with IoT Central.
    let read = central.get("/api/devices/press-1").await;
    central.put("/api/devices/press-1", read).await;
    assert_eq!(state(&central, "press-1").await["lifecycle"], "WaitingForApproval");
    assert!(central.patch("/api/devices/press-1", json!({"enabled": true})).await["enabled"] == true);
    assert_eq!(state(&central, "press-1").await["lifecycle"], "Registered");
    let (status, _) = central.send(Method::POST, "/api/ext/devices/press-1/reject", None).await;
    assert_eq!(status, 409, "it does not wait any more");
    central.end().await;
}

#[tokio::test]
async fn many_devices_are_decided_about_at_once_and_each_has_its_row_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::new(&central).await;
    for id in ["press-1", "press-2", "press-3"] {
        drop(group.enrol(&central, id).await);
    }
    central.put("/api/devices/known", json!({})).await;
    let counts = central.get("/api/ext/grid/counts?verdict=waiting").await;
    assert_eq!(counts["total"], 3);
    let request = |devices: &[&str], decision: &str| json!({"devices": devices, "decision": decision});
    let viewer = central.new_token(Role::Viewer).await;
    let approve = request(&["press-1", "known", "press-2", "nobody", "press-1"], "approve");
    let (status, _) =
        central.send_as(&viewer, Method::POST, "/api/ext/approvals", Some(approve.clone())).await;
    assert_eq!(status, 403);
    assert_eq!(state(&central, "press-1").await["lifecycle"], "WaitingForApproval");

    let decided = central.ok(Method::POST, "/api/ext/approvals", Some(approve)).await;
    let outcomes: Vec<(&str, &str)> = decided["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["device"].as_str().unwrap(), one["outcome"].as_str().unwrap()))
        .collect();
    let expected = [
        ("press-1", "approved"),
        ("known", "notWaiting"),
        ("press-2", "approved"),
        ("nobody", "notRegistered"),
        ("press-1", "notWaiting"),
    ];
    assert_eq!(outcomes, expected);
    central.ok(Method::POST, "/api/ext/approvals", Some(request(&["press-3"], "reject"))).await;
    for (device, act) in [("press-1", "approve"), ("press-2", "approve"), ("press-3", "reject")] {
        let path = format!("/api/ext/devices/{device}/{act}");
        let found = central
            .until(&format!("/api/ext/audit?path={path}"), |page| {
                let row = page["value"].get(0)?;
                (row["status"] == 200).then(|| row.clone())
            })
            .await;
        assert_eq!((&found["kind"], &found["path"]), (&json!("action"), &json!(path)));
    }
    for (wrong, phrase) in [
        (request(&[], "approve"), "devices"),
        (request(&["press-1"], "perhaps"), "decision"),
        (json!({"devices": vec!["d"; 1001], "decision": "approve"}), "1001"),
    ] {
        let (status, answer) = central.send(Method::POST, "/api/ext/approvals", Some(wrong)).await;
        assert!(status == 422 && answer.to_string().contains(phrase), "{answer}");
    }
    assert_eq!(central.send(Method::POST, "/api/ext/devices/nobody/approve", None).await.0, 404);
    central.end().await;
}

#[tokio::test]
async fn how_a_group_approves_outlives_a_restart_and_changes_of_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::new(&central).await;
    drop(group.enrol(&central, "press-1").await);
    central.end().await;

    let central = start(dir.path()).await;
    assert_eq!(central.get(APPROVAL).await, json!({"autoApprove": false}));
    central.put(GROUP, json!({"displayName": "Line 4", "attestation": {"type": "symmetricKey"}})).await;
    assert_eq!(
        central.get(APPROVAL).await,
        json!({"autoApprove": false}),
        "IoT Central's body has no such field"
    );
    central.put(APPROVAL, json!({"autoApprove": true})).await;
    let (mut later, poll) = group.enrol(&central, "press-2").await;
    assert_eq!(ask(&mut later, &poll).await.1["status"], "assigned");
    assert_eq!(state(&central, "press-1").await["lifecycle"], "WaitingForApproval", "it waits on");
    let audited = central
        .until(&format!("/api/ext/audit?path={APPROVAL}"), |page| {
            let row = page["value"].get(0)?;
            (!row["after"].is_null()).then(|| row.clone())
        })
        .await;
    assert_eq!(
        (&audited["before"], &audited["after"]),
        (&json!({"autoApprove": false}), &json!({"autoApprove": true}))
    );
    assert_eq!(central.send(Method::GET, "/api/ext/enrollmentGroups/none/approval", None).await.0, 404);
    assert_eq!(central.send(Method::PUT, APPROVAL, Some(json!({}))).await.0, 422);
    central.end().await;
}

#[tokio::test]
async fn an_approved_gateway_connects_by_its_enrolment_and_a_waiting_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::of_kind(&central, "iotEdge").await;
    let (mut client, poll) = group.enrol(&central, "gw").await;
    is_refused(central.client_with_key("gw", &group.key_of("gw"))).await;
    let grid = central.get("/api/ext/grid?kind=gateways&verdict=waiting").await;
    assert_eq!(grid["value"][0]["id"], "gw");
    central.ok(Method::POST, "/api/ext/devices/gw/approve", None).await;
    assert_eq!(ask(&mut client, &poll).await.1["status"], "assigned");
    let mut gateway = central.client_with_key("gw", &group.key_of("gw"));
    gateway.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    central.end().await;
}

#[tokio::test]
async fn the_command_line_approves_and_rejects() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let group = Group::new(&central).await;
    for id in ["press-1", "press-2"] {
        drop(group.enrol(&central, id).await);
    }
    let listen = central.started.http.to_string();
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_central"));
        command.arg("device").args(arguments).arg("--data-dir").arg(dir.path());
        command.env("CENTRAL__HTTP__LISTEN", &listen).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = {
            let _starting = starting();
            command.spawn().unwrap()
        };
        let output = child.wait_with_output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), said)
    };
    let (code, said) = run(&["approve", "press-1"]).await;
    assert!(code == Some(0) && said.contains("`press-1` is approved"), "{said}");
    let (code, said) = run(&["reject", "press-2", "press-1"]).await;
    assert!(
        code == Some(1) && said.contains("`press-2` is rejected") && said.contains("`press-1` does not wait"),
        "{said}"
    );
    assert_eq!(state(&central, "press-1").await["lifecycle"], "Registered");
    assert_eq!(state(&central, "press-2").await["lifecycle"], "Blocked");
    let row = central
        .until("/api/ext/audit?path=/api/ext/devices/press-1/approve", |page| {
            Some(page["value"].get(0)?.clone())
        })
        .await;
    assert!(row["who"].as_str().unwrap().starts_with("command-line-"), "{row}");
    central.end().await;
}
