//! Models that are made by chance: what is right is taken whole, and one thing that is made wrong is refused where it stands.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;

use central_core::model::json::{BYTES_MAX, NESTING_MAX};
use central_core::model::options::Options;
use central_core::model::parse::{parse, parse_documents};
use central_core::model::problem::{PROBLEMS_MAX, Problems};
use central_core::model::types::{ContentKind, Model, Schema};
use central_core::model::values::{self, Strictness};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const PRIMITIVES: [&str; 10] =
    ["boolean", "date", "dateTime", "double", "duration", "float", "integer", "long", "string", "time"];

/// A schema, without Arrays where those are not allowed.
fn schema(depth: u32, arrays: bool) -> BoxedStrategy<Value> {
    let primitive = prop::sample::select(PRIMITIVES.as_slice()).prop_map(Value::from).boxed();
    if depth == 0 {
        return primitive;
    }
    let inner = schema(depth - 1, arrays);
    let object = prop::collection::vec(inner.clone(), 1..4).prop_map(|schemas| {
        let fields = schemas.into_iter().enumerate();
        let fields: Vec<Value> =
            fields.map(|(index, schema)| json!({"name": format!("f{index}"), "schema": schema})).collect();
        json!({"@type": "Object", "fields": fields})
    });
    let map = inner.clone().prop_map(|schema| {
        json!({"@type": "Map", "mapKey": {"name": "key", "schema": "string"},
            "mapValue": {"name": "value", "schema": schema}})
    });
    let numbers = prop::collection::btree_set(-9i32..9, 1..4).prop_map(|values| {
        let named: Vec<Value> = values
            .iter()
            .enumerate()
            .map(|(index, value)| json!({"name": format!("e{index}"), "enumValue": value}))
            .collect();
        json!({"@type": "Enum", "valueSchema": "integer", "enumValues": named})
    });
    let mut kinds = vec![primitive, object.boxed(), map.boxed(), numbers.boxed()];
    if arrays {
        kinds.push(inner.prop_map(|schema| json!({"@type": "Array", "elementSchema": schema})).boxed());
    }
    prop::strategy::Union::new(kinds).boxed()
}

/// A content without its name.
fn content() -> BoxedStrategy<Value> {
    prop_oneof![
        schema(3, true).prop_map(|schema| json!({"@type": "Telemetry", "schema": schema})),
        (schema(3, false), any::<bool>())
            .prop_map(|(schema, writable)| json!({"@type": "Property", "schema": schema, "writable": writable})),
        schema(2, true).prop_map(
            |schema| json!({"@type": "Command", "request": {"name": "in", "schema": schema}, "commandType": "synchronous"})
        ),
        Just(json!({"@type": "Relationship", "target": "dtmi:com:example:Other;1", "minMultiplicity": 0})),
        Just(json!({"@type": ["Telemetry", "Temperature"], "schema": "double", "unit": "kelvin"})),
    ]
    .boxed()
}

/// Interfaces, each of which extends the one before it.
fn document() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(prop::collection::vec(content(), 0..6), 1..5).prop_map(|interfaces| {
        let interfaces = interfaces.into_iter().enumerate();
        let made = interfaces.map(|(index, contents)| {
            let contents = contents.into_iter().enumerate();
            let contents: Vec<Value> = contents
                .map(|(at, mut content)| {
                    content["name"] = format!("c{index}x{at}").into();
                    content
                })
                .collect();
            let mut interface = json!({"@context": "dtmi:dtdl:context;2", "@type": "Interface",
                "@id": format!("dtmi:com:example:I{index};1"), "contents": contents});
            if index > 0 {
                interface["extends"] = format!("dtmi:com:example:I{};1", index - 1).into();
            }
            interface
        });
        made.collect()
    })
}

fn read(documents: &[Value]) -> Result<Model, Problems> {
    parse_documents(documents, &Options::DTDL)
}

