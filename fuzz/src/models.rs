//! Device models, which operators import from anywhere.

use central_core::model::options::Options;
use central_core::model::parse::parse;
use central_core::model::problem::PROBLEMS_MAX;
use central_core::model::types::{ContentKind, Model, Schema};
use central_core::model::values::{self, Strictness};
use serde_json::{Value, json};

/// A model: refused with what is wrong, within bounds, or taken with every name in it leading somewhere.
pub(crate) fn models(data: &[u8]) {
    for options in [Options::DTDL, Options::IOT_CENTRAL] {
        match parse(data, &options) {
            Ok(model) => check(&model),
            Err(problems) => {
                assert!(!problems.is_empty() && problems.reported.len() <= PROBLEMS_MAX);
                assert!(problems.reported.iter().all(|problem| !problem.message.is_empty()));
            }
        }
    }
}

fn check(model: &Model) {
    for interface in model.interfaces.values() {
        for id in &interface.extends {
            assert!(model.interfaces.contains_key(id), "{id} is extended and not there");
        }
        assert!(model.lineage(interface).len() < 2048, "{} extends too much", interface.id);
        for content in model.contents(interface) {
            match &content.kind {
                ContentKind::Component { interface } => {
                    assert!(
                        model.interfaces.contains_key(interface),
                        "{interface} is a component and not there"
                    );
                }
                ContentKind::Telemetry { schema, .. } | ContentKind::Property { schema, .. } => {
                    try_values(schema)
                }
                _ => {}
            }
        }
    }
}

fn try_values(schema: &Schema) {
    for value in [Value::Null, json!(0), json!(1.5), json!("P1D"), json!([[]]), json!({"x": {"y": []}})] {
        for strictness in [Strictness::Dtdl, Strictness::IotCentral] {
            let _ = values::check(&value, schema, strictness);
        }
    }
}
