//! An element of a model as it was read, before references are followed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::literals::Literal;
use super::semantics::SemanticType;
use super::vocabulary::Class;

/// What a property names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A schema of the language or of IoT Central's extension, by term.
    Schema(&'static str),
    /// An element, by identifier.
    Element(String),
}

#[derive(Clone, Debug)]
pub struct Link {
    pub property: &'static str,
    pub target: Target,
    pub path: String,
    /// Whether it is named, not defined in place.
    pub is_reference: bool,
}

/// An element of a model, its properties checked one by one.
#[derive(Clone, Debug)]
pub struct Element {
    pub id: String,
    pub class: Class,
    pub path: String,
    /// The interface in which it is defined; of an interface itself its own.
    pub defined_in: String,
    pub semantic_types: Vec<&'static SemanticType>,
    /// Types that are not known: of an unknown extension, or made up by the model's author.
    pub other_types: Vec<String>,
    pub unit: Option<&'static str>,
    pub literals: BTreeMap<&'static str, Literal>,
    pub terms: BTreeMap<&'static str, &'static str>,
    pub links: Vec<Link>,
    /// Properties that unknown types bring with them.
    pub other_properties: Map<String, Value>,
}

impl Element {
    pub fn new(id: &str, path: &str) -> Self {
        Self {
            id: id.to_owned(),
            class: Class::Interface,
            path: path.to_owned(),
            defined_in: id.to_owned(),
            semantic_types: Vec::new(),
            other_types: Vec::new(),
            unit: None,
            literals: BTreeMap::new(),
            terms: BTreeMap::new(),
            links: Vec::new(),
            other_properties: Map::new(),
        }
    }

    /// Whether one of its semantic types has a unit.
    pub fn has_unit(&self) -> bool {
        self.semantic_types.iter().any(|semantic| semantic.unit_type().is_some())
    }

    pub fn name(&self) -> Option<&str> {
        match self.literals.get("name") {
            Some(Literal::Text(name)) => Some(name),
            _ => None,
        }
    }

    pub fn links_of(&self, property: &str) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.property == property)
    }
}

/// The elements of a document, by identifier.
#[derive(Debug, Default)]
pub struct Elements {
    pub by_id: BTreeMap<String, Element>,
    /// Identifiers of the interfaces at the top of the document, in their order.
    pub top: Vec<String>,
}
