//! The types of a document, from elements that are right.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::element::{Element, Elements, Target};
use super::literals::{Literal, Localized};
use super::types::{
    Content, ContentKind, EnumValue, Field, Geometry, Interface, Label, Model, Payload, Primitive,
    Relationship, Schema,
};
use super::vocabulary::Class;

/// The model of elements that [`super::structure::check`] found no fault with.
pub fn model(elements: &Elements) -> Model {
    let mut builder = Builder { elements, schemas: BTreeMap::new() };
    let mut interfaces = BTreeMap::new();
    for element in elements.by_id.values() {
        if element.class == Class::Interface {
            interfaces.insert(element.id.clone(), builder.interface(element));
        } else if element.class.is_complex_schema() {
            builder.complex(element);
        }
    }
    Model { interfaces, top: elements.top.clone(), schemas: builder.schemas }
}

struct Builder<'e> {
    elements: &'e Elements,
    /// Those that were built: each once, however often it is named.
    schemas: BTreeMap<String, Arc<Schema>>,
}

fn text(element: &Element, property: &str) -> Option<String> {
    match element.literals.get(property)? {
        Literal::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn localized(element: &Element, property: &str) -> Localized {
    match element.literals.get(property) {
        Some(Literal::Localized(texts)) => texts.clone(),
        _ => Localized::new(),
    }
}

fn is_true(element: &Element, property: &str) -> bool {
    matches!(element.literals.get(property), Some(Literal::Boolean(true)))
}

fn label(element: &Element) -> Label {
    Label {
        display_name: localized(element, "displayName"),
        description: localized(element, "description"),
        comment: text(element, "comment"),
    }
}

/// Identifiers that a property names.
fn ids(element: &Element, property: &str) -> Vec<String> {
    let target = |target: &Target| match target {
        Target::Element(id) => Some(id.clone()),
        Target::Schema(_) => None,
    };
    element.links_of(property).filter_map(|link| target(&link.target)).collect()
}

impl<'e> Builder<'e> {
    fn members(&self, element: &'e Element, property: &'static str) -> Vec<&'e Element> {
        ids(element, property).iter().filter_map(|id| self.elements.by_id.get(id)).collect()
    }

    fn interface(&mut self, element: &'e Element) -> Interface {
        let contents = self.members(element, "contents");
        Interface {
            id: element.id.clone(),
            label: label(element),
            extends: ids(element, "extends"),
            contents: contents.into_iter().map(|content| self.content(content)).collect(),
            other_types: element.other_types.clone(),
        }
    }

    fn content(&mut self, element: &'e Element) -> Content {
        let kind = match element.class {
            Class::Property => ContentKind::Property {
                schema: self.schema_of(element, "schema"),
                unit: element.unit,
                writable: is_true(element, "writable"),
            },
            Class::Command => ContentKind::Command {
                request: self.payload(element, "request"),
                response: self.payload(element, "response"),
                synchronous: element.terms.get("commandType").map(|term| *term == "synchronous"),
            },
            Class::Component => {
                // The reader requires exactly one, so the empty identifier is never used.
                ContentKind::Component { interface: ids(element, "schema").pop().unwrap_or_default() }
            }
            Class::Relationship => ContentKind::Relationship(self.relationship(element)),
            _ => ContentKind::Telemetry { schema: self.schema_of(element, "schema"), unit: element.unit },
        };
        let semantic = element.semantic_types.iter().map(|semantic| semantic.name.to_owned());
        Content {
            id: element.id.clone(),
            name: element.name().unwrap_or_default().to_owned(),
            label: label(element),
            kind,
            types: semantic.chain(element.other_types.iter().cloned()).collect(),
            other: element.other_properties.clone(),
        }
    }

    fn relationship(&mut self, element: &'e Element) -> Relationship {
        let properties = self.members(element, "properties");
        let max_multiplicity = match element.literals.get("maxMultiplicity") {
            Some(Literal::Integer(number)) => Some(*number),
            _ => None,
        };
        Relationship {
            targets: text(element, "target").into_iter().chain(ids(element, "target")).collect(),
            max_multiplicity,
            writable: is_true(element, "writable"),
            properties: properties.into_iter().map(|property| self.content(property)).collect(),
        }
    }

    fn payload(&mut self, element: &'e Element, property: &'static str) -> Option<Payload> {
        let payload = self.members(element, property).pop()?;
        Some(Payload {
            name: payload.name().unwrap_or_default().to_owned(),
            label: label(payload),
            schema: self.schema_of(payload, "schema"),
        })
    }

    /// The schema that a property names. Schemas are nested at most five deep: the elements were checked.
    fn schema_of(&mut self, element: &'e Element, property: &str) -> Arc<Schema> {
        match element.links_of(property).next().map(|link| &link.target) {
            Some(Target::Schema(term)) => Arc::new(standard(term)),
            Some(Target::Element(id)) => match self.elements.by_id.get(id) {
                Some(schema) => self.complex(schema),
                // The reference was checked before this stage, so neither fallback is reached; a string rejects no text.
                None => Arc::new(Schema::Primitive(Primitive::String)),
            },
            None => Arc::new(Schema::Primitive(Primitive::String)),
        }
    }

    fn complex(&mut self, element: &'e Element) -> Arc<Schema> {
        // Schemas may be shared: without this, a document of 20 kB could be built into millions of copies (decision 0061).
        if let Some(schema) = self.schemas.get(&element.id) {
            return schema.clone();
        }
        let schema = Arc::new(match element.class {
            Class::Array => Schema::Array(self.schema_of(element, "elementSchema")),
            Class::Enum => Schema::Enum(self.enum_values(element)),
            Class::Map => {
                let value = self.members(element, "mapValue").pop();
                Schema::Map(match value {
                    Some(value) => self.schema_of(value, "schema"),
                    None => Arc::new(Schema::Primitive(Primitive::String)),
                })
            }
            _ => {
                let fields = self.members(element, "fields").into_iter();
                Schema::Object(fields.map(|field| self.field(field)).collect())
            }
        });
        self.schemas.insert(element.id.clone(), schema.clone());
        schema
    }

    fn field(&mut self, element: &'e Element) -> Field {
        Field {
            name: element.name().unwrap_or_default().to_owned(),
            label: label(element),
            schema: self.schema_of(element, "schema"),
        }
    }

    fn enum_values(&self, element: &'e Element) -> Vec<EnumValue> {
        let values = self.members(element, "enumValues").into_iter();
        let value = |value: &Element| match value.literals.get("enumValue") {
            Some(Literal::Integer(number)) => Value::from(*number),
            Some(Literal::Text(text)) => Value::from(text.clone()),
            // The reader requires `enumValue`, so this is never reached; no value of a device equals null in any case.
            _ => Value::Null,
        };
        values
            .map(|element| EnumValue {
                name: element.name().unwrap_or_default().to_owned(),
                label: label(element),
                value: value(element),
            })
            .collect()
    }
}

/// A schema of the language or of IoT Central's extension.
pub fn standard(term: &str) -> Schema {
    if let Some((_, primitive)) = Primitive::ALL.iter().find(|(name, _)| *name == term) {
        return Schema::Primitive(*primitive);
    }
    let (name, nesting) = match term {
        "geopoint" => return Schema::Geopoint,
        "vector" => return Schema::Vector,
        "lineString" => ("LineString", 2),
        "multiPoint" => ("MultiPoint", 2),
        "polygon" => ("Polygon", 3),
        "multiLineString" => ("MultiLineString", 3),
        "multiPolygon" => ("MultiPolygon", 4),
        _ => ("Point", 1),
    };
    Schema::Geometry(Geometry { name, nesting })
}
