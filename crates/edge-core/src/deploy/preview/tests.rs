use proptest::prelude::*;
use schemas::manifest::Manifest;
use serde_json::{Value, json};

use super::super::observed::{ContainerState, ObservedModule};
use super::*;

fn desired(modules: Value) -> Desired {
    let text = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": modules
    }}}});
    Desired::of(&Manifest::parse(text.to_string().as_bytes()).unwrap())
}

/// Containers that were created from these definitions and run.
fn running(of: &Desired) -> Observed {
    let container = |image: &str, fingerprint: &str| ObservedModule {
        image: image.into(),
        fingerprint: fingerprint.into(),
        state: ContainerState::Running,
        ..ObservedModule::default()
    };
    let modules = of
        .modules
        .iter()
        .map(|(name, module)| (name.clone(), container(&module.spec.image, &module.fingerprint)));
    Observed { modules: modules.collect(), ..Observed::default() }
}

/// The effect on each module, and the fields with those that replace marked by `!`.
fn shown(preview: &[ModulePreview]) -> Vec<(String, Effect, String)> {
    let field = |field: &ChangedField| format!("{}{}", field.path, if field.is_replacing { "!" } else { "" });
    let fields = |of: &ModulePreview| of.fields.iter().map(field).collect::<Vec<_>>().join(" ");
    preview.iter().map(|of| (of.module.to_string(), of.effect, fields(of))).collect()
}

#[test]
fn each_module_has_its_effect_and_the_fields_that_force_it() {
    let module = |image: &str| {
        json!({"settings": {"image": image, "createOptions": "{\"HostConfig\":{\"Memory\":1,\"Init\":true}}"},
        "env": {"A": {"value": "1"}, "B": {"value": "2"}}})
    };
    let mut next = json!({"new": module("n:1"), "image": module("a:2"), "env": module("a:1"), "options": module("a:1"),
        "policy": module("a:1"), "stopped": module("a:1"), "same": module("a:1")});
    next["env"]["env"] = json!({"A": {"value": "5"}, "C": {"value": "3"}});
    next["options"]["settings"]["createOptions"] =
        json!("{\"HostConfig\":{\"Memory\":2,\"Init\":true},\"Hostname\":\"h\"}");
    next["policy"]["restartPolicy"] = json!("always");
    next["policy"]["startupOrder"] = json!(1);
    next["stopped"]["status"] = json!("stopped");
    let names = ["image", "env", "options", "policy", "stopped", "same", "gone"];
    let former =
        desired(names.into_iter().map(|name| (name.to_owned(), module("a:1"))).collect::<Map<_, _>>().into());
    let preview = preview(&former, &running(&former), &desired(next), 0);
    let expected: [(&str, Effect, &str); 8] = [
        ("env", Effect::Replace, "env.A! env.B! env.C!"),
        ("gone", Effect::Remove, ""),
        ("image", Effect::Replace, "settings.image!"),
        ("new", Effect::Create, ""),
        (
            "options",
            Effect::Replace,
            "settings.createOptions.HostConfig.Memory! settings.createOptions.Hostname!",
        ),
        ("policy", Effect::ChangeInPlace, "restartPolicy startupOrder"),
        ("same", Effect::Unchanged, ""),
        ("stopped", Effect::ChangeInPlace, "status"),
    ];
    assert_eq!(
        shown(&preview),
        expected.map(|(name, effect, fields)| (name.to_owned(), effect, fields.to_owned()))
    );
    let steps = |name: &str| preview.iter().find(|of| of.module.as_str() == name).unwrap().steps.clone();
    assert_eq!(steps("image"), [Step::Pull, Step::Replace]);
    assert_eq!(steps("new"), [Step::Pull, Step::Create, Step::Start]);
    assert_eq!(steps("gone"), [Step::Stop, Step::Remove]);
    assert_eq!((steps("stopped"), steps("policy"), steps("same")), (vec![Step::Stop], vec![], vec![]));
    let text = format!("{preview:?}");
    assert!(
        !text.contains("\"5\"") && !text.contains("\"h\""),
        "a value that may be a secret is shown: {text}"
    );
}

#[test]
fn of_a_container_whose_definition_is_not_known_only_another_image_is_certain() {
    let seen =
        running(&desired(json!({"a": {"settings": {"image": "a:1"}}, "b": {"settings": {"image": "b:1"}},
        "c": {"settings": {"image": "c:1"}}})));
    let next = desired(json!({"a": {"settings": {"image": "a:2"}}, "b": {"settings": {"image": "b:1"}}}));
    let preview = preview(&Desired::default(), &seen, &next, 0);
    let expected =
        [("a", Effect::Replace, "settings.image!"), ("b", Effect::Unknown, ""), ("c", Effect::Remove, "")];
    assert_eq!(
        shown(&preview),
        expected.map(|(name, effect, fields)| (name.to_owned(), effect, fields.to_owned()))
    );
}

fn module() -> impl Strategy<Value = Value> {
    let of = |choices: &'static [&'static str]| prop::sample::select(choices);
    (
        (
            of(&["a:1", "a:2"]),
            of(&[
                "{}",
                r#"{"HostConfig":{"Memory":1}}"#,
                r#"{"HostConfig":{"Memory":2,"Init":false}}"#,
                r#"{"Hostname":"h"}"#,
            ]),
        ),
        prop::collection::btree_map(of(&["A", "B"]), of(&["1", "2"]), 0..3),
        (of(&["running", "stopped", "unknown"]), of(&["always", "never", "on-failure"])),
        (of(&["on-create", "never"]), 0..2_u32, of(&["1", "2"])),
    )
        .prop_map(|((image, options), env, (status, policy), (pull, order, version))| {
            let env: Map<String, Value> =
                env.into_iter().map(|(name, value)| (name.into(), json!({"value": value}))).collect();
            json!({"settings": {"image": image, "createOptions": options}, "env": env, "status": status,
                "restartPolicy": policy, "imagePullPolicy": pull, "startupOrder": order, "version": version})
        })
}

proptest! {
    /// The list of fields and the fingerprint, by which the gateway decides, must not drift apart.
    #[test]
    fn a_container_is_replaced_exactly_if_a_field_that_forces_it_differs((was, target) in (module(), module())) {
        let former = desired(json!({"m": was}));
        let preview = preview(&former, &running(&former), &desired(json!({"m": target})), 0);
        let of = &preview[0];
        prop_assert_eq!(of.effect == Effect::Replace, of.fields.iter().any(|field| field.is_replacing));
        prop_assert_eq!(of.effect == Effect::Unchanged, of.fields.is_empty());
    }
}
