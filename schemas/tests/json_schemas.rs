//! The JSON Schemas in `schemas/json` are those of the types, and say of a manifest what the reader says.
//!
//! `LINESIDE_WRITE_GOLDEN=1 cargo test -p schemas --test json_schemas` writes them anew.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use schemas::manifest::Manifest;
use schemas::manifest::document::Document;
use schemas::status::{EdgeAgentReport, EdgeHubReport};
use serde_json::{Value, json};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest_schema() -> jsonschema::Validator {
    let schema = fs::read(folder().join("json/manifest.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap()
}

#[test]
fn the_json_schemas_are_those_of_the_types() {
    for (name, schema) in [
        ("manifest.json", schemars::schema_for!(Document)),
        ("edge-agent-reported.json", schemars::schema_for!(EdgeAgentReport)),
        ("edge-hub-reported.json", schemars::schema_for!(EdgeHubReport)),
    ] {
        let file = folder().join("json").join(name);
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
            fs::write(&file, &text).unwrap();
        }
        // Compared as values: the order of keys depends on how serde_json was built.
        let written: Option<Value> = fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        assert!(
            written.as_ref() == Some(schema.as_value()),
            "{} is not what the types say: write it anew as the head of this test tells",
            file.display()
        );
    }
}

#[test]
fn every_manifest_that_runs_is_valid() {
    let schema = manifest_schema();
    for entry in fs::read_dir(folder().join("../manifests")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "json") {
            let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            let errors: Vec<_> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        }
    }
}

#[test]
fn schema_and_reader_agree_on_the_shape_of_a_manifest() {
    let schema = manifest_schema();
    let base = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"registryCredentials": {
                "own": {"username": "u", "password": "p", "address": "a"}
            }}},
            "systemModules": {},
            "modules": {"m": {"env": {"A": {"value": "1"}}, "settings": {"image": "a", "createOptions": "{}"}}}
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.3", "routes": {"r": ""}, "storeAndForwardConfiguration": {}
        }},
        "m": {"properties.desired": {"x": 1}}
    }});
    const AGENT: &str = "/modulesContent/$edgeAgent/properties.desired";
    const HUB: &str = "/modulesContent/$edgeHub/properties.desired";
    let agree = |place: &str, key: &str, value: Value, is_right: bool| {
        let mut document = base.clone();
        document.pointer_mut(place).unwrap()[key] = value.clone();
        let read = Manifest::parse(document.to_string().as_bytes());
        assert_eq!(read.is_ok(), is_right, "{place}/{key} = {value}: {read:?}");
        assert_eq!(schema.is_valid(&document), is_right, "{place}/{key} = {value}: the schema");
    };
    for (place, key, right, wrong) in [
        ("", "unknown", vec![json!(1)], vec![]),
        ("", "modulesContent", vec![], vec![json!(null), json!([]), json!({})]),
        (
            AGENT,
            "schemaVersion",
            vec![json!("1"), json!("1.0"), json!("1.1.0"), json!(1.1)],
            vec![json!("1.2"), json!("2.0"), json!("1.1.1"), json!([]), json!(null)],
        ),
        (AGENT, "modules", vec![json!(null), json!({})], vec![json!([]), json!("")]),
        (AGENT, "systemModules", vec![json!(null)], vec![json!({"edgeHub": {}})]),
        (&format!("{AGENT}/runtime"), "type", vec![json!(null)], vec![json!("podman"), json!(1)]),
        (&format!("{AGENT}/runtime/settings"), "loggingOptions", vec![json!("")], vec![json!({})]),
        (
            &format!("{AGENT}/runtime/settings/registryCredentials/own"),
            "address",
            vec![json!("b"), json!(7)],
            vec![json!(""), json!(null), json!([])],
        ),
        (
            &format!("{AGENT}/modules/m"),
            "status",
            vec![json!("stopped"), json!(null), json!("unknown"), json!("backoff")],
            vec![json!("resting"), json!(1)],
        ),
        (
            &format!("{AGENT}/modules/m"),
            "restartPolicy",
            vec![json!("on-unhealthy")],
            vec![json!("no"), json!({})],
        ),
        (&format!("{AGENT}/modules/m"), "imagePullPolicy", vec![json!("never")], vec![json!("always")]),
        (
            &format!("{AGENT}/modules/m"),
            "startupOrder",
            vec![json!(0), json!(4_294_967_295_u32), json!("1")],
            vec![json!(-1), json!(4_294_967_296_u64), json!(1.5), json!("one")],
        ),
        (
            &format!("{AGENT}/modules/m"),
            "startAfter",
            vec![json!({})],
            vec![json!("started"), json!([]), json!({"m": "running"}), json!({"m": 1}), json!({"m": {}})],
        ),
        (&format!("{AGENT}/modules/m"), "version", vec![json!("x"), json!(1), json!(true)], vec![json!([])]),
        (&format!("{AGENT}/modules/m"), "settings", vec![], vec![json!({}), json!(null), json!("a")]),
        (
            &format!("{AGENT}/modules/m/settings"),
            "image",
            vec![json!("b:1"), json!(1)],
            vec![json!(""), json!({}), json!(null)],
        ),
        (
            &format!("{AGENT}/modules/m/settings"),
            "createOptions",
            vec![json!(""), json!({}), json!(null)],
            vec![json!(1), json!([])],
        ),
        (
            &format!("{AGENT}/modules/m/env/A"),
            "value",
            vec![json!(1.5), json!(true), json!(""), json!(null)],
            vec![json!([]), json!({})],
        ),
        (HUB, "schemaVersion", vec![json!("1.0")], vec![json!("1.4"), json!(null)]),
        (
            &format!("{HUB}/routes"),
            "r",
            vec![
                json!({"route": "x", "priority": 9, "timeToLiveSecs": 0}),
                json!({"route": "x", "full": "refuse"}),
                json!({"route": "x", "full": null}),
            ],
            vec![
                json!(1),
                json!({"priority": 1}),
                json!({"route": "x", "priority": 10}),
                json!({"route": "x", "priority": -1}),
                json!({"route": "x", "timeToLiveSecs": -1}),
                json!({"route": "x", "full": "drop-newest"}),
                json!({"route": "x", "full": true}),
            ],
        ),
        (
            &format!("{HUB}/storeAndForwardConfiguration"),
            "timeToLiveSecs",
            vec![json!(-1), json!(7200), json!("7200")],
            vec![json!("long"), json!(0.5)],
        ),
        ("/modulesContent/m", "properties.desired", vec![json!({})], vec![json!([]), json!(1)]),
    ] {
        right.into_iter().for_each(|value| agree(place, key, value, true));
        wrong.into_iter().for_each(|value| agree(place, key, value, false));
    }
}