/// A value that conforms.
fn conforming(schema: &Schema) -> Value {
    match schema {
        Schema::Primitive(primitive) => match primitive.as_str() {
            "boolean" => json!(true),
            "double" | "float" => json!(1.5),
            "integer" | "long" => json!(-7),
            "date" => json!("2024-02-29"),
            "dateTime" => json!("2024-02-29T23:59:59.5+11:45"),
            "time" => json!("23:59:59Z"),
            "duration" => json!("P3DT0.5S"),
            _ => json!("text"),
        },
        Schema::Array(of) => json!([conforming(of), conforming(of)]),
        Schema::Enum(known) => known[0].value.clone(),
        Schema::Map(of) => json!({"any": conforming(of)}),
        Schema::Object(fields) => fields
            .iter()
            .map(|field| (field.name.clone(), conforming(&field.schema)))
            .collect::<Map<_, _>>()
            .into(),
        Schema::Geopoint => json!({"lat": 1, "lon": 2.5}),
        Schema::Vector => json!({"x": 1, "y": 2, "z": 3}),
        Schema::Geometry(_) => json!({"type": "Point", "coordinates": [1, 2]}),
    }
}

/// The first object of `@type` that a test makes wrong, with the path to it.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if members.contains_key("name") {
                found.push(at.to_owned());
            }
            for (name, member) in members {
                objects(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_model_that_is_right_is_taken_with_all_that_it_holds(documents in document()) {
        let model = read(&documents).map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        prop_assert_eq!(model.interfaces.len(), documents.len());
        let expected: BTreeSet<String> = documents.iter().flat_map(|of| of["contents"].as_array().unwrap())
            .map(|content| content["name"].as_str().unwrap().to_owned()).collect();
        let last = &model.interfaces[documents.last().unwrap()["@id"].as_str().unwrap()];
        let found: BTreeSet<String> = model.contents(last).map(|content| content.name.clone()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_model_that_is_right_is_right_in_iot_centrals_dialect_too(documents in document()) {
        let mut bare = documents.clone();
        bare.iter_mut().for_each(|of| { of.as_object_mut().unwrap().remove("@context"); });
        prop_assert!(parse_documents(&documents, &Options::IOT_CENTRAL).is_ok());
        prop_assert!(parse_documents(&bare, &Options::IOT_CENTRAL).is_ok());
        prop_assert!(read(&bare).is_err(), "DTDL asks for the context");
    }

    #[test]
    fn an_element_without_its_name_is_refused_at_its_place(documents in document(), which in any::<prop::sample::Index>()) {
        let mut places = Vec::new();
        let mut document = Value::Array(documents);
        objects(&document, "", &mut places);
        prop_assume!(!places.is_empty());
        let at = which.get(&places);
        document.pointer_mut(at).unwrap().as_object_mut().unwrap().remove("name");
        let problems = parse(document.to_string().as_bytes(), &Options::DTDL).unwrap_err();
        let path = at.split('/').skip(1).fold(String::new(), |path, part| match part.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => part.to_owned(),
            Err(_) => format!("{path}.{part}"),
        });
        prop_assert!(problems.reported.iter().any(|problem| problem.path == path), "{}: {}", path, problems);
    }

    #[test]
    fn every_wrong_name_is_reported_and_not_only_the_first(documents in document()) {
        let mut places = Vec::new();
        let mut document = Value::Array(documents);
        objects(&document, "", &mut places);
        prop_assume!(!places.is_empty() && places.len() <= PROBLEMS_MAX);
        for (index, at) in places.iter().enumerate() {
            document.pointer_mut(at).unwrap()["name"] = json!(format!("_wrong{index}"));
        }
        let problems = parse(document.to_string().as_bytes(), &Options::DTDL).unwrap_err();
        let named = problems.reported.iter().filter(|problem| problem.rule.as_str() == "stringInvalid").count();
        prop_assert_eq!(named, places.len(), "{}", problems);
    }

    #[test]
    fn values_conform_to_their_schema_and_null_to_none(documents in document()) {
        let model = read(&documents).unwrap();
        for content in model.interfaces.values().flat_map(|of| &of.contents) {
            if let ContentKind::Telemetry { schema, .. } | ContentKind::Property { schema, .. } = &content.kind {
                let value = conforming(schema);
                for strictness in [Strictness::Dtdl, Strictness::IotCentral] {
                    prop_assert_eq!(values::check(&value, schema, strictness), vec![], "{:?}", schema);
                    prop_assert!(!values::check(&Value::Null, schema, strictness).is_empty());
                }
            }
        }
    }
}

fn refused(document: &Value) -> Vec<&'static str> {
    let problems = parse(document.to_string().as_bytes(), &Options::DTDL).unwrap_err();
    problems.reported.iter().map(|problem| problem.rule.as_str()).collect()
}

#[test]
fn nesting_and_size_are_bounded_before_anything_is_read() {
    let deep = "[".repeat(NESTING_MAX + 1) + &"]".repeat(NESTING_MAX + 1);
    let problems = parse(deep.as_bytes(), &Options::DTDL).unwrap_err();
    assert_eq!(problems.reported[0].rule.as_str(), "nestedTooDeep", "{problems}");
    let very_deep = "[".repeat(1_000_000);
    assert!(parse(very_deep.as_bytes(), &Options::DTDL).is_err());
    let large = vec![b' '; BYTES_MAX + 1];
    assert_eq!(parse(&large, &Options::DTDL).unwrap_err().reported[0].rule.as_str(), "documentTooLarge");
    let mut value = json!(1);
    for _ in 0..50_000 {
        value = Value::Array(vec![value]);
    }
    assert!(parse_documents(std::slice::from_ref(&value), &Options::DTDL).is_err());
    // Dropping it would recurse.
    std::mem::forget(value);
}

#[test]
fn a_member_that_occurs_twice_is_refused() {
    let text =
        br#"{"@context":"dtmi:dtdl:context;2","@id":"dtmi:a:b;1","@type":"Interface","@type":"Interface"}"#;
    let problems = parse(text, &Options::DTDL).unwrap_err();
    assert_eq!(problems.reported[0].rule.as_str(), "repeatedMember");
}

/// A chain of references is as long as the document allows, and deeper than any stack.
#[test]
fn a_chain_of_ten_thousand_schemas_is_refused_without_recursion() {
    let array = |n: usize| {
        let next = if n < 10_000 { format!("dtmi:a:s{};1", n + 1) } else { "double".to_owned() };
        json!({"@id": format!("dtmi:a:s{n};1"), "@type": "Array", "elementSchema": next})
    };
    let schemas: Vec<Value> = (0..=10_000).map(array).collect();
    let document = json!({"@context": "dtmi:dtdl:context;2", "@id": "dtmi:a:b;1", "@type": "Interface", "schemas": schemas});
    let problems = parse(document.to_string().as_bytes(), &Options::DTDL).unwrap_err();
    assert_eq!(problems.reported.len(), PROBLEMS_MAX);
    assert_eq!(problems.count(), 10_001 - 5);
    assert!(problems.reported.iter().all(|problem| problem.rule.as_str() == "excessiveDepthWide"));
}

#[test]
fn interfaces_that_extend_each_other_in_a_ring_are_refused() {
    let interface = |n: usize, of: usize| {
        json!({"@context": "dtmi:dtdl:context;2", "@id": format!("dtmi:a:i{n};1"), "@type": "Interface",
            "extends": format!("dtmi:a:i{};1", (n + 1) % of)})
    };
    for length in [1, 2, 3, 5_000] {
        let ring: Vec<Value> = (0..length).map(|n| interface(n, length)).collect();
        let rules = refused(&ring.into());
        assert!(rules.iter().all(|rule| *rule == "recursiveStructureNarrow"), "{length}: {rules:?}");
    }
}

/// Each level doubles the ways; each interface is met once all the same.
#[test]
fn a_lattice_of_interfaces_is_read_in_no_time() {
    let mut interfaces = Vec::new();
    for level in 0..10 {
        for side in 0..2 {
            let mut interface = json!({"@context": "dtmi:dtdl:context;2", "@type": "Interface",
                "@id": format!("dtmi:a:l{level}s{side};1"),
                "contents": [{"@type": "Telemetry", "name": format!("t{level}x{side}"), "schema": "double"}]});
            if level < 9 {
                let next = level + 1;
                interface["extends"] = json!([format!("dtmi:a:l{next}s0;1"), format!("dtmi:a:l{next}s1;1")]);
            }
            interfaces.push(interface);
        }
    }
    let model = read(&interfaces).unwrap();
    assert_eq!(model.contents(&model.interfaces["dtmi:a:l0s0;1"]).count(), 19);
}

#[test]
fn a_problem_says_where_what_and_which_rule() {
    let document = json!({"@context": "dtmi:dtdl:context;2", "@id": "dtmi:a:b;1", "@type": "Interface", "contents": [
        {"@type": "Telemetry", "name": "ok", "schema": "double"},
        {"@type": ["Telemetry", "Temperature"], "@id": "dtmi:a:t;1", "name": "t", "schema": "string", "unit": "kelvin"},
        {"@type": "Property", "name": "p", "schema": "dtmi:a:missing;1"},
        {"@type": "Component", "name": "c", "schema": "dtmi:a:b;1"}]});
    let problems = parse(document.to_string().as_bytes(), &Options::DTDL).unwrap_err();
    let reported: Vec<String> = problems.reported.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported,
        [
            "contents[2].schema (dtmi:a:b:_contents:__p;1): `schema` names dtmi:a:missing;1, which is not defined in the \
             document [undefinedIdentifier]",
            "contents[3].schema (dtmi:a:b:_contents:__c;1): `schema` is the interface that contains the component \
             [recursiveStructureNarrow]",
        ]
    );
}

