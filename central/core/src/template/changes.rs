//! How two capability models differ for the devices, people and programs that use them.
//!
//! A change is breaking when a value that fitted the old model may not fit the new one, or is read otherwise: its capability is gone, is of
//! another kind, or has another schema or unit. Values that a schema takes in addition are not breaking.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::types::{Content, ContentKind, Model, Payload, Schema};

/// Schemas compared in one call; what is left over counts as changed. Objects may share schemas, so a model of a megabyte can describe more
/// schemas than a computer counts.
const COMPARISONS_MAX: usize = 100_000;
/// Changes that are listed.
pub const CHANGES_MAX: usize = 500;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The component that has the capability; `None` for the root interface.
    pub component: Option<String>,
    /// The name of the capability.
    pub name: String,
    pub text: String,
    pub is_breaking: bool,
}

/// What `after` does otherwise than `before`, by component and name.
pub fn changes(before: &Model, after: &Model) -> Vec<Change> {
    let (before, after) = (capabilities(before), capabilities(after));
    let mut comparison = Comparison { changes: Vec::new(), left: COMPARISONS_MAX };
    for (key, old) in &before {
        match after.get(key) {
            None => comparison.add(key, format!("{} is removed", kind_of(old)), true),
            Some(new) => comparison.content(key, old, new),
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        comparison.add(key, format!("{} is added", kind_of(new)), false);
    }
    comparison.changes
}

/// Component and name.
type Key<'m> = (Option<&'m str>, &'m str);

fn capabilities(model: &Model) -> BTreeMap<Key<'_>, &Content> {
    let mut found = BTreeMap::new();
    let Some(root) = model.root() else { return found };
    for content in model.contents(root) {
        found.insert((None, content.name.as_str()), content);
        // A component's interface has no components itself (`structure` refuses it), so one level is all there is.
        if let ContentKind::Component { interface } = &content.kind
            && let Some(interface) = model.interfaces.get(interface)
        {
            let inner = model.contents(interface);
            found.extend(inner.map(|inner| ((Some(content.name.as_str()), inner.name.as_str()), inner)));
        }
    }
    found
}

/// What a capability is, in IoT Central's terms.
fn kind_of(content: &Content) -> &'static str {
    match &content.kind {
        ContentKind::Telemetry { .. } => "Telemetry",
        ContentKind::Property { .. } if content.is_cloud_property() => "Cloud property",
        ContentKind::Property { .. } => "Property",
        ContentKind::Command { .. } => "Command",
        ContentKind::Component { .. } => "Component",
        ContentKind::Relationship(_) => "Relationship",
    }
}

/// What a schema is, in one word.
pub fn schema_kind(schema: &Schema) -> &'static str {
    match schema {
        Schema::Primitive(primitive) => primitive.as_str(),
        Schema::Geometry(geometry) => geometry.name,
        Schema::Geopoint => "geopoint",
        Schema::Vector => "vector",
        Schema::Array(_) => "array",
        Schema::Enum(_) => "enum",
        Schema::Map(_) => "map",
        Schema::Object(_) => "object",
    }
}

struct Comparison {
    changes: Vec<Change>,
    left: usize,
}

impl Comparison {
    fn add(&mut self, key: &Key<'_>, text: String, is_breaking: bool) {
        if self.changes.len() < CHANGES_MAX {
            let (component, name) = (key.0.map(str::to_owned), key.1.to_owned());
            self.changes.push(Change { component, name, text, is_breaking });
        }
    }

