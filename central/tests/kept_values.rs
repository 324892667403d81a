//! What is put is given back as it was put, or refused by the field: nothing is changed, cut or passed over in silence.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Map, Value, json};

fn manifest(desired: &Value) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "sensor:1", "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
        "sensor": {"properties.desired": desired}}})
}

/// Characters that hide something, end a line, or turn the text behind them.
const DECEPTIVE: [char; 12] = [
    '\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}',
    '\u{feff}',
];

async fn fleet(central: &Central) {
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.put("/api/devices/leaf", json!({})).await;
    central.put("/api/deploymentManifests/line", json!({"data": manifest(&json!({}))})).await;
    central.put("/api/devices/gw", json!({"deploymentManifest": {"id": "line"}})).await;
    central.put("/api/enrollmentGroups/keys", json!({"attestation": {"type": "symmetricKey"}})).await;
    central.put("/api/enrollmentGroups/x509", json!({"attestation": {"type": "x509"}})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
}

#[tokio::test]
async fn null_takes_a_template_and_an_assignment_away_and_is_refused_where_it_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    for method in [Method::PATCH, Method::PUT] {
        let path = "/api/devices/gw?expand=deploymentManifest";
        let request =
            json!({"template": "dtmi:press;1", "deploymentManifest": {"id": "line"}, "organizations": ["a"]});
        let before = central.patch(path, request).await;
        assert_eq!(
            (&before["template"], &before["deploymentManifest"]["id"]),
            (&json!("dtmi:press;1"), &json!("line"))
        );
        let request = json!({"template": null, "deploymentManifest": null, "organizations": null});
        let answer = central.ok(method.clone(), path, Some(request)).await;
        for after in [answer, central.get(path).await] {
            for field in ["template", "deploymentManifest", "organizations"] {
                assert_eq!(after.get(field), None, "{method}: {after}");
            }
        }
        // It keeps what it runs until another manifest is assigned.
        let twin = central.get("/api/ext/devices/gw/twin?module=$edgeAgent").await;
        assert_eq!(twin["desired"]["modules"]["sensor"]["settings"]["image"], "sensor:1");
    }
    for (path, body, field) in [
        ("/api/devices/gw", json!({"displayName": null}), "displayName"),
        ("/api/devices/gw", json!({"enabled": null}), "enabled"),
        ("/api/devices/gw", json!({"deploymentManifest": {"id": null}}), "deploymentManifest.id"),
        ("/api/deploymentManifests/line", json!({"data": null}), "data"),
        (
            "/api/enrollmentGroups/keys",
            json!({"attestation": {"type": "symmetricKey", "symmetricKey": null}}),
            "symmetricKey",
        ),
        ("/api/enrollmentGroups/x509", json!({"gateways": null}), "gateways"),
        (
            "/api/devices/leaf/attestation",
            json!({"x509": {"clientCertificates": {"primary": null}}}),
            "primary",
        ),
    ] {
        let (status, refused) = central.send(Method::PATCH, path, Some(body)).await;
        assert_eq!(status, 422, "{path}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(field), "{field}: {refused}");
    }
    central.end().await;
}

#[tokio::test]
async fn null_is_refused_where_all_properties_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    for of in ["leaf", "gw/modules/sensor", "leaf/components/motor"] {
        let path = format!("/api/devices/{of}/properties");
        central.patch(&path, json!({"limit": 1, "fan": {"speed": 2}})).await;
        for (body, key) in [(json!({"limit": null}), "limit"), (json!({"fan": {"speed": null}}), "speed")] {
            let (status, refused) = central.send(Method::PUT, &path, Some(body)).await;
            assert_eq!(status, 422, "{path}: {refused}");
            assert!(refused["error"]["message"].as_str().unwrap().contains(key), "{refused}");
            assert_eq!(central.get(&path).await["limit"], 1);
        }
        let deleted = central.patch(&path, json!({"limit": null})).await;
        assert_eq!(deleted.get("limit"), None, "{path}: {deleted}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_manifest_is_deleted_only_when_no_gateway_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    let path = "/api/deploymentManifests/line";
    let (status, refused) = central.send(Method::DELETE, path, None).await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("`gw`"), "{refused}");
    central.get(path).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": null})).await;
    central.ok(Method::DELETE, path, None).await;
    central.end().await;
}

#[tokio::test]
async fn an_id_that_hides_something_is_refused_in_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    let described = central.get("/openapi.json").await;
    let mut tried = 0;
    for (path, operations) in described["paths"].as_object().unwrap() {
        let names: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
        let methods = [Method::PUT, Method::PATCH, Method::POST].into_iter();
        for method in methods.filter(|method| operations.get(method.as_str().to_lowercase()).is_some()) {
            for (at, name) in names.iter().enumerate() {
                let deceptive = DECEPTIVE[tried % DECEPTIVE.len()];
                let wrong = percent_encoding::utf8_percent_encode(
                    &format!("a{deceptive}b"),
                    percent_encoding::NON_ALPHANUMERIC,
                )
                .to_string();
                let concrete = names.iter().enumerate().fold(path.clone(), |path, (other, part)| {
                    path.replace(part, if other == at { &wrong } else { "x" })
                });
                let (status, refused) = central.send(method.clone(), &concrete, Some(json!({}))).await;
                assert_eq!(status, 400, "{method} {concrete}: {refused}");
                let message = refused["error"]["message"].as_str().unwrap();
                assert!(message.contains(name.trim_matches(['{', '}'])), "{method} {concrete}: {message}");
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
    central.end().await;
}

/// Any JSON that a script may write somewhere.
fn any_json() -> BoxedStrategy<Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000_i32..1000).prop_map(|number| Value::from(f64::from(number) / 8.0)),
        "[ -~é漢]{0,12}".prop_map(Value::from),
    ];
    plain
        .prop_recursive(4, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("(__t|value|ac|[a-zé_$.-]{1,6})", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
        .boxed()
}

fn members() -> Vec<Value> {
    let deceptive = DECEPTIVE.iter().map(|c| Value::from(format!("a{c}b")));
    let mut all: Vec<Value> = deceptive.collect();
    all.extend([
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(""),
        json!("plain"),
        json!("é 漢 👩‍🔧"),
        json!("x".repeat(149)),
        json!("x".repeat(5000)),
        json!([]),
        json!(["a"]),
        json!(["a", "b"]),
        json!([null]),
        json!({}),
        json!({"a": null}),
        json!({"id": "line"}),
        json!({"id": null}),
        json!(["iotEdge"]),
        json!(["gw"]),
        json!("iot"),
    ]);
    all
}

/// Whether what is read has what was put; what was put as `null` is gone.
fn has(read: &Value, put: &Value) -> bool {
    match (put, read) {
        (Value::Object(put), Value::Object(read)) => put.iter().all(|(key, put)| match read.get(key) {
            Some(read) => has(read, put),
            None => put.is_null() || *put == json!([]),
        }),
        _ => put == read,
    }
}

#[tokio::test]
async fn a_field_that_is_put_is_given_back_or_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    let keys = json!({"attestation": {"type": "symmetricKey"}});
    let tables: [(&str, Value, &[&str]); 5] = [
        (
            "/api/devices/gw",
            json!({}),
            &[
                "displayName",
                "template",
                "enabled",
                "simulated",
                "organizations",
                "type",
                "deploymentManifest",
                "id",
                "etag",
            ],
        ),
        ("/api/deploymentManifests/line", json!({}), &["displayName", "organizations", "data", "id", "etag"]),
        ("/api/enrollmentGroups/keys", keys, &["displayName", "enabled", "type", "gateways", "id", "etag"]),
        ("/api/enrollmentGroups/x509", json!({}), &["displayName", "enabled", "gateways", "attestation"]),
        ("/api/devices/gw/relationships/r", json!({"target": "leaf"}), &["name", "id", "source", "target"]),
    ];
    let mut runner = TestRunner::deterministic();
    let (mut kept, mut refused) = (0, 0);
    for (path, rest, fields) in tables {
        for (field, method) in fields.iter().flat_map(|field| [(field, Method::PUT), (field, Method::PATCH)])
        {
            let random = (0..4).map(|_| any_json().new_tree(&mut runner).unwrap().current());
            for value in members().into_iter().chain(random.collect::<Vec<_>>()) {
                let mut body = rest.clone();
                body[field] = value.clone();
                let before = central.get(path).await;
                let (status, answer) = central.send(method.clone(), path, Some(body)).await;
                let after = central.get(path).await;
                let what = format!("{method} {path} {field} = {value}: {status} {answer}");
                if status == 200 {
                    kept += 1;
                    assert_eq!(answer, after, "{what}");
                    let of_put = Value::Object(Map::from_iter([((*field).to_owned(), value)]));
                    // A change of something changes its etag.
                    assert!(*field == "etag" || has(&after, &of_put), "{what}");
                } else {
                    refused += 1;
                    assert!((400..500).contains(&status), "{what}");
                    let message = answer["error"]["message"].as_str().unwrap();
                    assert!(message.contains(field) || status == 404, "{what}");
                    assert_eq!(after, before, "{what}");
                }
            }
        }
    }
    assert!(kept > 50 && refused > 500, "{kept} {refused}");
    central.end().await;
}

/// What is read of properties without what tells about them.
fn without_metadata(mut read: Value) -> Value {
    if let Some(all) = read.as_object_mut() {
        all.remove("$metadata");
    }
    read
}

#[tokio::test]
async fn properties_that_are_put_are_given_back_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    fleet(&central).await;
    let mut runner = TestRunner::deterministic();
    let object = proptest::collection::btree_map("[a-z]{1,3}", any_json(), 0..4);
    let mut texts: Vec<String> =
        (0..60).map(|_| json!(object.new_tree(&mut runner).unwrap().current()).to_string()).collect();
    for number in
        ["12345678901234567890123", "1e400", "1e-400", "3.14159265358979323846", "1.50", "1e2", "-0", "0.1"]
    {
        texts
            .extend([format!("{{\"a\": {number}}}"), format!("{{\"a\": {{\"b\": [{{\"c\": {number}}}]}}}}")]);
    }
    for member in [
        r#"{"$x": 1}"#,
        r#"{"a": {"$x": 1}}"#,
        r#"{"a": 1, "a": 2}"#,
        r#"{"a": [1, null]}"#,
        r#"{"a": [{"b": null}]}"#,
        r#"{"__t": "d"}"#,
        r#"{"a": {"__t": "d"}}"#,
        r#"{"a": {"__t": null}}"#,
        r#"{"a b": 1}"#,
        r#"{"a.b": 1}"#,
        r#"{"": 1}"#,
        r#"{"a\u0000": 1}"#,
        r#"{"a": "\u0000\n"}"#,
        r#"{"$serde_json::private::RawValue": "1"}"#,
        r#"{"a": {"value": 1, "ac": 200, "av": 1}}"#,
        "[]",
        "1",
        "null",
    ] {
        texts.push(member.to_owned());
    }
    let (mut kept, mut refused) = (0, 0);
    for of in ["leaf", "gw/modules/sensor", "leaf/components/motor"] {
        let path = format!("/api/devices/{of}/properties");
        for text in &texts {
            let url = format!("{}?api-version=1.0", central.url(&path));
            let request = central.http.put(url).header("Authorization", &central.token);
            let status = request.body(text.clone()).send().await.unwrap().status();
            if status != 202 {
                assert!(status.is_client_error(), "{path} {text}: {status}");
                refused += 1;
                continue;
            }
            kept += 1;
            let mut put: Value = serde_json::from_str(text).unwrap();
            let mut read = without_metadata(central.get(&path).await);
            if of == "leaf" {
                read.as_object_mut().unwrap().remove("motor");
            }
            // The marker of a component is not one of its properties.
            if put["__t"] == "c" && of.contains("components") {
                put.as_object_mut().unwrap().remove("__t");
            }
            for (_, component) in
                put.as_object_mut().unwrap().iter_mut().filter(|(_, value)| value["__t"] == "c")
            {
                if !of.contains("components") {
                    component.as_object_mut().unwrap().remove("__t");
                }
            }
            for (key, read) in read.as_object_mut().unwrap() {
                if put[key].get("$metadata").is_none() {
                    *read = without_metadata(read.take());
                }
            }
            assert_eq!(read, put, "{path} {text}");
        }
    }
    assert!(kept > 30 && refused > 30, "{kept} {refused}");
    central.end().await;
}