/// What IoT Central's portal exports: quantities without units, cloud properties, an interface written out twice.
#[test]
fn a_template_as_iot_central_exports_it_is_taken() {
    let thermostat = json!({"@id": "dtmi:a:thermostat;1", "@type": "Interface", "contents": [
        {"@type": ["Telemetry", "Temperature", "NumberValue"], "name": "temperature", "schema": "double",
            "displayUnit": {"en": "degrees"}, "decimalPlaces": 2, "minValue": 0, "maxValue": 100},
        {"@type": ["Property", "Initialized"], "name": "limit", "schema": "double", "writable": true, "initialValue": 3},
        {"@type": "Command", "name": "reboot", "durable": true}]});
    let document = json!({"@id": "dtmi:a:device;1", "@type": "Interface", "contents": [
        {"@type": "Component", "name": "one", "schema": thermostat},
        {"@type": "Component", "name": "two", "schema": thermostat},
        {"@type": ["Property", "Cloud", "StringValue"], "name": "owner", "schema": "string", "maxLength": 9},
        {"@type": ["Telemetry", "Event", "EventValue"], "name": "alarm", "schema": "integer", "severity": "warning"},
        {"@type": "Property", "name": "place", "schema": "geopoint"}]});
    let model = parse(document.to_string().as_bytes(), &Options::IOT_CENTRAL).unwrap();
    let root = model.root().unwrap();
    assert!(model.content(root, "owner").unwrap().is_cloud_property());
    let two = model.component(root, "two").unwrap();
    assert_eq!(model.content(two, "temperature").unwrap().types, ["Temperature", "NumberValue"]);
    assert!(parse(document.to_string().as_bytes(), &Options::DTDL).is_err());
}

