//! `/openapi.json` is the server: its paths, its bodies and its answers.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::collections::BTreeSet;

use central::api::described;
use common::described::{Exchange, check};
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::to_value(described().1).unwrap()
}

/// Every operation: its method and path, and its description.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn every_path_of_the_router_is_described_and_every_described_path_is_in_the_router() {
    let (router, _) = described();
    // axum tells its paths in no other way: `"/api/devices": RouteId(3)` or the other way round.
    let text = format!("{router:?}");
    let in_router: BTreeSet<&str> = text
        .split('"')
        .skip(1)
        .step_by(2)
        // `/` alone is axum's own, of the fallback: the console (tests/console.rs).
        .filter(|quoted| quoted.starts_with('/') && *quoted != "/" && !quoted.contains("__private__"))
        .collect();
    let document = document();
    let in_document: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(in_document.len() > 40, "{in_document:?}");
    assert_eq!(in_router, in_document);
}

#[test]
fn every_operation_has_an_id_of_its_own_a_server_its_security_and_the_answers_it_may_get() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["servers"], json!([{"url": "/"}]));
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}: its id is taken");
        let statuses: BTreeSet<&str> =
            operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = BTreeSet::new();
        if operation["security"].as_array().unwrap().is_empty() {
            let open = [
                "get /openapi.json",
                "get /api/ext/health",
                "get /api/ext/setup",
                "post /api/ext/setup",
                "post /api/ext/session",
            ];
            assert!(open.contains(&name.as_str()), "{name} is open");
        } else {
            expected.extend(["400", "401", "403", "429", "503"]);
        }
        if operation.get("requestBody").is_some() {
            expected.extend(["408", "413", "422"]);
        }
        if name.contains('{') {
            expected.insert("404");
        }
        assert!(statuses.is_superset(&expected), "{name}: {statuses:?}");
        assert!(statuses.iter().any(|status| status.starts_with('2')), "{name}: {statuses:?}");
    }
}

#[test]
fn every_body_has_a_type() {
    let document = document();
    let is_typed = |schema: &Value| schema.get("$ref").is_some() || schema.get("type").is_some();
    for (name, operation) in operations(&document) {
        let answers = operation["responses"].as_object().unwrap().iter();
        let answers = answers.filter_map(|(status, answer)| Some((status.as_str(), answer.get("content")?)));
        let request = operation.get("requestBody").map(|body| ("request", &body["content"]));
        for (which, content) in answers.chain(request) {
            if ["text/html", "text/event-stream"].iter().all(|kind| content.get(*kind).is_none()) {
                let schema = &content["application/json"]["schema"];
                assert!(is_typed(schema), "{name} {which}: {content}");
            }
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(
            is_typed(schema) || ["oneOf", "allOf"].iter().any(|kind| schema.get(*kind).is_some()),
            "{name}: {schema}"
        );
    }
}

#[test]
fn an_answer_that_is_not_as_described_fails_the_test_that_got_it() {
    let device = json!({"id": "d", "etag": "\"1\"", "displayName": "d", "simulated": false, "enabled": true,
        "provisioned": false});
    let exchange = |status, text: &str| {
        let text = text.to_owned();
        let path = "/api/devices/d?api-version=1.0";
        std::panic::catch_unwind(move || {
            check(&Exchange { method: "PUT", path, sent: None, status, text: &text })
        })
        .is_ok()
    };
    assert!(exchange(200, &device.to_string()));
    let mut wrong = device.clone();
    wrong["enabled"] = "yes".into();
    let mut kind = device.clone();
    kind["type"] = json!(["toaster"]);
    let mut less = device.clone();
    less.as_object_mut().unwrap().remove("etag");
    for wrong in [wrong, kind, less] {
        assert!(!exchange(200, &wrong.to_string()), "{wrong}");
    }
    assert!(!exchange(418, &device.to_string()) && !exchange(200, "") && !exchange(404, "{}"));
}

#[test]
fn a_body_that_is_sent_may_have_null_where_it_takes_something_away_and_nowhere_else() {
    let document = document();
    let mut nullable = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let mut names: Vec<String> = schema["$ref"].as_str().map(str::to_owned).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(named) = names.pop() {
            if !seen.insert(named.clone()) {
                continue;
            }
            let schema = document.pointer(named.trim_start_matches('#')).unwrap();
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                let text = schema.to_string();
                if text.contains("\"null\"") {
                    nullable.insert(field.clone());
                }
                names.extend(text.split('"').filter(|part| part.starts_with("#/")).map(str::to_owned));
            }
        }
        assert!(schema.is_null() || !seen.is_empty() || schema["type"] == "object", "{name}: {schema}");
    }
    let nullable: Vec<&str> = nullable.iter().map(String::as_str).collect();
    assert_eq!(nullable, ["deploymentManifest", "organizations", "template"]);
}

#[test]
fn versions_and_names_in_addresses_are_described_by_what_they_may_be() {
    let document = document();
    let mut versions = 0;
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let schema = &parameter["schema"];
            match parameter["name"].as_str().unwrap() {
                "api-version" => {
                    assert_eq!(schema["enum"].as_array().unwrap().len(), 7, "{name}");
                    versions += 1;
                }
                "device_id" | "module_name" | "component_name" | "group_id" => {
                    assert!(schema["pattern"].is_string(), "{name}: {parameter}");
                }
                _ => {}
            }
        }
    }
    assert!(versions > 40, "{versions}");
}
