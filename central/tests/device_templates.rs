//! Device templates: stored and given back, refused with every problem, and made from what a device sends.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central_core::model::options::Options;
use central_core::model::parse::parse_documents;
use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/deviceTemplates/dtmi:site:press;1";

/// As IoT Central writes it: numbers of all forms, text in languages, and members in no order of ours.
fn template() -> Value {
    json!({
        "@type": ["ModelDefinition", "DeviceModel"],
        "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"],
        "displayName": "Press",
        "description": "A press of line 1",
        "capabilityModel": {
            "@id": "dtmi:site:press:model;1", "@type": "Interface", "displayName": {"en": "Press", "de": "Presse"},
            "contents": [
                {"@type": ["Telemetry", "Temperature", "NumberValue"], "name": "temperature", "schema": "double",
                    "unit": "degreeCelsius", "minValue": -0.5, "maxValue": 1e3, "decimalPlaces": 2},
                {"@type": ["Property", "Cloud"], "name": "owner", "schema": "string"},
                {"@type": "Component", "name": "motor", "schema": {"@id": "dtmi:site:motor;1", "@type": "Interface",
                    "contents": [{"@type": "Property", "name": "rpm", "schema": "integer", "writable": true}]}}
            ],
            "extends": [{"@id": "dtmi:site:base;1", "@type": ["Interface", "NamedInterface"], "name": "base",
                "contents": [{"@type": "Command", "name": "reboot", "durable": true}]}]
        }
    })
}

#[tokio::test]
async fn a_template_is_given_back_as_it_was_written_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let stored = central.put(PATH, template()).await;
    let mut expected = template();
    expected["@id"] = json!("dtmi:site:press;1");
    expected["etag"] = stored["etag"].clone();
    assert_eq!(stored, expected);
    assert_eq!(central.get(PATH).await, expected);
    assert_eq!(central.get("/api/deviceTemplates").await["value"], json!([expected]));
    let found =
        central.get("/api/deviceTemplates?filter=displayName%20eq%20%27Press%27&orderby=displayName").await;
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    // What was read can be written.
    assert_eq!(central.put(PATH, expected.clone()).await["capabilityModel"], expected["capabilityModel"]);
    assert_eq!(central.send(Method::DELETE, PATH, None).await.0, 204);
    assert_eq!(central.send(Method::GET, PATH, None).await.0, 404);
    central.end().await;
}

#[tokio::test]
async fn a_patch_merges_objects_replaces_arrays_and_needs_a_template() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let change = json!({"displayName": "Press 2", "capabilityModel": {"comment": "new", "description": "d",
        "contents": [{"@type": "Telemetry", "name": "load", "schema": "integer"}]}});
    assert_eq!(central.send(Method::PATCH, PATH, Some(change.clone())).await.0, 404);
    central.put(PATH, template()).await;
    let changed = central.patch(PATH, change).await;
    assert_eq!(changed["displayName"], "Press 2");
    assert_eq!(changed["description"], "A press of line 1");
    let model = &changed["capabilityModel"];
    assert_eq!(model["comment"], "new");
    assert_eq!(model["contents"].as_array().unwrap().len(), 1);
    assert_eq!(model["extends"], template()["capabilityModel"]["extends"]);
    let gone = central.patch(PATH, json!({"capabilityModel": {"comment": null}})).await;
    assert!(gone["capabilityModel"].get("comment").is_none());
    central.end().await;
}