#[test]
fn iot_central_takes_whole_numbers_with_a_fraction_of_zero_and_fields_beside_those_modelled() {
    let document = json!({"@context": "dtmi:dtdl:context;2", "@id": "dtmi:a:b;1", "@type": "Interface", "contents": [
        {"@type": "Telemetry", "name": "n", "schema": "integer"},
        {"@type": "Telemetry", "name": "o", "schema": {"@type": "Object", "fields": [{"name": "x", "schema": "double"}]}},
        {"@type": "Telemetry", "name": "g", "schema": "point"}]});
    let model = read(&[document]).unwrap();
    let of = |name: &str, value: Value| {
        let content = model.content(model.root().unwrap(), name).unwrap();
        let ContentKind::Telemetry { schema, .. } = &content.kind else { panic!("{name}") };
        [Strictness::Dtdl, Strictness::IotCentral]
            .map(|strictness| values::check(&value, schema, strictness).is_empty())
    };
    assert_eq!(of("n", json!(3.0)), [false, true]);
    assert_eq!(of("n", json!(3.5)), [false, false]);
    assert_eq!(of("n", json!(3e10)), [false, false]);
    assert_eq!(of("o", json!({"x": 1, "y": 2})), [false, true]);
    assert_eq!(of("o", json!({"x": "1"})), [false, false]);
    assert_eq!(of("g", json!({"type": "Point", "coordinates": [1, 2.5]})), [true, true]);
    assert_eq!(of("g", json!({"type": "Point", "coordinates": [[1, 2]]})), [false, false]);
    assert_eq!(of("g", json!({"type": "Polygon", "coordinates": [1, 2]})), [false, false]);
}

