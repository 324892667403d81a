//! The classes of DTDL version 2 and their properties, as tables: what the language's charts say, one row a property.

use super::dtmi::of_iri;
use super::semantics;

/// A class whose elements a model can define.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Interface,
    Telemetry,
    Property,
    Command,
    CommandPayload,
    Relationship,
    Component,
    Array,
    Enum,
    EnumValue,
    Map,
    MapKey,
    MapValue,
    Object,
    Field,
}

const CLASSES: [(&str, Class); 15] = [
    ("Interface", Class::Interface),
    ("Telemetry", Class::Telemetry),
    ("Property", Class::Property),
    ("Command", Class::Command),
    ("CommandPayload", Class::CommandPayload),
    ("Relationship", Class::Relationship),
    ("Component", Class::Component),
    ("Array", Class::Array),
    ("Enum", Class::Enum),
    ("EnumValue", Class::EnumValue),
    ("Map", Class::Map),
    ("MapKey", Class::MapKey),
    ("MapValue", Class::MapValue),
    ("Object", Class::Object),
    ("Field", Class::Field),
];
/// Classes that no element of a model may have: the language's own elements do.
const OTHER_CLASSES: [&str; 24] = [
    "Boolean",
    "CommandType",
    "ComplexSchema",
    "Content",
    "Date",
    "DateTime",
    "Double",
    "Duration",
    "Entity",
    "Float",
    "Integer",
    "Long",
    "NamedEntity",
    "NumericSchema",
    "PrimitiveSchema",
    "Schema",
    "SchemaField",
    "String",
    "TemporalSchema",
    "Time",
    "Unit",
    "UnitAttribute",
    "LatentType",
    "NamedLatentType",
];

impl Class {
    pub fn as_str(self) -> &'static str {
        CLASSES.iter().find(|(_, class)| *class == self).map_or("", |(name, _)| name)
    }

    /// The class of that name or IRI.
    pub fn named(text: &str) -> Option<Self> {
        let name = of_iri("dtmi:dtdl:class:", text).unwrap_or(text);
        CLASSES.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
    }

    pub fn is_complex_schema(self) -> bool {
        COMPLEX_SCHEMAS.contains(&self)
    }
}

/// Returns true for the name or IRI of a class that no element of a model may have.
pub fn is_other_class(text: &str) -> bool {
    OTHER_CLASSES.contains(&of_iri("dtmi:dtdl:class:", text).unwrap_or(text))
}

const CONTENTS: &[Class] =
    &[Class::Telemetry, Class::Property, Class::Command, Class::Relationship, Class::Component];
const COMPLEX_SCHEMAS: &[Class] = &[Class::Array, Class::Enum, Class::Map, Class::Object];

/// A property whose values are elements, or the identifiers of such.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// What an element may be.
    pub classes: &'static [Class],
    /// Whether primitive and geospatial schemas may be named.
    pub schemas: bool,
    /// The class of an element without `@type`.
    pub inferred: Option<Class>,
    pub min: usize,
    pub max: Option<usize>,
    pub id_required: bool,
    /// Whether names are unique in the set and part of identifiers that are made.
    pub by_name: bool,
}

const ONE: Links = Links {
    classes: &[],
    schemas: false,
    inferred: None,
    min: 1,
    max: Some(1),
    id_required: false,
    by_name: false,
};
const SCHEMA: Links = Links { classes: COMPLEX_SCHEMAS, schemas: true, ..ONE };

/// What a property takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text {
        length_max: usize,
    },
    Name,
    Localized {
        length_max: usize,
    },
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer or a string.
    EnumValue,
    /// An identifier that need not be defined.
    Identifier,
    /// One of the language's own elements, by term or IRI; none can be defined.
    Term {
        prefix: &'static str,
        terms: &'static [&'static str],
    },
    Links(Links),
}

#[derive(Clone, Copy, Debug)]
pub struct PropertySpec {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

const fn optional(name: &'static str, kind: Kind) -> PropertySpec {
    PropertySpec { name, kind, required: false }
}

const fn required(name: &'static str, kind: Kind) -> PropertySpec {
    PropertySpec { name, kind, required: true }
}

const SCHEMA_PREFIX: &str = "dtmi:dtdl:instance:Schema:";
const COMMENT: PropertySpec = optional("comment", Kind::Text { length_max: 512 });
const DESCRIPTION: PropertySpec = optional("description", Kind::Localized { length_max: 512 });
const DISPLAY_NAME: PropertySpec = optional("displayName", Kind::Localized { length_max: 64 });
const NAME: PropertySpec = required("name", Kind::Name);
const WRITABLE: PropertySpec = optional("writable", Kind::Boolean);
const SCHEMA_OF_VALUE: PropertySpec = required("schema", Kind::Links(SCHEMA));

const fn inferred(class: &'static [Class]) -> Links {
    Links { classes: class, inferred: Some(class[0]), ..ONE }
}

const fn set(classes: &'static [Class], max: Option<usize>) -> Links {
    Links { classes, min: 0, max, ..ONE }
}

const INTERFACE: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    optional("contents", Kind::Links(Links { by_name: true, ..set(CONTENTS, Some(300)) })),
    optional("extends", Kind::Links(Links { id_required: true, ..set(&[Class::Interface], Some(2)) })),
    optional("schemas", Kind::Links(Links { id_required: true, ..set(COMPLEX_SCHEMAS, None) })),
];
const TELEMETRY: &[PropertySpec] = &[COMMENT, DESCRIPTION, DISPLAY_NAME, NAME, SCHEMA_OF_VALUE];
const PROPERTY: &[PropertySpec] = &[COMMENT, DESCRIPTION, DISPLAY_NAME, NAME, SCHEMA_OF_VALUE, WRITABLE];
const COMMAND: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    NAME,
    optional(
        "commandType",
        Kind::Term { prefix: "dtmi:dtdl:instance:CommandType:", terms: &["asynchronous", "synchronous"] },
    ),
    optional("request", Kind::Links(Links { min: 0, ..inferred(&[Class::CommandPayload]) })),
    optional("response", Kind::Links(Links { min: 0, ..inferred(&[Class::CommandPayload]) })),
];
const RELATIONSHIP: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    NAME,
    optional("maxMultiplicity", Kind::Integer { min: 1, max: 500 }),
    // DTDL version 2 allows 0 alone.
    optional("minMultiplicity", Kind::Integer { min: 0, max: 0 }),
    optional("properties", Kind::Links(Links { by_name: true, ..set(&[Class::Property], Some(300)) })),
    optional("target", Kind::Identifier),
    WRITABLE,
];
const COMPONENT: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    NAME,
    required("schema", Kind::Links(Links { classes: &[Class::Interface], id_required: true, ..ONE })),
];
const ARRAY: &[PropertySpec] =
    &[COMMENT, DESCRIPTION, DISPLAY_NAME, required("elementSchema", Kind::Links(SCHEMA))];
