//! Forms of manifests that IoT Edge, IoT Hub and their tools take or refuse: what they take is taken here.
//!
//! `manifest_forms.json` has the forms as changes of one plain manifest, with the verdict of Azure's tools and runtime.

#![allow(clippy::unwrap_used)]

use edge_core::deploy::check;
use schemas::manifest::{Manifest, ManifestError};
use schemas::names::ModuleId;
use serde_json::{Map, Value};

/// What is refused there and taken here, and why.
const KINDER: [(&str, &str); 2] = [
    ("type left out", "Docker is the only runtime, so that nothing has to be chosen"),
    ("storeAndForward left out", "messages are kept as long as there is room"),
];

/// Makes the changes of a form: `[pointer, value]` writes, `[pointer]` removes.
fn edited(plain: &Value, edits: &Value) -> Value {
    let mut document = plain.clone();
    for edit in edits.as_array().into_iter().flatten() {
        let pointer = edit[0].as_str().unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let members = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match edit.get(1) {
            Some(value) => drop(members.insert(key, value.clone())),
            None => drop(members.remove(&key)),
        }
    }
    document
}

/// What a gateway makes of a text, over what it has.
fn read(text: &str, over: &Value) -> Result<Manifest, ManifestError> {
    let sections = Manifest::sections(over).unwrap();
    let current = |module: &ModuleId| sections.get(module).cloned().unwrap_or_else(Map::new);
    let manifest = Manifest::parse_over(&Manifest::document(text.as_bytes())?, &current)?;
    check(&manifest)?;
    Ok(manifest)
}

#[test]
fn every_form_that_azure_takes_is_taken_and_what_it_refuses_is_refused() {
    let forms: Value = serde_json::from_str(include_str!("manifest_forms.json")).unwrap();
    let plain = &forms["plain"];
    let list = forms["forms"].as_array().unwrap();
    assert_eq!(list.len(), 51);
    let mut wrong = Vec::new();
    for form in list {
        let name = form["name"].as_str().unwrap();
        let text = form["prefix"].as_str().unwrap_or_default().to_owned()
            + &edited(plain, &form["edits"]).to_string();
        let is_taken_there = match form["azure"].as_str().unwrap() {
            "takes" => true,
            "refuses" => false,
            other => panic!("{other}"),
        };
        let is_kinder = KINDER.iter().any(|(kinder, _)| *kinder == name);
        let read = read(&text, plain);
        if read.is_ok() != (is_taken_there || is_kinder) {
            wrong.push(format!("{name}: {:?}", read.map(|_| "taken")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_layer_is_merged_into_what_the_device_has_and_null_takes_away() {
    let forms: Value = serde_json::from_str(include_str!("manifest_forms.json")).unwrap();
    let layer = |content: &str| {
        let text = format!("{{\"modulesContent\": {content}}}");
        assert!(Manifest::has_layer(&serde_json::from_str(&text).unwrap()), "{text}");
        read(&text, &forms["plain"]).unwrap()
    };
    let names = |manifest: &Manifest| {
        let modules = manifest.edge_agent.modules.keys().map(ToString::to_string);
        modules.chain(manifest.edge_hub.routes.keys().cloned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&read(&forms["plain"].to_string(), &forms["plain"]).unwrap()), ["mod", "r"]);
    let added = layer(
        r#"{"$edgeAgent": {"properties.desired.modules.other": {"settings": {"image": "a"}}},
            "$edgeHub": {"properties.desired.routes.up": "FROM /messages/modules/other/* INTO $upstream"}}"#,
    );
    assert_eq!(names(&added), ["mod", "other", "r", "up"]);
    let changed = layer(r#"{"$edgeAgent": {"properties.desired.modules.mod.settings.image": "b:2"}}"#);
    assert_eq!(changed.edge_agent.modules[&"mod".parse().unwrap()].image, "b:2");
    assert_eq!(names(&changed), ["mod", "r"]);
    let replaced =
        layer(r#"{"$edgeAgent": {"properties.desired.Modules.mod": {"settings": {"image": "b:2"}}}}"#);
    assert_eq!(replaced.edge_agent.modules[&"mod".parse().unwrap()].version, "");
    let removed = layer(
        r#"{"$edgeAgent": {"properties.desired.modules.mod": null}, "$edgeHub": {"properties.desired.routes.r": null}}"#,
    );
    assert_eq!(names(&removed), [""; 0]);
    // Without anything to be laid over there is no deployment.
    let alone: Value =
        serde_json::from_str(r#"{"modulesContent": {"$edgeAgent": {"properties.desired.modules.m": {}}}}"#)
            .unwrap();
    let refused = Manifest::parse_over(&alone, &|_| Map::new()).unwrap_err();
    assert!(refused.path.ends_with("schemaVersion"), "{refused}");
}
