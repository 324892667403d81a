//! Device templates as the console shows them: who has which, what is in a model, and what storing one would do.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

const PRESS: &str = "dtmi:site:press;1";

fn template(contents: &Value) -> Value {
    json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": "Press",
        "capabilityModel": {"@id": "dtmi:site:press:model;1", "@type": "Interface", "contents": contents}})
}

fn contents() -> Value {
    let state = json!({"@type": "Enum", "valueSchema": "integer",
        "enumValues": [{"name": "off", "enumValue": 0, "displayName": "Off"}, {"name": "on", "enumValue": 1}]});
    let limits = json!({"@type": "Object", "fields": [{"name": "low", "schema": "double"}, {"name": "high", "schema": "double"}]});
    json!([
        {"@type": ["Telemetry", "Temperature"], "name": "oil", "displayName": "Oil", "schema": "double", "unit": "degreeCelsius"},
        {"@type": "Property", "name": "state", "schema": state, "writable": true},
        {"@type": "Property", "name": "limits", "schema": limits},
        {"@type": ["Property", "Cloud"], "name": "owner", "schema": "string"},
        {"@type": "Command", "name": "open", "durable": true, "request": {"name": "percent", "schema": "integer"},
            "response": {"name": "times", "schema": {"@type": "Array", "elementSchema": "dateTime"}}},
        {"@type": "Component", "name": "motor", "schema": {"@id": "dtmi:site:motor;1", "@type": "Interface",
            "contents": [{"@type": "Telemetry", "name": "rpm", "schema": "integer"}]}}
    ])
}

async fn store(central: &Central, id: &str, document: Value) {
    central.put(&format!("/api/deviceTemplates/{id}"), document).await;
}

async fn device(central: &Central, id: &str, template: &str) {
    central.put(&format!("/api/devices/{id}"), json!({"template": template})).await;
}

#[tokio::test]
async fn templates_are_listed_by_name_with_their_devices_and_those_that_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for (id, name) in [(PRESS, "Press"), ("dtmi:site:press;2", "Press 2"), ("dtmi:site:lathe;1", "lathe")] {
        let mut document = template(&json!([]));
        document["displayName"] = name.into();
        store(&central, id, document).await;
    }
    for (id, template) in [("a", PRESS), ("b", PRESS), ("c", "dtmi:site:press;2"), ("d", "dtmi:other:oven;1")]
    {
        device(&central, id, template).await;
    }
    central.put("/api/devices/e", json!({})).await;
    let list = central.get("/api/ext/deviceTemplates").await;
    let shown = |list: &Value| -> Vec<(String, u64)> {
        let rows = list["value"].as_array().unwrap().iter();
        rows.map(|row| (row["displayName"].as_str().unwrap().to_owned(), row["devices"].as_u64().unwrap()))
            .collect()
    };
    assert_eq!(shown(&list), [("lathe".to_owned(), 0), ("Press".to_owned(), 2), ("Press 2".to_owned(), 1)]);
    assert_eq!(list["value"][2]["version"], 2);
    assert_eq!(list["value"][0]["organization"], "root");
    assert_eq!(list["unassigned"], 1);
    assert_eq!(list["notStored"], json!([{"id": "dtmi:other:oven;1", "devices": 1}]));
    assert_eq!(shown(&central.get("/api/ext/deviceTemplates?search=PRESS").await).len(), 2);
    assert_eq!(shown(&central.get("/api/ext/deviceTemplates?search=lathe;").await).len(), 1);
    assert_eq!(shown(&central.get("/api/ext/deviceTemplates?search=no%25such").await).len(), 0);
    central.end().await;
}