    fn content(&mut self, key: &Key<'_>, old: &Content, new: &Content) {
        // Schemas and units of two kinds cannot be compared, so this is the only change that is listed.
        if kind_of(old) != kind_of(new) {
            return self.add(key, format!("{} becomes {}", kind_of(old), kind_of(new).to_lowercase()), true);
        }
        match (&old.kind, &new.kind) {
            (
                ContentKind::Telemetry { schema: old_schema, unit: old_unit },
                ContentKind::Telemetry { schema: new_schema, unit: new_unit },
            ) => {
                self.schema(key, old_schema, new_schema, "");
                self.unit(key, *old_unit, *new_unit);
            }
            (
                ContentKind::Property { schema: old_schema, unit: old_unit, writable: was_writable },
                ContentKind::Property { schema: new_schema, unit: new_unit, writable },
            ) => {
                self.schema(key, old_schema, new_schema, "");
                self.unit(key, *old_unit, *new_unit);
                if was_writable != writable {
                    let text = if *writable { "can be written now" } else { "cannot be written any more" };
                    // A write that worked before is refused afterwards, so this is breaking (decision 0061).
                    self.add(key, text.to_owned(), !writable);
                }
            }
            (
                ContentKind::Command { request: old_request, response: old_response, .. },
                ContentKind::Command { request, response, .. },
            ) => {
                self.payload(key, old_request.as_ref(), request.as_ref(), "request");
                self.payload(key, old_response.as_ref(), response.as_ref(), "response");
            }
            (ContentKind::Relationship(old), ContentKind::Relationship(new))
                if old.targets != new.targets =>
            {
                self.add(key, "has other targets".to_owned(), true);
            }
            // What is in a component is compared by itself.
            _ => {}
        }
        self.label(key, old, new);
    }

    fn label(&mut self, key: &Key<'_>, old: &Content, new: &Content) {
        if old.types != new.types {
            let of = |types: &[String]| if types.is_empty() { "none".to_owned() } else { types.join(", ") };
            self.add(key, format!("semantic type: {} becomes {}", of(&old.types), of(&new.types)), false);
        }
        if old.label.display_name != new.label.display_name {
            self.add(key, "has another display name".to_owned(), false);
        }
    }

    fn unit(&mut self, key: &Key<'_>, old: Option<&str>, new: Option<&str>) {
        if old != new {
            let text = format!("unit: {} becomes {}", old.unwrap_or("none"), new.unwrap_or("none"));
            self.add(key, text, true);
        }
    }

    fn payload(&mut self, key: &Key<'_>, old: Option<&Payload>, new: Option<&Payload>, which: &str) {
        match (old, new) {
            (None, None) => {}
            (Some(_), None) => self.add(key, format!("{which} is removed"), true),
            // Breaking: a call or an answer without a payload fitted before.
            (None, Some(_)) => self.add(key, format!("{which} is added"), true),
            (Some(old), Some(new)) => self.schema(key, &old.schema, &new.schema, which),
        }
    }

    /// `at` is where in the capability: `request.percent`. Recursion is as deep as the schemas, at most six.
    fn schema(&mut self, key: &Key<'_>, old: &Schema, new: &Schema, at: &str) {
        let Some(left) = self.left.checked_sub(1) else {
            return self.add(key, "is too large to compare".to_owned(), true);
        };
        self.left = left;
        let said = |text: String| if at.is_empty() { text } else { format!("{at}: {text}") };
        match (old, new) {
            (Schema::Enum(old), Schema::Enum(new)) => {
                for value in old.iter().filter(|value| !new.iter().any(|other| other.value == value.value)) {
                    self.add(key, said(format!("value {} is removed", value.value)), true);
                }
                for value in new.iter().filter(|value| !old.iter().any(|other| other.value == value.value)) {
                    self.add(key, said(format!("value {} is added", value.value)), false);
                }
            }
            (Schema::Object(old), Schema::Object(new)) => {
                for field in old {
                    match new.iter().find(|other| other.name == field.name) {
                        None => self.add(key, said(format!("field `{}` is removed", field.name)), true),
                        Some(other) => {
                            self.schema(key, &field.schema, &other.schema, &joined(at, &field.name));
                        }
                    }
                }
                for field in new.iter().filter(|field| !old.iter().any(|other| other.name == field.name)) {
                    self.add(key, said(format!("field `{}` is added", field.name)), false);
                }
            }
            (Schema::Array(old), Schema::Array(new)) => self.schema(key, old, new, &joined(at, "items")),
            (Schema::Map(old), Schema::Map(new)) => self.schema(key, old, new, &joined(at, "values")),
            _ if schema_kind(old) == schema_kind(new) => {}
            _ => {
                let text = format!("schema: {} becomes {}", schema_kind(old), schema_kind(new));
                self.add(key, said(text), true);
            }
        }
    }
}

fn joined(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
