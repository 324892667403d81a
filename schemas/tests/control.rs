//! The bodies of the control socket keep their names: what was written before they had types is read and written as it is.

#![allow(clippy::unwrap_used)]

use schemas::control::{
    AddedLeafDevice, AddedUser, Applied, CallRequest, DeviceLogin, Dropped, LeafDeviceDetails,
    LeafDeviceList, NewLeafDevice, NewUser, QuarantinePage, QuarantinedDetails, RemovedLeafDevice, Replayed,
    UserList,
};
use schemas::gateway_status::RefusalList;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn again<T: Serialize + DeserializeOwned>(body: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(body.clone()).unwrap()).unwrap()
}

#[test]
fn every_body_has_the_names_that_it_had() {
    let device = json!({
        "id": "press-1", "addedHere": true, "connected": true, "attestation": "x509Thumbprint", "enabled": true,
        "blockedHere": false,
    });
    let with = |body: &Value, more: Value| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let user =
        json!({"name": "press-1", "device": "press-1", "gatewayHostName": "gw.local", "password": "secret"});
    let message = json!({
        "number": 4, "sender": "press-1", "bytes": 6, "enqueuedAt": "2026-11-29T20:00:00.000Z",
        "refusedAt": "2026-11-29T20:00:01.000Z", "code": 0x87, "why": "not authorized",
        "queue": "4a9f4a52-13a8-4a3b-a1fb-0e4e2c1e5a0f", "sequence": 9,
    });
    let unreadable = with(&message, json!({"sender": null, "bytes": null, "code": null}));
    let added = json!({
        "id": "press-1", "attestation": "symmetricKey", "hostName": "hub", "gatewayHostName": "gw.local",
        "connectionString": "HostName=hub;DeviceId=press-1;SharedAccessKey=a2V5;GatewayHostName=gw.local",
    });
    type Again = fn(&Value) -> Value;
    let cases: [(Again, Value); 22] = [
        (again::<LeafDeviceList>, json!({"devices": [device]})),
        (again::<LeafDeviceDetails>, with(&device, json!({"since": null, "users": []}))),
        (
            again::<LeafDeviceDetails>,
            with(
                &device,
                json!({"since": "2026-11-29T20:00:00.000Z", "users": ["a"], "thumbprints": ["00"]}),
            ),
        ),
        (again::<AddedLeafDevice>, added.clone()),
        (again::<AddedLeafDevice>, with(&added, json!({"user": user}))),
        (again::<RemovedLeafDevice>, json!({"users": ["press-1"]})),
        (again::<DeviceLogin>, json!({"clientId": "press-1", "userName": "hub/press-1/", "password": "sas"})),
        (again::<AddedUser>, user.clone()),
        (again::<AddedUser>, json!({"name": "panel", "device": null, "gatewayHostName": "gw.local"})),
        (
            again::<UserList>,
            json!({"users": [{"name": "panel", "device": null, "connections": 2},
                {"name": "any", "device": null, "anonymous": true, "connections": 0}]}),
        ),
        (again::<QuarantinePage>, json!({"messages": [message, unreadable], "count": 2, "nextAfter": 4})),
        (again::<QuarantinePage>, json!({"messages": [], "count": 0, "nextAfter": null})),
        (again::<QuarantinedDetails>, unreadable.clone()),
        (again::<QuarantinedDetails>, with(&message, json!({"topic": "devices/press-1/", "body": "denied"}))),
        (again::<QuarantinedDetails>, with(&message, json!({"topic": "t", "bodyBase64": "/w=="}))),
        (again::<Replayed>, json!({"replayed": [4]})),
        (again::<Dropped>, json!({"dropped": [4]})),
        (again::<Applied>, json!({"version": 7, "settled": true, "deployment": 3, "state": "verified"})),
        (
            again::<Applied>,
            json!({"version": 7, "settled": false, "deployment": 3, "state": "rolledBack", "reason": "module a ended"}),
        ),
        (
            again::<RefusalList>,
            json!({"refusals": [{"identity": "press-1", "why": "wrong key", "from": "10.0.0.7", "protocol": "MQTT 5",
                "proof": null, "first": "2026-11-29T20:00:00.000Z", "last": "2026-11-29T20:00:00.000Z", "count": 1}]}),
        ),
        (
            again::<NewLeafDevice>,
            json!({"id": "press-1", "key": null, "x509Thumbprints": [], "x509Ca": false, "password": true}),
        ),
        (
            again::<CallRequest>,
            json!({"target": "filter", "methodName": "ping", "payload": {"a": 1}, "responseTimeoutInSeconds": 30,
                "connectTimeoutInSeconds": 0}),
        ),
    ];
    for (again, body) in cases {
        assert_eq!(again(&body), body);
    }
}

#[test]
fn an_unknown_member_of_a_request_is_refused_and_one_of_an_answer_left_out() {
    assert!(serde_json::from_value::<NewLeafDevice>(json!({"id": "a", "kee": "b"})).is_err());
    assert!(serde_json::from_value::<NewUser>(json!({"name": "a", "pasword": "b"})).is_err());
    let newer = json!({"devices": [{"id": "a", "new": 1}], "new": 2});
    let list: LeafDeviceList = serde_json::from_value(newer).unwrap();
    assert_eq!((list.devices.len(), list.devices[0].id.as_str(), list.devices[0].enabled), (1, "a", false));
}
