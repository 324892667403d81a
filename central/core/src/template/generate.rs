//! A capability model from what a device has sent and reported.
//!
//! IoT Central makes one from the values at the root of messages; here components and objects are modelled too. Numbers are
//! `double`, since a device that sent `20` sends `20.5` next. What cannot be modelled is reported.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::model::calendar;
use crate::model::dtmi;

/// Of one interface; the language's bound.
const CONTENTS_MAX: usize = 300;
/// Of one object; the language's bound.
const FIELDS_MAX: usize = 30;
/// Objects and arrays in each other; the language's bound.
const DEPTH_MAX: usize = 5;
const NAME_LENGTH_MAX: usize = 64;

/// Where a value was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Telemetry,
    /// A reported property; `writable` when an operator wrote it or the device acknowledged it.
    Property {
        writable: bool,
    },
}

/// A value that a device sent or reported.
#[derive(Clone, Debug)]
pub struct Observation {
    pub component: Option<String>,
    pub name: String,
    pub value: Value,
    pub source: Source,
}

/// What is not in the model, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub component: Option<String>,
    pub name: String,
    pub why: &'static str,
}

/// A capability model, and what could not be modelled.
#[derive(Clone, Debug)]
pub struct Generated {
    pub model: Value,
    pub skipped: Vec<Skipped>,
}

/// The model with the identifier `id`; those of its components have segments behind it.
pub fn generate(id: &str, display_name: &str, observations: &[Observation]) -> Generated {
    let mut skipped = Vec::new();
    let mut components: BTreeMap<Option<&str>, Vec<&Observation>> = BTreeMap::from([(None, Vec::new())]);
    for observation in observations {
        components.entry(observation.component.as_deref()).or_default().push(observation);
    }
    let root = components.remove(&None).unwrap_or_default();
    let mut contents = contents(&root, &mut skipped);
    // Components share the names of the interface with telemetry and properties.
    let mut taken: BTreeSet<String> =
        contents.iter().filter_map(|content| content["name"].as_str().map(str::to_owned)).collect();
    for (component, observations) in components {
        let Some(component) = component else { continue };
        let why = if !is_name(component) {
            Some(NOT_A_NAME)
        } else if contents.len() >= CONTENTS_MAX {
            Some(TOO_MANY)
        } else if !taken.insert(component.to_owned()) {
            Some(TWICE)
        } else {
            None
        };
        if let Some(why) = why {
            skipped.push(Skipped { component: None, name: component.to_owned(), why });
            continue;
        }
        let inner = self::contents(&observations, &mut skipped);
        let schema = json!({"@id": in_segment(id, component), "@type": "Interface", "contents": inner});
        contents.push(json!({"@type": "Component", "name": component, "schema": schema}));
    }
    let mut model = json!({"@id": id, "@type": "Interface", "contents": contents,
        "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"]});
    // A name that the language would refuse is left out: the model would be rejected because of it.
    if (1..=NAME_LENGTH_MAX).contains(&display_name.encode_utf16().count()) {
        model["displayName"] = display_name.into();
    }
    Generated { model, skipped }
}

const NOT_A_NAME: &str = "a name in a model has up to 64 letters, digits and underscores, begins with a letter and does not end with an underscore";
const TOO_MANY: &str = "an interface has at most 300 contents";
const TWICE: &str = "telemetry, a property and a component cannot have one name";
const NO_SCHEMA: &str = "no schema fits the value: null, empty, too deep, or of unequal items";

fn is_name(text: &str) -> bool {
    text.len() <= NAME_LENGTH_MAX && dtmi::is_name(text)
}

/// `dtmi:a:b;1` and `c` are `dtmi:a:b:c;1`.
fn in_segment(id: &str, segment: &str) -> String {
    let (path, version) = id.split_once(';').unwrap_or((id, "1"));
    format!("{path}:{segment};{version}")
}

fn contents(observations: &[&Observation], skipped: &mut Vec<Skipped>) -> Vec<Value> {
    let mut by_name: BTreeMap<&str, Vec<&Observation>> = BTreeMap::new();
    for observation in observations {
        by_name.entry(&observation.name).or_default().push(observation);
    }
    let mut contents = Vec::new();
    for (name, same) in by_name {
        let mut skip = |why| {
            let component = same[0].component.clone();
            skipped.push(Skipped { component, name: name.to_owned(), why });
        };
        if !is_name(name) {
            skip(NOT_A_NAME);
            continue;
        }
        if contents.len() >= CONTENTS_MAX {
            skip(TOO_MANY);
            continue;
        }
        let is_telemetry = same.iter().any(|of| of.source == Source::Telemetry);
        let properties: Vec<&&Observation> =
            same.iter().filter(|of| of.source != Source::Telemetry).collect();
        if is_telemetry && !properties.is_empty() {
            skip(TWICE);
        }
        // Null and empty samples have no schema; the first one that can be modelled decides.
        let mut schemas = same
            .iter()
            .filter(|of| !is_telemetry || of.source == Source::Telemetry)
            .filter_map(|of| schema(&of.value, is_telemetry, DEPTH_MAX));
        match schemas.next() {
            None => skip(NO_SCHEMA),
            Some(schema) if is_telemetry => {
                contents.push(json!({"@type": "Telemetry", "name": name, "schema": schema}));
            }
            Some(schema) => {
                let writable = properties.iter().any(|of| of.source == Source::Property { writable: true });
                let mut property = json!({"@type": "Property", "name": name, "schema": schema});
                if writable {
                    property["writable"] = true.into();
                }
                contents.push(property);
            }
        }
    }
    contents
}

/// The schema of a value; arrays are for telemetry alone.
fn schema(value: &Value, arrays: bool, depth: usize) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some("boolean".into()),
        Value::Number(_) => Some("double".into()),
        Value::String(text) if calendar::is_date_time(text) => Some("dateTime".into()),
        Value::String(_) => Some("string".into()),
        Value::Array(items) => {
            let inner = schema(items.first()?, arrays, depth.checked_sub(1)?)?;
            // An Array of the language has one element schema for all of its items.
            let is_even = items.iter().all(|item| schema(item, arrays, depth - 1).as_ref() == Some(&inner));
            (arrays && depth > 0 && is_even).then(|| json!({"@type": "Array", "elementSchema": inner}))
        }
        Value::Object(members) => object(members, arrays, depth),
    }
}

fn object(members: &Map<String, Value>, arrays: bool, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let has_numbers =
        |names: &[&str]| names.iter().all(|name| members.get(*name).is_some_and(Value::is_number));
    if has_numbers(&["lat", "lon"])
        // A geopoint has no fields for other members.
        && members.keys().all(|name| ["lat", "lon", "alt"].contains(&name.as_str()))
    {
        return Some("geopoint".into());
    }
    if members.len() == 3 && has_numbers(&["x", "y", "z"]) {
        return Some("vector".into());
    }
    // An Object of the language needs at least one field.
    if members.is_empty() || members.len() > FIELDS_MAX || !members.keys().all(|name| is_name(name)) {
        return None;
    }
    let fields: Option<Vec<Value>> = members
        .iter()
        .map(|(name, member)| Some(json!({"name": name, "schema": schema(member, arrays, depth)?})))
        .collect();
    Some(json!({"@type": "Object", "fields": fields?}))
}