#[tokio::test]
async fn a_template_is_shown_in_parts_with_its_versions_and_devices() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    store(&central, PRESS, template(&contents())).await;
    store(&central, "dtmi:site:press;2", template(&json!([]))).await;
    store(&central, "dtmi:site:press:other;1", template(&json!([]))).await;
    device(&central, "a", PRESS).await;
    let view = central.get(&format!("/api/ext/deviceTemplates/{PRESS}")).await;
    assert_eq!((&view["devices"], &view["organization"]), (&json!(1), &json!("root")));
    let versions: Vec<&Value> = view["versions"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
    assert_eq!(versions, [PRESS, "dtmi:site:press;2"]);
    assert_eq!(view["model"]["isComplete"], true);
    let interfaces = view["model"]["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2);
    assert_eq!((&interfaces[0]["component"], &interfaces[1]["component"]), (&Value::Null, &json!("motor")));
    let of = |name: &str| {
        let mut capabilities = interfaces[0]["capabilities"].as_array().unwrap().iter();
        capabilities.find(|capability| capability["name"] == name).unwrap()
    };
    assert_eq!(of("oil")["semanticTypes"], json!(["Temperature"]));
    assert_eq!(of("oil")["unit"], "degreeCelsius");
    assert_eq!(of("state")["schema"]["values"][0], json!({"name": "off", "displayName": "Off", "value": 0}));
    assert_eq!((&of("state")["isWritable"], &of("limits")["isWritable"]), (&json!(true), &json!(false)));
    assert_eq!(of("limits")["schema"]["fields"][1]["name"], "high");
    assert_eq!((&of("owner")["kind"], &of("owner")["isWritable"]), (&json!("cloudProperty"), &json!(true)));
    assert_eq!(
        (&of("open")["isDurable"], &of("open")["request"]["schema"]["kind"]),
        (&json!(true), &json!("integer"))
    );
    assert_eq!(of("open")["response"]["schema"]["element"]["kind"], "dateTime");
    let (status, _) = central.send(Method::GET, "/api/ext/deviceTemplates/dtmi:site:none;1", None).await;
    assert_eq!(status, 404);
    central.end().await;
}

async fn preview(central: &Central, id: &str, document: Value) -> (u16, Value) {
    central.send(Method::POST, &format!("/api/ext/deviceTemplates/{id}/preview"), Some(document)).await
}

#[tokio::test]
async fn a_preview_names_devices_changes_and_problems_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let (status, new) = preview(&central, PRESS, template(&contents())).await;
    assert_eq!((status, &new["isNew"], &new["devices"]), (200, &json!(true), &json!(0)), "{new}");
    assert_eq!(central.send(Method::GET, &format!("/api/deviceTemplates/{PRESS}"), None).await.0, 404);
    store(&central, PRESS, template(&contents())).await;
    let before = central.get(&format!("/api/deviceTemplates/{PRESS}")).await;
    for id in ["a", "b"] {
        device(&central, id, PRESS).await;
    }
    let mut changed = contents();
    changed[0]["schema"] = "string".into();
    changed[0]["@type"] = "Telemetry".into();
    changed[0].as_object_mut().unwrap().remove("unit");
    let (status, shown) = preview(&central, PRESS, template(&changed)).await;
    assert_eq!((status, &shown["isNew"], &shown["devices"]), (200, &json!(false), &json!(2)), "{shown}");
    let changes = shown["changes"].as_array().unwrap();
    assert_eq!(
        changes[0],
        json!({"component": null, "name": "oil", "text": "schema: double becomes string", "isBreaking": true})
    );
    let (_, next) = preview(&central, "dtmi:site:press;2", template(&changed)).await;
    assert_eq!((&next["isNew"], &next["changes"]), (&json!(true), &json!([])));
    assert_eq!(next["versions"][0]["devices"], 2, "they stay on the earlier version");
    changed[3]["schema"] = "text".into();
    let (status, wrong) = preview(&central, PRESS, template(&changed)).await;
    assert_eq!(status, 200, "{wrong}");
    let problem = &wrong["model"]["problems"][0];
    assert_eq!((&problem["path"], &problem["rule"]), (&json!("contents[3].schema"), &json!("badDtmiOrTerm")));
    assert!(problem["element"].as_str().unwrap().contains("__owner"), "{problem}");
    for (id, document) in [("press", template(&contents())), (PRESS, json!({"@type": ["toaster"]}))] {
        assert_eq!(preview(&central, id, document).await.0, 422, "{id}");
    }
    assert_eq!(central.get(&format!("/api/deviceTemplates/{PRESS}")).await, before);
    central.end().await;
}

/// Each object has 30 fields of the next one: 30^4 fields, and a page of them would be gigabytes.
#[tokio::test]
async fn a_model_whose_objects_share_schemas_is_shown_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let schemas: Vec<Value> = (0..4)
        .map(|level| {
            let next = if level == 3 { "double".to_owned() } else { format!("dtmi:site:s{};1", level + 1) };
            let fields: Vec<Value> =
                (0..30).map(|at| json!({"name": format!("f{at}"), "schema": next})).collect();
            json!({"@id": format!("dtmi:site:s{level};1"), "@type": "Object", "fields": fields})
        })
        .collect();
    let mut document = template(&json!([{"@type": "Telemetry", "name": "load", "schema": "dtmi:site:s0;1"}]));
    document["capabilityModel"]["schemas"] = schemas.into();
    store(&central, PRESS, document).await;
    let view = central.get(&format!("/api/ext/deviceTemplates/{PRESS}")).await;
    assert_eq!(view["model"]["isComplete"], false);
    assert!(view.to_string().len() < 4 << 20);
    central.end().await;
}
