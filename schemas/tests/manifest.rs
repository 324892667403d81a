//! How a deployment manifest is read: its forms, its defaults, and what it never says aloud.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schemas::manifest::{DesiredStatus, ImagePullPolicy, Manifest, PRIORITY_DEFAULT, RestartPolicy};
use schemas::names::ModuleId;
use serde_json::{Map, Value, json};

fn module(id: &str) -> ModuleId {
    id.parse().unwrap()
}

fn parse(document: &Value) -> Manifest {
    Manifest::parse(document.to_string().as_bytes()).unwrap()
}

fn refused(document: &Value) -> String {
    Manifest::parse(document.to_string().as_bytes()).unwrap_err().to_string()
}

/// A document with this member in `$edgeAgent`'s section.
fn agent(key: &str, value: Value) -> Value {
    json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", key: value}}}})
}

#[test]
fn what_is_left_out_gets_iot_edges_defaults() {
    let manifest = parse(&agent("modules", json!({"m": {"settings": {"image": "acme/m"}}})));
    let m = &manifest.edge_agent.modules[&module("m")];
    assert_eq!(m.image, "acme/m:latest");
    assert_eq!((m.create_options.len(), m.env.len(), m.version.as_str()), (0, 0, ""));
    assert_eq!((m.status, m.restart_policy), (DesiredStatus::Running, RestartPolicy::OnUnhealthy));
    assert_eq!((m.image_pull_policy, m.startup_order), (ImagePullPolicy::OnCreate, u32::MAX));
    assert!(manifest.edge_hub.routes.is_empty() && manifest.module_twins.is_empty());
}