const ENUM: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    required(
        "enumValues",
        Kind::Links(Links { max: Some(100), by_name: true, ..inferred(&[Class::EnumValue]) }),
    ),
    required("valueSchema", Kind::Term { prefix: SCHEMA_PREFIX, terms: &["integer", "string"] }),
];
const ENUM_VALUE: &[PropertySpec] =
    &[COMMENT, DESCRIPTION, DISPLAY_NAME, NAME, required("enumValue", Kind::EnumValue)];
const MAP: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    required("mapKey", Kind::Links(inferred(&[Class::MapKey]))),
    required("mapValue", Kind::Links(inferred(&[Class::MapValue]))),
];
const MAP_KEY: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    NAME,
    required("schema", Kind::Term { prefix: SCHEMA_PREFIX, terms: &["string"] }),
];
const OBJECT: &[PropertySpec] = &[
    COMMENT,
    DESCRIPTION,
    DISPLAY_NAME,
    required("fields", Kind::Links(Links { max: Some(30), by_name: true, ..inferred(&[Class::Field]) })),
];

/// The properties of a class.
pub fn properties(class: Class) -> &'static [PropertySpec] {
    match class {
        Class::Interface => INTERFACE,
        Class::Telemetry | Class::CommandPayload | Class::MapValue | Class::Field => TELEMETRY,
        Class::Property => PROPERTY,
        Class::Command => COMMAND,
        Class::Relationship => RELATIONSHIP,
        Class::Component => COMPONENT,
        Class::Array => ARRAY,
        Class::Enum => ENUM,
        Class::EnumValue => ENUM_VALUE,
        Class::Map => MAP,
        Class::MapKey => MAP_KEY,
        Class::Object => OBJECT,
    }
}

/// The primitive schemas, by term.
pub const PRIMITIVES: [&str; 10] =
    ["boolean", "date", "dateTime", "double", "duration", "float", "integer", "long", "string", "time"];
/// The geospatial schemas, by term.
pub const GEOSPATIAL: [&str; 6] =
    ["lineString", "multiLineString", "multiPoint", "multiPolygon", "point", "polygon"];
/// The schemas of IoT Central's extension, by term.
pub const OF_IOT_CENTRAL: [&str; 2] = ["geopoint", "vector"];

/// What a term or IRI stands for where a schema is named.
pub fn schema_term(text: &str, has_iot_central: bool) -> Option<&'static str> {
    let of = |terms: &'static [&'static str], prefix: &str, is_term: bool| {
        let name = of_iri(prefix, text).or_else(|| is_term.then_some(text))?;
        terms.iter().copied().find(|term| *term == name)
    };
    of(&PRIMITIVES, SCHEMA_PREFIX, true)
        .or_else(|| of(&GEOSPATIAL, "dtmi:standard:schema:geospatial:", true))
        .or_else(|| of(&OF_IOT_CENTRAL, "dtmi:iotcentral:schema:", has_iot_central))
}

/// Terms of the context that are neither class, schema, semantic type nor unit.
const OTHER_TERMS: [&str; 33] = [
    "asynchronous",
    "synchronous",
    "baseUnit",
    "bottomUnit",
    "commandType",
    "comment",
    "contents",
    "description",
    "displayName",
    "elementSchema",
    "enumValue",
    "enumValues",
    "exponent",
    "extends",
    "fields",
    "languageMajorVersion",
    "mapKey",
    "mapValue",
    "maxMultiplicity",
    "minMultiplicity",
    "name",
    "prefix",
    "properties",
    "request",
    "response",
    "schema",
    "schemas",
    "symbol",
    "target",
    "topUnit",
    "unit",
    "valueSchema",
    "writable",
];

/// Returns true for a term of the context that is no type: an element may not have it as `@type`.
pub fn is_term_without_type(text: &str, has_iot_central: bool) -> bool {
    OTHER_TERMS.contains(&text)
        || schema_term(text, has_iot_central).is_some()
        || semantics::is_unit_or_prefix(text)
}

/// Properties that IoT Central writes into templates without a type that brings them.
pub const OF_TEMPLATES: [&str; 10] = [
    "durable",
    "initialValue",
    "displayUnit",
    "decimalPlaces",
    "minValue",
    "maxValue",
    "severity",
    "valueDetail",
    "color",
    "trueName",
];
