//! Holds requests and answers against `/openapi.json`: a status that is not described, a body that is not as described, or a body
//! that was taken and is not as described, fails the test that met it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

/// Stands in answers to viewers in place of whatever a schema says.
const REDACTED: &str = "***redacted***";

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(central::api::described().1).unwrap());
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// What a test sent and got.
pub struct Exchange<'a> {
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    pub sent: Option<&'a Value>,
    pub status: u16,
    /// The answer's body.
    pub text: &'a str,
}

/// The operation of a path: of those that fit, the one with the fewest parameters.
fn operation(method: &str, path: &str) -> Option<(String, &'static Value)> {
    let requested: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let is_parameter = |segment: &&str| segment.starts_with('{');
    let fits = |template: &&String| {
        let segments: Vec<&str> = template.split('/').collect();
        segments.len() == requested.len()
            && segments
                .iter()
                .zip(&requested)
                .all(|(segment, requested)| segment == requested || is_parameter(segment))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let template =
        paths.keys().filter(fits).min_by_key(|template| template.split('/').filter(is_parameter).count())?;
    let method = method.to_lowercase();
    Some((format!("{method} {template}"), paths[template].get(&method)?))
}

fn validator(key: &str, schema: &Value) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    let made = validators.entry(key.to_owned()).or_insert_with(|| {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": DOCUMENT["components"],
        });
        Arc::new(jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{key}: {error}")))
    });
    made.clone()
}

fn check_body(key: &str, content: &Value, body: &Value) {
    let schema = &content["application/json"]["schema"];
    assert!(schema.is_object(), "{key}: no JSON is described, found {body}");
    let errors: Vec<String> = validator(key, schema)
        .iter_errors(body)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{key}: {errors:?}: {body}");
}

/// A described path with a name in place of each of its parameters.
pub fn concrete(template: &str) -> String {
    let name = |segment: &str| match segment {
        "{entry}" => "primary".to_owned(),
        "{role_id}" => "viewer".to_owned(),
        segment if segment.starts_with('{') => "d".to_owned(),
        segment => segment.to_owned(),
    };
    template.split('/').map(name).collect::<Vec<_>>().join("/")
}

/// Fails when what was exchanged is not as the description has it.
pub fn check(exchange: &Exchange<'_>) {
    let Exchange { method, path, sent, status, text } = exchange;
    // Of paths and methods that are not there, nothing is described.
    let Some((name, operation)) = operation(method, path) else {
        assert!((400..500).contains(status), "{method} {path} answered {status} and is not described");
        return;
    };
    let Some(answer) = operation["responses"].get(status.to_string()) else {
        panic!("{name}: status {status} is not described: {text}");
    };
    match answer.get("content") {
        _ if text.contains(REDACTED) => {}
        Some(content) if content.get("text/html").is_some() || content.get("text/event-stream").is_some() => {
        }
        Some(content) => {
            let body = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            check_body(&format!("{name} {status}"), content, &body);
        }
        None => {
            assert!(text.is_empty(), "{name}: status {status} has no body by its description, found {text}")
        }
    }
    if let Some(sent) = sent.filter(|_| (200..300).contains(status)) {
        check_body(&format!("{name} request"), &operation["requestBody"]["content"], sent);
    }
}