#[test]
fn both_envelopes_and_flat_keys_say_the_same_in_any_case() {
    let whole = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.0", "modules": {
            "m": {"restartPolicy": "always", "env": {"A": {"value": "1"}, "B": {"value": "2"}}, "settings": {"image": "a:1"}}
        }}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.0", "routes": {"up": "FROM /* INTO $upstream"}}},
        "m": {"properties.desired": {"limits": {"high": 3}}}
    }});
    let flat = json!({"id": "line-1", "content": {"ModulesContent": {
        "$edgeAgent": {
            "properties.desired": {"SchemaVersion": "1.0", "Modules": {}},
            "properties.desired.Modules.m": {"RestartPolicy": "Always", "Env": {"A": {"value": "1"}}, "settings": {"Image": "a:1"}},
            "properties.desired.Modules.m.Env.B": {"Value": 2}
        },
        "$edgeHub": {
            "properties.desired.schemaVersion": "1.0",
            "properties.desired.routes.up": "FROM /* INTO $upstream"
        },
        "m": {"properties.desired.limits.high": 3},
        "untouched": {}
    }}});
    assert_eq!(parse(&whole), parse(&flat));
    let sections = Manifest::sections(&flat).unwrap();
    assert_eq!(sections.keys().map(ModuleId::as_str).collect::<Vec<_>>(), ["$edgeAgent", "$edgeHub", "m"]);
}

#[test]
fn sections_written_into_twins_read_back_as_the_manifest() {
    let document = agent("modules", json!({"m": {"settings": {"image": "a:1"}}}));
    let mut twin = Manifest::sections(&document).unwrap().remove(&ModuleId::edge_agent()).unwrap();
    twin.insert("$version".into(), json!(4));
    let from_twins = Manifest::from_twins(&twin, &Map::new()).unwrap();
    assert_eq!(from_twins, parse(&document));
    let error = Manifest::from_twins(&Map::new(), &Map::new()).unwrap_err();
    assert_eq!(error.path, "modulesContent.$edgeAgent.properties.desired.schemaVersion");
}

#[test]
fn create_options_are_joined_from_a_hundred_chunks() {
    let options = json!({"Labels": {"long": "x".repeat(2000)}});
    let text = options.to_string();
    let size = text.len().div_ceil(100);
    let mut settings = json!({"image": "a"});
    for (index, chunk) in text.as_bytes().chunks(size).enumerate() {
        let key = if index == 0 { "createOptions".to_owned() } else { format!("createOptions{index:02}") };
        settings[key] = json!(std::str::from_utf8(chunk).unwrap());
    }
    let manifest = parse(&agent("modules", json!({"m": {"settings": settings}})));
    assert_eq!(Value::Object(manifest.edge_agent.modules[&module("m")].create_options.clone()), options);
    for blank in ["", "  ", "null"] {
        let settings = json!({"image": "a", "createOptions": blank});
        let manifest = parse(&agent("modules", json!({"m": {"settings": settings}})));
        assert!(manifest.edge_agent.modules[&module("m")].create_options.is_empty());
    }
}

#[test]
fn routes_are_texts_or_objects_and_blank_ones_are_none() {
    let hub = json!({"schemaVersion": "1.1", "routes": {
        "text": " FROM /* INTO $upstream ",
        "object": {"route": "FROM /* INTO $upstream", "priority": 0, "timeToLiveSecs": 60},
        "inherits": {"route": "FROM /* INTO $upstream", "timeToLiveSecs": 0},
        "blank": " ",
        "deleted": null
    }, "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}});
    let agent = json!({"schemaVersion": "1.0"});
    let manifest = Manifest::from_twins(agent.as_object().unwrap(), hub.as_object().unwrap()).unwrap();
    let hub = manifest.edge_hub;
    assert_eq!(hub.routes.keys().collect::<Vec<_>>(), ["inherits", "object", "text"]);
    assert_eq!(hub.routes["text"].query, "FROM /* INTO $upstream");
    assert_eq!((hub.routes["text"].priority, hub.routes["text"].time_to_live_secs), (PRIORITY_DEFAULT, None));
    assert_eq!((hub.routes["object"].priority, hub.routes["object"].time_to_live_secs), (0, Some(60)));
    assert_eq!(hub.routes["inherits"].time_to_live_secs, None);
    assert_eq!(hub.time_to_live_secs, Some(7200));
}

#[test]
fn system_modules_are_kept_and_never_become_containers() {
    let image = "$upstream:443/azureiotedge-hub:1.5";
    let manifest = parse(&agent("systemModules", json!({"edgeHub": {"settings": {"image": image}}})));
    assert_eq!(manifest.edge_agent.system_modules["edgeHub"].image, image);
    assert!(manifest.edge_agent.modules.is_empty());
}

#[test]
fn secrets_are_neither_printed_nor_part_of_an_error() {
    let credential = json!({"username": "u", "password": "hunter2", "address": "ghcr.io"});
    let settings = json!({"image": "a", "createOptions": "{\"Env\": [\"TOKEN=hunter2\"]}"});
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.0",
        "runtime": {"settings": {"registryCredentials": {"r": credential}}},
        "modules": {"m": {"settings": settings, "env": {"TOKEN": {"value": "hunter2"}}}}
    }}}});
    assert!(!format!("{:?}", parse(&document)).contains("hunter2"));
    for broken in [
        agent("modules", json!({"m": {"settings": {"image": "a", "createOptions": "{\"TOKEN\": hunter2"}}})),
        agent("modules", json!({"m": {"settings": {"image": "a"}, "env": {"A": {"value": ["hunter2"]}}}})),
        agent("modules", json!({"m": {"settings": {"image": "a"}, "env": {"A": "hunter2"}}})),
        agent("runtime", json!({"settings": {"registryCredentials": {"r": "hunter2"}}})),
        agent(
            "runtime",
            json!({"settings": {"registryCredentials": {"r": {"username": "u", "password": ["hunter2"]}}}}),
        ),
    ] {
        let message = refused(&broken);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(\\PC|\\$){0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let object = proptest::collection::btree_map(
            "(value|settings|image|modules|[a-z.$]{0,6})",
            inner.clone(),
            0..3,
        );
        prop_oneof![
            proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            object.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every place in a document.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    for (key, inner) in value.as_object().into_iter().flatten() {
        places(inner, &format!("{here}/{key}"), all);
    }
}

proptest! {
    #[test]
    fn any_value_at_any_place_is_read_or_refused_with_a_path(at in any::<prop::sample::Index>(), value in json_value()) {
        let mut document: Value =
            serde_json::from_slice(include_bytes!("../../manifests/limits.json")).unwrap();
        let mut all = Vec::new();
        places(&document, "", &mut all);
        let place: &String = at.get(&all);
        *document.pointer_mut(place).unwrap() = value;
        match Manifest::parse(document.to_string().as_bytes()) {
            Ok(manifest) => prop_assert!(manifest.edge_agent.modules.values().all(|m| !m.image.is_empty())),
            Err(error) => prop_assert!(error.path == "manifest" || error.path.starts_with("modulesContent")),
        }
    }
}

#[test]
fn a_document_that_is_too_large_is_refused_before_it_is_read() {
    let error = Manifest::parse(&vec![b' '; schemas::manifest::DOCUMENT_BYTES_MAX + 1]).unwrap_err();
    assert!(error.to_string().starts_with("manifest: found 4194305 bytes"), "{error}");
}

#[test]
fn a_flat_key_that_leads_through_a_plain_value_is_refused() {
    let mut document = agent("modules", json!("x"));
    document["modulesContent"]["$edgeAgent"]["properties.desired.modules.m"] = json!({});
    assert_eq!(
        refused(&document),
        "modulesContent.$edgeAgent.properties.desired.modules.m: found \"modules\" written as a plain value too; \
         write it only once"
    );
}

#[test]
fn a_mistyped_key_is_a_warning_that_says_what_may_be_meant() {
    let document = |settings: Value, module: (&str, Value)| {
        let mut sensor = json!({"settings": settings});
        sensor[module.0] = module.1;
        agent("modules", json!({"m": sensor}))
    };
    let image = || json!({"image": "a"});
    let options =
        |text: &str| document(json!({"image": "a", "createOptions": text}), ("type", json!("docker")));
    let hub = |key: &str, value: Value| {
        let mut document = agent("modules", json!({}));
        document["modulesContent"]["$edgeHub"]["properties.desired"] =
            json!({"schemaVersion": "1.1", key: value});
        document
    };
    let mut at_root = agent("modules", json!({}));
    at_root["modulesContent"]["$edgeAgent"]["propertes.desired"] = json!({});
    let mut flat = agent("modules", json!({}));
    flat["modulesContent"]["$edgeAgent"]["properties.desired.modules.m.restartPolcy"] = json!("always");
    let former = json!({"moduleContent": agent("modules", json!({}))["modulesContent"]});
    for (document, place, text) in [
        (
            document(image(), ("restartPolcy", json!("always"))),
            "modules.m.restartPolcy",
            "did you mean `restartPolicy`?",
        ),
        (
            document(image(), ("startupOrdre", json!(1))),
            "modules.m.startupOrdre",
            "did you mean `startupOrder`?",
        ),
        (document(image(), ("enviroment", json!({}))), "modules.m.enviroment", "not known and has no effect"),
        (document(image(), ("evn", json!({}))), "modules.m.evn", "did you mean `env`?"),
        (document(image(), ("env", json!({"A": {"vlaue": "1"}}))), "env.A.vlaue", "did you mean `value`?"),
        (
            document(json!({"image": "a", "createOption": "{}"}), ("env", json!({}))),
            "settings.createOption",
            "did you mean `createOptions`?",
        ),
        (
            document(json!({"image": "a", "env": {}}), ("env", json!({}))),
            "settings.env",
            "write it beside `settings`",
        ),
        (agent("moduels", json!({})), "moduels", "did you mean `modules`?"),
        (
            agent("runtime", json!({"settings": {"registryCredential": {}}})),
            "runtime.settings.registryCredential",
            "did you mean `registryCredentials`?",
        ),
        (hub("route", json!({})), "route", "did you mean `routes`?"),
        (
            hub("routes", json!({"r": {"route": "FROM /* INTO $upstream", "prioritiy": 1}})),
            "routes.r.prioritiy",
            "did you mean `priority`?",
        ),
        (
            hub("storeAndForwardConfiguration", json!({"timeToLiveSec": 1})),
            "timeToLiveSec",
            "did you mean `timeToLiveSecs`?",
        ),
        (at_root, "propertes.desired", "did you mean `properties.desired`?"),
        (flat, "restartPolcy", "did you mean `restartPolicy`?"),
        (former, "moduleContent", "write `modulesContent`"),
        (
            options(r#"{"HostConfg": {}}"#),
            "createOptions.HostConfg",
            "sent as it is; did you mean `HostConfig`?",
        ),
        (
            options("{HostConfig: {PortBinding: {}}}"),
            "HostConfig.PortBinding",
            "did you mean `PortBindings`?",
        ),
        (
            options("{HostConfig: {Mounts: [{Sorce: '/a'}]}}"),
            "HostConfig.Mounts.0.Sorce",
            "did you mean `Source`?",
        ),
        (options("{HostConfig: {FutureOption: 1}}"), "HostConfig.FutureOption", "is sent as it is"),
        (options("{privileged: true}"), "createOptions.privileged", "write it in `HostConfig`"),
    ] {
        let warnings = Manifest::warnings(&document);
        assert_eq!(warnings.len(), 1, "{document}: {warnings:?}");
        let warning = &warnings[0];
        assert!(warning.path.ends_with(place) && warning.text.contains(text), "{document}: {warning}");
    }
}

#[test]
fn a_manifest_without_a_mistake_has_no_warnings_and_never_more_than_can_be_read() {
    for text in [
        include_str!("../../manifests/demo.json"),
        include_str!("../../manifests/limits.json"),
        include_str!("../../manifests/routes.json"),
    ] {
        assert_eq!(Manifest::warnings(&serde_json::from_str(text).unwrap()), []);
    }
    let keys: Map<String, Value> = (0..500).map(|n| (format!("x{n}"), json!(1))).collect();
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": keys}}});
    assert_eq!(Manifest::warnings(&document).len(), 100);
}

#[test]
fn a_document_in_which_a_key_occurs_twice_is_refused_by_name() {
    let error = Manifest::document(br#"{"modulesContent": {"$edgeHub": {}, "$edgeHub": {}}}"#).unwrap_err();
    assert!(error.to_string().contains("key `$edgeHub`: it appears twice in one object"), "{error}");
}
