//! What operators write to a device is checked against the model of its template, and cloud properties stay at central.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

const PRESS: &str = "dtmi:site:press;1";
const PROPERTIES: &str = "/api/devices/press-1/properties";

fn template() -> Value {
    let mode = json!({"@type": "Enum", "valueSchema": "string",
        "enumValues": [{"name": "eco", "enumValue": "eco"}, {"name": "full", "enumValue": "full"}]});
    let range = json!({"@type": "Object", "fields": [{"name": "low", "schema": "double"}, {"name": "high", "schema": "double"}]});
    json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": "Press",
    "capabilityModel": {"@id": "dtmi:site:press:model;1", "@type": "Interface", "contents": [
        {"@type": "Telemetry", "name": "oil", "schema": "double"},
        {"@type": "Property", "name": "limit", "schema": "integer", "writable": true, "minValue": 1, "maxValue": 300},
        {"@type": "Property", "name": "mode", "schema": mode, "writable": true},
        {"@type": "Property", "name": "range", "schema": range, "writable": true},
        {"@type": "Property", "name": "serial", "schema": "string"},
        {"@type": ["Property", "Cloud"], "name": "owner", "schema": "string"},
        {"@type": ["Property", "Cloud"], "name": "serviced", "schema": "date"},
        {"@type": "Command", "name": "open", "request": {"name": "percent", "schema": "integer"}},
        {"@type": "Command", "name": "close"},
        {"@type": "Component", "name": "motor", "schema": {"@id": "dtmi:site:motor;1", "@type": "Interface", "contents": [
            {"@type": "Property", "name": "speed", "schema": "double", "writable": true},
            {"@type": "Command", "name": "stop", "request": {"name": "how", "schema": "boolean"}}]}}
    ]}})
}

async fn press(central: &Central) {
    central.put(&format!("/api/deviceTemplates/{PRESS}"), template()).await;
    central.put("/api/devices/press-1", json!({"template": PRESS})).await;
}

async fn patch(central: &Central, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = central.send(Method::PATCH, path, Some(body)).await;
    (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_property_that_does_not_fit_the_template_is_refused_with_its_name_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    press(&central).await;
    for (body, phrase) in [
        (json!({"limit": "many"}), "limit: found \"many\"; write an integer"),
        (json!({"limit": 2.5}), "limit: found 2.5; write an integer"),
        (json!({"limit": 301}), "limit: found 301; write at most 300"),
        (json!({"limit": 0}), "limit: found 0; write at least 1"),
        (json!({"mode": "turbo"}), "mode: found \"turbo\"; write one of \"eco\", \"full\""),
        (json!({"range": {"low": "x", "high": 2}}), "range.low: found \"x\"; write a double"),
        (json!({"serial": "A1"}), "serial: it is read-only"),
        (json!({"oil": 3}), "oil: it is telemetry"),
        (json!({"open": 3}), "open: it is a command"),
        (json!({"unknown": 3}), "unknown: not in the template; add `unmodeled=true`"),
        (json!({"motor": {"speed": true}}), "motor.speed: found true; write a double"),
        (json!({"motor": 3}), "motor: found 3; it is a component"),
        (json!({"serviced": "soon"}), "serviced: found \"soon\"; write a date"),
        (json!({"limit": 5, "mode": "turbo", "owner": 3}), "owner: found 3; write a string"),
    ] {
        let (status, message) = patch(&central, PROPERTIES, body.clone()).await;
        assert!(status == 422 && message.contains(phrase), "{body}: {status} {message}");
        assert!(message.ends_with(&format!("(device template `{PRESS}`)")), "{message}");
    }
    let component = "/api/devices/press-1/components/motor/properties";
    let (status, message) = patch(&central, component, json!({"speed": "fast"})).await;
    assert!(status == 422 && message.contains("motor.speed: found \"fast\""), "{status} {message}");
    let (status, message) =
        patch(&central, "/api/devices/press-1/components/none/properties", json!({"a": 1})).await;
    assert!(status == 422 && message.contains("none: not in the template"), "{status} {message}");
    let twin = central.get("/api/ext/devices/press-1/twin").await;
    assert_eq!(twin["desired"]["$version"], 0, "nothing was written: {twin}");
    central.end().await;
}

#[tokio::test]
async fn what_fits_is_written_and_so_is_what_the_template_does_not_have_when_that_is_requested() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    press(&central).await;
    let good = json!({"limit": 300, "mode": "eco", "range": {"low": 1, "more": true}, "motor": {"speed": 9}});
    assert_eq!(patch(&central, PROPERTIES, good).await.0, 202);
    assert_eq!(
        patch(&central, &format!("{PROPERTIES}?unmodeled=true"), json!({"unknown": [1]})).await.0,
        202
    );
    // Both are taken away without being looked at.
    assert_eq!(
        patch(&central, PROPERTIES, json!({"unknown": null, "serial": null, "limit": null})).await.0,
        202
    );
    let wrong = patch(&central, &format!("{PROPERTIES}?unmodeled=true"), json!({"limit": "x"})).await;
    assert_eq!(wrong.0, 422, "what the template has is checked all the same");
    assert_eq!(
        patch(&central, "/api/devices/press-1/components/motor/properties", json!({"speed": 1.5})).await.0,
        202
    );
    let shown = central.get(PROPERTIES).await;
    assert_eq!(
        (&shown["mode"], &shown["motor"]["speed"], shown.get("unknown")),
        (&json!("eco"), &json!(1.5), None)
    );
    for template in [Value::Null, json!("dtmi:elsewhere:oven;1")] {
        central.patch("/api/devices/press-1", json!({"template": template})).await;
        assert_eq!(
            patch(&central, PROPERTIES, json!({"limit": "x"})).await.0,
            202,
            "{template}: nothing to check against"
        );
    }
    central.end().await;
}

