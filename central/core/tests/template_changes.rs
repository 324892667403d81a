//! What a changed capability model does to those who use it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use central_core::model::options::Options;
use central_core::model::parse::parse_documents;
use central_core::model::types::Model;
use central_core::template::changes::{CHANGES_MAX, changes};
use serde_json::{Value, json};

fn model(contents: &Value) -> Model {
    let document = json!({"@id": "dtmi:site:press;1", "@type": "Interface", "contents": contents,
        "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"]});
    parse_documents(&[document], &Options::IOT_CENTRAL).unwrap()
}

fn telemetry(schema: &Value) -> Value {
    json!([{"@type": "Telemetry", "name": "load", "schema": schema}])
}

fn said(before: &Value, after: &Value) -> Vec<(String, bool)> {
    let found = changes(&model(before), &model(after));
    found.into_iter().map(|change| (change.text, change.is_breaking)).collect()
}

#[test]
fn each_kind_of_change_is_reported_once_and_breaking_only_when_a_value_may_not_fit_any_more() {
    let enumeration = |values: &[&str]| {
        let values: Vec<Value> =
            values.iter().map(|value| json!({"name": value, "enumValue": value})).collect();
        json!({"@type": "Enum", "valueSchema": "string", "enumValues": values})
    };
    let object = |fields: &[(&str, &str)]| {
        let fields: Vec<Value> =
            fields.iter().map(|(name, schema)| json!({"name": name, "schema": schema})).collect();
        json!({"@type": "Object", "fields": fields})
    };
    let cases = [
        (telemetry(&json!("double")), telemetry(&json!("double")), vec![]),
        (telemetry(&json!("double")), json!([]), vec![("Telemetry is removed", true)]),
        (json!([]), telemetry(&json!("double")), vec![("Telemetry is added", false)]),
        (
            telemetry(&json!("double")),
            telemetry(&json!("string")),
            vec![("schema: double becomes string", true)],
        ),
        (
            telemetry(&json!("double")),
            json!([{"@type": "Property", "name": "load", "schema": "double"}]),
            vec![("Telemetry becomes property", true)],
        ),
        (
            telemetry(&enumeration(&["on", "off"])),
            telemetry(&enumeration(&["on", "idle"])),
            vec![("value \"off\" is removed", true), ("value \"idle\" is added", false)],
        ),
        (
            telemetry(&object(&[("a", "double"), ("b", "double")])),
            telemetry(&object(&[("b", "boolean"), ("c", "double")])),
            vec![
                ("field `a` is removed", true),
                ("b: schema: double becomes boolean", true),
                ("field `c` is added", false),
            ],
        ),
        (
            json!([{"@type": "Property", "name": "load", "schema": "double", "writable": true}]),
            json!([{"@type": ["Property", "Cloud"], "name": "load", "schema": "double"}]),
            vec![("Property becomes cloud property", true)],
        ),
        (
            json!([{"@type": "Property", "name": "load", "schema": "double", "writable": true}]),
            json!([{"@type": "Property", "name": "load", "schema": "double"}]),
            vec![("cannot be written any more", true)],
        ),
        (
            json!([{"@type": ["Telemetry", "Temperature"], "name": "load", "schema": "double", "unit": "kelvin"}]),
            json!([{"@type": ["Telemetry", "Temperature"], "name": "load", "schema": "double", "unit": "degreeCelsius"}]),
            vec![("unit: kelvin becomes degreeCelsius", true)],
        ),
        (
            json!([{"@type": "Command", "name": "open", "request": {"name": "how", "schema": "integer"}}]),
            json!([{"@type": "Command", "name": "open", "request": {"name": "how", "schema": "string"}}]),
            vec![("request: schema: integer becomes string", true)],
        ),
        (
            json!([{"@type": "Command", "name": "open"}]),
            json!([{"@type": "Command", "name": "open", "response": {"name": "how", "schema": "string"}}]),
            vec![("response is added", true)],
        ),
    ];
    for (before, after, expected) in cases {
        let expected: Vec<(String, bool)> =
            expected.into_iter().map(|(text, is_breaking)| (text.to_owned(), is_breaking)).collect();
        assert_eq!(said(&before, &after), expected, "{before} to {after}");
    }
}

#[test]
fn the_contents_of_components_and_of_extended_interfaces_are_compared_under_their_names() {
    let with = |schema: &str| {
        json!([{"@type": "Component", "name": "motor", "schema": {"@id": "dtmi:site:motor;1", "@type": "Interface",
            "extends": {"@id": "dtmi:site:base;1", "@type": "Interface",
                "contents": [{"@type": "Telemetry", "name": "rpm", "schema": schema}]}}}])
    };
    let found = changes(&model(&with("double")), &model(&with("string")));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].component.as_deref(), found[0].name.as_str()), (Some("motor"), "rpm"));
    let gone = changes(&model(&with("double")), &model(&json!([])));
    assert_eq!(gone.len(), 2, "the component and its telemetry: {gone:?}");
}

/// Each object has 30 fields of the next one: 30^5 schemas in a document of 20 kB.
fn shared(leaf: &str) -> Model {
    let mut schemas = vec![];
    for level in 0..4 {
        let next = if level == 3 { leaf.to_owned() } else { format!("dtmi:site:s{};1", level + 1) };
        let fields: Vec<Value> =
            (0..30).map(|at| json!({"name": format!("f{at}"), "schema": next})).collect();
        schemas.push(json!({"@id": format!("dtmi:site:s{level};1"), "@type": "Object", "fields": fields}));
    }
    let document = json!({"@id": "dtmi:site:press;1", "@type": "Interface", "schemas": schemas,
        "@context": "dtmi:dtdl:context;2",
        "contents": [{"@type": "Telemetry", "name": "load", "schema": "dtmi:site:s0;1"}]});
    parse_documents(&[document], &Options::DTDL).unwrap()
}

#[test]
fn models_whose_objects_share_schemas_are_compared_within_bounds() {
    let found = changes(&shared("double"), &shared("string"));
    assert_eq!(found.len(), CHANGES_MAX);
    let same = changes(&shared("double"), &shared("double"));
    assert!(same.iter().all(|change| change.text == "is too large to compare"), "{same:?}");
}
