//! Models that are made from what a device sends: always ones that are right, and nothing left out without a word.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use central_core::model::options::Options;
use central_core::model::parse::parse_documents;
use central_core::model::types::{ContentKind, Model};
use central_core::model::values::{self, Strictness};
use central_core::template::generate::{Generated, Observation, Source, generate};
use proptest::prelude::*;
use serde_json::{Value, json};

const ID: &str = "dtmi:lineside:press:model;1";

fn seen(component: Option<&str>, name: &str, value: Value, source: Source) -> Observation {
    Observation { component: component.map(str::to_owned), name: name.to_owned(), value, source }
}

fn read(generated: &Generated) -> Model {
    parse_documents(std::slice::from_ref(&generated.model), &Options::IOT_CENTRAL)
        .unwrap_or_else(|problems| panic!("{problems}: {}", generated.model))
}

#[test]
fn values_become_telemetry_properties_and_components_with_their_schemas() {
    let reported = Source::Property { writable: false };
    let generated = generate(
        ID,
        "Press",
        &[
            seen(None, "temperature", json!(20), Source::Telemetry),
            seen(None, "place", json!({"lat": 1, "lon": 2.5}), Source::Telemetry),
            seen(None, "at", json!("2024-02-29T00:00:00Z"), Source::Telemetry),
            seen(None, "axes", json!([{"n": 1}, {"n": 2.5}]), Source::Telemetry),
            seen(None, "serial", json!("A1"), reported),
            seen(None, "limit", json!(3), reported),
            seen(None, "limit", json!(4), Source::Property { writable: true }),
            seen(Some("motor"), "rpm", json!(900), Source::Telemetry),
            seen(None, "bad name", json!(1), Source::Telemetry),
            seen(None, "list", json!([1]), reported),
            seen(None, "nothing", Value::Null, Source::Telemetry),
        ],
    );
    let contents = generated.model["contents"].as_array().unwrap();
    let of = |name: &str| contents.iter().find(|content| content["name"] == name).unwrap().clone();
    assert_eq!(of("temperature"), json!({"@type": "Telemetry", "name": "temperature", "schema": "double"}));
    assert_eq!(of("place")["schema"], "geopoint");
    assert_eq!(of("at")["schema"], "dateTime");
    assert_eq!(of("axes")["schema"]["elementSchema"]["fields"][0], json!({"name": "n", "schema": "double"}));
    assert_eq!(of("serial"), json!({"@type": "Property", "name": "serial", "schema": "string"}));
    assert_eq!(of("limit")["writable"], true);
    assert_eq!(of("motor")["schema"]["@id"], "dtmi:lineside:press:model:motor;1");
    let skipped: Vec<&str> = generated.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["bad name", "list", "nothing"]);
    let model = read(&generated);
    assert!(model.component(model.root().unwrap(), "motor").is_some());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9:TZ-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_ ]{0,4}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_device_sends_makes_a_model_that_is_right_and_that_it_conforms_to(
        observed in prop::collection::vec(
            (prop::option::of("[a-zA-Z_]{0,4}"), "[a-zA-Z0-9_ $é]{0,5}", value(), 0..3usize), 0..30),
    ) {
        let sources = [Source::Telemetry, Source::Property { writable: false }, Source::Property { writable: true }];
        let observations: Vec<Observation> = observed.into_iter()
            .map(|(component, name, value, source)| Observation { component, name, value, source: sources[source] })
            .collect();
        let generated = generate(ID, "any", &observations);
        let model = read(&generated);
        let root = model.root().unwrap();
        for of in &observations {
            let interface = match &of.component {
                None => Some(root),
                Some(name) => model.component(root, name),
            };
            let content = interface.and_then(|interface| model.content(interface, &of.name));
            let is_reported = generated.skipped.iter().any(|skipped| {
                (skipped.name == of.name && skipped.component == of.component)
                    || Some(&skipped.name) == of.component.as_ref()
            });
            prop_assert!(content.is_some() || is_reported, "{:?} is neither in the model nor told", of);
            let same = observations.iter().filter(|other| other.name == of.name && other.component == of.component);
            if let Some(ContentKind::Telemetry { schema, .. }) = content.map(|content| &content.kind)
                && same.count() == 1
            {
                prop_assert_eq!(values::check(&of.value, schema, Strictness::IotCentral), vec![]);
            }
        }
    }
}