/// What stands in an element repeats its name in identifiers that are made.
#[test]
fn a_long_name_or_identifier_is_not_multiplied_by_the_elements_in_it() {
    let name = "n".repeat(100_000);
    let fields: Vec<Value> = (0..3_000).map(|n| json!({"name": format!("f{n}"), "schema": 1})).collect();
    let content =
        json!({"@type": "Telemetry", "name": name, "schema": {"@type": "Object", "fields": fields}});
    let interface = |contents: Value| json!({"@context": "dtmi:dtdl:context;2", "@id": "dtmi:a:b;1", "@type": "Interface", "contents": contents});
    let problems = parse(interface(json!([content])).to_string().as_bytes(), &Options::DTDL).unwrap_err();
    // The name itself is told once, in full.
    assert!(problems.to_string().len() < 3 * name.len(), "{}", problems.to_string().len());
    let id = format!("dtmi:{};1", "a".repeat(2_000));
    let fields: Vec<Value> =
        (0..20_000).map(|n| json!({"name": format!("f{n}"), "schema": "long"})).collect();
    let content = json!({"@type": "Telemetry", "@id": id, "name": "t", "schema": {"@type": "Object", "fields": fields}});
    let rules = refused(&interface(json!([content])));
    assert!(rules.contains(&"documentTooLarge"), "{rules:?}");
}

/// What is checked grows with the document: interfaces that are met again and again, ways that lead back, definitions in each other.
#[test]
fn documents_that_multiply_themselves_are_read_in_time_that_grows_with_their_size() {
    let interface = |id: String, rest: Value| {
        let mut interface = json!({"@context": "dtmi:dtdl:context;2", "@id": id, "@type": "Interface"});
        interface.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        interface
    };
    let id = |n: usize| format!("dtmi:a:i{n};1");
    // More than two that are extended is wrong; what they extend is not followed for each.
    let wide = (0..600).map(|n| {
        let level = n / 60 + 1;
        let next: Vec<String> = (level * 60..(level * 60 + 60)).filter(|n| *n < 600).map(id).collect();
        interface(id(n), json!({"extends": next}))
    });
    // Each extends the two before it, over ten levels, in many towers without contents.
    let towers = (0..40_000).map(|n| {
        let below: Vec<String> =
            [n + 1, n + 2].into_iter().filter(|below| below % 10 > n % 10).map(id).collect();
        interface(id(n), json!({"extends": below}))
    });
    // A chain in which each leads back to the first.
    let rings = (0..10_000).map(|n| interface(id(n), json!({"extends": [id((n + 1) % 10_000), id(0)]})));
    // Components in components.
    let nested = {
        let mut inner = interface(id(0), json!({"comment": "x".repeat(400)}));
        for n in 1..30 {
            let mut contents = vec![json!({"@type": "Component", "name": "c", "schema": inner})];
            contents.extend(
                (0..300).map(|n| json!({"@type": "Telemetry", "name": format!("t{n}"), "schema": "double"})),
            );
            inner = interface(id(n), json!({"contents": contents}));
        }
        inner
    };
    let documents: [(&str, Value); 4] = [
        ("wide", wide.collect()),
        ("towers", towers.collect()),
        ("rings", rings.collect()),
        ("nested", nested),
    ];
    for (what, document) in documents {
        for options in [Options::DTDL, Options::IOT_CENTRAL] {
            let since = std::time::Instant::now();
            let read = parse_documents(std::slice::from_ref(&document), &options);
            // Seconds on a busy machine, without optimization; many minutes for what grows with the square of the size.
            assert!(since.elapsed().as_secs() < 300, "{what}: {:?}", since.elapsed());
            let problems = read.unwrap_err();
            let rules: BTreeSet<&str> =
                problems.reported.iter().map(|problem| problem.rule.as_str()).collect();
            let expected = match what {
                "wide" => "objectCountAboveMax",
                "towers" => "documentTooLarge",
                "rings" => "recursiveStructureNarrow",
                _ => "excludedType",
            };
            assert!(rules.contains(expected), "{what}: {rules:?}");
            println!("{what}: {:?}", since.elapsed());
        }
    }
}