#[tokio::test]
async fn cloud_properties_are_kept_apart_from_the_twin_shown_with_the_others_and_gone_with_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    press(&central).await;
    assert_eq!(patch(&central, PROPERTIES, json!({"owner": "Ann", "serviced": "2026-03-01"})).await.0, 202);
    let twin = central.get("/api/ext/devices/press-1/twin").await;
    assert_eq!((&twin["desired"]["$version"], twin["desired"].get("owner")), (&json!(0), None), "{twin}");
    assert_eq!(patch(&central, PROPERTIES, json!({"owner": "Ben", "limit": 7})).await.0, 202);
    let shown = central.get(PROPERTIES).await;
    assert_eq!(
        (&shown["owner"], &shown["serviced"], &shown["limit"]),
        (&json!("Ben"), &json!("2026-03-01"), &json!(7))
    );
    assert!(shown["$metadata"]["owner"]["lastUpdateTime"].is_string(), "{shown}");
    assert!(shown["$metadata"]["owner"].get("desiredValue").is_none(), "{shown}");
    assert_eq!(patch(&central, PROPERTIES, json!({"owner": null})).await.0, 202);
    assert!(central.get(PROPERTIES).await.get("owner").is_none());
    // A whole write leaves nothing else.
    central.ok(Method::PUT, PROPERTIES, Some(json!({"owner": "Cid"}))).await;
    let shown = central.get(PROPERTIES).await;
    assert_eq!(
        (&shown["owner"], shown.get("serviced"), shown.get("limit")),
        (&json!("Cid"), None, None),
        "{shown}"
    );
    // Of another template, it is taken away by its name.
    central.patch("/api/devices/press-1", json!({"template": null})).await;
    assert_eq!(central.get(PROPERTIES).await["owner"], "Cid");
    assert_eq!(patch(&central, PROPERTIES, json!({"owner": null})).await.0, 202);
    assert!(central.get(PROPERTIES).await.get("owner").is_none());
    central.patch("/api/devices/press-1", json!({"template": PRESS})).await;
    assert_eq!(patch(&central, PROPERTIES, json!({"owner": "Dan"})).await.0, 202);
    assert_eq!(central.send(Method::DELETE, "/api/devices/press-1", None).await.0, 204);
    central.put("/api/devices/press-1", json!({"template": PRESS})).await;
    assert!(central.get(PROPERTIES).await.get("owner").is_none(), "nothing is left to the next of a name");
    central.end().await;
}

#[tokio::test]
async fn a_commands_request_is_checked_before_it_is_sent_to_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    press(&central).await;
    for (command, body, phrase) in [
        ("commands/open", json!({"request": "wide"}), "request: found \"wide\"; write an integer"),
        ("commands/open", json!({}), "request: missing; it is `percent`"),
        ("commands/close", json!({"request": 1}), "request: found 1; the command takes none"),
        ("components/motor/commands/stop", json!({"request": 1}), "request: found 1; write a boolean"),
    ] {
        let path = format!("/api/devices/press-1/{command}");
        let (status, answer) = central.send(Method::POST, &path, Some(body)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 422 && message.contains(phrase), "{command}: {status} {message}");
    }
    // What fits, and what the template does not have, gets as far as the device, which is away.
    for (command, body) in [
        ("commands/open", json!({"request": 40})),
        ("commands/close", json!({})),
        ("commands/reboot", json!({"request": "now"})),
        ("components/motor/commands/stop", json!({"request": true})),
    ] {
        let (status, answer) =
            central.send(Method::POST, &format!("/api/devices/press-1/{command}"), Some(body)).await;
        assert_eq!(status, 404, "{command}: {answer}");
    }
    central.end().await;
}