#[tokio::test]
async fn a_wrong_model_is_refused_with_every_problem_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let before = central.put(PATH, template()).await;
    let mut wrong = template();
    wrong["capabilityModel"]["contents"][0]["schema"] = json!("number");
    wrong["capabilityModel"]["contents"][1]["name"] = json!("_owner");
    wrong["capabilityModel"]["contents"][2]["schema"]["contents"][0]["@type"] = json!("Propertie");
    let (status, answer) = central.send(Method::PUT, PATH, Some(wrong)).await;
    assert_eq!(status, 422, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    for phrase in [
        "contents[0].schema (dtmi:site:press:model:_contents:__temperature;1)",
        "contents[1].name (dtmi:site:press:model:_contents:___owner;1)",
        "contents[2].schema.contents[0] (dtmi:site:motor:_contents:__rpm;1)",
        "[badDtmiOrTerm]",
        "[stringInvalid]",
        "[badType]",
    ] {
        assert!(message.contains(phrase), "{phrase} is not in {message}");
    }
    assert_eq!(central.get(PATH).await, before);
    for (body, phrase) in [
        (json!({"capabilityModel": template()["capabilityModel"]}), "@type"),
        (json!({"@type": ["ModelDefinition", "DeviceModel"]}), "capabilityModel"),
        (json!({"@type": ["ModelDefinition"], "capabilityModel": template()["capabilityModel"]}), "@type"),
        (json!({"@id": "dtmi:site:other;1"}), "@id"),
    ] {
        let path = "/api/deviceTemplates/dtmi:site:new;1";
        let (status, answer) = central.send(Method::PUT, path, Some(body.clone())).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 422 && message.contains(phrase), "{body}: {status} {message}");
    }
    for id in ["press", "dtmi:site:press", "dtmi:site:_press;1", "dtmi:site:press;0"] {
        let (status, answer) =
            central.send(Method::PUT, &format!("/api/deviceTemplates/{id}"), Some(template())).await;
        assert_eq!(status, 422, "{id}: {answer}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_template_that_a_device_has_stays_and_a_device_may_name_one_that_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put(PATH, template()).await;
    let device = central.put("/api/devices/press-1", json!({"template": "dtmi:site:press;1"})).await;
    assert_eq!(device["template"], "dtmi:site:press;1");
    let unknown = central.put("/api/devices/other", json!({"template": "dtmi:elsewhere:oven;3"})).await;
    assert_eq!(unknown["template"], "dtmi:elsewhere:oven;3");
    let (status, answer) = central.send(Method::DELETE, PATH, None).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("press-1"));
    central.patch("/api/devices/press-1", json!({"template": null})).await;
    assert_eq!(central.send(Method::DELETE, PATH, None).await.0, 204);
    central.end().await;
}

async fn made(central: &Central, device: &str, body: Value) -> (u16, Value) {
    central.send(Method::POST, &format!("/api/ext/devices/{device}/template"), Some(body)).await
}

#[tokio::test]
async fn a_template_is_made_from_what_an_unassigned_device_sends() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({"displayName": "Press 1"})).await;
    let (status, answer) = made(&central, "press-1", json!({})).await;
    assert_eq!(status, 409, "it has sent nothing: {answer}");
    let mut device = central.client("press-1").await;
    device.publish("devices/press-1/messages/events/", r#"{"temperature":20,"running":true,"a b":1}"#).await;
    device.publish("devices/press-1/messages/events/%24.sub=motor", r#"{"rpm":900}"#).await;
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"serial":"A1"}"#).await;
    let sent = |names: &Value| (names["value"].as_array().unwrap().len() == 4).then_some(());
    central.until("/api/ext/devices/press-1/names", sent).await;
    central.until("/api/devices/press-1/properties", |shown| shown.get("serial").map(|_| ())).await;
    central.patch("/api/devices/press-1/properties", json!({"limit": 3})).await;
    let (status, answer) = made(&central, "press-1", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let template = &answer["template"];
    assert_eq!(template["displayName"], "Press 1");
    let contents = template["capabilityModel"]["contents"].as_array().unwrap();
    let of = |name: &str| contents.iter().find(|content| content["name"] == name).unwrap();
    assert_eq!(of("temperature")["schema"], "double");
    assert_eq!(of("running")["schema"], "boolean");
    assert_eq!(of("serial")["@type"], "Property");
    assert_eq!(of("limit")["writable"], true);
    assert_eq!(of("motor")["schema"]["contents"][0]["name"], "rpm");
    assert_eq!(answer["skipped"][0]["name"], "a b");
    parse_documents(&[template["capabilityModel"].clone()], &Options::DTDL).unwrap();
    let id = template["@id"].as_str().unwrap();
    assert_eq!(central.get("/api/devices/press-1").await["template"], id);
    assert_eq!(central.get(&format!("/api/deviceTemplates/{id}")).await, *template);
    let (status, answer) = made(&central, "press-1", json!({})).await;
    assert_eq!(status, 409, "it has a template: {answer}");
    central.patch("/api/devices/press-1", json!({"template": null})).await;
    let (_, second) = made(&central, "press-1", json!({"displayName": "Second"})).await;
    assert_ne!(second["template"]["@id"], id, "an id of its own");
    central.end().await;
}
