//! A model that is right: interfaces, what they hold, and the schemas of values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::literals::Localized;

/// The interfaces of a document, by identifier.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub interfaces: BTreeMap<String, Interface>,
    /// Identifiers of those at the top of the document, in its order.
    pub top: Vec<String>,
    /// Every schema that has an identifier of its own.
    pub schemas: BTreeMap<String, Arc<Schema>>,
}

impl Model {
    /// The first interface of the document.
    pub fn root(&self) -> Option<&Interface> {
        self.interfaces.get(self.top.first()?)
    }

    /// An interface and all that it extends, itself first, each once.
    pub fn lineage<'m>(&'m self, interface: &'m Interface) -> Vec<&'m Interface> {
        // Two paths may lead to one interface: without `seen`, ten levels of two would be a thousand visits.
        let (mut lineage, mut seen) = (vec![interface], BTreeSet::from([interface.id.as_str()]));
        let mut next = 0;
        while let Some(interface) = lineage.get(next).copied() {
            next += 1;
            let extended = interface.extends.iter().filter_map(|id| self.interfaces.get(id));
            lineage.extend(extended.filter(|of| seen.insert(of.id.as_str())));
        }
        lineage
    }

    /// What an interface holds, inherited contents included.
    pub fn contents<'m>(&'m self, interface: &'m Interface) -> impl Iterator<Item = &'m Content> {
        self.lineage(interface).into_iter().flat_map(|of| &of.contents)
    }

    /// The content of that name, inherited ones included.
    pub fn content<'m>(&'m self, interface: &'m Interface, name: &str) -> Option<&'m Content> {
        self.contents(interface).find(|content| content.name == name)
    }

    /// The interface of the component of that name.
    pub fn component<'m>(&'m self, interface: &'m Interface, name: &str) -> Option<&'m Interface> {
        match &self.content(interface, name)?.kind {
            ContentKind::Component { interface } => self.interfaces.get(interface),
            _ => None,
        }
    }
}

/// What people read of an element.
#[derive(Clone, Debug, Default)]
pub struct Label {
    pub display_name: Localized,
    pub description: Localized,
    pub comment: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Interface {
    pub id: String,
    pub label: Label,
    pub extends: Vec<String>,
    pub contents: Vec<Content>,
    pub other_types: Vec<String>,
}

/// Something that an interface holds.
#[derive(Clone, Debug)]
pub struct Content {
    pub id: String,
    pub name: String,
    pub label: Label,
    pub kind: ContentKind,
    /// Semantic types and types that are not known, by name: `Temperature`, `Cloud`.
    pub types: Vec<String>,
    /// What types that are not known bring: `initialValue`, `minValue`.
    pub other: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub enum ContentKind {
    Telemetry { schema: Arc<Schema>, unit: Option<&'static str> },
    Property { schema: Arc<Schema>, unit: Option<&'static str>, writable: bool },
    Command { request: Option<Payload>, response: Option<Payload>, synchronous: Option<bool> },
    Component { interface: String },
    Relationship(Relationship),
}

impl Content {
    /// A property that is kept here and never sent to a device.
    pub fn is_cloud_property(&self) -> bool {
        self.types.iter().any(|of| of == "Cloud")
    }
}

/// What a command is called with, or answers.
#[derive(Clone, Debug)]
pub struct Payload {
    pub name: String,
    pub label: Label,
    pub schema: Arc<Schema>,
}

#[derive(Clone, Debug, Default)]
pub struct Relationship {
    pub targets: Vec<String>,
    pub max_multiplicity: Option<i32>,
    pub writable: bool,
    pub properties: Vec<Content>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primitive {
    Boolean,
    Date,
    DateTime,
    Double,
    Duration,
    Float,
    Integer,
    Long,
    String,
    Time,
}

impl Primitive {
    pub const ALL: [(&'static str, Self); 10] = [
        ("boolean", Self::Boolean),
        ("date", Self::Date),
        ("dateTime", Self::DateTime),
        ("double", Self::Double),
        ("duration", Self::Duration),
        ("float", Self::Float),
        ("integer", Self::Integer),
        ("long", Self::Long),
        ("string", Self::String),
        ("time", Self::Time),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, primitive)| *primitive == self).map_or("", |(name, _)| name)
    }
}

/// The GeoJSON geometries, by how many arrays their coordinates stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The value of `type`.
    pub name: &'static str,
    pub nesting: usize,
}

#[derive(Clone, Debug)]
pub enum Schema {
    Primitive(Primitive),
    Geometry(Geometry),
    /// IoT Central's place: `lat` and `lon`, and `alt` where it is known.
    Geopoint,
    /// IoT Central's `x`, `y`, `z`.
    Vector,
    Array(Arc<Schema>),
    Enum(Vec<EnumValue>),
    Map(Arc<Schema>),
    Object(Vec<Field>),
}

#[derive(Clone, Debug)]
pub struct EnumValue {
    pub name: String,
    pub label: Label,
    /// A string or a whole number.
    pub value: Value,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub label: Label,
    pub schema: Arc<Schema>,
}
